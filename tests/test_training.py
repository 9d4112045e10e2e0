"""Training: compilations, packs, reproducibility, precision, protocols."""

import os
import subprocess
import sys
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, build, hyper, network

from pcbench.algorithms.bp import BP
from pcbench.algorithms.pc import PC
from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.metrics import flops
from pcbench.sweeps.expand import expand, single
from pcbench.training.assembly import assemble
from pcbench.training.checkpoint import Checkpoint, Preempted
from pcbench.training.datasets import Recent, load_dataset
from pcbench.training.epochs import epoch_lengths
from pcbench.training.learner import Learner
from pcbench.training.program import hyper_of
from pcbench.training.schedules import SCHEDULES
from pcbench.training.train import train

THEORY_COLUMNS = (
    "condition_number", "rescaling_excess", "equilibrium_ratio", "target_alignment_bp",
    "target_alignment_pc",
)  # fmt: skip
SMALL = ["train.epochs=2", "model.width=16", "model.depth=3"]


def test_changing_numbers_compiles_nothing_again():
    """Seed, learning rates, momenta, weight decay: one program. A step count: another one."""
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: events.append(name) if "backend_compile" in name else None
    )
    train([single(SMALL)])
    assert events  # the listener hears compilations
    events.clear()
    for override in (
        "seed=5",
        "optimizer.lr=0.02",
        "optimizer.weight_decay=0.1",
        "algorithm.step_size=0.3",
        "algorithm.momentum=0",
        "parameterisation.gamma0=2",
    ):
        train([single([*SMALL, override])])
    assert not events
    train([single([*SMALL, "algorithm.steps=3"])])
    assert events


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_how_many_epochs_one_call_computes_changes_no_bit(mode, monkeypatch):
    """It depends on how fast they are. Evaluations and probes fall between calls all the same."""
    changes = ["train.epochs=7", "train.max_steps=150", "train.eval_every=3", "train.probe_every=5"]
    configs, _ = expand(None, [*SMALL, *changes, "seed=0,1"])
    found, calls = [], ([], [])
    for seconds, epochs in zip((0.0, 1e9), calls, strict=True):
        monkeypatch.setattr("pcbench.training.train.STRETCH", seconds)
        observe = Mock()
        found.append(train(configs, mode, observe))
        epochs += [call.args[0].epoch for call in observe.call_args_list]
    assert calls == ([1, 2, 3, 4, 5, 6, 7], [1, 3, 5, 6, 7])
    for one, other in zip(*found, strict=True):
        assert one.evaluations == other.evaluations
        assert one.arrays.keys() == other.arrays.keys()
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name], err_msg=name)


def pack_of(mode, overrides):
    configs, _ = expand(None, [*SMALL, *overrides])
    return configs, train(configs, mode)


@pytest.mark.parametrize("algorithm", ["bp", "pc"])
def test_a_map_pack_equals_single_runs_bit_for_bit(algorithm):
    overrides = [f"algorithm={algorithm}", "seed=0,1", "optimizer.lr=0.001,0.01"]
    configs, outcomes = pack_of("map", overrides)
    for config, packed in zip(configs, outcomes, strict=True):
        alone = train([config])[0]
        assert packed.arrays.keys() == alone.arrays.keys()
        for name, array in alone.arrays.items():
            same_numbers(packed.arrays[name], array, name)


def same_numbers(found, expected, name):
    """Bit for bit on a CPU; elsewhere another program may be compiled to other kernels."""
    if jax.default_backend() == "cpu":
        np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("algorithm", ["bp", "pc"])
def test_a_vmap_pack_equals_single_runs_after_a_step(algorithm):
    overrides = [f"algorithm={algorithm}", "seed=0,1", "optimizer.lr=0.001,0.01"]
    configs, outcomes = pack_of("vmap", [*overrides, "train.max_steps=1"])
    for config, packed in zip(configs, outcomes, strict=True):
        alone = train([config])[0]
        for name, array in alone.arrays.items():
            if name.startswith("weights/"):
                np.testing.assert_allclose(packed.arrays[name], array, atol=1e-5, err_msg=name)


def test_a_member_that_diverges_leaves_the_others_alone():
    configs, _ = expand(None, ["optimizer=sgd", "train.epochs=4", "optimizer.lr=0.1,1e6"])
    good, bad = train(configs, "vmap")
    assert (good.status, bad.status) == ("completed", "diverged")
    alone = train(configs[:1])[0]
    assert good.metrics["test_accuracy_final"] == alone.metrics["test_accuracy_final"] > 0.5


