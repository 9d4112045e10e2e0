"""Language modelling: what windows of a text hold, what perplexity is, what a network may see."""

import os
from pathlib import Path

import numpy as np
import pytest

from pcbench import data
from pcbench.data import text
from pcbench.sweeps.expand import single

TEXTS = {
    name: np.frombuffer(content.encode(), np.uint8)
    for name, content in (
        ("train", "to be, or not to be: that is the question."),
        ("validation", "that is it: be quiet."),
        ("test", "he is not here, is he."),
    )
}
needs_text = pytest.mark.skipif(
    not (Path(os.environ.get("TFDS_DATA_DIR", "")) / "tiny_shakespeare").is_dir(),
    reason="tiny_shakespeare is not in TFDS_DATA_DIR",
)

# --- data


def written(places: np.ndarray) -> str:
    vocabulary = sorted(set(TEXTS["train"]))
    return bytes(vocabulary[place] for place in places).decode()


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_hold_what_the_text_says_and_the_label_is_what_follows(stride):
    source = text.windows(TEXTS, 5, stride)
    for name, split in (
        ("train", source.train), ("validation", source.validation), ("test", source.test)
    ):  # fmt: skip
        whole = TEXTS[name].tobytes().decode()
        starts = range(0, len(whole) - 5, stride)
        assert [written(x) for x in split.x] == [whole[n : n + 5] for n in starts]
        assert written(split.y) == "".join(whole[n + 5] for n in starts)
    assert source.classes == len(set(TEXTS["train"].tolist()))


def test_what_a_text_cannot_give_is_refused():
    with pytest.raises(data.DataError, match="'!' of test"):
        text.windows(TEXTS | {"test": np.frombuffer(b"no!", np.uint8)}, 2, 1)
    with pytest.raises(data.DataError, match=r"dataset\.length=21, but the validation text has 21"):
        text.windows(TEXTS, 21, 1)


@needs_text
def test_tiny_shakespeare_is_whole_and_validated_as_published():
    """1,115,394 characters, 65 of them different, are cut once each into the three splits."""
    loaded = data.load(single(["dataset=tiny_shakespeare"])["dataset"], 0.1)
    splits = (loaded.train, loaded.validation, loaded.test)
    assert sum(len(split.y) + 16 for split in splits) == 1_115_394
    assert loaded.classes == 65
    assert [len(split.y) for split in splits[1:]] == [55_754, 55_754]
    again = data.load(single(["dataset=tiny_shakespeare"])["dataset"], 0.3)
    assert np.array_equal(again.validation.x, loaded.validation.x), "as published"
    assert len(data.load(single(["dataset=tiny_shakespeare"])["dataset"], 0).validation.y) == 0
