"""Composition, validation, canonical form, identity."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pcbench.config import Composer, ConfigError, choices
from pcbench.config.config import build, flatten, nest
from pcbench.config.schema import GROUPS, VOCABULARY, Leaf
from pcbench.sweeps.expand import expand, single

COMPOSER = Composer()

# Frozen: a change here orphans every result that anybody has. Raise a `version`, or introduce a new
# leaf with the value that it always had, instead.
GOLDEN_IDS = {
    "": "dcc2efe89d66c10b",
    "algorithm=bp": "4e7f49afd933c85f",
    "algorithm.steps=20 seed=3": "b91247248a807aa6",
    "dataset=mnist model.width=256": "b61d96888637f8fd",
    "model=resmlp model.depth=30": "8e271cb2f8ffd8c8",
    "model=linear task.loss=cross_entropy": "ed6d1b05e57c2519",
    "optimizer=sgd optimizer.lr=0.05": "380055bbf58a476d",
    "precision=float64": "2c5a2a89568a0e69",
    "preset=pcx/mlp_mnist_pc_se": "4ddf44086643d86e",
    "preset=pcx/vgg5_cifar10_ipc": "4ef6057580e93f6e",
}


def test_run_ids_are_frozen():
    assert {text: single(text.split()).run_id for text in GOLDEN_IDS} == GOLDEN_IDS


def test_equal_numbers_are_one_config():
    ids = {single([f"optimizer.lr={lr}"]).run_id for lr in ("1", "1.0", "1e0", "10e-1")}
    assert len(ids) == 1
    assert single(["train.epochs=30.0"]).run_id == single(["train.epochs=30"]).run_id


def test_a_leaf_at_its_introduction_default_is_not_hashed():
    """Adding a leaf to a choice's YAML with that value keeps all ids."""
    config = single([])
    assert "algorithm.beta" in config.flat and "algorithm.beta" not in config.identity
    without = {path: v for path, v in config.flat.items() if path != "algorithm.beta"}
    assert build(nest(without)).run_id == config.run_id


def test_a_leaf_that_changes_nothing_is_not_hashed():
    """Momentum belongs to sgd updaters, warm-up to its schedule, width to equal widths."""
    for overrides, inert in (
        (["algorithm.updater=adam"], "algorithm.momentum=0.1"),
        ([], "optimizer.warmup=0.5"),
        (["model.widths=[8,8,8]"], "model.width=9"),
        (["precision=bfloat16"], "matmul_precision=high"),
        (["optimizer=sgd"], "optimizer.weight_decay=-0.0"),
    ):
        assert single(overrides).run_id == single([*overrides, inert]).run_id


def test_operational_leaves_are_no_identity_and_all_others_are():
    base = single([])
    assert base.replace({"logging.wandb.mode": "offline"}).run_id == base.run_id
    assert single(["executor=processes", "executor.workers=3"]).run_id == base.run_id
    changes = {
        "seed": 1, "optimizer.lr": 0.5, "algorithm.steps": 9, "model.width": 64,
        "train.epochs": 3, "precision": "float64", "dataset.flip": True,
        "task.loss": "cross_entropy",
        "algorithm.precisions": [1.0, 1.0, 1.0, 2.0], "parameterisation.gamma0": 2.0,
    }  # fmt: skip
    ids = {base.replace({path: value}).run_id for path, value in changes.items()}
    assert len(ids | {base.run_id}) == len(changes) + 1


def test_configs_that_differ_in_numbers_share_a_program_and_others_do_not():
    base = single([])
    for path, value in {"seed": 3, "optimizer.lr": 1.0, "algorithm.momentum": 0.0}.items():
        assert base.replace({path: value}).static_key == base.static_key
    for path, value in {
        "algorithm.steps": 9,
        "precision": "float64",
        "algorithm.step_discount": 0.5,  # null against a number is another program
    }.items():
        assert base.replace({path: value}).static_key != base.static_key
    discounted = base.replace({"algorithm.step_discount": 0.5})
    other = discounted.replace({"algorithm.step_discount": 0.9})
    assert discounted.static_key == other.static_key


