"""Tasks whose labels change during training: who is taught what, when, and how it is scored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.results.columns import validation_column
from pcbench.sweeps.expand import expand, single
from pcbench.sweeps.tune import objective
from pcbench.tasks.changing import AlternatingTasks, ConceptDrift
from pcbench.training.assembly import assemble
from pcbench.training.datasets import load_dataset
from pcbench.training.program import _ordered, member_key
from pcbench.training.train import train

FACTS = Facts((64,), samples=100, held_out=0, classes=10, targets=1)
CLASSES = jnp.arange(10)
KEYS = [jax.random.key(n) for n in range(20)]
SMALL = ["model.width=32", "model.depth=2", "algorithm=bp", "optimizer=adam", "optimizer.lr=0.003"]
TURNS = [*SMALL, "task=alternating_tasks", "task.interval=3"]


def test_drifting_labels_are_permuted_at_each_change_and_the_others_stay():
    task = ConceptDrift(FACTS, interval=3, drifting=4)
    labels = np.array([[task.at(CLASSES, epoch, key)[0] for epoch in range(9)] for key in KEYS])
    assert (labels[:, :3] == np.arange(10)).all(), "none before the first change"
    assert (labels[..., :6] == np.arange(6)).all()
    assert (np.sort(labels[..., 6:], -1) == np.arange(6, 10)).all()
    for start in (3, 6):
        assert (labels[:, start : start + 3] == labels[:, start : start + 1]).all()
    assert (labels[:, 6] != labels[:, 3]).any(), "each change is another one"
    assert len(np.unique(labels[:, 3], axis=0)) > 1, "each seed has its own"


@pytest.mark.parametrize("following", ["paper", "code"])
def test_tasks_take_turns_and_each_class_belongs_to_one(following):
    task = AlternatingTasks(FACTS, interval=3, tasks=2, following=following)
    for key in KEYS:
        labels, taught = zip(*(task.at(CLASSES, epoch, key) for epoch in range(12)), strict=True)
        taught = np.array(taught)
        assert (taught[:3] == taught[0]).all() and (taught[3:6] == ~taught[0]).all()
        assert (taught[6:] == taught[:6]).all() and taught[0].sum() == 5
        assert (np.array(labels) == labels[0]).all(), "a class keeps its output"
    assert task.outputs == 5 and task.chance == 0.2


def test_classes_of_a_task_have_outputs_of_their_own_but_in_the_published_code():
    """There 32 of the 252 ways to choose five of ten labels have five different ones modulo 5."""

    def collisions(following):
        task = AlternatingTasks(FACTS, tasks=2, following=following)
        keys = jax.random.split(jax.random.key(3), 2000)
        labels, taught = map(np.asarray, jax.vmap(lambda key: task.at(CLASSES, 0, key))(keys))
        return [len(set(own[of])) < 5 for own, of in zip(labels, taught, strict=True)]

    assert not any(collisions("paper"))
    assert np.mean(collisions("code")) == pytest.approx(1 - 32 / 252, abs=0.03)
    first = AlternatingTasks(FACTS, tasks=2, following="code").at(CLASSES, 0, KEYS[0])[1]
    assert (first == (CLASSES < 5)).all(), "there the tasks are the same for all seeds"


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_only_what_is_taught_is_learned_from_and_all_of_it_equally_often(share):
    taught = jax.random.uniform(jax.random.key(1), (200,)) < share
    order = np.asarray(_ordered(jax.random.key(2), 200, taught))
    counts = np.bincount(order, minlength=200)
    assert (counts[~taught] == 0).all()
    assert np.ptp(counts[taught]) <= 1
    assert len(set(order[: int(taught.sum())])) == int(taught.sum()), "each once before again"
    assert (order != np.sort(order)).any()


def test_an_epoch_of_all_examples_is_in_the_same_order_as_without_a_task_that_changes():
    plain = _ordered(jax.random.key(2), 50, None)
    assert (plain == _ordered(jax.random.key(2), 50, jnp.ones(50, bool))).all()


def right_by_task(config):
    """Shares of the test examples of the first task and of all others that a run gets right."""
    (outcome,) = train([config])
    data = load_dataset(config, lambda tree: tree)
    _, task = assemble(config, data.facts, 20)
    key = member_key({"seed": jnp.uint32(config["seed"])}, "change")
    _, first = task.at(jnp.asarray(data.labels["test"]), 0, key)
    right = outcome.arrays["right/test"]
    assert outcome.metrics["test_accuracy_final"] == pytest.approx(right.mean(), abs=1e-6)
    return right[first].mean(), right[~first].mean()


def test_a_task_is_unknown_before_its_turn_and_forgotten_in_that_of_another():
    """Five outputs: guessing is right one time in five."""
    taught, other = right_by_task(single([*TURNS, "task.interval=10", "train.epochs=10"]))
    assert taught > 0.95 and other < 0.4
    after, now = right_by_task(single([*TURNS, "task.interval=10", "train.epochs=20"]))
    assert after < taught - 0.1 and now > 0.9


@pytest.mark.parametrize("algorithm", ["bp", "pc"])
def test_the_last_output_learns_nothing_in_the_published_code(algorithm):
    def last_outputs(*more):
        (outcome,) = train([single([*TURNS, f"algorithm={algorithm}", *more])])
        kernel = outcome.arrays["weights/1/W"]
        return kernel[:, -1], kernel[:, 0]

    untrained = last_outputs("train.max_steps=0", "task.following=code")
    trained = last_outputs("train.epochs=2", "task.following=code")
    assert (trained[0] == untrained[0]).all() and (trained[1] != untrained[1]).any()
    described = last_outputs("train.epochs=2", "task.following=paper")
    assert (described[0] != untrained[0]).any()


def test_the_score_is_the_mean_over_the_training():
    (outcome,) = train([single([*TURNS, "train.epochs=7"])])
    assert outcome.metrics["primary_metric"] == "test_accuracy_mean"
    for split in ("validation", "test"):
        history = outcome.arrays[f"history/{split}_accuracy"]
        assert outcome.metrics[f"{split}_accuracy_mean"] == pytest.approx(history.mean())
    assert len(np.unique(history)) > 1
    assert "examples/test_accuracy_mean" not in outcome.arrays


def test_labels_that_drift_are_scored_as_they_are_at_the_time():
    """A network that learned the old labels does not know the new ones, and learns them."""
    more = ["task=concept_drift", "task.interval=10", "task.drifting=10", "train.epochs=20"]
    (outcome,) = train([single([*SMALL, *more])])
    history = outcome.arrays["history/test_accuracy"]
    assert history[9] > 0.85
    assert history[10] < history[9] - 0.1
    assert history[19] > 0.85


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_packs_of_changing_tasks_equal_single_runs(mode):
    configs, _ = expand(None, [*TURNS, "train.epochs=7", "seed=0,1"])
    pack = train(configs, mode)
    for config, member in zip(configs, pack, strict=True):
        (alone,) = train([config])
        if mode == "map":
            assert (member.arrays["right/test"] == alone.arrays["right/test"]).all()
        found, wanted = member.metrics["test_accuracy_mean"], alone.metrics["test_accuracy_mean"]
        assert found == pytest.approx(wanted, abs=0.01)


def test_configs_of_such_a_task_are_chosen_by_the_mean_on_validation():
    assert validation_column("test_accuracy_mean") == "validation_accuracy_mean"
    assert validation_column("test_loss_final") == "validation_loss_best"
    assert objective({"primary_metric": "test_accuracy_mean"}) == "validation_accuracy_mean"


@pytest.mark.parametrize("task", ["classification", "concept_drift", "alternating_tasks"])
def test_targets_of_other_classes_may_be_below_zero(task):
    config = single([f"task={task}", "task.target_min=-1"])
    _, built = assemble(config, FACTS, 10)
    _, target = built.pair(jnp.zeros((2, 64)), jnp.array([0, 3]))
    assert (jnp.max(target, -1) == 1).all() and (
        jnp.sum(target == -1, -1) == built.outputs - 1
    ).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=alternating_tasks", "task.tasks=3"], "task.tasks=3 do not divide 10 classes"),
        (["task=concept_drift", "task.drifting=11"], "task.drifting=11 of 10 classes"),
        (["task.target_min=-1", "task.loss=cross_entropy"], "task.target_min is of targets"),
    ],
)
def test_what_such_a_task_cannot_do_is_said(overrides, message):
    with pytest.raises(ConfigError, match=message):
        assemble(single(overrides), FACTS, 10)
