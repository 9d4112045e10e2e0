"""What a task is: what is learned from, and how it is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, Trained
from pcbench.data.dataset import Facts
from pcbench.energies.energy import LOSSES, Loss


@dataclass(frozen=True)
class Task:
    """Static. Scores are named without their split: ``accuracy`` becomes ``test_accuracy_final``
    and so on; the first one that `score` gives is the primary metric."""

    data: Facts
    loss: str = "squared_error"

    evaluates = "test"  # or "train": on what was learned from
    learns_from = "stored"  # what a seed draws, or "others": then what it draws is only stored
    higher_is_better = True
    over_training = False  # whether it ranks by the mean over the evaluations, not by one epoch
    needs = ("predict",)  # the abilities that a rule must have
    per_element = False  # whether it asks for an output at each element of a sequence
    chance = None  # the score of guessing, which a diverged run is given; None: it scores nothing

    @property
    def output_energy(self) -> Loss:
        return LOSSES[self.loss]

    @property
    def outputs(self) -> int:
        """Units of the network's output."""
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one of the network's inputs."""
        return self.data.shape

    def given(self, x: Array, y: Array, hyper: Hyper, key: Array) -> tuple[Array, Array]:
        """What a seed is given of the examples (N, …) and labels or targets that it has drawn."""
        return x, y

    def at(self, y: Array, epoch: Array, key: Array) -> tuple[Array, Array | None]:
        """(labels or targets as they are in an epoch, which of the examples are taught then, (N,);
        None: all). `key` is the seed's own, the same in all epochs."""
        return y, None

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Normalised examples (B, …) and their labels (B,) or targets (B, C) → what the input is
        held at, (B, …), and what the output is to be, (B, outputs)."""
        raise NotImplementedError

    def evaluate(
        self, algorithm: Algorithm, trained: Trained, batch: Batch, hyper: Hyper, key: Array
    ) -> dict[str, Array]:
        """Per example of the batch, (B,) each; kept for the test set under these names."""
        raise NotImplementedError

    def examples(self, found: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray | None:
        """(members, n): what each example scores, of which the primary metric is the mean. None
        where it is no mean."""
        return None

    def score(
        self,
        found: Mapping[str, np.ndarray],
        images: Callable[[], np.ndarray],
        y: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """From (members, n) of all n examples of a split, what gives their normalised inputs, and
        their labels or targets: scores (members,)."""
        raise NotImplementedError
