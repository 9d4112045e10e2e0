"""Files that are either whole or absent, whoever is killed and whoever else writes."""

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO


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
    """A binary file that appears under `path` only when the block ended well.

    It is written beside `path` (a rename is atomic only inside one file system) under a name that
    no other host, process or thread uses, so writers never meet: the last replace wins. After a
    failure nothing is left; after a kill, a hidden `*.tmp` that no reader looks at.
    Raises RecordError for whatever the file system refuses.
    """
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.parent / f".{path.name}.{unique}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno, error.strerror or str(error))
        raise RecordError(f"cannot write {path}: {remedy}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some shared file systems have none
            raise
    finally:
        os.close(descriptor)
