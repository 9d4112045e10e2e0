"""Classification: the input is clamped, the label is to be predicted; scored by accuracy."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.data.dataset import Facts
from pcbench.energies.energy import LOSSES, Loss


@dataclass(frozen=True)
class Classification:
    data: Facts
    loss: str = "squared_error"

    higher_is_better = True

    def __post_init__(self):
        if not self.data.labelled:
            raise ValueError("the dataset has targets, not labels: set task=regression.")

    @property
    def output_energy(self) -> Loss:
        return LOSSES[self.loss]

    @property
    def outputs(self) -> int:
        return self.data.classes

    @property
    def chance(self) -> float:
        return 1.0 / self.data.classes

    def target(self, y: Array) -> Array:
        """One-hot."""
        return jax.nn.one_hot(y, self.data.classes, dtype=jnp.result_type(float))

    def evaluate(self, algorithm, weights, batch, hyper):
        outputs = algorithm.predict(weights, batch.x, hyper)
        return {"predictions": jnp.argmax(outputs, -1).astype(jnp.int32)}

    def score(self, found, y):
        return {"accuracy": np.mean(found["predictions"] == y, -1)}
