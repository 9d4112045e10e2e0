"""Tasks: how patterns are corrupted, what scores mean, which rules a task accepts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcbench import data
from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.memories.corruption import CORRUPTIONS
from pcbench.sweeps.expand import single
from pcbench.tasks.classification import in_top5, within_classes
from pcbench.tasks.completion import Completion
from pcbench.tasks.generation import wasserstein
from pcbench.training.assembly import assemble
from pcbench.training.datasets import load_dataset
from pcbench.training.program import Placement, build, hyper_of
from pcbench.training.train import train

IMAGES = jax.random.uniform(jax.random.key(0), (50, 8, 6, 3), minval=0.1)
MEMORY = ["task=completion", "task.corruption=pixels", "dataset.draw=20", "train.batch_size=20",
          "train.validation_fraction=0", "train.selection=final"]  # fmt: skip
PC_MEMORY = [*MEMORY, "model=decoder", "algorithm=pc", "algorithm.start=persistent",
             "algorithm.steps=5", "algorithm.momentum=0", "algorithm.eval_steps=6000",
             "model.latent=32", "model.depth=1", "train.epochs=600", "train.eval_every=600",
             "optimizer=adam", "optimizer.lr=0.01", "task.level=0.3"]  # fmt: skip


DECODER = ["model=decoder", "model.latent=16", "model.width=64", "model.prior=standard",
           "task=generation", "optimizer=adam"]  # fmt: skip


@pytest.mark.parametrize("level", [0.25, 0.5])
@pytest.mark.parametrize("name", ["mask", "pixels"])
def test_what_is_known_is_right_and_the_rest_is_missing(name, level):
    cue, known = CORRUPTIONS[name](jax.random.key(1), IMAGES, level)
    known = jnp.broadcast_to(known, IMAGES.shape)
    assert (cue == jnp.where(known, IMAGES, 0)).all()
    assert float(jnp.mean(~known)) == pytest.approx(level, abs=0.03)
    assert (known == known[..., :1]).all(), "all channels of a pixel"


def test_noise_has_its_standard_deviation_and_leaves_nothing_known():
    cue, known = CORRUPTIONS["noise"](jax.random.key(1), IMAGES, 0.3)
    assert float(jnp.std(cue - IMAGES)) == pytest.approx(0.3, rel=0.03)
    assert float(jnp.mean(cue - IMAGES)) == pytest.approx(0, abs=0.02)
    assert not jnp.any(known)


def test_clipped_noise_is_reflected_at_zero_and_cut_at_one():
    noisy, _ = CORRUPTIONS["noise"](jax.random.key(1), IMAGES, 0.5)
    clipped, known = CORRUPTIONS["clipped_noise"](jax.random.key(1), IMAGES, 0.5)
    inside, below, above = (noisy >= 0) & (noisy <= 1), (noisy < 0) & (noisy > -1), noisy > 1
    for where, expected in ((inside, noisy), (below, -noisy), (above, 1)):
        assert where.any() and (clipped == expected)[where].all()
    assert not jnp.any(known)
    with pytest.raises(ConfigError, match=r"set dataset\.mean"):
        single([*MEMORY, "dataset=mnist", "task.corruption=clipped_noise"])


def test_a_shift_moves_each_image_within_its_bounds():
    cue, _ = CORRUPTIONS["shift"](jax.random.key(1), IMAGES, jnp.float32(2))
    moves = set()
    for image, moved in zip(np.asarray(IMAGES), np.asarray(cue), strict=True):
        found = [
            (i, j)
            for i in range(-2, 3)
            for j in range(-2, 3)
            if np.array_equal(moved, _moved(image, i, j))
        ]
        assert len(found) == 1
        moves |= set(found)
    assert len(moves) > 10, "and not all alike"


def _moved(image, i, j):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    rows, columns = image.shape[:2]
    return padded[2 - i : 2 - i + rows, 2 - j : 2 - j + columns]


def test_a_block_is_missing_of_each_image():
    cue, known = CORRUPTIONS["block"](jax.random.key(1), IMAGES, jnp.float32(3))
    known = np.broadcast_to(known, IMAGES.shape)
    assert (cue == np.where(known, IMAGES, 0)).all()
    missing = ~known[..., 0]
    rows, columns = (missing.any(axis).sum(1) for axis in (2, 1))
    assert set(rows) == set(columns) == {3} and set(missing.sum((1, 2))) == {9}
    assert len({tuple(m.ravel()) for m in missing}) > 10, "and not all alike"


def test_a_decoder_with_persistent_states_is_a_memory():
    """Thirty percent of the pixels are missing: all patterns come back."""
    outcome = train([single(PC_MEMORY)])[0]
    assert outcome.metrics["test_success_final"] == 1
    assert outcome.metrics["test_index_accuracy_final"] == 1
    assert outcome.metrics["test_mse_final"] < 1e-5
    errors = outcome.arrays["errors/test"]
    assert outcome.metrics["test_mse_final"] == pytest.approx(errors.mean())
    assert outcome.arrays["images/test"].shape == (16, 64), "a few are kept to be shown"
    recalled, cues = outcome.arrays["images/test"], outcome.arrays["cues/test"]
    known = cues != 0
    assert np.array_equal(recalled[known], cues[known]), "what is known stays"


def test_each_seed_draws_patterns_of_its_own_whatever_the_rule():
    def cues(*overrides):
        return train([single([*MEMORY, "task.level=0", "train.epochs=1", *overrides])])[0].arrays

    memory = ["model=decoder", "algorithm=pc", "algorithm.start=zeros", "model.latent=4"]
    auto = ["model=mlp", "algorithm=bp", "model.width=4"]
    one, other = cues(*memory), cues(*memory, "seed=1")
    assert np.array_equal(one["cues/test"], cues(*auto)["cues/test"])
    assert not np.array_equal(one["cues/test"], other["cues/test"])
    assert one["errors/test"].shape == (20,)


def test_what_is_clipped_is_scored_within_the_range_of_pixels():
    """The identity separation sums patterns: far more than 1, unless that is cut."""
    sums = [*MEMORY, "model=patterns", "algorithm=hopfield_memory", "algorithm.similarity=dot",
            "algorithm.separation=identity", "algorithm.normalise=false", "train.epochs=1",
            "dataset.mean=[0]", "dataset.std=[1]"]  # fmt: skip
    free, clipped = (train([single([*sums, f"task.clip={clip}"])])[0] for clip in ("false", "true"))
    found, cut = free.arrays["images/test"], clipped.arrays["images/test"]
    assert found.max() > 2 and np.array_equal(cut, np.clip(found, 0, 1))
    assert clipped.metrics["test_mse_final"] < free.metrics["test_mse_final"]


@pytest.mark.parametrize("rule", ["hopfield_memory", "bp"])
def test_cues_retrieve_their_pairs(rule):
    """Uncorrupted ones: the next pattern of the seed's own, of a nearest neighbour exactly."""
    network = ["model=patterns"] if rule == "hopfield_memory" else ["model.depth=2"]
    pairs = [*MEMORY, "task.association=hetero", "task.level=0", f"algorithm={rule}", *network]
    more = ["train.epochs=300", "train.eval_every=300", "optimizer.lr=0.01"]
    (outcome,) = train([single([*pairs, *(more if rule == "bp" else ["train.epochs=1"])])])
    cues, found = outcome.arrays["cues/test"], outcome.arrays["images/test"]
    assert outcome.metrics["test_index_accuracy_final"] == 1
    if rule == "bp":
        np.testing.assert_allclose(found[:-1], cues[1:], atol=0.2)
    else:
        assert np.array_equal(found[:-1], cues[1:])
        assert outcome.metrics["test_success_final"] == 1 and outcome.metrics["test_mse_final"] == 0


