"""What there is to run on: `pcbench data list` and `pcbench data prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pcbench.config.errors import nearest
from pcbench.data import tfds_source
from pcbench.data.dataset import DataError


class _Entry(NamedTuple):
    source: str  # "bundled" | "generated" | "tfds"
    classes: int | None = None  # None: set in the YAML
    shape: tuple[int, ...] | None = None  # of an example as stored, before any crop
    train: int | None = None  # before the validation split
    test: int | None = None
    download: str | None = None


_CATALOGUE = {
    "digits": _Entry("bundled", 10, (8, 8, 1), 1437, 360),
    "mnist": _Entry("tfds", 10, (28, 28, 1), 60_000, 10_000, "11 MB"),
    "fashion_mnist": _Entry("tfds", 10, (28, 28, 1), 60_000, 10_000, "30 MB"),
    "kmnist": _Entry("tfds", 10, (28, 28, 1), 60_000, 10_000, "20 MB"),
    "cifar10": _Entry("tfds", 10, (32, 32, 3), 50_000, 10_000, "163 MB"),
    "cifar10_jpeg": _Entry("tfds", 10, (32, 32, 3), 50_000, 10_000),
    "cifar100": _Entry("tfds", 100, (32, 32, 3), 50_000, 10_000, "161 MB"),
    "tiny_imagenet": _Entry("tfds", 200, (64, 64, 3), 100_000, 10_000, "237 MB"),
    "tiny_imagenet_small": _Entry("tfds", 200, (64, 64, 3), 10_000, 10_000),
    "tiny_shakespeare": _Entry("tfds", download="1 MB"),  # windows of a text
    "teacher": _Entry("generated"),
    "two_moons": _Entry("generated", 2, (2,)),
    "gaussian": _Entry("generated"),  # targets instead of labels
    "normal": _Entry("generated", 1, (1,)),
    "sources": _Entry("generated"),  # targets instead of labels
    "binary_sequences": _Entry("generated", 1),
    "image_sequences": _Entry("generated", 1),  # of a dataset that must be there
    "moving_digits": _Entry("generated", 1),
}


def available() -> list[dict[str, Any]]:
    """One dict per dataset: name, ready, source, where, how, classes, shape, train, test."""
    return [_status(name, entry) for name, entry in _CATALOGUE.items()]


def prepare(name: str) -> Path:
    """Makes `name` readable and returns its directory.

    Raises:
      DataError: there is no such dataset, it needs no preparation, or it could not be prepared.
    """
    if name not in _CATALOGUE:
        raise DataError(f"there is no dataset '{name}'." + nearest(name, _CATALOGUE))
    entry = _CATALOGUE[name]
    if entry.source != "tfds":
        raise DataError(f"{name} is {entry.source}: it is ready, nothing to prepare")
    return tfds_source.prepare(name)


def _status(name: str, entry: _Entry) -> dict[str, Any]:
    status = {
        "name": name,
        "ready": True,
        "source": entry.source,
        "where": None,
        "how": {"bundled": "comes with scikit-learn", "generated": "computed when used"}.get(
            entry.source
        ),
        "classes": entry.classes,
        "shape": None if entry.shape is None else list(entry.shape),
        "train": entry.train,
        "test": entry.test,
    }
    if entry.source != "tfds":
        return status
    try:
        found = tfds_source.find(name)
    except DataError as error:  # one odd directory must not hide the others
        return status | {"ready": False, "how": str(error)}
    if found:
        status |= {"where": str(found.path), "how": "prepared"}
        if found.shape is None:  # how a text is cut is set in the YAML
            return status
        return status | {
            "classes": found.classes,
            "shape": list(found.shape),
            "train": found.sizes["train"],
            "test": found.sizes[found.test_split],
        }
    if name in tfds_source.PREPARED_ONLY:
        how = f"set TFDS_DATA_DIR to a directory that has it: {tfds_source.PREPARED_ONLY[name]}"
    else:
        how = f"pcbench data prepare {name} ({entry.download} download; extra tfds-prepare)"
    return status | {"ready": False, "how": how}
