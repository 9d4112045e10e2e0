"""Image classification sets, and texts, from a TFDS data directory.

Anything that TFDS has prepared as array_record with the features `image` (of a fixed shape) and
`label` can be read: a further dataset is a further YAML. So can a text of one feature `text`, by
`data/text.py`. A warm cache is read without importing TFDS, which takes a second; the directory's
own JSON files say all that is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcbench.data.cache import cached
from pcbench.data.dataset import DataError, Source, Split

# Rises when the same files would be decoded to other arrays.
_DECODER = 1
# Pillow's names by number of channels; converted to, since Tiny ImageNet has some grey images.
_MODES = {1: "L", 3: "RGB"}
_ARRAYS = ("train_x", "train_y", "test_x", "test_y")

# Sets that exist only as prepared directories: what they are, and what stands in for them.
PREPARED_ONLY = {
    "cifar10_jpeg": "CIFAR-10 re-encoded as JPEG; `pcbench data prepare cifar10` gets the original",
    "tiny_imagenet_small": "50 training images per class of Tiny ImageNet; "
    "`pcbench data prepare tiny_imagenet` gets all of it",
}


class Prepared(NamedTuple):
    """A prepared dataset, as its directory describes it."""

    path: Path  # DATA_DIR/NAME/VERSION
    classes: int | None  # None, as the shape: of a text
    shape: tuple[int, int, int] | None
    sizes: dict[str, int]  # examples by TFDS's name of the split

    @property
    def version(self) -> str:
        return self.path.name

    @property
    def test_split(self) -> str:
        """Tiny ImageNet's test labels are not public: it is tested on its validation set."""
        return "test" if "test" in self.sizes else "validation"