def test_every_leaf_has_a_kind_and_a_meaning():
    assert all(leaf.kind in ("static", "dynamic", "operational") for leaf in VOCABULARY.values())
    assert all(leaf.doc for leaf in VOCABULARY.values())


@pytest.mark.parametrize("group", GROUPS)
def test_a_choice_in_place_of_the_default_is_what_hydra_composes(group):
    composer = Composer()
    for choice in choices(group):
        composed = composer._hydra({group: choice})
        assert composer._tree({group: choice}) == composed
        assert composer.compose({group: choice}, {}).run_id == build(composed).run_id


def test_every_choice_composes_and_every_leaf_is_in_the_vocabulary():
    for group in ("algorithm", "model", "dataset", "parameterisation", "optimizer", "task"):
        for choice in choices(group):
            COMPOSER.compose({group: choice}, {})


PCX = json.loads((Path(__file__).parent / "data" / "pcx_hps.json").read_text())
RULES = {  # published name: (ours, nudging, loss, end of the preset's name)
    "BP-CE": ("bp", None, "cross_entropy", "bp_ce"),
    "BP-SE": ("bp", None, "squared_error", "bp_se"),
    "PC-CE": ("pc", "none", "cross_entropy", "pc_ce"),
    "PC-SE": ("pc", "none", "squared_error", "pc_se"),
    "PC-PN": ("pc", "positive", "squared_error", "pn"),
    "PC-NN": ("pc", "negative", "squared_error", "nn"),
    "PC-CN": ("pc", "centred", "squared_error", "cn"),
    "iPC": ("ipc", None, "squared_error", "ipc"),
}
DATASETS = {
    "MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10", "CIFAR100": "cifar100",
    "TinyImageNet": "tiny_imagenet",
}  # fmt: skip


@pytest.mark.parametrize("published", [name for name in PCX if not name.endswith("_beta")])
def test_presets_hold_the_published_numbers(published):
    """All 56 tuned settings of PCX (their repository at commit c722834), to the last digit."""
    model, rule, data = published.split("_")
    algorithm, nudging, loss, ending = RULES[rule]
    name = f"pcx/{model.lower()}_{DATASETS[data]}_{ending}"
    config, theirs = COMPOSER.compose({"preset": name}, {}), PCX[published]["hp"]
    weights, states = theirs["optim"]["w"], theirs["optim"].get("x", {})
    expected = {
        "algorithm.name": algorithm, "algorithm.nudging": nudging, "task.loss": loss,
        "dataset.name": DATASETS[data], "model.name": model.lower(),
        "model.activation": theirs["act_fn"], "train.batch_size": theirs["batch_size"],
        "train.epochs": theirs["epochs"], "optimizer.lr": weights["lr"],
        "optimizer.weight_decay": weights["wd"], "optimizer.schedule": "warmup_cosine",
        "algorithm.steps": theirs.get("T"), "algorithm.step_size": states.get("lr"),
        "algorithm.momentum": states.get("momentum"), "train.selection": "best_test_epoch",
    }  # fmt: skip
    assert {path: config.get(path) for path in expected} == expected
    if nudging not in (None, "none"):
        assert config["algorithm.beta"] == theirs["beta"]
        assert config["algorithm.beta_increment"] == theirs["beta_ir"]
    if nudging == "centred":
        signs = [1.0 if beta > 0 else -1.0 for beta in PCX[f"{published}_beta"]]
        length = min(len(signs), theirs["epochs"])
        assert config["algorithm.beta_signs"][:length] == signs[:length]
        sizes = [min(theirs["beta"] + theirs["beta_ir"] * e, 1.0) for e in range(length)]
        listed = [abs(beta) for beta in PCX[f"{published}_beta"][:length]]
        assert listed == pytest.approx(sizes)  # so that beta and its signs are the whole list


