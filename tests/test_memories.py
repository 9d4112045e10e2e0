"""Memories in runs, in float32, and what is refused. Their identities are in `pcbench verify`."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from pcbench.config import ConfigError
from pcbench.memories.separation import SEPARATIONS, separate
from pcbench.memories.similarity import DISTANCES, SIMILARITIES
from pcbench.sweeps.expand import single
from pcbench.tasks.task import Task
from pcbench.training.assembly import assemble
from pcbench.training.datasets import load_dataset
from pcbench.training.train import train


class Retrieval(Task):
    """Every example of a split is a cue for the memory. Scored by its squared distance to what is
    retrieved."""

    needs = ("recall",)
    higher_is_better = False

    @property
    def outputs(self):
        return int(np.prod(self.data.shape))

    def pair(self, x, y):
        return x, x.reshape(len(x), -1)

    def evaluate(self, algorithm, trained, batch, hyper, key):
        known = jnp.zeros((), bool)
        found = algorithm.recall(trained, batch.x, batch.target, known, hyper, key)
        return {"distances": jnp.sum((found - batch.target) ** 2, -1)}

    def examples(self, found, y):
        return found["distances"]

    def score(self, found, images, y):
        return {"distance": np.mean(found["distances"], -1)}


def config(*overrides):
    """Of a run that stores 128 digits."""
    small = ["dataset.train_size=128", "train.epochs=1", "train.batch_size=64"]
    # the keys of `regression` are those of any task
    kind = ["task=regression", "algorithm=hopfield_memory", "model=patterns"]
    made = single([*kind, *small, *overrides])
    return replace(made, flat={**made.flat, "task.target": f"{__name__}.Retrieval"})


def test_a_run_stores_the_training_set():
    """A cue from elsewhere retrieves the training example that is nearest to it."""
    run = config("algorithm.similarity=euclidean")
    (outcome,) = train([run])
    data = load_dataset(run, lambda tree: tree)
    both = (data.train[0], data.images["test"])
    stored, cues = (2 * np.asarray(x).reshape(len(x), -1) - 1 for x in both)
    nearest = ((cues[:, None] - stored) ** 2).sum(-1).min(1)
    np.testing.assert_allclose(outcome.arrays["distances/test"], nearest, rtol=1e-4)
    assert outcome.status == "completed" and outcome.metrics["parameters"] == 0


def test_a_memory_has_no_metrics_of_gradients():
    (outcome,) = train([config()])
    assert not {"train_loss", "gradient_cosine", "energy_relaxed"} & outcome.metrics.keys()
    assert outcome.metrics["weight_updates"] == 0


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_members_of_a_pack_retrieve_what_single_runs_do(mode):
    softmax = ("algorithm.similarity=dot", "algorithm.separation=softmax")
    runs = [
        config(*softmax, f"algorithm.separation_strength={s}", f"seed={n}")
        for n, s in enumerate((0.1, 1.0))
    ]
    for run, packed in zip(runs, train(runs, mode), strict=True):
        alone = train([run])[0].metrics["test_distance_final"]
        assert packed.metrics["test_distance_final"] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("name", DISTANCES)
def test_an_exact_match_wins_in_float32(name):
    """Also of patterns of many elements, among neighbours that differ in one of them."""
    pattern = np.random.default_rng(0).uniform(size=784)
    patterns = np.tile(pattern, (20, 1)).astype(np.float32)
    patterns[np.arange(1, 20), np.arange(1, 20)] += 0.3
    scores = SIMILARITIES[name](patterns[:1], patterns)
    assert scores.dtype == np.float32 and np.argmax(scores) == 0 and np.isfinite(scores).all()


@pytest.mark.parametrize("name", [n for n in SEPARATIONS if n != "log"])
def test_normalised_weights_are_shares_in_float32(name):
    """Of scores of any size: their tenth powers would overflow or vanish."""
    stored, strength = np.array([True, True, True, False]), np.float32(1)
    for size in (1e-9, 1e12):
        scores = np.float32([[1, 2, 3, 9]]) * np.float32(size)
        weights = np.asarray(separate(name, scores, stored, strength, normalise=True))[0]
        assert weights.sum() == pytest.approx(1, abs=1e-6) and weights[3] == 0
        assert np.all(np.diff(weights[:3]) >= 0)


@pytest.mark.parametrize(
    "overrides,reason",
    [
        (["algorithm=hopfield_memory"], "model=patterns"),
        (["algorithm=pc", "model=patterns"], "no weights"),
        (["algorithm=ep", "algorithm.energy=hopfield", "model=patterns"], "no weights"),
        (["algorithm=hopfield_memory", "model=patterns"], "can predict"),
        (
            ["preset=memory/hopfield_mnist", "algorithm.separation=log", "dataset=digits"],
            "normalise",
        ),
        (["preset=mcpc/normal", "algorithm.updater=adam"], "updater=sgd"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, reason):
    run = single(overrides)
    facts = load_dataset(run, lambda tree: tree).facts
    with pytest.raises(ConfigError, match=reason):
        assemble(run, facts, 1)


def test_theory_of_networks_is_refused():
    run = config("train.theory=curvature")
    with pytest.raises(ConfigError, match=r"train\.theory"):
        assemble(run, load_dataset(run, lambda tree: tree).facts, 1)
