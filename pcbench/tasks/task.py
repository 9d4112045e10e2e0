"""What a task is: what is learned from, and how it is scored."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, Trained
from pcbench.energies.energy import Loss


class Task(Protocol):
    """Static. Scores are named without their split: ``accuracy`` becomes ``test_accuracy_final``
    and so on; the first one that `score` gives is the primary metric."""

    evaluates: str  # on the "test" set, or on the "train" set: on what was learned from
    higher_is_better: bool

    @property
    def output_energy(self) -> Loss: ...

    @property
    def outputs(self) -> int:
        """Units of the network's output."""
        ...

    @property
    def chance(self) -> float | None:
        """The score of guessing, which a diverged run is given; None: it scores nothing."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one of the network's inputs."""
        ...

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Normalised examples (B, …) and their labels (B,) or targets (B, C) → what the input is
        held at, (B, …), and what the output is to be, (B, outputs)."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The abilities that a rule must have."""
        ...

    def evaluate(
        self, algorithm: Algorithm, trained: Trained, batch: Batch, hyper: Hyper, key: Array
    ) -> dict[str, Array]:
        """Per example of the batch, (B,) each; kept for the test set under these names."""
        ...

    def examples(self, found: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
        """(members, n): what each example scores; their mean is the primary metric."""
        ...

    def score(
        self,
        found: Mapping[str, np.ndarray],
        images: Callable[[], np.ndarray],
        y: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """From (members, n) of all n examples of a split, what gives their normalised inputs, and
        their labels or targets: scores (members,)."""
        ...