def test_a_preset_sets_groups_and_values_and_the_command_line_wins():
    name = "preset=pcx/mlp_mnist_pc_se"
    config = single([name])
    assert (config["dataset.name"], config["algorithm.steps"]) == ("mnist", 8)
    config = single([name, "dataset=digits", "algorithm.steps=3"])
    assert (config["dataset.name"], config["algorithm.steps"]) == ("digits", 3)
    assert config["algorithm.momentum"] == 0.65


@pytest.mark.parametrize(
    "overrides,words",
    [
        (["algorithm.stpes=3"], ["algorithm.stpes", "Did you mean 'algorithm.steps'?"]),
        (["steps=3"], ["Did you mean 'algorithm.steps'?"]),
        (["algorithm=pcc"], ["'pcc'", "Did you mean 'pc'?"]),
        (["preset=pcx/mlp_mnist_pc_sse"], ["Did you mean 'pcx/mlp_mnist_pc_se'?"]),
        (["model.width=wide"], ["model.width", "integer", "'wide'"]),
        (["model.width=1.5"], ["model.width", "integer"]),
        (["model.width=null"], ["model.width", "integer", "null"]),
        (["model.bias=1"], ["true|false"]),
        (["model.activation=rleu"], ["Did you mean 'relu'?"]),
        (["optimizer.lr=-1"], ["optimizer.lr", "at least 0"]),
        (["algorithm.step_size=0"], ["above 0"]),
        (["optimizer.lr=nan"], ["optimizer.lr"]),
        (["algorithm=bp", "algorithm.steps=3"], ["'bp' has no such key", "block"]),
        (["+model.layers=3"], ["model.layers=VALUE"]),
        (["~model.width"], ["model.width=VALUE"]),
        (["model.width"], ["cannot read", "model.width"]),
        (["optimizer.lr=1,2"], ["optimizer.lr", "sweep"]),
        (["model.widths=[3,4]"], ["2 hidden layers"]),
        (["train.validation_fraction=0"], ["selection=final"]),
        (
            ["algorithm.nudging=positive", "algorithm.beta=0.5", "task.loss=cross_entropy"],
            ["squared_error"],
        ),
        (["algorithm.nudging=negative", "algorithm.beta=2"], ["beta"]),
        (["algorithm.nudging=positive"], ["clamping", "beta=0.5"]),
        (["algoritm=pc"], ["Did you mean 'algorithm'?"]),
        (["optimizer.lr=interval(1,2)"], ["lists no values"]),
        (["seed=-1"], ["at least 0"]),
        (["algorithm.target=os.system"], ["comes with the choice", "algorithm=CHOICE"]),
        (["dataset.name=mnist"], ["comes with the choice"]),
        (["algorithm.beta=0.5"], ["no effect", "nudging=positive"]),
        (["optimizer.b1=1"], ["below 1"]),
        (["preset=pcx/mlp_mnist_pc_se", "algorithm=bp"], ["sets algorithm.steps", "'bp'"]),
        (["model={width: 3}"], ["model"]),
    ],
)
def test_errors_say_what_was_wrong_and_what_is_meant(overrides, words):
    with pytest.raises(ConfigError) as error:
        single(overrides)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_dynamic_number_must_be_finite():
    for value in (float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="finite"):
            Leaf("optimizer.lr", float, "dynamic").coerce(value)


def test_flatten_and_nest_are_inverse():
    tree = single([]).tree
    assert nest(flatten(tree)) == tree


def test_a_plugin_declares_leaves_of_its_own():
    tree = single([]).tree
    tree["algorithm"] |= {"damping": 1, "schema": {"damping": "dynamic float"}}
    config = build(tree)
    assert (
        config["algorithm.damping"] == 1.0 and config.leaves["algorithm.damping"].kind == "dynamic"
    )
    tree["algorithm"] |= {"damping": "much", "schema": {"damping": "dynamic float"}}
    with pytest.raises(ConfigError, match=r"algorithm\.damping: expected number"):
        build(tree)
    tree["algorithm"]["schema"] = {"damping": "float"}
    with pytest.raises(ConfigError, match="kind"):
        build(tree)


