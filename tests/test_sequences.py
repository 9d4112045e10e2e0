"""Recurrent networks and memories of sequences in runs. Identities are in `pcbench verify`."""

import numpy as np
import pytest

from pcbench import data
from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.sweeps.expand import single
from pcbench.tasks.sequence_memory import SequenceMemory
from pcbench.training.assembly import assemble
from pcbench.training.train import train

# --- classification of sequences


def test_a_recurrent_network_trained_by_zero_divergence_learning_is_that_of_backpropagation():
    """Digits row by row: after 60 updates in float64 the weights are equal, up to how rounding
    grows through them; and they have learned."""
    runs = [
        single([f"algorithm={rule}", "model=rnn", "model.width=16", "optimizer=sgd",
                "optimizer.lr=0.2", "precision=float64", "train.epochs=3", "train.eval_every=3"])
        for rule in ("bp", "zil")
    ]  # fmt: skip
    expected, found = (train([run])[0] for run in runs)
    names = [name for name in expected.arrays if name.startswith("weights/")]
    assert len(names) == 5
    for name in names:
        np.testing.assert_allclose(found.arrays[name], expected.arrays[name], atol=1e-11)
    assert np.array_equal(found.arrays["predictions/test"], expected.arrays["predictions/test"])
    assert found.metrics["gradient_cosine"] == pytest.approx(1, abs=1e-12)
    assert found.metrics["train_loss"] < 0.4


@pytest.mark.parametrize("rule", ["tp", "bpc"])
def test_rules_of_chains_refuse_recurrent_networks(rule):
    facts = Facts((8, 8, 1), samples=100, held_out=0, classes=10, targets=1)
    with pytest.raises(ConfigError, match="dense layers; factor 0 is a Cell"):
        assemble(single([f"algorithm={rule}", "model=rnn"]), facts, 10)


def test_a_recurrent_network_takes_sequences():
    facts = Facts((64,), samples=100, held_out=0, classes=10, targets=1)
    with pytest.raises(ConfigError, match="it takes sequences"):
        assemble(single(["algorithm=bp", "model=rnn"]), facts, 10)


# --- data


def sequences(name: str, **settings) -> data.Dataset:
    return data.load(single([f"dataset={name}"])["dataset"] | {"train_size": None} | settings, 0)


def test_correlated_bits_agree_with_a_template_of_each_sequence():
    """Two elements of a sequence agree in (1 + b²)/2 of their bits, those of two sequences in
    half."""
    x = sequences("binary_sequences", correlation=0.6, length=10, samples=200).train.x
    assert x.shape == (200, 10, 100) and set(np.unique(x)) == {-1, 1}
    x = x.astype(float)
    error = 5 / np.sqrt(200 * 100)  # five standard errors
    assert np.mean(x[:, 0] * x[:, 1]) == pytest.approx(0.36, abs=error)
    assert np.mean(x[:-1, 0] * x[1:, 0]) == pytest.approx(0, abs=error)


