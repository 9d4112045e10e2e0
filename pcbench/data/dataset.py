"""What a dataset is, and the fixed rule that splits it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pcbench.config import load_target

# A property of the datasets, never of a run: all runs see the same validation examples.
SPLIT_SEED = 20_240_701


class DataError(Exception):
    """A dataset cannot be had as asked; the message says what to do. The command line exits 2."""


class Split(NamedTuple):
    # (N, H, W, C) uint8 for images; float32 for digits and generated data; (N, T) int16 for a text,
    # places in its vocabulary
    x: np.ndarray
    y: np.ndarray  # (N,) int32 labels, or (N, C) float32 targets


class Source(NamedTuple):
    """What a dataset's `target` function returns, in the order in which it is published."""

    classes: int | None  # None: targets instead of labels
    train: Split
    test: Split
    validation: Split | None = None  # where one is published; None: a share of the training set


class Facts(NamedTuple):
    """What networks and tasks are built for."""

    shape: tuple[int, ...]  # of one input as the network sees it: after the crop
    samples: int  # in the training split, or of it a seed's own
    held_out: int  # in the validation split
    classes: int | None  # of labels; None: the examples have targets
    targets: int  # numbers in a target, 1 of labels
    augmented: bool = False  # training examples are flipped or cropped at random
    name: str = ""
    mean: tuple[float, ...] = (0.0,)  # that the network's inputs are normalised by
    std: tuple[float, ...] = (1.0,)
    others: int = 0  # training examples that a seed has not drawn
    text: bool = False  # inputs are windows of a text, the classes its vocabulary

    @property
    def labelled(self) -> bool:
        return self.classes is not None


@dataclass(frozen=True)
class Dataset:
    name: str
    classes: int | None
    train: Split
    validation: Split
    test: Split
    crop_size: int | None = None
    draw: int | None = None
    augmented: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def facts(self) -> Facts:
        shape = self.train.x.shape[1:]
        if self.crop_size is not None:
            shape = (self.crop_size, self.crop_size, shape[-1])
        samples, held_out = self.draw or len(self.train.y), len(self.validation.y)
        targets = math.prod(self.train.y.shape[1:])
        others = len(self.train.y) - samples
        return Facts(
            shape, samples, held_out, self.classes, targets, self.augmented, self.name, self.mean,
            self.std, others, self.train.x.dtype == np.int16,
        )  # fmt: skip


def fixed_permutation(size: int) -> np.ndarray:
    """The one order in which a set of `size` examples is dealt into splits."""
    return np.random.default_rng(SPLIT_SEED).permutation(size)


def load(config: Mapping[str, Any], validation_fraction: float) -> Dataset:
    """Loads the dataset that `config`, a composed `conf/dataset` file, describes.

    The training set is dealt in the order of `fixed_permutation`: its last
    `round(validation_fraction * N)` examples are the validation split, the first `train_size`
    of the others (null: all) are the training split. The test split is left as it is. Where a
    validation split is published, it is taken whole, whatever the fraction (0: none).

    Raises:
      DataError: the data is not there, or `config` asks for what it cannot give.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(
            f"train.validation_fraction is {validation_fraction}; it must be in [0, 1), "
            "where 0 means that nothing is held out"
        )
    source = load_target(config["target"])(config)
    _check_transforms(config, source.train.x.shape[1:])

    order = fixed_permutation(len(source.train.y))
    published = source.validation if validation_fraction else None
    held_out = 0 if published else round(validation_fraction * len(order))
    size = len(order) - held_out
    taken = size if config.get("train_size") is None else config["train_size"]
    if not 0 < taken <= size:
        raise DataError(
            f"dataset.train_size={taken}, but {config['name']} has {size} training examples after "
            f"a validation split of {held_out}; take 1 to {size}, or null for all of them"
        )
    draw = config.get("draw")
    if draw is not None and draw > taken:
        raise DataError(
            f"dataset.draw={draw}, but {config['name']} has {taken} training examples to draw from"
        )
    return Dataset(
        name=config["name"],
        classes=source.classes,
        train=_take(source.train, order[:taken]),
        validation=published or _take(source.train, order[size:]),
        test=source.test,
        crop_size=config.get("crop_size"),
        draw=draw,
        augmented=bool(config.get("flip") or config.get("crop_padding")),
        mean=tuple(config.get("mean", (0.0,))),
        std=tuple(config.get("std", (1.0,))),
    )


def _take(split: Split, indices: np.ndarray) -> Split:
    return Split(split.x[indices], split.y[indices])


def _check_transforms(config: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    name, crop = config["name"], config.get("crop_size")
    padding = config.get("crop_padding", 0)
    for key in ("mean", "std"):
        if len(config.get(key, [0])) not in (1, shape[-1]):
            raise DataError(
                f"dataset.{key} of {name} has {len(config[key])} numbers; give 1, or one for each "
                f"of the {shape[-1]} channels"
            )
    if len(shape) != 3:
        if crop is not None or padding or config.get("flip"):
            raise DataError(
                f"{name} has examples of shape {shape}, not images: "
                "set dataset.crop_size=null dataset.crop_padding=0 dataset.flip=false"
            )
    elif crop is None:
        if padding:
            raise DataError(f"dataset.crop_padding={padding} of {name} needs a dataset.crop_size")
    elif not 0 < crop <= min(shape[:2]):
        # The padding does not help: test images are cropped without it.
        raise DataError(
            f"dataset.crop_size={crop} of {name}; its images are {shape[0]} x {shape[1]}, "
            f"so take 1 to {min(shape[:2])}, or null for no crop"
        )