def data_dir() -> Path:
    """Where TFDS keeps its data: `TFDS_DATA_DIR`, by default `~/tensorflow_datasets`."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find(name: str) -> Prepared | None:
    """The newest prepared version of `name`; None where there is none in a readable form."""
    versions = [
        path
        for path in (data_dir() / name).glob("*/")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and (path / "dataset_info.json").is_file()
    ]
    for path in sorted(versions, key=lambda p: [int(n) for n in p.name.split(".")], reverse=True):
        info = json.loads((path / "dataset_info.json").read_text())
        if info.get("fileFormat") == "array_record":
            return _describe(path, info)
    return None


def require(name: str) -> Prepared:
    """As `find`; raises DataError, which says how to get it, where there is none."""
    if (found := find(name)) is None:
        raise DataError(_missing(name))
    return found


def cache_key(prepared: Prepared) -> str:
    """Where what is decoded of it is kept."""
    return f"{prepared.path.parent.name}/{prepared.version}-{_fingerprint(prepared.path)}"


def load(config: Mapping[str, Any]) -> Source:
    """x: (N, H, W, C) uint8, the pixels as published."""
    name = config["name"]
    prepared = require(name)
    if prepared.shape is None:
        raise DataError(f"{prepared.path} is a text, not a set of images")
    arrays = cached(cache_key(prepared), _ARRAYS, lambda: _decode(prepared))
    return Source(
        classes=prepared.classes,
        train=Split(arrays["train_x"], arrays["train_y"]),
        test=Split(arrays["test_x"], arrays["test_y"]),
    )


def prepare(name: str) -> Path:
    """Downloads `name` and prepares it in the data directory; what is there is left alone."""
    if found := find(name):
        return found.path
    if name in PREPARED_ONLY:
        raise DataError(_missing(name))
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"preparing {name} needs TensorFlow (reading it afterwards does not): "
            f"pip install 'pcbench[tfds-prepare]', then `pcbench data prepare {name}` again"
        )
    import tensorflow_datasets as tfds

    if name == "tiny_imagenet":
        import pcbench.data.tiny_imagenet  # noqa: F401  (registers the builder)
    try:
        builder = tfds.builder(name, data_dir=data_dir(), file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # the network, the disk, a changed server: all TFDS's to report
        raise DataError(
            f"TFDS could not prepare {name} in {data_dir()}: {type(error).__name__}: {error}\n"
            "Without a network, prepare it on a machine that has one and copy the directory "
            f"{name}/ into {data_dir()}."
        ) from error
    if found := find(name):
        return found.path
    raise DataError(
        f"TFDS left {name} in {builder.data_path} as {builder.info.file_format}, which cannot be "
        f"read without TensorFlow: move that directory away and run `pcbench data prepare {name}`"
    )


def _describe(path: Path, info: Mapping[str, Any]) -> Prepared:
    sizes = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    try:
        features = json.loads((path / "features.json").read_text())["featuresDict"]["features"]
        if "text" in features:
            return Prepared(path, None, None, sizes)
        dimensions = features["image"]["image"]["shape"]["dimensions"]
        height, width, channels = (int(size) for size in dimensions)
        classes = int(features["label"]["classLabel"]["numClasses"])
        prepared = Prepared(path, classes, (height, width, channels), sizes)
        if min(height, width) < 1 or channels not in _MODES:
            raise ValueError(f"image of shape {dimensions}")
        if not {"train", prepared.test_split} <= set(sizes):
            raise ValueError(f"splits {sorted(sizes)}")
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not an image classification set that can be read here ({error!r}): it "
            "needs the features `image`, of a fixed shape with 1 or 3 channels, and `label`, and "
            "the splits train and test (or validation)"
        ) from error
    return prepared


def _missing(name: str) -> str:
    where = data_dir()
    set_by = "" if os.environ.get("TFDS_DATA_DIR") else " (TFDS_DATA_DIR is not set)"
    message = f"dataset {name!r} is not in the TFDS data directory {where}{set_by}.\n"
    if (where / name).is_dir():
        message += f"{where / name} is there, but holds no version prepared as array_record.\n"
    if name in PREPARED_ONLY:
        return message + (
            f"It is read from a prepared directory only ({PREPARED_ONLY[name]}).\n"
            f"Set TFDS_DATA_DIR to a directory that holds {name}/VERSION/dataset_info.json."
        )
    return message + (
        f"Get it: `pcbench data prepare {name}` (needs pip install 'pcbench[tfds-prepare]').\n"
        f"Or set TFDS_DATA_DIR to a directory that holds {name}/VERSION/dataset_info.json.\n"
        "`pcbench data list` says what is there; dataset=digits needs no files."
    )


def _fingerprint(path: Path) -> str:
    """Of the names and sizes of the prepared files: another preparation is another cache entry."""
    files = sorted((file.name, file.stat().st_size) for file in path.iterdir())
    return hashlib.sha256(json.dumps([_DECODER, files]).encode()).hexdigest()[:16]


def examples_of(prepared: Prepared, split: str, decoders: Mapping | None = None):
    """The examples of a split, by TFDS's name of it."""
    import tensorflow_datasets as tfds

    return tfds.data_source(
        f"{prepared.path.parent.name}:{prepared.version}",
        split=split,
        data_dir=prepared.path.parent.parent,
        download=False,
        decoders=decoders,
    )


def _decode(prepared: Prepared) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    arrays = {}
    for ours, theirs in (("train", "train"), ("test", prepared.test_split)):
        # Images are decoded below, not by TFDS: CIFAR-10 takes 9 s, not about 14, and TFDS
        # takes OpenCV where it is installed, whose JPEG decoder gives other pixels than Pillow's.
        # Threads make it slower: images this small leave the interpreter lock too briefly.
        examples = examples_of(prepared, theirs, {"image": tfds.decode.SkipDecoding()})
        arrays[f"{ours}_x"], arrays[f"{ours}_y"] = _decode_split(examples, prepared)
    return arrays


def _decode_split(examples, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    x = np.empty((len(examples), *prepared.shape), np.uint8)
    y = np.empty(len(examples), np.int32)
    mode = _MODES[prepared.shape[-1]]
    for start in range(0, len(y), 1000):
        indices = range(start, min(start + 1000, len(y)))
        for index, example in zip(indices, examples.__getitems__(list(indices)), strict=True):
            image = Image.open(io.BytesIO(example["image"])).convert(mode)
            x[index] = np.asarray(image).reshape(prepared.shape)
            y[index] = example["label"]
    return x, y