def test_a_diverged_member_is_recorded_as_if_it_were_alone():
    configs, _ = expand(None, ["optimizer=sgd", "train.epochs=4", "optimizer.lr=0.1,1e6"])
    packed, alone = train(configs, "map")[1], train(configs[1:])[0]
    assert packed.arrays.keys() == alone.arrays.keys()
    for name, array in alone.arrays.items():
        np.testing.assert_array_equal(packed.arrays[name], array)
    for name in ("test_accuracy_final", "layer_updates", "weight_updates"):
        assert packed.metrics[name] == alone.metrics[name]


def test_a_diverged_run_stops_early_and_keeps_its_history():
    outcome = train([single(["optimizer=sgd", "optimizer.lr=1e6", "train.epochs=20"])])[0]
    assert outcome.status == "diverged" and len(outcome.arrays["history/epoch"]) < 20


def test_the_same_config_gives_the_same_numbers_and_another_seed_others():
    first, second = train([single(SMALL)])[0], train([single(SMALL)])[0]
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
    other = train([single([*SMALL, "seed=1"])])[0]
    assert (other.arrays["weights/0/W"] != first.arrays["weights/0/W"]).any()


def test_algorithms_start_from_the_same_weights():
    """Keys come from the seed and a role, never from the rule: comparisons pair by seed."""
    outcomes = [
        train([single([*SMALL, f"algorithm={a}", "train.max_steps=1", "optimizer.lr=0"])])[0]
        for a in ("bp", "pc")
    ]
    bp, pc = (o.arrays["weights/1/W"] for o in outcomes)
    np.testing.assert_allclose(bp, pc, atol=1e-6)  # weight decay is times lr, too


