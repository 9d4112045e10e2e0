"""Classification: the input is clamped, the label is to be predicted; scored by accuracy.

Of rules that can generate an input for a label, `generation_rmse` is the distance of what they make
from the mean of the class, per pixel, on the scale of the network's inputs; of those that can
complete one, `completion_mse` is the error of its second half given the first. Of more than ten
classes `top5_accuracy` is scored, too.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.algorithms.base import flat
from pcbench.tasks.task import Task


@dataclass(frozen=True)
class Classification(Task):
    target_min: float = 0.0

    def __post_init__(self):
        if not self.data.labelled:
            raise ValueError("the dataset has targets, not labels: set task=regression.")
        if self.target_min and self.loss != "squared_error":
            raise ValueError("task.target_min is of targets of task.loss=squared_error.")

    @property
    def outputs(self) -> int:
        return self.data.classes

    @property
    def chance(self) -> float:
        return 1.0 / self.outputs

    def pair(self, x, y):
        target = jax.nn.one_hot(y, self.outputs, dtype=jnp.result_type(float))
        return x, self.target_min + (1 - self.target_min) * target if self.target_min else target

    def evaluate(self, algorithm, trained, batch, hyper, key):
        outputs = algorithm.predict(trained.weights, batch.x, hyper)
        found = {"predictions": jnp.argmax(outputs, -1).astype(jnp.int32)}
        if self.outputs > 10:
            found["in_top5"] = in_top5(outputs, jnp.argmax(batch.target, -1))
        if "generate" in algorithm.abilities:
            made = algorithm.generate(trained, batch.target, hyper, key)
            found["generation_errors"] = jnp.mean((made - flat(batch.x)) ** 2, -1)
        if "complete" in algorithm.abilities:
            x = flat(batch.x)
            known = jnp.arange(x.shape[1]) < x.shape[1] // 2
            mask = jnp.broadcast_to(known, x.shape)
            filled = flat(algorithm.complete(trained, batch.x, mask, hyper, key))
            found["completion_errors"] = jnp.mean((filled - x) ** 2, -1, where=~mask)
        return found

    def examples(self, found, y):
        return found["predictions"] == y

    def score(self, found, images, y):
        scores = {"accuracy": np.mean(self.examples(found, y), -1)}
        if "in_top5" in found:
            scores["top5_accuracy"] = np.mean(found["in_top5"], -1)
        if "generation_errors" in found:
            square = np.mean(found["generation_errors"], -1) - within_classes(images(), y)
            scores["generation_rmse"] = np.sqrt(np.maximum(square, 0))
        if "completion_errors" in found:
            scores["completion_mse"] = np.mean(found["completion_errors"], -1)
        return scores


def in_top5(outputs: Array, labels: Array) -> Array:
    """Whether fewer than five outputs (B, C) are larger than that of the label (B,)."""
    own = jnp.take_along_axis(outputs, labels[:, None], -1)
    return jnp.sum(outputs > own, -1) < 5


def within_classes(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance, per pixel, of an example from the mean of its class. What a generated
    image's error exceeds it by is its distance from that mean."""
    x = x.reshape(len(x), -1).astype(np.float64)
    means = {label: x[y == label].mean(0) for label in np.unique(y)}
    squares = sum(np.sum((x[y == label] - mean) ** 2) for label, mean in means.items())
    return float(squares / x.size)
