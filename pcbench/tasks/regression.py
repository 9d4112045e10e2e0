"""Regression: a target vector is to be predicted; scored by the mean output loss."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.data.dataset import Facts
from pcbench.energies.energy import Loss, squared_error


@dataclass(frozen=True)
class Regression:
    data: Facts
    loss: str = "squared_error"

    higher_is_better = False
    chance = None

    def __post_init__(self):
        if self.data.labelled:
            raise ValueError("the dataset has labels, not targets: set task=classification.")
        if self.loss != "squared_error":
            raise ValueError("task=regression has loss=squared_error.")

    @property
    def output_energy(self) -> Loss:
        return squared_error

    @property
    def outputs(self) -> int:
        return self.data.targets

    def target(self, y: Array) -> Array:
        return y.astype(jnp.result_type(float))

    def evaluate(self, algorithm, weights, batch, hyper):
        outputs = algorithm.predict(weights, batch.x, hyper)
        return {"losses": squared_error(outputs, batch.target)}

    def score(self, found, y):
        return {"loss": np.mean(found["losses"], -1)}
