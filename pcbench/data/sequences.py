"""Sequences: of binary patterns, of the images of another dataset, of a digit that moves.

An example is a sequence (length, …); its label is 0. `dataset.draw=1` gives each seed its own.
Random seeds are part of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcbench.config import load_target
from pcbench.config.compose import choice_yaml
from pcbench.data.dataset import DataError, Source, Split
from pcbench.data.generated import SEED


def binary(config: Mapping[str, Any]) -> Source:
    """Elements of ±1: each sequence has a random template, and every number of every element equals
    the template's with probability (1 + b)/2, b its correlation with it.

    Keys: `inputs`, `length`, `correlation` (b), `samples`, `test_samples`.
    """
    length, inputs, correlation = (config[key] for key in ("length", "inputs", "correlation"))

    def sample(stream: int, size: int) -> Split:
        rng = np.random.default_rng([SEED, stream])
        template = rng.choice(np.array([-1, 1], np.int8), (size, 1, inputs))
        same = rng.random((size, length, inputs), np.float32) < (1 + correlation) / 2
        return _unlabelled(np.where(same, template, -template))

    return _source(sample(1, config["samples"]), sample(2, config["test_samples"]))


def images(config: Mapping[str, Any]) -> Source:
    """The images of `source` (another dataset), cut into sequences of `length`; where `mirrored`
    the second half is the first one backwards, as A B C B A: what follows an image then depends on
    what came before it."""
    source, length = _loaded(config["source"]), config["length"]
    places = np.arange(length)
    if config["mirrored"]:
        places = np.minimum(places, length - 1 - places)
    distinct = places.max() + 1

    def cut(split: Split) -> Split:
        count = len(split.x) // distinct
        if not count:
            raise DataError(
                f"dataset.length={length}, but {config['source']} has {len(split.x)} images"
            )
        x = split.x[: count * distinct].reshape(count, distinct, *split.x.shape[1:])
        return _unlabelled(x[:, places])

    return _source(cut(source.train), cut(source.test))


def moving(config: Mapping[str, Any]) -> Source:
    """An image of `source` that moves in a straight line through a black frame of `side` pixels, at
    up to four pixels a step, and bounces off its edges; enlarged to half the frame at most.

    Keys: `source`, `side`, `length`, `samples`, `test_samples`.
    """
    source, side, length = _loaded(config["source"]), config["side"], config["length"]

    def sample(stream: int, split: Split, size: int) -> Split:
        rng = np.random.default_rng([SEED, stream])
        pictures = split.x[rng.integers(len(split.x), size=size)]
        if pictures.dtype == np.uint8:
            pictures = pictures.astype(np.float32) / 255
        factor = max(1, side // (2 * pictures.shape[1]))
        pictures = pictures.repeat(factor, 1).repeat(factor, 2)
        height = pictures.shape[1]
        if height > side:
            raise DataError(
                f"dataset.side={side}: the images of {config['source']} have {height} pixels a side"
            )
        span = side - height
        start, velocity = rng.uniform(0, span, (size, 1, 2)), rng.uniform(-4, 4, (size, 1, 2))
        way = (start + velocity * np.arange(length)[:, None]) % max(2 * span, 1)
        corners = np.rint(np.minimum(way, 2 * span - way)).astype(int).clip(0)
        x = np.zeros((size, length, side, side, pictures.shape[-1]), np.float32)
        for n, path in enumerate(corners):
            for t, (row, column) in enumerate(path):
                x[n, t, row : row + height, column : column + height] = pictures[n]
        return _unlabelled(x)

    return _source(
        sample(1, source.train, config["samples"]), sample(2, source.test, config["test_samples"])
    )


def _loaded(name: str) -> Source:
    choice = choice_yaml("dataset", name)
    return load_target(choice["target"])(choice)


def _unlabelled(x: np.ndarray) -> Split:
    return Split(x, np.zeros(len(x), np.int32))


def _source(train: Split, test: Split) -> Source:
    return Source(classes=1, train=train, test=test)
