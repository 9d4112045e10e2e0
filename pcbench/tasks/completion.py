"""Completion: stored patterns are to be retrieved from corrupted ones.

A memory is trained on the training set (`dataset.draw` patterns of it for each seed) and tested on
the same patterns, corrupted. What a cue is to retrieve is the pattern itself (auto-association), or
the next one of the set (hetero-association: the last one's is the first). Scores: `success`, the
share of patterns whose mean squared error per pixel is below the threshold; `mse`;
`index_accuracy`, the share of which the nearest stored pattern is the right one (among at most
1,000).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import flat
from pcbench.data.transforms import evaluate_crop, normalise
from pcbench.memories.corruption import CORRUPTIONS
from pcbench.tasks.reproduction import Reproduction, require_whole


@dataclass(frozen=True)
class Completion(Reproduction):
    corruption: str = "mask"
    association: str = "auto"
    learns_from: str = "stored"
    clip: bool = False

    evaluates = "train"
    chance = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_whole(self.data)
        if self.learns_from == "others" and not self.data.others:
            raise ValueError(
                "task.learns_from=others: every training example is drawn to be stored; set "
                "dataset.draw to a part of them."
            )
        if self.corruption in ("mask", "block", "shift") and len(self.data.shape) != 3:
            raise ValueError(f"task.corruption={self.corruption} is for images.")

    @property
    def hetero(self) -> bool:
        return self.association == "hetero"

    @property
    def needs(self) -> tuple[str, ...]:
        own = ("associate",) if self.hetero else ("recall",)
        return (*own, "store") if self.learns_from == "others" else own

    def given(self, x, y, hyper, key):
        if not self.hetero:
            return x, y
        following = jnp.roll(x, -1, 0)
        if x.ndim == 4:
            following = evaluate_crop(following, self.data.shape[0])
        return x, normalise(following, self.data.mean, self.data.std, jnp.result_type(float))

    def pair(self, x, y):
        return x, flat(y if self.hetero else x)

    def evaluate(self, algorithm, trained, batch, hyper, key):
        numbers, stored = hyper["task"], batch.target
        shape = (len(stored), *self.data.shape)
        images = batch.x if self.hetero else stored.reshape(shape)
        cue, known = CORRUPTIONS[self.corruption](key, images, numbers["level"])
        if self.hetero:
            found = algorithm.associate(trained, cue, hyper)
        else:
            x, known = algorithm.network.given(cue), flat(jnp.broadcast_to(known, shape))
            found = algorithm.recall(trained, x, flat(cue), known, hyper, key)
        if self.clip:
            found = jnp.clip(found, 0, 1)
        errors = jnp.mean((found - stored) ** 2, -1)
        scores = found @ stored.T - 0.5 * jnp.sum(stored**2, -1)  # nearest: the largest of a row
        return {
            "errors": errors,
            "successes": errors < numbers["threshold"],
            "indices_right": jnp.argmax(scores, -1) == jnp.arange(len(stored)),
            "targets": stored,
            "cues": flat(cue),
            "images": found,
        }

    def examples(self, found, y):
        return found["successes"]

    def score(self, found, images, y):
        names = {"success": "successes", "mse": "errors", "index_accuracy": "indices_right"}
        return {name: np.mean(found[of], -1) for name, of in names.items()}
