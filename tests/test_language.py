"""Language modelling: what windows of a text hold, what perplexity is, what a network may see."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcbench import data
from pcbench.algorithms.base import Batch, Trained
from pcbench.config import ConfigError
from pcbench.config.compose import choices
from pcbench.data import Facts, text
from pcbench.networks.transformer import transformer
from pcbench.sweeps.expand import single
from pcbench.tasks.language_modelling import LanguageModelling
from pcbench.training.assembly import assemble
from pcbench.training.train import train

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


# --- the task

FACTS = Facts((4,), samples=100, held_out=10, classes=7, targets=1, text=True)
TASK = ("dataset=tiny_shakespeare", "task=language_modelling")
ALL = ("model=transformer", "model.causal=true", "task.positions=all")


def task(context="causal", positions="one") -> LanguageModelling:
    return LanguageModelling(FACTS, "cross_entropy", context, positions)


class Says:
    """A rule that predicts the same logits (B, outputs) whatever it is given."""

    def __init__(self, logits):
        self.logits = jnp.asarray(logits)

    def predict(self, weights, x, hyper):
        return self.logits


def scores(of: LanguageModelling, logits, x, y) -> dict:
    given, target = of.pair(jnp.asarray(x, float), jnp.asarray(y))
    batch = Batch(given, target, np.arange(len(x)), 0)
    found = of.evaluate(Says(logits), Trained((), ()), batch, {}, None)
    found = {name: np.asarray(values)[None] for name, values in found.items()}
    return {name: values[0] for name, values in of.score(found, None, y).items()}


X = np.random.default_rng(0).integers(7, size=(6, 4))
Y = np.random.default_rng(1).integers(7, size=6)


@pytest.mark.parametrize(
    ("kind", "count"), [(("causal", "one"), 1), (("causal", "all"), 4), (("masked", "one"), 1)]
)
def test_the_perplexity_of_a_uniform_guess_is_the_size_of_the_vocabulary(kind, count):
    guess = scores(task(*kind), np.full((6, 7 * count), 0.3), X, Y)
    assert guess["perplexity"] == pytest.approx(7, rel=1e-6)
    assert task(*kind).chance == 7


def test_perplexity_is_the_exponential_of_the_mean_negative_log_likelihood():
    """Of the probabilities that a softmax gives to the right characters: a mean over all that are
    predicted, not of the perplexities of windows."""
    logits = np.random.default_rng(2).normal(size=(6, 4, 7))
    right = np.concatenate([X[:, 1:], Y[:, None]], 1)
    nll, hits = [], []
    for window, targets in zip(logits, right, strict=True):
        for row, target in zip(window, targets, strict=True):
            nll.append(-np.log(np.exp(row[target]) / np.exp(row).sum()))
            hits.append(row.argmax() == target)
    found = scores(task("causal", "all"), logits.reshape(6, -1), X, Y)
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(nll)), rel=1e-6)
    assert found["accuracy"] == pytest.approx(np.mean(hits))
    last = scores(task(), logits[:, -1], X, Y)
    assert last["perplexity"] == pytest.approx(np.exp(np.mean(nll[3::4])), rel=1e-6)


def test_the_output_energy_sums_over_positions():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(6, 4, 7)))
    _, target = task("causal", "all").pair(jnp.asarray(X, float), jnp.asarray(Y))
    energy = task("causal", "all").output_energy(logits.reshape(6, -1), target)
    one = task().output_energy
    apart = sum(one(logits[:, n], target.reshape(6, 4, 7)[:, n]) for n in range(4))
    np.testing.assert_allclose(energy, apart, rtol=1e-6)


def test_causal_targets_are_the_next_characters():
    given, target = task().pair(jnp.asarray(X, float), jnp.asarray(Y))
    assert given.shape == (6, *task().input_shape) and target.shape == (6, task().outputs)
    assert np.array_equal(given.argmax(-1), X) and np.array_equal(target.argmax(-1), Y)
    assert np.array_equal(given.sum(-1), np.ones((6, 4)))
    every = task("causal", "all").pair(jnp.asarray(X, float), jnp.asarray(Y))[1]
    following = every.reshape(6, 4, 7).argmax(-1)
    assert np.array_equal(following, np.concatenate([X[:, 1:], Y[:, None]], 1))


def test_a_masked_character_is_the_target_and_not_in_the_input():
    """The input is the same whatever the centre is, and shows all the others."""
    given, target = task("masked").pair(jnp.asarray(X, float), jnp.asarray(Y))
    assert np.array_equal(target.argmax(-1), X[:, 2])
    other = X.copy()
    other[:, 2] = (other[:, 2] + 1) % 7
    assert np.array_equal(given, task("masked").pair(jnp.asarray(other, float), Y)[0])
    assert np.array_equal(given[:, [0, 1, 3]].argmax(-1), X[:, [0, 1, 3]])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=hopfield_memory", "model=patterns"], "can predict"),
        (["algorithm=bp", "task.loss=squared_error"], "task.loss=cross_entropy"),
        (["algorithm=bp", *ALL, "task.context=masked"], "task.positions=one"),
        (["algorithm=bp", "task.positions=all"], "model.causal=true"),
        (["algorithm=bp", *ALL, "task.positions=one"], "task.positions=all"),
        (["algorithm=graph_pc", "model=graph"], "task.loss=squared_error"),
    ],
)
def test_what_cannot_model_a_language_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        assemble(single([*TASK, *overrides]), FACTS, 10)


def test_a_causal_network_is_refused_where_one_character_is_predicted():
    """Also where the number of outputs would be divisible."""
    facts = Facts((7,), samples=100, held_out=10, classes=7, targets=1, text=True)
    with pytest.raises(ConfigError, match=r"task\.positions=all, and a network .* need each other"):
        assemble(single([*TASK, "algorithm=bp", *ALL, "task.positions=one"]), facts, 10)


@pytest.mark.parametrize("name", [n for n in choices("preset") if n.startswith("language/")])
def test_each_preset_predicts_next_and_masked_characters(name):
    """Rules are compared at equal weight updates."""
    masked = ["task.context=masked", "task.positions=one"]
    masked += ["model.causal=false"] if "transformer" in name else []
    for overrides in ([], masked):
        config = single([f"preset={name}", *overrides])
        facts = Facts((config["dataset.length"],), 10_000, 10, classes=65, targets=1, text=True)
        rule, _ = assemble(config, facts, 10)
        updates = config["train.epochs"] * config["train.epoch_steps"]
        assert updates * rule.weight_updates_per_step == (1500 if "transformer" in name else 8000)


@pytest.mark.parametrize("name", ["digits", "two_moons", "gaussian", "binary_sequences"])
def test_other_data_are_no_text(name):
    facts = data.load(single([f"dataset={name}"])["dataset"], 0).facts
    with pytest.raises(ConfigError, match="dataset=tiny_shakespeare"):
        assemble(single([f"dataset={name}", "task=language_modelling"]), facts, 10)


# --- networks


def test_a_causal_transformer_sees_the_past_only():
    """The output at a token depends on it and on those before, on each of them."""
    model = {
        "width": 8, "depth": 3, "heads": 2, "norm": "layer", "activation": "tanh", "bias": True,
        "causal": True,
    }  # fmt: skip
    network = transformer(model, (5, 7), 5 * 3)
    generator = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda d: jnp.asarray(generator.normal(0, 0.3, d.value.shape)),
        network.declared,
        is_leaf=lambda node: hasattr(node, "role"),
    )
    output = lambda x: network.forward(weights, x[None])[-1].reshape(5, 3)  # noqa: E731
    slope = jax.jit(jax.jacobian(output))(jnp.asarray(generator.normal(size=(5, 7))))
    reaches = np.abs(slope).max((1, 3)) > 1e-6  # of each output's token, the input's tokens
    assert np.array_equal(reaches, np.tri(5, dtype=bool))


# --- learning

SMALL = ("model.width=32", "dataset.length=4", "optimizer=adam", "optimizer.lr=3e-3",
         "train.batch_size=32", "train.epochs=1", "train.probe_size=32")  # fmt: skip
MLP, DEEP = ("model=mlp", "model.depth=2"), (*ALL, "model.depth=3")
GENTLE = ("algorithm.step_size=0.005", "algorithm.momentum=0")  # the norms make the energy steep


@pytest.fixture
def small_language(monkeypatch):
    """Each of six characters is followed by one of two, both with probability 1/2."""
    generator = np.random.default_rng(0)
    texts = {
        name: np.cumsum(generator.integers(1, 3, size)).astype(np.uint8) % 6
        for name, size in (("train", 6000), ("validation", 1000), ("test", 1000))
    }
    monkeypatch.setattr(text, "load", lambda config: text.windows(texts, config["length"], 1))


@pytest.mark.parametrize(
    ("rule", "network"),
    [
        ("bp", MLP),
        ("pc", MLP),
        ("ipc", MLP),
        ("bp", (*MLP, "task.context=masked")),
        pytest.param("bp", DEEP, marks=pytest.mark.slow),
        pytest.param("pc", (*DEEP, *GENTLE), marks=pytest.mark.slow),
        pytest.param("ipc", (*DEEP, *GENTLE), marks=pytest.mark.slow),
    ],
)
def test_a_language_is_learned(rule, network, small_language):
    """The perplexity falls below half of the vocabulary, and not below that of the language itself:
    2; between two characters it is 2 where they are three apart, else 1."""
    (outcome,) = train([single([*TASK, f"algorithm={rule}", *network, *SMALL])])
    found = outcome.metrics
    least = 2**0.5 if "task.context=masked" in network else 2
    assert outcome.status == "completed" and found["chance"] == 6
    assert found["primary_metric"] == "test_perplexity_at_best_validation"
    assert found["primary_higher_is_better"] is False
    assert 0.95 * least < found["validation_perplexity_best"] < 3
    assert found["test_accuracy_final"] > 1 / 3
