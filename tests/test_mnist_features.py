"""The distance of images from MNIST in the features of a fixed classifier."""

import json

import jax
import numpy as np
import pytest

from pcbench import data
from pcbench.config import ConfigError
from pcbench.data.dataset import DataError
from pcbench.metrics.mnist_features import WEIGHTS, features, frechet, moments
from pcbench.sweeps.expand import single

GENERATOR = np.random.default_rng(0)


def gaussian(seed: int, size=6):
    root = np.random.default_rng(seed).normal(size=(size, size))
    return np.random.default_rng(seed + 1).normal(size=size), root @ root.T


def test_gaussians_that_are_equal_have_no_distance():
    """1e-6: square roots of rounding."""
    assert abs(frechet(gaussian(0), gaussian(0))) < 1e-6
    mean, covariance = moments(GENERATOR.normal(size=(40, 6)))
    assert abs(frechet((mean, covariance), (mean, covariance))) < 1e-6


def test_the_distance_of_gaussians_with_common_axes_is_that_of_their_parameters():
    """‖m₁ - m₂‖² + Σ (s₁ - s₂)², in any orthogonal basis; and it is symmetric."""
    basis = np.linalg.qr(GENERATOR.normal(size=(5, 5)))[0]
    means, deviations = GENERATOR.normal(size=(2, 5)), GENERATOR.uniform(0, 2, size=(2, 5))
    one, other = (
        (m, basis @ np.diag(s**2) @ basis.T) for m, s in zip(means, deviations, strict=True)
    )
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2)
    assert frechet(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet(gaussian(3), gaussian(5)) == pytest.approx(frechet(gaussian(5), gaussian(3)))


def test_gaussians_without_common_axes_agree_with_the_matrix_square_root():
    from scipy.linalg import sqrtm

    (m1, c1), (m2, c2) = gaussian(1), gaussian(2)
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet((m1, c1), (m2, c2)) == pytest.approx(expected, rel=1e-8)


def test_the_weights_are_small_and_say_how_they_were_made():
    """Their config still composes, and is that of the script."""
    assert WEIGHTS.stat().st_size < 200_000
    with np.load(WEIGHTS) as stored:
        made = json.loads(str(stored["made"]))
        assert sum(stored[name].size for name in stored.files if name != "made") < 50_000
    assert made["test_accuracy"] > 0.97
    try:
        single(made["overrides"])
    except ConfigError as error:
        pytest.fail(str(error))


def test_features_do_not_depend_on_the_batch_or_the_precision():
    images = GENERATOR.uniform(size=(7, 784))
    found = features(images)
    assert found.shape == (7, 32)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            features(images[3:5].reshape(2, 28, 28, 1)), found[3:5], atol=1e-5
        )


def test_images_of_the_training_set_are_nearer_than_spoilt_ones(tfds_dir):
    """Than the same images under noise, and far nearer than with shuffled pixels."""
    try:
        mnist = data.load(single(["dataset=mnist"])["dataset"], 0.0)
    except DataError as error:
        pytest.skip(str(error))
    train, test = (split.x[:3000].reshape(3000, -1) / 255 for split in (mnist.train, mnist.test))
    expected = moments(features(test))
    noisy = np.clip(train + 0.3 * GENERATOR.normal(size=train.shape), 0, 1)
    shuffled = train[:, GENERATOR.permutation(784)]
    same, noise, shuffle = (
        frechet(moments(features(images)), expected) for images in (train, noisy, shuffled)
    )
    assert same < noise / 5 and same < shuffle / 50
