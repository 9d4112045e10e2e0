"""Classification of labels that change during training; scored on the labels of the present epoch.

Song et al. 2024, Nature Neuroscience 27:348, figures 4d to 4g, and the code behind them.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.tasks.classification import Classification


@dataclass(frozen=True)
class Changing(Classification):
    interval: int = 64  # epochs from one change to the next

    over_training = True

    def evaluate(self, algorithm, trained, batch, hyper, key):
        outputs = algorithm.predict(trained.weights, batch.x, hyper)
        predictions = jnp.argmax(outputs, -1).astype(jnp.int32)
        right = predictions == jnp.argmax(batch.target, -1)
        return {"predictions": predictions, "right": right}

    def examples(self, found, y):
        return found["right"]

    def score(self, found, images, y):
        return {"accuracy": np.mean(found["right"], -1)}


@dataclass(frozen=True)
class ConceptDrift(Changing):
    """Every `interval` epochs the labels of the last `drifting` classes are permuted anew."""

    drifting: int = 5

    def __post_init__(self):
        super().__post_init__()
        if self.drifting > self.data.classes:
            raise ValueError(f"task.drifting={self.drifting} of {self.data.classes} classes.")

    def at(self, y, epoch, key):
        change = epoch // self.interval
        classes = jnp.arange(self.data.classes)
        kept, drifting = classes[: -self.drifting], classes[-self.drifting :]
        drifted = jax.random.permutation(jax.random.fold_in(key, change), drifting)
        labels = jnp.concatenate([kept, jnp.where(change == 0, drifting, drifted)])
        return labels[y], None


@dataclass(frozen=True)
class AlternatingTasks(Changing):
    """Each of `tasks` has its share of the classes, learned for `interval` epochs in turn; all
    share the outputs. Scored on the examples of all tasks.

    `following`: the paper deals the classes at random. The code behind its figures deals them in
    order and shuffles the labels within, so that two classes of a task may share an output, and
    leaves the error of the last output out.
    """

    tasks: int = 2
    following: str = "paper"

    def __post_init__(self):
        super().__post_init__()
        if self.data.classes % self.tasks:
            raise ValueError(f"task.tasks={self.tasks} do not divide {self.data.classes} classes.")

    @property
    def outputs(self):
        return self.data.classes // self.tasks

    @property
    def output_energy(self):
        loss = super().output_energy
        if self.following == "paper":
            return loss
        return lambda prediction, target: loss(prediction[..., :-1], target[..., :-1])

    def at(self, y, epoch, key):
        labels = jax.random.permutation(key, self.data.classes)[y]
        dealt = labels if self.following == "paper" else y
        taught = dealt // self.outputs == epoch // self.interval % self.tasks
        return labels % self.outputs, taught