def test_images_are_cut_into_sequences_and_mirrored():
    source = data.load(single(["dataset=digits"])["dataset"], 0).train.x
    whole = sequences("image_sequences", length=6).train.x
    assert whole.shape == (len(source) // 6, 6, 8, 8, 1)
    assert {image.tobytes() for image in whole.reshape(-1, 64)} < {i.tobytes() for i in source}
    x = sequences("image_sequences", length=5, mirrored=True).train.x
    assert np.array_equal(x, x[:, ::-1]) and len(x) == len(source) // 3
    assert not np.array_equal(x[:, 0], x[:, 1])
    with pytest.raises(data.DataError, match="has 1437 images"):
        sequences("image_sequences", length=1500)


def test_a_digit_moves_straight_and_bounces_within_its_frame():
    x = sequences("moving_digits", samples=30, length=20).train.x
    assert x.shape == (30, 20, 32, 32, 1)
    ink = x.sum((2, 3, 4))
    np.testing.assert_allclose(ink, ink[:, :1].repeat(20, 1), rtol=1e-5)  # it never leaves
    rows = (x.sum((3, 4)) * np.arange(32)).sum(-1) / ink
    speeds = np.abs(np.diff(rows, axis=1))
    assert speeds.max() <= 5 and np.diff(np.sign(np.diff(rows, axis=1))).any()
    # between two bounces the speed is that of the sequence, up to rounding to a pixel
    assert np.median(np.ptp(np.sort(speeds, 1)[:, 8:], axis=1)) <= 1.01


def test_a_moving_image_must_fit_its_frame():
    with pytest.raises(data.DataError, match=r"dataset.side=6.*have 8 pixels"):
        sequences("moving_digits", side=6)
    x = sequences("moving_digits", side=8, samples=10, length=5).train.x
    np.testing.assert_array_equal(x, x[:, :1].repeat(5, 1))  # it cannot move


# --- memories

MEMORY = ["task=sequence_memory", "train.validation_fraction=0", "train.selection=final"]
HOPFIELD = [*MEMORY, "algorithm=sequence_hopfield", "model=patterns", "train.epochs=1",
            "train.batch_size=4", "dataset.draw=4"]  # fmt: skip


def test_the_nearest_neighbour_recalls_sequences_exactly():
    nearest = ["algorithm.similarity=euclidean", "algorithm.separation=max"]
    run = single([*HOPFIELD, "dataset=image_sequences", "dataset.length=6", *nearest])
    metrics = train([run])[0].metrics
    assert metrics["test_mse_final"] == metrics["test_online_mse_final"] == 0
    assert metrics["primary_metric"] == "test_mse_final" and metrics["parameters"] == 0


def test_a_mirrored_sequence_needs_what_came_before():
    """What follows the second of A B C B A is either of two images: the first of them that is as
    near is taken, and offline C B C B follow on A."""
    nearest = ["algorithm.similarity=euclidean", "algorithm.separation=max"]
    mirrored = ["dataset=image_sequences", "dataset.length=5", "dataset.mirrored=true"]
    run = single([*HOPFIELD, *mirrored, *nearest, "dataset.draw=1", "train.batch_size=1"])
    (outcome,) = train([run])
    b, c, *after = outcome.arrays["images/test"].reshape(4, 64)
    assert np.array_equal(after, [b, c]) and outcome.metrics["test_mse_final"] > 0.01


def test_signs_are_recalled_of_binary_sequences():
    """Two patterns of 100 bits are far below the capacity of an asymmetric Hopfield network; of
    200 the crosstalk's standard deviation is √2, and a bit is wrong with P[N(0, 2) > 1] = 0.24."""
    binary = [*HOPFIELD, "dataset=binary_sequences", "task.binary=true", "dataset.draw=1",
              "train.batch_size=1"]  # fmt: skip
    few = train([single([*binary, "dataset.length=3"])])[0].metrics
    assert few["test_bit_error_final"] == few["test_online_bit_error_final"] == 0
    many = train([single([*binary, "dataset.length=200"])])[0].metrics
    assert many["test_online_bit_error_final"] == pytest.approx(0.24, abs=0.02)


@pytest.mark.slow
def test_two_layers_remember_what_came_before():
    """Of A B C B A: one layer cannot know what follows B, two can."""
    overrides = ["preset=sequence/aliased_tpc", "dataset.source=digits", "model.width=64"]
    one, two = (
        train([single([*overrides, f"model.depth={depth}"])])[0].metrics["test_mse_final"]
        for depth in (1, 2)
    )
    assert two < one / 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=tpc", "model=mlp"], "tpc and model=temporal need each other"),
        (["algorithm=pc", "model=temporal"], "tpc and model=temporal need each other"),
        (["algorithm=hopfield_memory", "model=patterns"], "needs a rule that can follow"),
        (["algorithm=tpc", "model=temporal", "task=classification"], "rule that can predict"),
    ],
)
def test_what_is_no_memory_of_sequences_is_refused(overrides, message):
    facts = Facts((5, 7), samples=10, held_out=0, classes=1, targets=1)
    with pytest.raises(ConfigError, match=message):
        assemble(single([*MEMORY, *overrides]), facts, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (7,)}, "an example is to be a sequence"),
        ({"held_out": 3}, "tested on what it has stored"),
    ],
)
def test_a_memory_of_sequences_takes_whole_sequences(change, message):
    facts = Facts((5, 7), samples=10, held_out=0, classes=1, targets=1)
    SequenceMemory(facts)
    with pytest.raises(ValueError, match=message):
        SequenceMemory(facts._replace(**change))
