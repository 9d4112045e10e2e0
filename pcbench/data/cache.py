"""Decoded arrays on disk: one .npy file per array, checked when read.

A file is written whole (temporary file, fsync, rename), so any number of processes may fill the
same cache at once: they write equal bytes, and the last rename wins. A CRC-32 of the .npy follows
it in the same file (numpy ignores what follows the array), so that a damaged file is noticed; a
separate file of checksums could be renamed at another moment than the array.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pcbench.files import whole_file

_CRC_BYTES = 4


def cache_dir() -> Path:
    """`PCBENCH_CACHE_DIR`, by default `~/.cache/pcbench`."""
    return Path(os.environ.get("PCBENCH_CACHE_DIR") or "~/.cache/pcbench").expanduser()


def cached(
    key: str, names: Iterable[str], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays `names` under `key`; `compute` makes them all if any is missing or damaged."""
    folder = cache_dir() / key
    arrays = {name: read(folder / f"{name}.npy") for name in names}
    if any(array is None for array in arrays.values()):
        arrays = compute()
        try:
            for name, array in arrays.items():
                write(folder / f"{name}.npy", array)
        except OSError as error:
            warnings.warn(
                f"decoded data could not be kept in {folder} ({error}), so the next run decodes it "
                "again; set PCBENCH_CACHE_DIR to a writable directory with enough space",
                stacklevel=2,
            )
    return arrays


def write(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as file:
        np.save(file, array)
        file.flush()
        file.write(_crc(np.memmap(file, np.uint8, "r")))


def read(path: Path) -> np.ndarray | None:
    """The array, or None where there is no intact file."""
    try:
        content = np.memmap(path, np.uint8, "r")
        if _crc(content[:-_CRC_BYTES]) != content[-_CRC_BYTES:].tobytes():
            return None
        return np.load(path)
    except (OSError, ValueError, EOFError):
        return None


def _crc(content: np.ndarray) -> bytes:
    return zlib.crc32(content).to_bytes(_CRC_BYTES, "little")