@pytest.mark.parametrize("algorithm", ["bp", "pc"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_digits_are_learnt(algorithm, loss):
    outcome = train([single([f"algorithm={algorithm}", f"task.loss={loss}", "train.epochs=20"])])[0]
    metrics = outcome.metrics
    assert metrics["test_accuracy_final"] > 0.95
    history = outcome.arrays["history/validation_accuracy"]
    best = history.argmax()
    assert metrics["validation_accuracy_best"] == history[best]
    test = outcome.arrays["history/test_accuracy"]
    assert metrics["test_accuracy_at_best_validation"] == test[best]
    assert metrics["test_accuracy_final"] == test[-1]
    assert "test_accuracy_best_epoch" not in metrics  # nothing looks at the test set
    labels_right = outcome.arrays["predictions/test"]
    assert labels_right.shape == (360,)


def test_only_the_published_protocol_reports_the_best_test_epoch():
    overrides = ["train.validation_fraction=0", "train.selection=best_test_epoch", *SMALL]
    metrics = train([single(overrides)])[0].metrics
    assert metrics["test_accuracy_best_epoch"] >= metrics["test_accuracy_final"]
    assert "validation_accuracy_best" not in metrics


def test_of_many_classes_the_top_five_count_too_each_at_its_own_best_epoch():
    many = ["dataset=teacher", "dataset.outputs=20", "train.epochs=4", "model.width=16"]
    (outcome,) = train([single([*many, "train.selection=best_test_epoch"])])
    history = outcome.arrays["history/test_top5_accuracy"]
    assert outcome.metrics["test_top5_accuracy_final"] == pytest.approx(history[-1])
    assert outcome.metrics["test_top5_accuracy_best_epoch"] == pytest.approx(history.max())
    assert (history >= outcome.arrays["history/test_accuracy"]).all()
    assert outcome.metrics["primary_metric"] == "test_accuracy_best_epoch"


def test_contrastive_hebbian_learning_tends_to_the_gradient_with_weak_feedback():
    """Xie & Seung 2003: with feedback γ the error is O(γ). Precisions γ^l of the layers make it."""
    long = [f"algorithm.{phase}=100" for phase in ("free_steps", "steps", "eval_steps")]
    chl = ["dataset=digits", "precision=float64", "model.width=16", "model.depth=3",
           "train.max_steps=0", "train.probe_size=32", "algorithm=chl", *long]  # fmt: skip
    weak, weaker = (
        train([single([*chl, f"algorithm.precisions=[1.0,{g},{g * g}]"])])[0].metrics
        for g in (1e-2, 1e-3)
    )
    assert weaker["gradient_error"] == pytest.approx(weak["gradient_error"] / 10, rel=0.05)
    assert weaker["gradient_error"] < 1e-3


def test_probe_metrics_obey_their_definitions():
    bp = train([single([*SMALL, "algorithm=bp"])])[0].metrics
    pc = train([single(SMALL)])[0].metrics
    np.testing.assert_allclose(bp["gradient_cosine"], 1, rtol=1e-6)
    assert np.isnan(bp["energy_relaxed"]) and np.isnan(bp["inference_residual"])
    np.testing.assert_allclose(pc["energy_initial"], pc["train_loss"], rtol=1e-6)
    assert pc["energy_relaxed"] < pc["energy_initial"]
    assert bp["gradient_error"] < 1e-6
    np.testing.assert_allclose(pc["gradient_cosine"] ** 2 + pc["gradient_error"] ** 2, 1, rtol=1e-6)
    assert 0 < pc["gradient_cosine"] < 1 and -1 <= pc["target_alignment"] <= 1
    assert pc["layer_updates"] == 2 * 20 * 8 * 2 and pc["weight_updates"] == 2 * 20


@pytest.mark.parametrize("algorithm", ["bp", "pc"])
def test_under_cross_entropy_learning_moves_towards_the_target(algorithm):
    """The output error is y - softmax(ŷ), the direction of descent, not y minus the logits."""
    overrides = ["task.loss=cross_entropy", f"algorithm={algorithm}", "train.epochs=1"]
    metrics = train([single(overrides)])[0].metrics
    assert metrics["target_alignment"] > 0.1 and metrics["target_alignment_finite"] > 0.1


def test_one_layer_has_nothing_to_relax_and_learns_all_the_same():
    pc, bp = (
        train([single([f"algorithm={a}", "model.depth=1", "train.epochs=3"])])[0]
        for a in ("pc", "bp")
    )
    np.testing.assert_allclose(pc.arrays["weights/0/W"], bp.arrays["weights/0/W"], atol=1e-5)
    assert np.isnan(pc.metrics["inference_residual"]) and pc.metrics["layer_updates"] == 0


def test_each_layer_is_measured():
    """At the output the prospective index is the target alignment under an equal weighting of
    samples, and the change of the state is that of the prediction."""
    overrides = [*SMALL, "train.probe_every=1", "task.loss=squared_error"]
    pc, bp = (train([single([*overrides, f"algorithm={a}"])])[0] for a in ("pc", "bp"))
    for outcome in (pc, bp):
        layers = {}
        for entry in outcome.evaluations:
            layers.setdefault(entry["metric"], []).append(entry["value"])
        assert set(layers) == {"update_norm", "state_rms", "state_change", "prospective_index"}
        assert all(len(values) == 3 for values in layers.values())
        assert [e["condition"] for e in outcome.evaluations[:3]] == [
            "layer=1",
            "layer=2",
            "layer=3",
        ]
        for name, values in layers.items():
            np.testing.assert_array_equal(outcome.arrays[f"probe/{name}"][-1], values)
        assert min(layers["update_norm"]) > 0 and min(layers["state_change"]) > 0
    index = pc.arrays["probe/prospective_index"]
    np.testing.assert_allclose(index[:, -1], pc.arrays["probe/target_alignment_finite"], rtol=1e-5)
    assert np.isnan(bp.arrays["probe/prospective_index"]).all()


def test_probes_are_taken_at_the_interval():
    arrays = train([single([*SMALL, "train.epochs=5", "train.probe_every=2"])])[0].arrays
    assert arrays["probe/epoch"].tolist() == [2, 4, 5]
    assert arrays["probe/energy_trace"].shape == (3, 9, 3)


def test_float64_is_float64_and_bfloat16_rounds_products_only():
    outcomes = {
        p: train([single([*SMALL, f"precision={p}"])])[0].arrays["weights/1/W"]
        for p in ("float64", "float32", "bfloat16")
    }
    assert outcomes["float64"].dtype == np.float64
    assert outcomes["float32"].dtype == outcomes["bfloat16"].dtype == np.float32
    exact = outcomes["float64"]

    def error(p):
        return np.abs(outcomes[p] - exact).max()

    assert not jax.config.jax_enable_x64  # nothing leaks out of a float64 run
    assert error("float32") < error("bfloat16")


def test_max_steps_cuts_the_last_epoch_short():
    config = single(["train.epochs=10", "train.batch_size=100", "train.max_steps=25"])
    data = Facts((4,), samples=1000, held_out=100, classes=2, targets=1)
    assert epoch_lengths(config, data) == [10, 10, 5]
    whole = single(["train.epochs=2", "train.batch_size=100"])
    assert epoch_lengths(whole, data._replace(samples=1050)) == [10, 10]
    with pytest.raises(ConfigError, match="batch_size=100 is more"):
        epoch_lengths(config, data._replace(samples=99))
    with pytest.raises(ConfigError, match="holds out no sample"):
        epoch_lengths(config, data._replace(held_out=0))


def test_an_epoch_of_a_large_set_may_be_a_part_of_it():
    """Its batches are others each time, and the log counts them."""
    config = single([*SMALL, "algorithm=ipc", "algorithm.steps=3", "train.epochs=2",
                     "train.epoch_steps=2", "train.max_steps=3"])  # fmt: skip
    outcome = train([config])[0]
    assert outcome.arrays["history/steps"].tolist() == [2, 3]
    assert outcome.arrays["history/weight_updates"].tolist() == [6, 9]
    data = Facts((4,), samples=1000, held_out=100, classes=2, targets=1)
    assert epoch_lengths(single(["train.epochs=2", "train.epoch_steps=4"]), data) == [4, 4]


def test_without_steps_the_initial_weights_are_measured():
    config = single([*SMALL, "algorithm=pc", "train.max_steps=0"])
    outcome, moved = (
        train([config])[0],
        train([single([*SMALL, "algorithm=pc", "optimizer.lr=0"])])[0],
    )
    assert outcome.arrays["history/epoch"].tolist() == [0]
    assert outcome.metrics["weight_updates"] == 0
    for name in ("train_loss", "test_accuracy_final", "gradient_cosine"):
        assert outcome.metrics[name] == moved.metrics[name], "lr = 0 leaves the weights as they are"


def test_regression_is_scored_by_its_loss_and_the_lowest_validation_loss_selects():
    overrides = ["dataset=gaussian", "task=regression", "algorithm=bp", "train.epochs=6"]
    small = ["dataset.samples=400", "model.width=32", "optimizer.lr=0.01"]
    outcome = train([single([*overrides, *small])])[0]
    validation = outcome.arrays["history/validation_loss"]
    assert outcome.metrics["validation_loss_best"] == validation.min()
    best = outcome.arrays["history/test_loss"][validation.argmin()]
    assert outcome.metrics["test_loss_at_best_validation"] == best
    assert outcome.metrics["primary_metric"] == "test_loss_at_best_validation"
    assert outcome.metrics["primary_higher_is_better"] is False
    assert outcome.metrics["test_loss_final"] == pytest.approx(outcome.arrays["losses/test"].mean())
    assert "test_accuracy_final" not in outcome.metrics


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=gaussian"], "set task=regression"),
        (["task=regression"], "set task=classification"),
        (["dataset=gaussian", "task=regression", "task.loss=cross_entropy"], "squared_error"),
    ],
)
def test_a_task_refuses_data_that_it_cannot_learn(overrides, message):
    config = single(overrides)
    with pytest.raises(ConfigError, match=message):
        assemble(config, load_dataset(config, lambda tree: tree).facts, 10)


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_theory_in_a_pack_is_that_of_the_single_run(mode):
    """Lanczos and solves per member, on small linear networks."""
    for theory in ("curvature", "equilibrium", "alignment"):
        small = ["model=linear", "model.width=8", "dataset.train_size=64", "train.batch_size=16"]
        overrides = [*small, "train.max_steps=0", f"train.theory={theory}", "precision=float64"]
        pack = train([single([*overrides, f"seed={s}"]) for s in range(3)], mode)
        alone = [train([single([*overrides, f"seed={s}"])])[0] for s in range(3)]
        names = [n for n in THEORY_COLUMNS if n in alone[0].metrics]
        assert len(names) > (theory != "curvature")
        for one, member in zip(alone, pack, strict=True):
            values = [[o.metrics[name] for name in names] for o in (one, member)]
            assert np.all(np.isfinite(values))
            assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_measured_alignment_is_the_closed_form_of_linear_networks():
    """bp, and pc relaxed to equilibrium, on one sample each."""
    for rule, choices in (("bp", []), ("pc", ["algorithm.steps=2000", "algorithm.step_size=0.2"])):
        config = single(["preset=alignment/single_update", f"algorithm={rule}", *choices,
                         "precision=float64", "model.width=12", "dataset.inputs=12",
                         "dataset.outputs=12", "dataset.samples=50"])  # fmt: skip
        metrics = train([config])[0].metrics
        closed = metrics[f"target_alignment_{rule}"]
        assert metrics["target_alignment"] == pytest.approx(closed, abs=1e-9)