FEATURES = [*MEMORY, "algorithm=feature_memory", "model.states=pre", "model.widths=[32,16,32]",
            "optimizer=adam", "algorithm.view_shift=1", "algorithm.view_block=2",
            "task.corruption=shift", "task.level=1", "task.learns_from=others",
            "train.batch_size=100", "train.epochs=10", "train.eval_every=10"]  # fmt: skip


def test_a_memory_in_feature_space_recognises_what_was_shifted():
    """Of the same stored digits, more are recognised by what an encoder makes of them than pixel by
    pixel; what it learns from are others."""
    features, pixels = single(FEATURES), single(
        [*MEMORY, "task.corruption=shift", "task.level=1", "algorithm=hopfield_memory",
         "model=patterns", "train.epochs=1"]
    )  # fmt: skip
    (one,), (other,) = train([features]), train([pixels])
    assert np.array_equal(one.arrays["cues/test"], other.arrays["cues/test"])
    assert one.metrics["test_index_accuracy_final"] > other.metrics["test_index_accuracy_final"]


def test_what_is_learned_from_is_not_what_is_stored():
    """Together they are the training set, of each seed in its own way."""
    config = single([*FEATURES, "dataset.draw=1000"])
    data = load_dataset(config, lambda tree: tree)
    program = build(config, data.facts, 1, "none", Placement(1))
    numbers = jax.tree.map(lambda a: a[0], hyper_of([config]))
    own, rest = (part(numbers, *data.train)[0] for part in (program._drawn, program._learned))
    assert len(own) == 1000 and len(rest) == data.facts.others == 437
    both = np.concatenate([own, rest]).reshape(1437, -1)
    whole = np.asarray(data.train[0]).reshape(1437, -1)
    assert np.array_equal(np.sort(both, 0), np.sort(whole, 0))


