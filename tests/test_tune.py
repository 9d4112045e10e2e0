"""Searches of hyper-parameters: what they look at, what survives a kill, what is refused.

Where the numbers do not matter, runs are stood in for by a function of their config.
"""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pcbench.config import ConfigError
from pcbench.config.compose import choices
from pcbench.results.provenance import provenance
from pcbench.results.records import Record, RecordError, Store
from pcbench.results.row import make_row
from pcbench.sweeps import execute
from pcbench.sweeps.space import read_search
from pcbench.sweeps.tune import tune

CHANCE = 0.1
LR = {"low": 1e-4, "high": 1.0, "log": True}
TINY = {"model.width": 16, "model.depth": 3, "train.epochs": 2, "executor.pack_mode": "map"}


def search_file(folder: Path, space: dict, **content) -> str:
    path = folder / "space.yaml"
    path.write_text(json.dumps({"where": TINY, "search": space, **content}))
    return str(path)


def search_of(folder, space=None, overrides=(), **budget):
    space = {"optimizer.lr": LR} if space is None else space
    return read_search(search_file(folder, space), overrides, **budget)


def peak(config) -> dict:
    """Best on validation at lr=0.01; the test set prefers the other end."""
    distance = abs(math.log10(config["optimizer.lr"]) + 2)
    validation = 1 / (1 + distance) - 1e-3 * (config["seed"] % 10)
    return {"validation_accuracy_best": validation, "test_accuracy_at_best_validation": distance}


def stand_in(measure=peak, status=lambda config: "completed", before=lambda config: None):
    """An executor whose runs take no time."""

    def execute_packs(packs, store, observe):
        for pack in packs:
            for config in pack.configs:
                before(config)
                outcome = status(config)
                metrics = {} if outcome == "failed" else {"chance": CHANCE, **measure(config)}
                row = make_row(config, metrics, provenance())
                record = Record.new(config.run_id, outcome, config.tree, row)
                store.write(record, traceback="ValueError: no" if outcome == "failed" else None)
                yield record
            pack.remove(store)

    return execute_packs


@pytest.fixture
def runs(monkeypatch):
    """Replaces training; call it with other arguments of `stand_in` to change what runs do."""

    def use(**how):
        monkeypatch.setattr(execute, "inline", stand_in(**how))

    use()
    return use


def proposals(store: Store) -> str:
    (path,) = (store.root / "tunes").glob("*.json")
    return path.read_text()


def test_the_best_trial_is_the_best_on_validation(tmp_path, runs):
    result = tune(search_of(tmp_path, trials=24, batch=6, seeds=2), Store(tmp_path))
    best = min(result["trials"], key=lambda t: abs(math.log10(t["settings"]["optimizer.lr"]) + 2))
    assert result["best"] == best
    rows = [Store(tmp_path).read(run_id).row for run_id in best["run_ids"]]
    assert best["value"] == sum(row["validation_accuracy_best"] for row in rows) / 2


