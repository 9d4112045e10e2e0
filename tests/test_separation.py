"""Source separation: what sources, mixtures and scores are, and what a blind rule finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.data.sources import copula, onto_simplex, sources
from pcbench.sweeps.execute import check
from pcbench.sweeps.expand import expand, single
from pcbench.tasks.source_separation import SourceSeparation
from pcbench.training.train import train

PRESET = "preset=separation/pem_antisparse"


def drawn(domain, correlation=0.0, samples=2000):
    config = {
        "domain": domain, "correlation": correlation, "sources": 4, "samples": samples,
        "test_samples": 10,
    }  # fmt: skip
    return sources(config).train.x.astype(np.float64)


@pytest.fixture
def task():
    return SourceSeparation(Facts((4,), samples=500, held_out=0, classes=None, targets=4))


def score(task, outputs, true):
    found = {"outputs": outputs[None], "sources": true[None]}
    return {name: values[0] for name, values in task.score(found, None, None).items()}


def test_sources_fill_their_domains():
    rounding = 1e-6
    assert np.abs(drawn("antisparse")).max() <= 1
    assert drawn("nonnegative_antisparse").min() >= 0
    for domain in ("sparse", "nonnegative_sparse", "simplex"):
        total = np.abs(drawn(domain)).sum(1)
        assert total.max() <= 1 + rounding
    assert drawn("nonnegative_sparse").min() >= 0
    x = drawn("simplex")
    assert x.min() >= 0 and np.allclose(x.sum(1), 1, atol=rounding)


def test_a_copula_is_uniform_in_each_component_and_dependent_in_pairs():
    x = copula(np.random.default_rng(0), 40_000, 3, 0.5)
    grid = np.linspace(0.05, 0.95, 19)
    for column in x.T:  # Kolmogorov's distance of 40,000 samples is below .0096 in 99.9 % of cases
        assert np.abs(np.searchsorted(np.sort(column), grid) / len(column) - grid).max() < 0.0096
    # Spearman's correlation of a t copula with four degrees of freedom is a little below that of
    # the normal one, 6/π·arcsin(ρ/2)
    spearman = np.corrcoef(x.T)[0, 1]
    assert 0.9 * 6 / np.pi * np.arcsin(0.25) < spearman < 6 / np.pi * np.arcsin(0.25) + 0.01


def test_projection_onto_the_simplex_is_the_nearest_point():
    """Its optimality: for p in the simplex, (x - Πx)·(p - Πx) ≤ 0."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 4))
    found = onto_simplex(x)
    corners = np.eye(4)
    assert np.allclose(found.sum(1), 1)
    inner = np.einsum("bi,bci->bc", x - found, corners[None] - found[:, None])
    assert inner.max() < 1e-12


def test_scores_forgive_order_sign_and_scale_and_nothing_else(task):
    true = drawn("antisparse")
    changed = true[:, [2, 0, 3, 1]] * np.array([-3.0, 0.5, 2.0, -1.0])
    assert score(task, changed, true)["sinr"] > 200  # rounding
    noise = np.random.default_rng(1).normal(size=true.shape)
    noise -= true * (noise * true).sum(0) / (true**2).sum(0)  # orthogonal: the scale stays 1 …
    noise *= np.sqrt(0.01 * (true**2).sum(0) / (noise**2).sum(0))
    # … up to the factor 1/(1+.01) that gives the least error, .01/1.01 of the power
    assert score(task, true + noise, true)["sinr"] == pytest.approx(10 * np.log10(101))
    mixed = true @ np.ones((4, 4))
    assert score(task, mixed, true)["duplicates"] == 3
    assert np.isnan(score(task, np.full_like(true, np.nan), true)["sinr"])


def test_mixtures_have_the_noise_that_was_asked_for(task):
    x = jnp.asarray(drawn("antisparse"))
    numbers = {"task": {"snr": jnp.asarray(10.0)}}
    clean, _ = task.given(x, x, {"task": {"snr": jnp.asarray(400.0)}}, jax.random.key(0))
    noisy, same = task.given(x, x, numbers, jax.random.key(0))
    ratio = jnp.sum(clean**2) / jnp.sum((noisy - clean) ** 2)
    assert 10 * jnp.log10(ratio) == pytest.approx(10, abs=0.3)
    assert np.array_equal(same, x)


def test_every_seed_has_a_mixture_of_its_own_in_one_program():
    small = ["dataset.samples=400", "dataset.draw=200", "train.batch_size=50"]
    configs, _ = expand(None, [PRESET, *small, "seed=0,1", "task.snr=10,30"])
    assert len({config.static_key for config in configs}) == 1
    sources = [outcome.arrays["sources/test"] for outcome in train(configs, "vmap")]
    same = [np.array_equal(sources[0], other) for other in sources]
    assert same == [c["seed"] == configs[0]["seed"] for c in configs]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=hopfield_memory"], "can separate"),
        (["dataset=digits"], "dataset=sources"),
        (["algorithm=fastica"], "train.batch_size="),
        (["model=linear"], "model=patterns"),
        (["train.validation_fraction=0.1"], "train.validation_fraction=0"),
    ],
)
def test_what_cannot_be_separated_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        check([single([PRESET, *overrides])])


@pytest.mark.slow
def test_independent_sources_are_found_by_all_and_dependent_ones_not_by_independent_components():
    """A tenth of the published stream."""
    size = ["dataset.samples=20000", "dataset.draw=10000"]
    ica = ["preset=separation/fastica", "train.batch_size=10000"]

    def sinr(*overrides):
        return train([single([*overrides, *size])])[0].metrics["test_sinr_final"]

    assert sinr(PRESET) > 20 and sinr(*ica) > 25
    dependent = "dataset.correlation=0.5"
    assert sinr(*ica, dependent) < 10
