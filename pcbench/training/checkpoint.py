"""Checkpoints of a pack: what it needs to end with the same bits as if never interrupted."""

import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcbench.files import whole_file


class Preempted(BaseException):
    """The pack was asked to stop; what was worth keeping is in its checkpoint. Like
    KeyboardInterrupt no failure of the run, so nothing that handles failures catches it."""


@dataclass
class Checkpoint:
    """Where a pack is kept while it runs, and whether it should stop."""

    path: Path
    stop: Callable[[], bool] = lambda: False

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Whole or not at all. A disk that refuses it is a warning: the run itself can go on."""
        try:
            with whole_file(self.path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            warnings.warn(f"no checkpoint could be written to {self.path}: {error}", stacklevel=2)

    def load(self) -> dict[str, np.ndarray] | None:
        """None where there is no checkpoint, or a damaged one."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