def test_the_test_set_changes_nothing(tmp_path, runs):
    """With other test scores, the reverse of the first ones or none: the same trials and choice."""
    outcomes = []
    for name, test in (("same", 1), ("reversed", -1), ("absent", None)):

        def measure(config, test=test):
            scores = peak(config)
            seen = scores.pop("test_accuracy_at_best_validation")
            return scores | ({} if test is None else {"test_accuracy_final": 0.5 + test * seen / 9})

        runs(measure=measure)
        store = Store(tmp_path / name)
        outcomes.append((tune(search_of(tmp_path, trials=20, batch=5), store), proposals(store)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_later_batches_are_better_than_chance_proposals(tmp_path, runs):
    """Uniform in log lr, the mean of `peak` is log(3) / 2; the last 16 trials lie three standard
    errors of such a mean above it."""
    result = tune(search_of(tmp_path, trials=40, batch=8), Store(tmp_path))
    mean = math.log(3) / 2
    error = math.sqrt((1 / 3 - mean**2) / 16)
    values = [trial["value"] for trial in result["trials"]]
    assert sum(values[-16:]) / 16 > mean + 3 * error


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_what_does_not_complete_scores_chance(tmp_path, runs, status):
    """However good its validation accuracy was before."""

    def outcome(config):
        return status if config["optimizer.lr"] > 0.1 and config["seed"] == 1001 else "completed"

    runs(status=outcome, measure=lambda config: {"validation_accuracy_best": 0.9})
    result = tune(search_of(tmp_path, trials=8, batch=4, seeds=2), Store(tmp_path))
    for trial in result["trials"]:
        expected = (0.9 + CHANCE) / 2 if trial["settings"]["optimizer.lr"] > 0.1 else 0.9
        assert trial["value"] == pytest.approx(expected)
    assert len({trial["value"] for trial in result["trials"]}) == 2
    assert result["best"]["value"] == 0.9


def valley(config) -> dict:
    """A task of errors: least on validation at lr=0.01."""
    distance = abs(math.log10(config["optimizer.lr"]) + 2)
    scores = {"validation_mse_best": distance, "test_mse_at_best_validation": -distance}
    return {**scores, "chance": None, "primary_metric": "test_mse_at_best_validation",
            "primary_higher_is_better": False}  # fmt: skip


def test_a_task_of_errors_is_searched_for_the_least_one(tmp_path, runs):
    """And by its own score. The last of 40 trials are better than chance proposals, whose distance
    is at most 2 and 1 on average; a diverged run is worse than all that did not."""
    runs(measure=valley, status=lambda c: "diverged" if c["optimizer.lr"] > 0.3 else "completed")
    errors = ["task=generation", "model=decoder"]
    search = read_search(search_file(tmp_path, {"optimizer.lr": LR}), errors, trials=40, batch=8)
    result = tune(search, Store(tmp_path))
    values = [math.inf if t["value"] is None else t["value"] for t in result["trials"]]
    assert result["metric"] == "validation_mse_best"
    assert result["best"]["value"] == min(values) < 0.2
    assert sum(value < 0.7 for value in values[-16:]) > 8, "a third of chance proposals"
    diverged = [t["settings"]["optimizer.lr"] > 0.3 for t in result["trials"]]
    assert diverged == [math.isinf(value) for value in values] and any(diverged)


def test_nothing_held_out_is_nothing_to_search_by(tmp_path, runs):
    runs(
        measure=lambda config: {"test_accuracy_final": 0.5, "primary_metric": "test_accuracy_final"}
    )
    with pytest.raises(ConfigError, match=r"no validation_accuracy_best.*validation_fraction=0.1"):
        tune(search_of(tmp_path, trials=2, batch=2), Store(tmp_path))


def test_a_search_whose_runs_all_fail_says_why_and_can_be_retried(tmp_path, runs):
    runs(status=lambda config: "failed")
    search, store = search_of(tmp_path, trials=2, batch=2), Store(tmp_path)
    with pytest.raises(RecordError, match=r"ValueError: no\).*--retry failed"):
        tune(search, store)
    runs()
    assert tune(search, store, retry=["failed"])["best"]["value"] > CHANCE


def test_interrupted_at_any_run_it_goes_on_as_if_nothing_had_happened(tmp_path, runs):
    search = search_of(tmp_path, trials=5, batch=2, seeds=2)
    undisturbed = Store(tmp_path / "undisturbed")
    expected = tune(search, undisturbed, report=2)
    for moment in range(5 * 2 + 2):
        computed = []

        def before(config, computed=computed, moment=moment):
            computed.append(config.run_id)
            if len(computed) == moment + 1:
                raise KeyboardInterrupt

        runs(before=before)
        store = Store(tmp_path / str(moment))
        with pytest.raises(KeyboardInterrupt):
            tune(search, store, report=2)
        assert tune(search, store, report=2) == expected
        assert proposals(store) == proposals(undisturbed)
        again = [run_id for run_id in computed if computed.count(run_id) > 1]
        assert len(set(again)) <= search.batch * search.seeds  # at most the pack that was cut


def killed_at(run: int, source: str, results: str) -> None:
    """Runs in a process of its own, which ends by SIGKILL before its `run`-th run."""
    left = iter(range(run))

    def before(config):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    execute.inline = stand_in(before=before)
    tune(read_search(source, trials=6, batch=2, seeds=2), Store(results), report=1)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_it_goes_on_as_if_nothing_had_happened(tmp_path, runs):
    search = search_of(tmp_path, trials=6, batch=2, seeds=2)
    expected = tune(search, Store(tmp_path / "undisturbed"), report=1)
    source, killed = str(tmp_path / "space.yaml"), Store(tmp_path / "killed")
    for moment in (0, 3, 6):
        code = f"from test_tune import *; killed_at({moment}, {source!r}, {str(killed.root)!r})"
        done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent)
        assert done.returncode == -signal.SIGKILL
    assert tune(search, killed, report=1) == expected
    assert proposals(killed) == proposals(Store(tmp_path / "undisturbed"))


def test_more_trials_later_are_the_trials_of_a_longer_search(tmp_path, runs):
    """Also where the first budget ended inside a batch."""
    long = tune(search_of(tmp_path, trials=12, batch=4), Store(tmp_path / "long"))
    store = Store(tmp_path / "short")
    short = tune(search_of(tmp_path, trials=6, batch=4), store)
    assert short["trials"] == long["trials"][:6]
    assert tune(search_of(tmp_path, trials=12, batch=4), store) == long


def test_tuning_seeds_start_at_1000_and_reported_ones_at_0(tmp_path, runs):
    store = Store(tmp_path)
    result = tune(search_of(tmp_path, trials=4, batch=2, seeds=3), store, report=5)
    for trial in result["trials"]:
        rows = [store.read(run_id).row for run_id in trial["run_ids"]]
        assert [row["seed"] for row in rows] == [1000, 1001, 1002]
        assert all(row["stage"] == "tune" and row["n_trials"] is None for row in rows)
    rows = [store.read(run_id).row for run_id in result["report"]["run_ids"]]
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    assert all(row["stage"] == "report" and row["n_trials"] == 4 for row in rows)
    assert {row["optimizer.lr"] for row in rows} == {result["best"]["settings"]["optimizer.lr"]}
    (members,) = store.sweeps().values()
    assert set(members) == set(store.finished()) and "tune-space" in store.sweeps()


def test_the_number_of_trials_is_added_to_runs_that_were_there(tmp_path, runs):
    """Nothing is computed again, and what else was stored stays."""
    search, store, computed = search_of(tmp_path, trials=4, batch=2), Store(tmp_path), []
    first = tune(search, store, report=2)
    before = store.read(first["report"]["run_ids"][0])
    runs(before=computed.append)
    more = tune(search_of(tmp_path, trials=4, batch=2), store, report=3)
    assert [config["seed"] for config in computed] == [2]
    assert more["report"]["run_ids"][:2] == first["report"]["run_ids"]
    assert store.read(before.run_id) == before


def test_the_budget_states_trials_epochs_and_space(tmp_path, runs):
    result = tune(search_of(tmp_path, trials=4, batch=2), Store(tmp_path))
    assert result["budget"] == {
        "trials": 4,
        "seeds": 1,
        "epochs": 2,
        "max_steps": None,
        "search": {"optimizer.lr": LR},
    }
    assert len(result["trials"]) == 4 and result["report"] is None
    json.dumps(result)


def test_proposals_stay_inside_the_space(tmp_path, runs):
    space = {
        "optimizer.lr": LR,
        "algorithm.momentum": {"low": 0, "high": 0.9, "step": 0.3},
        "algorithm.steps": {"low": 2, "high": 32, "log": True},
        "train.batch_size": {"low": 32, "high": 96, "step": 32},
        "model.widths": [[16, 8], [8, 8]],
        "algorithm.step_discount": [None, 0.5],
        "model.bias": [True, False],
    }
    result = tune(search_of(tmp_path, space, trials=30, batch=10), Store(tmp_path))
    for settings in (trial["settings"] for trial in result["trials"]):
        assert LR["low"] <= settings["optimizer.lr"] <= LR["high"]
        assert any(settings["algorithm.momentum"] == pytest.approx(m) for m in (0, 0.3, 0.6, 0.9))
        assert isinstance(settings["algorithm.steps"], int)
        assert 2 <= settings["algorithm.steps"] <= 32
        assert settings["train.batch_size"] in (32, 64, 96)
        assert settings["model.widths"] in space["model.widths"]
        assert settings["algorithm.step_discount"] in (None, 0.5)
        assert settings["model.bias"] in (True, False)


def test_another_search_of_the_same_name_is_refused(tmp_path, runs):
    store = Store(tmp_path)
    tune(search_of(tmp_path, trials=2, batch=2), store)
    wider = {"optimizer.lr": LR | {"high": 2.0}}
    with pytest.raises(RecordError, match=r"differs in optimizer\.lr, batch\. Remove"):
        tune(search_of(tmp_path, wider, trials=2, batch=1), store)
    for content in ("{", "[]", '{"identity": {}, "proposals": []}'):
        (tmp_path / "tunes" / "space.json").write_text(content)
        with pytest.raises(RecordError, match=r"space\.json is damaged"):
            tune(search_of(tmp_path, trials=2, batch=2), store)


def test_overrides_make_another_search_and_fix_what_is_searched(tmp_path):
    space = {"optimizer.lr": LR, "algorithm.step_size": {**LR, "optional": True}}
    assert search_of(tmp_path, space).name == "space"
    other = search_of(tmp_path, space, ["algorithm=bp", "model.width=8"])
    assert other.name == "space-bp-model.width-8" and set(other.space) == {"optimizer.lr"}
    assert search_of(tmp_path, space, ["executor.pack_mode=vmap"]).name == "space"
    fixed = search_of(tmp_path, space, ["optimizer.lr=0.5"])
    assert set(fixed.space) == {"algorithm.step_size"} and fixed.base["optimizer.lr"] == 0.5
    same = search_of(tmp_path, space, ["executor.pack_mode=vmap"])
    assert same.identity == search_of(tmp_path, space).identity


RANGE = {"low": 0.1, "high": 0.5}


@pytest.mark.parametrize(
    ("space", "overrides", "message"),
    [
        (
            {"optimizer.lrr": RANGE},
            [],
            r"optimizer\.lrr: unknown key.*Did you mean 'optimizer\.lr'",
        ),
        ({"lr": RANGE}, [], r"lr: unknown key.*Did you mean 'optimizer\.lr'"),
        ({"optimizer.lrr": {**RANGE, "optional": True}}, [], r"Did you mean 'optimizer\.lr'"),
        ({"algorithm.step_size": RANGE}, ["algorithm=bp"], r"'bp' has no such key.*optional: true"),
        ({"optimizer.lr": {"low": 0.1, "hight": 1}}, [], r"'hight'.*Did you mean 'high'"),
        ({"optimizer.lr": {"low": 0.1}}, [], r"optimizer\.lr: expected \{low, high\}"),
        ({"optimizer.lr": 0.1}, [], r"optimizer\.lr: expected .*got 0\.1"),
        ({"optimizer.lr": {"low": 1, "high": 0.1}}, [], r"low must be below high"),
        ({"optimizer.lr": {"low": 0.1, "high": 0.1}}, [], r"low must be below high"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, [], r"needs low > 0"),
        ({"optimizer.lr": {**RANGE, "log": "yes"}}, [], r"log is true or false"),
        ({"optimizer.lr": {**RANGE, "log": True, "step": 0.1}}, [], r"step or log"),
        ({"optimizer.lr": {**RANGE, "step": 0.3}}, [], r"do not lead from 0\.1 to 0\.5"),
        ({"optimizer.lr": {**RANGE, "step": 0}}, [], r"step is a positive number"),
        ({"algorithm.steps": {"low": 1, "high": 4, "step": 0.5}}, [], r"positive integer"),
        ({"algorithm.steps": RANGE}, [], r"algorithm\.steps: expected integer, got 0\.1"),
        ({"algorithm.momentum": {"low": 0, "high": 1.5}}, [], r"must be at most 1"),
        ({"model.activation": ["tanh", "rleu"]}, [], r"Did you mean 'relu'"),
        ({"model.activation": {"low": 1, "high": 2}}, [], r"not a choice"),
        ({"model.bias": {"low": 0, "high": 1}}, [], r"expected true\|false"),
        ({"optimizer.lr": []}, [], r"choices are a list"),
        ({"optimizer.lr": {**RANGE, "choices": [1]}}, [], r"without a range"),
        ({"model.widths": [[16, 16], [16, 16, 16]]}, [], r"model\.widths lists 3"),
        ({"optimizer": ["sgd", "adam"]}, [], r"launch a search for each"),
        ({"seed": [1, 2]}, [], r"seed: is the same for all trials"),
        ({"train.max_steps": [1, 2]}, [], r"train\.max_steps: is the same"),
        ({"train.validation_fraction": [0.1, 0.2]}, [], r"is the same"),
        ({"optimizer.name": ["sgd"]}, [], r"optimizer\.name comes with the choice"),
        ({"executor.pack_size": [8]}, [], r"is the same"),
        ({"model.width": [8, 16]}, [], r"model\.width stands under where"),
        ({"optimizer.lr": LR}, ["optimizer.lr=1"], r"nothing is left to search"),
        ({"optimizer.lr": LR}, ["optimizer.lr=1,2"], r"optimizer\.lr: one value fixes"),
        ({"optimizer.lr": LR}, ["seed=3"], r"seed: a search takes its own"),
        (
            {"optimizer.lr": LR},
            ["train.validation_fraction=0", "train.selection=final"],
            r"nothing to search by",
        ),
        ({}, [], r"name at least one key"),
    ],
)
def test_a_wrong_space_is_refused_before_anything_runs(tmp_path, space, overrides, message):
    with pytest.raises(ConfigError, match=message):
        search_of(tmp_path, space, overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trails": 3}, r"'trails'\. Did you mean 'trials'"),
        ({"trials": 0}, r"trials: a whole number from 1"),
        ({"batch": 1.5}, r"batch: a whole number"),
        ({"seeds": [1, 2]}, r"seeds: a whole number"),
        ({"where": ["a"]}, r"where: a mapping"),
        ({"where": {"modle": "mlp"}}, r"modle"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        read_search(search_file(tmp_path, {"optimizer.lr": LR}, **content))


def test_an_unknown_search_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"tune 'digit' does not exist\. Did you mean 'digits'"):
        read_search("digit")


@pytest.mark.parametrize("name", choices("tune"))
@pytest.mark.parametrize("algorithm", ["pc", "bp"])
def test_every_search_file_serves_several_algorithms(name, algorithm):
    search = read_search(name, [f"algorithm={algorithm}"])
    own = {path for path in search.space if path.startswith("algorithm.")}
    assert "algorithm.step_size" in own if algorithm == "pc" else not own


def test_a_batch_of_numbers_is_one_pack_and_a_diverged_member_scores_chance(tmp_path, monkeypatch):
    """Trained for real."""
    packs, run_pack = [], execute.run_pack

    def counted(pack, *arguments):
        packs.append(pack.run_ids)
        return run_pack(pack, *arguments)

    monkeypatch.setattr(execute, "run_pack", counted)
    space = {"optimizer.lr": [1e-3, 1e12], "algorithm.step_size": {"low": 0.05, "high": 0.2}}
    search = search_of(tmp_path, space, ["optimizer=sgd"], trials=4, batch=4)
    store = Store(tmp_path)
    result = tune(search, store, report=4)
    assert [len(pack) for pack in packs] == [4, 4]
    for trial in result["trials"]:
        diverges = trial["settings"]["optimizer.lr"] > 1
        (row,) = (store.read(run_id).row for run_id in trial["run_ids"])
        assert row["pack_size"] == 4 and (row["status"] == "diverged") == diverges
        assert trial["value"] == pytest.approx(
            CHANCE if diverges else row["validation_accuracy_best"]
        )
    assert {trial["settings"]["optimizer.lr"] for trial in result["trials"]} == {1e-3, 1e12}
    assert result["best"]["settings"]["optimizer.lr"] == 1e-3
    report = result["report"]
    assert report["seeds"] == 4 and report["low"] <= report["mean"] <= report["high"]
    assert report["metric"] == "test_accuracy_at_best_validation"
    assert all("predictions/test" in store.arrays(run_id) for run_id in report["run_ids"])


def test_shapes_fall_into_a_pack_each(tmp_path, runs, monkeypatch):
    sizes, run = [], stand_in()

    def counted(packs, store, observe):
        sizes.extend(len({config.static_key for config in pack.configs}) for pack in packs)
        yield from run(packs, store, observe)

    monkeypatch.setattr(execute, "inline", counted)
    space = {"optimizer.lr": LR, "model.activation": ["tanh", "relu"]}
    tune(search_of(tmp_path, space, trials=8, batch=8), Store(tmp_path))
    assert sizes == [1, 1]