def test_packs_of_memories_equal_single_runs():
    configs = [single([*PC_MEMORY, "train.epochs=3", f"seed={s}"]) for s in range(3)]
    pack = train(configs, "map")
    alone = [train([config])[0] for config in configs]
    for one, member in zip(alone, pack, strict=True):
        assert np.array_equal(one.arrays["images/test"], member.arrays["images/test"])


def test_generation_rmse_is_the_distance_from_the_class_mean():
    """E‖g - x‖² exceeds the variance within the classes by ‖g - mean‖²."""
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    x = generator.normal(size=(120, 2, 3)) + y[:, None, None]
    made = np.array([0.5, 1.5, 2.0])[y][:, None, None] * np.ones((120, 2, 3))
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    excess = np.mean((made - x) ** 2) - within_classes(x, y)
    assert excess == pytest.approx(np.mean((made - means[y]) ** 2))


def test_a_label_is_in_the_top_five_if_fewer_than_five_outputs_are_larger():
    outputs = jax.random.normal(jax.random.key(0), (200, 20))
    labels = jax.random.randint(jax.random.key(1), (200,), 0, 20)
    five = np.argsort(np.asarray(outputs), -1)[:, -5:]
    found = in_top5(outputs, labels)
    assert (found == (five == labels[:, None]).any(-1)).all()
    assert found.any() and not found.all()


def test_labels_generate_the_means_of_their_classes():
    overrides = ["task=generation", "task.condition=label", "algorithm=bp", "model.depth=2"]
    outcome = train([single([*overrides, "train.epochs=20", "optimizer.lr=0.01"])])[0]
    digits = data.load(single([])["dataset"], 0.1)
    scale = np.std(digits.test.x.mean(0))
    assert outcome.metrics["test_generation_rmse_final"] < 0.25 * scale + 0.1
    assert outcome.metrics["primary_metric"] == "test_mse_at_best_validation"


def test_the_wasserstein_distance_of_shifted_sets_is_the_shift():
    a = np.random.default_rng(0).normal(size=(500, 1))
    assert wasserstein(a, a[::-1]) == 0
    assert wasserstein(a, a + 0.7) == pytest.approx(0.7)
    b = np.random.default_rng(1).normal(size=(500, 5))
    moved = b + np.array([3.0, 0, 0, 0, 0])
    # the mean of |cos| of a direction with the shift, of 64 directions in five dimensions
    assert 0.5 < wasserstein(b, moved) / 3 / 0.375 < 1.5


def test_a_variational_autoencoder_reconstructs_and_samples_digits():
    """Nearer to an image than the mean of all is; what samples vary by, beside the noise, is some
    of what images do."""
    overrides = ["algorithm=vae", *DECODER, "algorithm.output_variance=0.1", "train.epochs=30"]
    outcome = train([single([*overrides, "train.eval_every=30"])])[0]
    images = data.load(single([])["dataset"], 0.1).test.x
    images = (images.reshape(len(images), -1) - 0.5) / 0.5
    variance = images.var(0).mean()
    assert outcome.metrics["test_mse_final"] < 0.5 * variance
    assert outcome.metrics["test_sample_mean_final"] == pytest.approx(images.mean(), abs=0.1)
    assert 0.3 < (outcome.metrics["test_sample_variance_final"] - 0.1) / variance < 1.1
    encoder = [v for k, v in outcome.arrays.items() if k.startswith("weights/encoder/")]
    weights = [v for k, v in outcome.arrays.items() if k.startswith("weights/")]
    assert len(encoder) == len(weights) / 2 == 6
    assert outcome.metrics["parameters"] == sum(v.size for v in weights)


