"""Datasets that are computed: a teacher network's labels, two half circles, Gaussian pairs.

Their random seeds are part of the dataset. Each stream has its own, so that asking for more
training samples changes neither the task nor the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcbench.data.dataset import Source, Split

SEED = 20_240_702


def teacher(config: Mapping[str, Any]) -> Source:
    """x ~ N(0, I); y = argmax of W2 tanh(W1 x), a fixed network with W_ij ~ N(0, 1/fan_in).

    Keys: `inputs`, `hidden`, `outputs` (the widths), `samples`, `test_samples`.
    """
    inputs, hidden, outputs = (config[key] for key in ("inputs", "hidden", "outputs"))
    weights, train, test = (np.random.default_rng([SEED, stream]) for stream in range(3))
    w1 = weights.standard_normal((hidden, inputs)) / np.sqrt(inputs)
    w2 = weights.standard_normal((outputs, hidden)) / np.sqrt(hidden)

    def sample(rng: np.random.Generator, size: int) -> Split:
        # Rounded to float32 before labelling: the label is of the x that the student sees.
        x = rng.standard_normal((size, inputs)).astype(np.float32)
        y = np.argmax(np.tanh(x.astype(np.float64) @ w1.T) @ w2.T, axis=1)
        return Split(x, y.astype(np.int32))

    return Source(
        classes=outputs,
        train=sample(train, config["samples"]),
        test=sample(test, config["test_samples"]),
    )


def two_moons(config: Mapping[str, Any]) -> Source:
    """scikit-learn's `make_moons`. Keys: `samples`, `test_samples`, `noise` (a std)."""
    from sklearn.datasets import make_moons

    def sample(stream: int, size: int) -> Split:
        x, y = make_moons(size, noise=config["noise"], random_state=SEED + stream)
        return Split(x.astype(np.float32), y.astype(np.int32))

    return Source(
        classes=2, train=sample(1, config["samples"]), test=sample(2, config["test_samples"])
    )


def gaussian(config: Mapping[str, Any]) -> Source:
    """x ~ N(0, I), y ~ N(0, I), independent. Keys: `inputs`, `outputs`, `samples`,
    `test_samples`."""

    def sample(stream: int, size: int) -> Split:
        x, y = (
            np.random.default_rng([SEED, stream, part]).standard_normal(
                (size, config[side]), np.float32
            )
            for part, side in enumerate(("inputs", "outputs"))
        )
        return Split(x, y)

    return Source(
        classes=None, train=sample(1, config["samples"]), test=sample(2, config["test_samples"])
    )


def normal(config: Mapping[str, Any]) -> Source:
    """One number, x ~ N(1, 5); the label is 0. Keys: `samples`, `test_samples`."""

    def sample(stream: int, size: int) -> Split:
        x = 1 + np.sqrt(5) * np.random.default_rng([SEED, stream]).standard_normal((size, 1))
        return Split(x.astype(np.float32), np.zeros(size, np.int32))

    return Source(
        classes=1, train=sample(1, config["samples"]), test=sample(2, config["test_samples"])
    )
