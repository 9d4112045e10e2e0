"""Files that are either whole or absent, whoever is killed and whoever else writes."""

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file (readable too) that appears under `path` only when the block ended well.

    It is written beside `path` (a rename is atomic only inside one file system) under a name that
    no other host, process or thread uses, so writers never meet: the last replace wins. After a
    failure nothing is left; after a kill, a hidden `*.tmp` that no reader looks at.
    Raises OSError for whatever the file system refuses.
    """
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.parent / f".{path.name}.{unique}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
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