@pytest.mark.parametrize("algorithm", ["pc", "ipc", "vae"])
def test_what_is_measured_of_a_generative_network(algorithm):
    """The loss is that of reconstructions; what compares predictions is undefined, and so null."""
    overrides = [f"algorithm={algorithm}", *DECODER, "train.epochs=2", "train.probe_size=1293"]
    outcome = train([single(overrides)])[0]
    per_pixel = outcome.metrics["train_loss"] * 2 / 64
    assert per_pixel == pytest.approx(outcome.metrics["test_mse_final"], rel=0.1)
    assert outcome.metrics["energy_relaxed"] <= outcome.metrics["energy_initial"]
    compared = ["target_alignment", "target_alignment_finite", "gradient_cosine", "gradient_error"]
    assert np.isnan([outcome.metrics[name] for name in compared]).all()
    assert (outcome.arrays["probe/update_norm"][:, 1:] > 0).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model=decoder", "task=generation", "algorithm=bp"],
            "has no input.*pc, ipc and mcpc",
        ),
        ([*MEMORY, "algorithm=ep"], "needs a rule that can recall"),
        (["task=generation", "task.loss=cross_entropy"], "has loss=squared_error"),
        (["algorithm=vae"], "learns generative networks: choose model=decoder"),
        (["algorithm=vae", "model=decoder", "task=generation"], "set model.prior=standard"),
        (["algorithm.precisions=[1,1]"], "2 values, one for each of the network's 4 layers"),
        (
            ["task=generation", "model=decoder", "algorithm.precisions=[1,1,1]"],
            "3 values, .* 4 layers .latent states count as one",
        ),
        ([*MEMORY, "task.corruption=mask"], "corruption=mask is for images"),
        ([*MEMORY, "task.learns_from=others"], "needs a rule that can store"),
        ([*MEMORY, "task.association=hetero", "model=decoder"], "needs a rule that can associate"),
    ],
)
def test_a_task_says_what_it_needs(overrides, message):
    config = single(overrides)
    facts = Facts((64,), samples=100, held_out=0, classes=10, targets=1, others=80)
    with pytest.raises(ConfigError, match=message):
        assemble(config, facts, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["model.widths=null", "model.depth=1"], "needs a hidden layer to embed in"),
        (["algorithm.retrieves=decoded", "task.association=hetero"], "that can associate"),
    ],
)
def test_a_memory_in_feature_space_says_what_it_needs(change, message):
    facts = Facts((8, 8, 1), samples=20, held_out=0, classes=10, targets=1, others=80)
    with pytest.raises(ConfigError, match=message):
        assemble(single([*FEATURES, *change]), facts, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": 10}, "tested on what it has stored: set train.validation_fraction=0"),
        ({"augmented": True}, "patterns as they are: set dataset.flip=false"),
    ],
)
def test_memories_refuse_what_would_change_their_patterns(change, message):
    facts = Facts((8, 8, 1), samples=100, held_out=0, classes=10, targets=1)
    Completion(facts)
    with pytest.raises(ValueError, match=message):
        Completion(facts._replace(**change))


def test_a_cue_of_a_memory_is_scored_by_what_comes_back():
    """A rule that returns its cue: its error is that of the cue."""

    class Echo:
        class network:
            given = staticmethod(lambda x: x)

        @staticmethod
        def recall(trained, x, y, known, hyper, key):
            return y

    facts = Facts((8, 6, 3), samples=50, held_out=0, classes=2, targets=1)
    task = Completion(facts, corruption="mask")
    stored = IMAGES.reshape(50, -1)
    hyper = {"task": {"level": jnp.float32(0.5), "threshold": jnp.float32(1e-3)}}

    class batch:
        x, target = IMAGES, stored

    found = task.evaluate(Echo(), None, batch, hyper, jax.random.key(0))
    lower = np.asarray(IMAGES)[:, 4:]
    np.testing.assert_allclose(found["errors"], (lower**2).mean((1, 2, 3)) / 2, rtol=1e-5)
    assert not found["successes"].any()
