"""Regression: a target vector is to be predicted; scored by the mean output loss."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from pcbench.energies.energy import squared_error
from pcbench.tasks.task import Task


@dataclass(frozen=True)
class Regression(Task):
    higher_is_better = False

    def __post_init__(self):
        if self.data.labelled:
            raise ValueError("the dataset has labels, not targets: set task=classification.")
        if self.loss != "squared_error":
            raise ValueError("task=regression has loss=squared_error.")

    @property
    def outputs(self) -> int:
        return self.data.targets

    def pair(self, x, y):
        return x, y.astype(jnp.result_type(float))

    def evaluate(self, algorithm, trained, batch, hyper, key):
        outputs = algorithm.predict(trained.weights, batch.x, hyper)
        return {"losses": squared_error(outputs, batch.target)}

    def examples(self, found, y):
        return found["losses"]

    def score(self, found, images, y):
        return {"loss": np.mean(found["losses"], -1)}
