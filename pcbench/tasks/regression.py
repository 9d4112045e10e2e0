"""Regression: a target vector is to be predicted; scored by the mean output loss."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from pcbench.data.dataset import Facts
from pcbench.energies.energy import Loss, squared_error


@dataclass(frozen=True)
class Regression:
    data: Facts
    loss: str = "squared_error"

    evaluates = "test"
    higher_is_better = False
    chance = None
    needs = ("predict",)

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

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.data.shape

    def pair(self, x, y):
        return x, y.astype(jnp.result_type(float))

    def evaluate(self, algorithm, trained, batch, hyper, key):
        outputs = algorithm.predict(trained.weights, batch.x, hyper)
        return {"losses": squared_error(outputs, batch.target)}

    def examples(self, found, y):
        return found["losses"]

    def score(self, found, images, y):
        return {"loss": np.mean(found["losses"], -1)}
