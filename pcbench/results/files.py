"""Files of the results directory: written whole, and what to do when that is refused."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pcbench import files


class RecordError(Exception):
    """Stored results cannot be read or written; the message names the file and the remedy."""


_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run again",
    errno.EDQUOT: "the disk quota is used up: free some space and run again",
    errno.EACCES: "no permission: choose a writable directory with --results DIR",
    errno.EPERM: "no permission: choose a writable directory with --results DIR",
    errno.EROFS: "a read-only file system: choose a writable directory with --results DIR",
}


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """`pcbench.files.whole_file`, with RecordError for whatever the file system refuses."""
    try:
        with files.whole_file(path) as file:
            yield file
    except OSError as error:
        remedy = _REMEDIES.get(error.errno, error.strerror or str(error))
        raise RecordError(f"cannot write {path}: {remedy}.") from error
