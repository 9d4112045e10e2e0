"""A text, cut into windows of characters, each with the character that follows it.

Every split is cut by itself: no window of one reaches into another. The vocabulary is that of the
training text, its characters in the order of their codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcbench.data.cache import cached
from pcbench.data.dataset import DataError, Source, Split
from pcbench.data.tfds_source import cache_key, examples_of, require

SPLITS = ("train", "validation", "test")


def load(config: Mapping[str, Any]) -> Source:
    """x: (N, length) int16, places in the vocabulary; y: (N,), those of the next characters.

    Keys: `length` and `stride`, in characters. Raises DataError where the text is not there, is
    shorter than a window, or is tested on characters that it does not train.
    """
    prepared = require(config["name"])
    if not {*SPLITS} <= {*prepared.sizes}:
        raise DataError(f"{prepared.path} has not the splits {', '.join(SPLITS)} of a text")

    def decode() -> dict[str, np.ndarray]:
        texts = {split: examples_of(prepared, split)[0]["text"] for split in SPLITS}
        return {split: np.frombuffer(text, np.uint8) for split, text in texts.items()}

    texts = cached(cache_key(prepared), SPLITS, decode)
    return windows(texts, config["length"], config["stride"])


def windows(texts: Mapping[str, np.ndarray], length: int, stride: int) -> Source:
    """Of (n,) uint8 characters of each split."""
    vocabulary = np.unique(texts["train"])

    def cut(split: str) -> Split:
        text = texts[split]
        if unknown := {*text.tolist()} - {*vocabulary.tolist()}:
            shown = bytes(sorted(unknown)).decode("latin-1")
            raise DataError(f"the training text has none of the characters {shown!r} of {split}")
        if len(text) <= length:
            raise DataError(
                f"dataset.length={length}, but the {split} text has {len(text)} characters; take "
                f"less than that"
            )
        places = np.searchsorted(vocabulary, text).astype(np.int16)
        cuts = np.lib.stride_tricks.sliding_window_view(places, length + 1)[::stride]
        return Split(np.ascontiguousarray(cuts[:, :-1]), cuts[:, -1].astype(np.int32))

    train, validation, test = map(cut, SPLITS)
    return Source(len(vocabulary), train, test, validation)
