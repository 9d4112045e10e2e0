"""Sequence memory: a stored sequence is recalled, element by element.

A memory is trained on sequences (`dataset.draw` of them for each seed) and recalls each: online
from the true element before, offline from what it recalled itself, given the first one only.
Scores, over all elements but the first: `mse`, the mean squared error per number, and `online_mse`;
of binary sequences, whose recalled elements are the signs of what a memory returns, `bit_error` and
`online_bit_error`, the share of wrong ones.
"""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import flat
from pcbench.tasks.reproduction import Reproduction, require_whole


@dataclass(frozen=True)
class SequenceMemory(Reproduction):
    binary: bool = False

    evaluates = "train"
    higher_is_better = False
    needs = ("follow",)

    def __post_init__(self):
        super().__post_init__()
        require_whole(self.data)
        if len(self.data.shape) < 2 or self.data.shape[0] < 2:
            raise ValueError(
                "an example is to be a sequence (length, …) of two elements or more: set "
                "dataset=binary_sequences, image_sequences or moving_digits."
            )

    @property
    def outputs(self) -> int:
        """All elements but the first."""
        length, *element = self.data.shape
        return (length - 1) * prod(element)

    def pair(self, x, y):
        return x, flat(x[:, 1:])

    def evaluate(self, algorithm, trained, batch, hyper, key):
        x = batch.x.reshape(*batch.x.shape[:2], -1)
        found = {}
        for name, online in (("errors", False), ("online_errors", True)):
            recalled = self._recalled(algorithm, trained, x, hyper, online)
            wrong = recalled != x[:, 1:] if self.binary else (recalled - x[:, 1:]) ** 2
            found[name] = jnp.mean(wrong, (1, 2), dtype=x.dtype)
            found.setdefault("images", flat(recalled))
        return found

    def _recalled(self, algorithm, trained, x, hyper, online):
        """(B, T-1, D)."""

        def step(carry, true):
            carried, own = carry
            made, carried = algorithm.follow(trained, true if online else own, carried, hyper)
            made = jnp.sign(made) if self.binary else made
            return (carried, made), made

        carry = (algorithm.beginning(len(x)), x[:, 0])
        _, made = jax.lax.scan(step, carry, jnp.moveaxis(x[:, :-1], 1, 0))
        return jnp.moveaxis(made, 0, 1)

    def examples(self, found, y):
        return found["errors"]

    def score(self, found, images, y):
        metric = "bit_error" if self.binary else "mse"
        names = {metric: "errors", f"online_{metric}": "online_errors"}
        return {name: np.mean(found[of], -1) for name, of in names.items()}
