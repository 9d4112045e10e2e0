"""Recurrent networks and memories of sequences in runs. Identities are in `pcbench verify`."""

import numpy as np
import pytest

from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.sweeps.expand import single
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
