"""A TFDS builder for Tiny ImageNet, which TFDS has none for. Importing this registers it.

Tiny ImageNet is the data of a Stanford CS231n course project (Le and Yang, "Tiny ImageNet Visual
Recognition Challenge", 2015): 200 classes of ImageNet at 64 x 64, 500 training and 50 validation
images each. The labels of its test images were never published, so they are left out.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

_ARCHIVE = "tiny-imagenet-200.zip"
_URL = f"http://cs231n.stanford.edu/{_ARCHIVE}"
_ROOT = "tiny-imagenet-200"


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Reads the official archive as it is: 110,000 small files need not be unpacked."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Optional: put {_ARCHIVE} there, and it is used instead of a download from {_URL}."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Tiny ImageNet: 200 classes, 64x64, 500 training images of each class.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=200),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = _archive(dl_manager)
        with zipfile.ZipFile(archive) as files:
            wnids = files.read(f"{_ROOT}/wnids.txt").decode().split()
        self.info.features["label"].names = wnids
        return {
            "train": self._generate_examples(archive, "train"),
            "validation": self._generate_examples(archive, "val"),
        }

    def _generate_examples(self, archive: Path, folder: str) -> Iterator[tuple[str, dict]]:
        with zipfile.ZipFile(archive) as files:
            labels = {}
            if folder == "val":  # one folder of images, labelled by a table: file, wnid, box
                table = files.read(f"{_ROOT}/val/val_annotations.txt").decode().splitlines()
                labels = dict(line.split("\t")[:2] for line in table)
            for path in files.namelist():
                if path.startswith(f"{_ROOT}/{folder}/") and path.endswith(".JPEG"):
                    name = Path(path).name
                    yield (
                        name,
                        {
                            "id": name,
                            "image": files.read(path),
                            # a training image is n01443537/images/n01443537_0.JPEG
                            "label": labels.get(name) or name.split("_")[0],
                        },
                    )


def _archive(dl_manager: tfds.download.DownloadManager) -> Path:
    try:
        manual = Path(dl_manager.manual_dir) / _ARCHIVE
    except AssertionError:  # TFDS's way to say that there is no such directory
        return Path(dl_manager.download(_URL))
    return manual if manual.exists() else Path(dl_manager.download(_URL))
