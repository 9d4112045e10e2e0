"""Completion: stored patterns are to be retrieved from corrupted ones.

A memory is trained on the training set (`dataset.draw` patterns of it for each seed) and tested on
the same patterns, corrupted. Scores: `success`, the share of patterns whose mean squared error per
pixel is below the threshold; `mse`; `index_accuracy`, the share of which the nearest stored pattern
is the right one (among at most 1,000).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from pcbench.tasks.corruption import CORRUPTIONS
from pcbench.tasks.reproduction import Reproduction, flat


@dataclass(frozen=True)
class Completion(Reproduction):
    corruption: str = "mask"

    evaluates = "train"
    higher_is_better = True
    chance = 0.0
    needs = ("recall",)

    def __post_init__(self):
        super().__post_init__()
        if self.data.held_out:
            raise ValueError(
                "a memory is tested on what it has stored: set train.validation_fraction=0 "
                "train.selection=final."
            )
        if self.data.augmented:
            raise ValueError(
                "a memory stores patterns as they are: set dataset.flip=false "
                "dataset.crop_size=null dataset.crop_padding=0."
            )
        if self.corruption in ("mask", "shift") and len(self.data.shape) != 3:
            raise ValueError(f"task.corruption={self.corruption} is for images.")

    def evaluate(self, algorithm, trained, batch, hyper, key):
        numbers, stored = hyper["task"], batch.target
        shape = (len(stored), *self.data.shape)
        cue, known = CORRUPTIONS[self.corruption](key, stored.reshape(shape), numbers["level"])
        cue, known = flat(cue), flat(jnp.broadcast_to(known, shape))
        x = batch.x if algorithm.network.generative else cue.reshape(shape)
        found = algorithm.recall(trained, x, cue, known, hyper, key)
        errors = jnp.mean((found - stored) ** 2, -1)
        scores = found @ stored.T - 0.5 * jnp.sum(stored**2, -1)  # nearest: the largest of a row
        return {
            "errors": errors,
            "successes": errors < numbers["threshold"],
            "indices_right": jnp.argmax(scores, -1) == jnp.arange(len(stored)),
            "cues": cue,
            "images": found,
        }

    def examples(self, found, y):
        return found["successes"]

    def score(self, found, images, y):
        names = {"success": "successes", "mse": "errors", "index_accuracy": "indices_right"}
        return {name: np.mean(found[of], -1) for name, of in names.items()}
