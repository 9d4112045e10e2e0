"""How far images are from MNIST, in the features of a fixed small classifier.

The Fréchet distance of the Gaussians that fit two sets of features (Dowson & Landau 1982)

    d² = ‖m₁ - m₂‖² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)

as in the FID of Heusel et al. 2017, arXiv 1706.08500, whose features are others: these numbers
compare with no published FID. The classifier is a VGG-5 with 8 channels, trained on MNIST by
`scripts/mnist_features.py`, which says how; a feature is what its last layer reads.
"""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.networks.vgg import vgg5

WEIGHTS = Path(__file__).with_suffix(".npz")
MODEL = {"name": "vgg5", "channels": 8, "activation": "gelu", "states": "post", "bias": True}
SHAPE, CLASSES = (28, 28, 1), 10
BATCH = 1000  # images at once


def features(images: np.ndarray) -> np.ndarray:
    """Of pixels from 0 to 1, in any shape with 784 to an image: (n, 32)."""
    images = np.asarray(images, np.float32).reshape(-1, *SHAPE)
    apply = _classifier()
    parts = [np.asarray(apply(images[k : k + BATCH])) for k in range(0, len(images), BATCH)]
    return np.concatenate(parts).astype(np.float64)


def moments(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of features (n, D)."""
    return found.mean(0), np.cov(found.T)


def frechet(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """d² of two Gaussians, each a mean and a covariance."""
    (mean, covariance), (other_mean, other_covariance) = one, other
    root = _root(covariance)
    cross = _root(root @ other_covariance @ root)  # has the trace of (C₁ C₂)^½, and is symmetric
    spread = np.trace(covariance) + np.trace(other_covariance) - 2 * np.trace(cross)
    return float(np.sum((mean - other_mean) ** 2) + spread)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


@cache
def _classifier():
    network = vgg5(MODEL, SHAPE, CLASSES)
    with np.load(WEIGHTS) as stored:
        weights = tuple(
            {name: jnp.asarray(stored[f"{k}/{name}"]) for name in ("W", "b")}
            for k in range(len(network.factors))
        )

    def apply(images):
        last = network.forward(weights, images)[-2]
        return last.reshape(len(last), -1)

    return jax.jit(apply)