def test_composing_a_config_imports_no_jax():
    code = (
        "import sys, pcbench; from pcbench.sweeps.expand import single; single(['seed=1']);"
        "sys.exit(any(m.split('.')[0] in ('jax', 'flax', 'optax') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- sweeps -------------------------------------------------------------------------------------


def sweep(tmp_path, text, overrides=()):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return expand(str(path), overrides)


def values(configs, *paths):
    return [tuple(config[p] for p in paths) for config in configs]


def test_command_line_axes_multiply():
    configs, duplicates = expand(None, ["seed=range(3)", "optimizer.lr=0.1,0.2", "algorithm=bp,pc"])
    assert len(configs) == 12 and duplicates == 0
    assert set(values(configs, "seed", "optimizer.lr", "algorithm.name")) == {
        (s, lr, a) for s in range(3) for lr in (0.1, 0.2) for a in ("bp", "pc")
    }
    configs, _ = expand(None, ["optimizer.lr=choice(0.1,0.2)", "model.activation=relu,'tanh'"])
    assert len(configs) == 4


def test_blocks_concatenate_and_duplicates_drop(tmp_path):
    configs, duplicates = sweep(
        tmp_path,
        """
        seeds: 2
        blocks:
          - where: {algorithm: bp}
            grid: {optimizer.lr: [0.1, 0.2]}
          - where: {algorithm: pc}
            zip: {algorithm.steps: [4, 8], algorithm.step_size: [0.2, 0.1]}
            seeds: [7]
          - where: {algorithm: bp, optimizer.lr: 1e-1}
        """,
    )
    assert duplicates == 2 and len(configs) == 6
    assert values(configs[4:], "algorithm.steps", "algorithm.step_size", "seed") == [
        (4, 0.2, 7),
        (8, 0.1, 7),
    ]


def test_overrides_replace_and_multiply_what_a_block_says(tmp_path):
    text = "- {where: {algorithm: bp}, grid: {optimizer.lr: [0.1, 0.2]}, seeds: 3}"
    configs, _ = sweep(tmp_path, text, ["optimizer.lr=0.5", "model.width=8,16"])
    assert set(values(configs, "optimizer.lr", "model.width", "seed")) == {
        (0.5, w, s) for w in (8, 16) for s in range(3)
    }


@pytest.mark.parametrize(
    "text,words",
    [
        ("- {gird: {seed: [1]}}", ["'gird'", "Did you mean 'grid'?"]),
        ("{sedes: 3}", ["Did you mean 'seeds'?"]),
        ("- {zip: {seed: [1, 2], optimizer.lr: [1]}}", ["different lengths"]),
        ("- {grid: {seed: 1}}", ["list"]),
        ("- {grid: {sed: [1]}}", ["sed", "unknown key"]),
        ("- 3", ["mapping"]),
        ("- {where: 3}", ["where", "mapping"]),
        ("[]", ["list of blocks"]),
        ("{seeds: 0, blocks: [{}]}", ["no run"]),
        ("- {", ["cannot be read"]),
        ("- {where: {algorithm: bp}, grid: {algorithm.steps: [1]}}", ["'bp' has no such key"]),
    ],
)
def test_errors_in_a_sweep_file(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        sweep(tmp_path, text)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_key_that_one_algorithm_lacks_is_an_error_that_names_blocks():
    with pytest.raises(ConfigError, match="block"):
        expand(None, ["algorithm=bp,pc", "algorithm.steps=8,16"])


def test_ten_thousand_configs_expand_in_seconds():
    import time

    started = time.perf_counter()
    configs, _ = expand(
        None, ["seed=range(100)", f"optimizer.lr={','.join(map(str, range(1, 101)))}"]
    )
    assert len({config.run_id for config in configs}) == 10_000
    assert time.perf_counter() - started < 6  # 3 s on an idle machine; tests run side by side
