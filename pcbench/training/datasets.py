"""Datasets where they are needed, kept for the next run of this process."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcbench import data
from pcbench.config import Config, load_target


class Recent(OrderedDict):
    """Keeps the last few values, so that a next run in this process makes nothing again."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def obtain(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
            if len(self) > self.size:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


class DeviceData(NamedTuple):
    """Samples on the devices; the held-out labels (or targets) here, too."""

    train: tuple[jax.Array, jax.Array]
    held_out: tuple[jax.Array, jax.Array]  # of validation and test, one after the other
    images: dict[str, np.ndarray]  # validation (absent when nothing is held out), test
    labels: dict[str, np.ndarray]
    facts: data.Facts


_datasets = Recent(2)


def on_device(x: np.ndarray, y: np.ndarray) -> tuple[jax.Array, jax.Array]:
    integers = np.issubdtype(y.dtype, np.integer)
    return jnp.asarray(x), jnp.asarray(y, jnp.int32 if integers else y.dtype)


def load_dataset(config: Config, place: Callable[[Any], Any], devices: int = 1) -> DeviceData:
    """The config's dataset; `place` copies arrays to all `devices`. Raises DataError when it is
    not there."""

    def load() -> DeviceData:
        loaded = data.load(config["dataset"], config["train.validation_fraction"])
        tested = loaded.train if evaluates == "train" else loaded.test
        held_out = {"validation": loaded.validation, "test": tested}
        held_out = {name: split for name, split in held_out.items() if len(split.y)}
        both = [np.concatenate(column) for column in zip(*held_out.values(), strict=True)]
        train, evaluated = place((on_device(*loaded.train), on_device(*both)))
        images, labels = (
            {name: split[part] for name, split in held_out.items()} for part in (0, 1)
        )
        return DeviceData(train, evaluated, images, labels, loaded.facts)

    evaluates = load_target(config["task.target"]).evaluates
    key = (str(config["dataset"]), config["train.validation_fraction"], evaluates, devices)
    return _datasets.obtain(key, load)
