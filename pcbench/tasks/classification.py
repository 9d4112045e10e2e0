"""Classification: the input is clamped, the label is to be predicted; scored by accuracy."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.energies.energy import LOSSES, Loss


@dataclass(frozen=True)
class Classification:
    """Static: the number of classes and the output energy."""

    classes: int
    loss: str = "squared_error"

    @property
    def output_energy(self) -> Loss:
        return LOSSES[self.loss]

    @property
    def outputs(self) -> int:
        return self.classes

    @property
    def chance(self) -> float:
        """The score of guessing, which a diverged run is given."""
        return 1.0 / self.classes

    def target(self, labels: Array) -> Array:
        """(B,) labels → (B, classes) one-hot targets."""
        return jax.nn.one_hot(labels, self.classes, dtype=jnp.result_type(float))

    def answer(self, outputs: Array) -> Array:
        """(B, classes) outputs → (B,) predicted labels."""
        return jnp.argmax(outputs, -1)