def test_warmup_cosine_is_the_published_schedule():
    """1 → 1.1 over the first tenth of the steps, then a cosine to 0.1."""
    schedule = SCHEDULES["warmup_cosine"]({"warmup": 0.1, "peak": 1.1, "end": 0.1}, 1000)
    np.testing.assert_allclose(schedule(0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(schedule(50), 1.05, rtol=1e-6)
    np.testing.assert_allclose(schedule(100), 1.1, rtol=1e-6)
    np.testing.assert_allclose(schedule(550), 0.6, rtol=1e-6)
    np.testing.assert_allclose(schedule(1000), 0.1, rtol=1e-6)


def test_decoupled_weight_decay_shrinks_by_lr_times_decay():
    """With zero gradients AdamW multiplies the weights by 1 - lr·wd."""
    from pcbench.networks.parameterisations import sp
    from pcbench.training.optimizers import adamw

    net = network()
    made = Learner(net, sp(), adamw, lambda step: 1.0)
    params, state = made.init(jax.random.key(0))
    numbers = {"lr": 0.1, "weight_decay": 0.5, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
    numbers = {"optimizer": numbers, "parameterisation": {"gamma0": 1.0}}
    zero = jax.tree.map(jnp.zeros_like, params)
    moved, _ = made.update(params, state, zero, jnp.zeros((), jnp.int32), numbers)
    np.testing.assert_allclose(moved[0]["W"], 0.95 * params[0]["W"], rtol=1e-6)


def test_flops_are_counted_with_loop_lengths():
    """A chain D-N-N-C at batch B: BP makes the products of one pass times three, less the input's
    gradient; each relaxation step adds two products for each layer after the first."""
    b, d, n, c = 50, 60, 70, 10
    net = network("linear", inputs=d, outputs=c, width=n, depth=3, bias=False)
    data = batch(net, outputs=c, size=b)
    key = jax.random.key(0)

    def count(rule):
        return flops.count(rule.step, jax.eval_shape(rule.init, key), data, hyper(), key)

    products = lambda *sizes: sum(2 * b * i * o for i, o in sizes)  # noqa: E731
    first, later = (d, n), ((n, n), (n, c))
    bp = products(first, *later) * 3 - products(first)
    assert bp < count(build(BP, net)) < 1.1 * bp
    slope = count(build(PC, net, steps=30)) - count(build(PC, net, steps=20))
    assert 10 * 2 * products(*later) < slope < 1.1 * 10 * 2 * products(*later)


def test_complex_products_count_four_times():
    w = jnp.ones((8, 8))
    assert flops.count(lambda x: x @ w, w + 0j) == 4 * 2 * 8**3


def test_flops_of_equal_products_count_once_and_those_of_unknown_loops_are_nan():
    w = jnp.ones((8, 8))
    assert flops.count(lambda x: x @ w + x @ w, w) == 2 * 8**3 + 64
    until = lambda x: jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v + 1, x)  # noqa: E731
    assert np.isnan(flops.count(until, w))


def test_numbers_reach_the_program_stacked_and_nulls_do_not():
    configs, _ = expand(None, ["seed=0,1", "algorithm.precisions=[1,2,3,4]"])
    numbers = hyper_of(configs)
    assert numbers["seed"].tolist() == [0, 1]
    assert numbers["algorithm"]["precisions"].shape == (2, 4)
    assert "step_discount" not in numbers["algorithm"]


def test_recent_programs_are_kept_and_old_ones_dropped():
    recent, made = Recent(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        recent.obtain(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]


@pytest.mark.parametrize("dataset", ["two_moons", "teacher"])
def test_generated_datasets_are_learnt(dataset):
    outcome = train([single([f"dataset={dataset}", "train.epochs=15", "model.width=32"])])[0]
    assert outcome.metrics["test_accuracy_final"] > outcome.metrics["chance"] + 0.25


def test_augmentation_runs_inside_the_program(tfds_dir):
    """CIFAR with flips and crops: 3 steps on real images; the probe sees the plain ones."""
    config = single(
        ["dataset=cifar10_jpeg", "train.max_steps=3", "dataset.train_size=2000", "model.width=16"]
    )
    outcome = train([config])[0]
    assert outcome.status == "completed" and outcome.metrics["parameters"] > 3072 * 16


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=bp", "optimizer.lr=0.1"],
        ["algorithm=bp", "optimizer.lr=0.1", "train.selection=best_test_epoch"],
        ["algorithm=bp", "dataset=gaussian", "task=regression", "optimizer.lr=0.1"],
    ],
)
def test_what_is_kept_of_each_example_is_what_the_columns_are_means_of(overrides):
    """Also at the epoch that was chosen, which is not the last one here."""
    configs, _ = expand(None, [*SMALL, "train.epochs=6", "seed=0,1,2", *overrides])
    outcomes = train(configs, "vmap")
    for outcome in outcomes:
        kept = [name for name in outcome.arrays if name.startswith("examples/")]
        primary = outcome.metrics["primary_metric"]
        assert len(kept) == 2 and f"examples/{primary}" in kept
        for name in kept:
            column = outcome.metrics[name.removeprefix("examples/")]
            assert outcome.arrays[name].mean() == pytest.approx(column, rel=1e-6)
    last, best = np.array([[o.arrays[n].mean() for n in kept] for o in outcomes]).T
    assert (last != best).any(), "a best epoch before the last"


@pytest.mark.parametrize(
    "mode,overrides",
    [
        ("none", []),
        ("none", ["task=alternating_tasks", "task.interval=3"]),
        ("vmap", ["seed=0,1"]),
    ],
)
def test_an_interrupted_pack_ends_with_the_same_bits(mode, overrides, tmp_path):
    """Stopped after the second of six epochs, continued by a fresh object from its checkpoint."""
    more = ["train.epochs=6", "train.probe_every=2", "train.checkpoint_seconds=0"]
    configs, _ = expand(None, [*SMALL, *more, *overrides])
    whole = train(configs, mode)
    seen = []
    path = tmp_path / "pack.npz"
    with pytest.raises(Preempted):
        train(configs, mode, seen.append, Checkpoint(path, stop=lambda: len(seen) == 2))
    continued = train(configs, mode, seen.append, Checkpoint(path))
    assert [p.epoch for p in seen] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(whole, continued, strict=True):
        assert a.arrays.keys() == b.arrays.keys()
        for name, array in a.arrays.items():
            np.testing.assert_array_equal(array, b.arrays[name], err_msg=name)


def test_no_checkpoint_is_written_before_the_interval(tmp_path):
    config = single([*SMALL, "train.epochs=3"])
    path = tmp_path / "pack.npz"
    train([config], "none", checkpoint=Checkpoint(path))
    assert not path.exists()
    with pytest.raises(Preempted):  # asked to stop so early, there is nothing worth keeping
        train([config], "none", checkpoint=Checkpoint(path, stop=lambda: True))
    assert not path.exists()


def test_a_damaged_checkpoint_starts_over(tmp_path):
    path = tmp_path / "pack.npz"
    path.write_bytes(b"PK\x03\x04 half a file")
    config = single([*SMALL, "train.checkpoint_seconds=0"])
    outcome = train([config], "none", checkpoint=Checkpoint(path))[0]
    assert outcome.arrays["history/epoch"].tolist() == [1, 2]


DEVICES = """
import jax, numpy as np
from pcbench.sweeps.expand import expand
from pcbench.training.train import train
assert len(jax.local_devices()) == 4
configs, _ = expand(None, ["train.epochs=2", "model.width=16", "model.depth=3", "seed=range(8)"])
for mode, tolerance in (("map", 0), ("vmap", 1e-4)):
    for config, packed in zip(configs, train(configs, mode)):
        alone = train([config])[0].arrays["weights/0/W"]
        np.testing.assert_allclose(packed.arrays["weights/0/W"], alone, atol=tolerance, rtol=0)
three = train(configs[:3], "map")
print(len(three), three[0].metrics["pack_size"])
"""


def test_packs_spread_over_four_devices():
    """Members of a map pack equal single runs bit for bit there, too; 3 members use 3 devices."""
    four = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    environment = os.environ | four
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["3", "3"]
