"""Generation: images come out of hidden states that are inferred of them, or of their labels.

Scored by the mean squared error per pixel, on the scale of the network's outputs; what a rule can
sample is compared with the data (`wasserstein`, mean and variance; of MNIST, by the features of a
small classifier, `mnist_feature_distance`). A network with an input is an
autoencoder, or of labels a generator; one without is a decoder, whose latent states a rule infers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.metrics.mnist_features import features, frechet, moments
from pcbench.tasks.classification import within_classes
from pcbench.tasks.reproduction import Reproduction


@dataclass(frozen=True)
class Generation(Reproduction):
    condition: str = "image"  # image | label

    higher_is_better = False
    needs = ("reconstruct",)

    def __post_init__(self):
        super().__post_init__()
        if self.condition == "label" and not self.data.labelled:
            raise ValueError(
                "the dataset has no labels to generate from: set task.condition=image."
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.data.shape if self.condition == "image" else (self.data.classes,)

    def pair(self, x, y):
        x, target = super().pair(x, y)
        if self.condition == "label":
            x = jax.nn.one_hot(y, self.data.classes, dtype=x.dtype)
        return x, target

    def evaluate(self, algorithm, trained, batch, hyper, key):
        made = algorithm.reconstruct(trained, batch.x, batch.target, hyper, key)
        errors = jnp.mean((made - batch.target) ** 2, -1)
        found = {"errors": errors, "images": made, "targets": batch.target}
        if "sample" in algorithm.abilities:
            found["samples"] = algorithm.sample(trained, len(made), hyper, key)
        return found

    def examples(self, found, y):
        return found["errors"]

    def score(self, found, images, y):
        square = np.mean(found["errors"], -1)
        scores = {"mse": square}
        if self.condition == "label":
            to_mean = np.maximum(square - within_classes(images(), y), 0)
            scores["generation_rmse"] = np.sqrt(to_mean)
        if "samples" in found:
            data = images().reshape(len(y), -1)
            scores["wasserstein"] = np.array([wasserstein(s, data) for s in found["samples"]])
            scores["sample_mean"] = np.mean(found["samples"], (1, 2))
            scores["sample_variance"] = np.mean(np.var(found["samples"], 1), -1)
            if self.data.name == "mnist":
                test = moments(features(self._pixels(data)))
                scores["mnist_feature_distance"] = np.array(
                    [frechet(moments(features(self._pixels(s))), test) for s in found["samples"]]
                )
        return scores

    def _pixels(self, outputs: np.ndarray) -> np.ndarray:
        """Of an image of one channel: from 0 to 1."""
        return np.clip(outputs * self.data.std[0] + self.data.mean[0], 0, 1)


def wasserstein(a: np.ndarray, b: np.ndarray, directions: int = 64) -> float:
    """The distance W₁ of two sets of n vectors, (n, D) each, sliced: the mean over fixed random
    directions (Bonneel et al. 2015); of numbers, W₁ itself."""
    if a.shape[1] > 1:
        axes = np.random.default_rng(0).standard_normal((a.shape[1], directions))
        axes /= np.linalg.norm(axes, axis=0)
        a, b = a @ axes, b @ axes
    return float(np.mean(np.abs(np.sort(a, 0) - np.sort(b, 0))))
