"""Records are whole or absent, the table is a function of the records, copies lose nothing."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pcbench.results import Record, RecordError, Store
from pcbench.results.columns import COLUMNS, SCHEMA_VERSION
from pcbench.results.provenance import git_state, provenance
from pcbench.results.table import INDEX, table

REQUIRED = """run_id status sweep task dataset model width depth parameterisation algorithm variant
optimizer lr seed epochs test_accuracy_final test_accuracy_at_best_validation
validation_accuracy_best train_loss energy_initial energy_relaxed inference_residual
target_alignment target_alignment_finite gradient_cosine wall_s compile_s step_ms layer_updates
weight_updates flops_per_step parameters energy states protocol stage n_trials pack_size pack_mode
device jax_version git_revision git_dirty schema_version started host test_accuracy_best_epoch"""


def record(run_id="run0", status="completed", config=None, **row):
    config = {"algorithm": {"name": "pc", "steps": 8}, "seed": 0} if config is None else config
    evaluations = [{"condition": "noise=0.1", "metric": "accuracy", "value": 0.5}]
    return Record.new(run_id, status, config, {"algorithm": "pc", "seed": 0, **row}, evaluations)


def started(code, *arguments):
    """Another Python process that runs `code` with this repository's package."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment)


# Records


def test_required_columns_exist():
    assert set(REQUIRED.split()) <= COLUMNS.keys()


def test_record_round_trip():
    """What is read equals what was written: numpy values, arrays and non-finite numbers become
    plain values first."""
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": float("nan"), "d": -np.inf, "e": (1, 2)}
    written = record(**values, f=np.array([1.0, np.nan]), g=np.bool_(True))
    assert Record.from_json(written.to_json()) == written
    assert [written.row[k] for k in "abcdefg"] == [0.5, 3, None, None, [1, 2], [1.0, None], True]
    assert written.row["algorithm.steps"] == 8, "the row holds the leaves of the config"
    assert written.row["schema_version"] == SCHEMA_VERSION


def test_digest_does_not_depend_on_key_order():
    a = record(config={"x": 1, "y": 2.0})
    b = record(config={"y": 2.0, "x": 1})
    assert a.digest == b.digest


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_record_is_detected(tmp_path, share):
    store = Store(tmp_path)
    store.write(record())
    path = store.path("run0") / "record.json"
    text = path.read_bytes()
    path.write_bytes(text[: int(share * len(text))])
    with pytest.raises(RecordError, match=r"record\.json.*--force"):
        store.read("run0")
    assert store.finished() == {}, "a truncated record is run again"


@pytest.mark.parametrize(
    ("old", "new"),
    [('"seed":0', '"seed":1'), ('"value":0.5', '"value":NaN'), ('"row":', '"rows":')],
)
def test_edited_record_is_detected(tmp_path, old, new):
    store = Store(tmp_path)
    store.write(record())
    path = store.path("run0") / "record.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RecordError, match=r"record\.json"):
        store.read("run0")


def test_record_in_the_wrong_directory_is_detected(tmp_path):
    store = Store(tmp_path)
    store.write(record("run0"))
    (tmp_path / "runs" / "run0").rename(tmp_path / "runs" / "run1")
    with pytest.raises(RecordError, match="another run"):
        store.read("run1")
    assert store.finished() == {}


def test_reformatting_a_record_is_no_edit(tmp_path):
    """The digest is of the content, not of the bytes."""
    store = Store(tmp_path)
    store.write(record())
    path = store.path("run0") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    assert store.read("run0") == record()


def test_values_without_json_form_are_refused():
    with pytest.raises(RecordError, match=r"row\.x holds a object"):
        record(x=object())
    with pytest.raises(RecordError, match="Did you mean 'completed'"):
        record(status="complete")
    with pytest.raises(RecordError, match="cannot name a run"):
        record(run_id="../x")


# The store


def test_arrays_round_trip(tmp_path):
    store = Store(tmp_path)
    arrays = {
        "history/epoch": np.arange(3),
        "predictions/test": np.array([1, 2], np.int16),
        "weights/layer_0/kernel": np.ones((2, 3), np.float32),
    }
    store.write(record(), arrays)
    read = store.arrays("run0")
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)
    assert list(store.arrays("run0", "history/")) == ["history/epoch"]
    with pytest.raises(RecordError, match="npz cannot hold"):
        store.write(record(), {"x": np.array([object()])})


def test_replacing_a_record_leaves_nothing_of_the_old_one(tmp_path):
    store = Store(tmp_path)
    store.write(record(), {"history/epoch": np.arange(3)})
    store.write(record(status="failed"), traceback="ValueError: no")
    assert store.finished() == {"run0": "failed"}
    assert store.traceback("run0") == "ValueError: no"
    with pytest.raises(RecordError, match="stored no arrays"):
        store.arrays("run0")
    store.write(record())
    assert store.traceback("run0") is None


def test_damaged_arrays_are_detected(tmp_path):
    store = Store(tmp_path)
    store.write(record(), {"x": np.arange(1000)})
    path = store.path("run0") / "arrays.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RecordError, match=r"arrays\.npz is damaged"):
        store.arrays("run0")


def test_finished_agrees_with_the_records(tmp_path):
    store = Store(tmp_path)
    assert store.finished() == {}
    expected = {"a": "completed", "b": "diverged", "c": "failed"}
    for run_id, status in expected.items():
        store.write(record(run_id, status))
    store.path("unfinished").mkdir()
    (tmp_path / "runs" / "stray").write_text("x")
    assert store.finished() == expected
    assert {r.run_id: r.status for r in store.iterate()} == expected


def test_iterate_collects_what_it_cannot_read(tmp_path):
    store = Store(tmp_path)
    for run_id in "abc":
        store.write(record(run_id))
    (store.path("b") / "record.json").write_text("{}")
    problems = []
    assert [r.run_id for r in store.iterate(problems)] == ["a", "c"]
    assert len(problems) == 1 and str(store.path("b")) in problems[0]
    with pytest.warns(UserWarning, match="no record"):
        list(store.iterate())


def test_resolve(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RecordError, match="no finished run"):
        store.resolve("a")
    for run_id in ("abcd", "abce", "abc"):
        store.write(record(run_id))
    assert store.resolve("abcd") == "abcd"
    assert store.resolve("abc") == "abc", "a whole id wins over those that it begins"
    with pytest.raises(RecordError, match="begins 3 run ids"):
        store.resolve("ab")
    with pytest.raises(RecordError, match="Did you mean 'abce'"):
        store.resolve("bbce")


def test_sweep_membership(tmp_path):
    store = Store(tmp_path)
    store.add_to_sweep("s", ["a", "b"])
    store.add_to_sweep("s", ["b", "c"])
    store.add_to_sweep("empty", [])
    assert store.sweeps() == {"s": ["a", "b", "c"], "empty": []}
    (tmp_path / "sweeps" / "s.json").write_text('{"run_ids": [')
    with pytest.raises(RecordError, match="launch the sweep again"):
        store.add_to_sweep("s", ["d"])
    problems = []
    assert store.sweeps(problems) == {"empty": []} and len(problems) == 1


WRITER = """
import sys, numpy as np
from pcbench.results import Record, Store
store, who = Store(sys.argv[1]), sys.argv[2]
for i in range(int(sys.argv[3])):
    run_id = f"{who}{i % 5}" if sys.argv[4] == "again" else f"{who}{i}"
    row = {f"metric_{k}": k / 7 + i for k in range(500)}
    store.write(Record.new(run_id, "completed", {}, row), {"history/x": np.arange(20_000)})
"""


def test_a_kill_while_writing_leaves_no_bad_record(tmp_path):
    """Whenever the writer is killed, every record and every array file there is whole."""
    moments, store = random.Random(0), Store(tmp_path)
    for attempt in range(8):
        writer = started(WRITER, tmp_path, f"w{attempt}_", 10**6, "again")
        deadline = time.monotonic() + 30
        while not store.path(f"w{attempt}_0").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    problems = []
    runs = [r.run_id for r in store.iterate(problems)]
    assert problems == [] and len(runs) >= 8
    assert store.finished().keys() == set(runs)
    for run_id in runs:
        assert len(store.arrays(run_id)["history/x"]) == 20_000
    assert table(tmp_path).num_rows == len(runs)


def test_four_writers_lose_nothing(tmp_path):
    """Four processes, one directory, the table read meanwhile: all their records are there."""
    writers = [started(WRITER, tmp_path, f"w{i}_", 25, "new") for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while any(w.poll() is None for w in writers):
            table(tmp_path)
            time.sleep(0.1)
    assert [w.returncode for w in writers] == [0] * 4
    expected = {f"w{i}_{j}" for i in range(4) for j in range(25)}
    assert {r.run_id for r in Store(tmp_path).iterate()} == expected
    assert set(table(tmp_path)["run_id"].to_pylist()) == expected
    assert not list(tmp_path.rglob("*.tmp"))


def test_writers_of_one_run_agree(tmp_path):
    """Duplicates are harmless: the record is that of one of them, whole."""
    store = Store(tmp_path)
    records = [record(wall_s=float(i)) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: [store.write(r) for _ in range(5)], records))
    assert store.read("run0") in records


@pytest.mark.parametrize("before", ["nothing", "a record"])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_full_disk_leaves_no_half_file(tmp_path, monkeypatch, failing, before):
    store = Store(tmp_path)
    if before == "a record":
        store.write(record())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(RecordError, match="disk is full"):
            store.write(record(wall_s=1.0), {"x": np.arange(10)})
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "record.json"]
    assert store.finished() == ({} if before == "nothing" else {"run0": "completed"})
    if before == "a record":
        assert store.read("run0") == record()


def test_a_write_that_the_system_cuts_off_leaves_no_half_file(tmp_path):
    """The real thing, from the kernel: a limit on the size of files."""
    code = """
import resource, sys, numpy as np
from pcbench.results import Record, RecordError, Store
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for arrays, row in (({"x": np.arange(10_000)}, {}), (None, {"x": "y" * 10_000})):
    try:
        Store(sys.argv[1]).write(Record.new("a", "completed", {}, row), arrays)
    except RecordError as error:
        assert "cannot write" in str(error)
    else:
        sys.exit(1)
"""
    assert started(code, tmp_path).wait() == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RecordError, match="--results DIR"):
            Store(tmp_path).write(record())
    finally:
        tmp_path.chmod(0o700)


def test_results_directory_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        Store(tmp_path / "results").write(record())


# The table


def rows(found):
    """Rows without nulls: a column that lost its last value may stay."""
    return [{k: v for k, v in row.items() if v is not None} for row in found.to_pylist()]


def test_table_of_nothing(tmp_path):
    empty = table(tmp_path / "absent")
    assert empty.num_rows == 0 and set(COLUMNS) <= set(empty.column_names)
    assert not (tmp_path / "absent").exists()


def test_incremental_index_equals_rebuilt(tmp_path):
    """After any history of additions, replacements, removals and new sweeps, with columns that
    appear late, change their type and lose it again."""
    store, choose = Store(tmp_path), random.Random(0)
    values = [1, 2.5, None, "auto", True, [1, 2], 0.1, 7]
    for step in range(60):
        run_id = f"run{choose.randrange(20)}"
        if choose.random() < 0.25 and run_id in store.finished():
            (store.path(run_id) / "record.json").unlink()
        else:
            kinds = values[: choose.choice([1, 3, 8])]
            config = {"algorithm": {f"leaf_{choose.randrange(4)}": choose.choice(kinds)}}
            metric = {"sinr": choose.choice([1.0, None])} if step > 30 else {}
            store.write(record(run_id, config=config, lr=choose.choice([0.1, 1]), **metric))
        if step % 20 == 0:
            store.add_to_sweep(f"sweep{step}", [run_id, "run1"])
        if step % 3 == 0:
            incremental = table(tmp_path)
            index = (tmp_path / INDEX).read_bytes()
            assert rows(incremental) == rows(table(tmp_path, rebuild=True))
            (tmp_path / INDEX).write_bytes(index)  # go on with the incremental one


def test_known_records_are_not_read_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for i in range(5):
        store.write(record(f"run{i}", lr=0.1))
    table(tmp_path)
    stamp = (tmp_path / INDEX).stat().st_mtime_ns
    read = []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, i: read.append(i) or original(self, i))
    assert table(tmp_path).num_rows == 5 and read == []
    assert (tmp_path / INDEX).stat().st_mtime_ns == stamp, "nor is the index written"
    store.write(record("run5"))
    store.write(record("run2", lr=0.25))
    (store.path("run0") / "record.json").unlink()
    found = table(tmp_path)
    assert sorted(read) == ["run2", "run5"]
    assert found["run_id"].to_pylist() == ["run1", "run2", "run3", "run4", "run5"]
    assert found["lr"].to_pylist() == [0.1, 0.25, 0.1, 0.1, None]


def test_sweep_is_a_list_column(tmp_path):
    store = Store(tmp_path)
    store.write(record("a"))
    store.write(record("b"))
    table(tmp_path)
    store.add_to_sweep("one", ["a", "unfinished"])
    store.add_to_sweep("two", ["a"])
    assert table(tmp_path)["sweep"].to_pylist() == [["one", "two"], []]
    assert table(tmp_path)["sweep"].to_pylist() == [["one", "two"], []]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1, 2]),
        ([1, 0.5], [1.0, 0.5]),
        ([1, "auto"], ["1", "auto"]),
        ([True, 2], ["true", "2"]),
        ([[0.1, 1.0], None], ["[0.1, 1.0]", None]),
        ([None, None], [None, None]),
    ],
)
def test_leaves_of_mixed_types_are_unified(tmp_path, values, expected):
    store = Store(tmp_path)
    for i, value in enumerate(values):
        store.write(record(f"run{i}", config={"algorithm": {"leaf": value}}))
        table(tmp_path)
    found = table(tmp_path)["algorithm.leaf"].to_pylist()
    assert found == expected and [type(v) for v in found] == [type(v) for v in expected]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "other version"])
def test_bad_index_is_rebuilt(tmp_path, damage, monkeypatch):
    store = Store(tmp_path)
    store.write(record("a", lr=0.1))
    expected = table(tmp_path)
    path = tmp_path / INDEX
    if damage == "garbage":
        path.write_bytes(b"garbage")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        monkeypatch.setattr("pcbench.results.table._VERSION", b"0")
        table(tmp_path)
        monkeypatch.undo()
    assert table(tmp_path).equals(expected)


def test_bad_records_are_reported(tmp_path):
    store = Store(tmp_path)
    store.write(record("a"))
    store.write(record("b"))
    table(tmp_path)
    (store.path("a") / "record.json").write_text("{")
    for _ in range(2):
        problems = []
        assert table(tmp_path, problems)["run_id"].to_pylist() == ["b"]
        assert len(problems) == 1 and str(store.path("a")) in problems[0]
    with pytest.warns(UserWarning, match="truncated"):
        table(tmp_path)


def test_the_table_can_be_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    Store(tmp_path).write(record("a"))

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    problems = []
    assert table(tmp_path, problems).num_rows == 1
    assert len(problems) == 1 and "read-only" in problems[0]


# What surrounds the records


def test_importing_results_is_light():
    """The command line imports these for `--help`."""
    code = """
import sys
for name in "records columns table leaderboard render wandb_mirror provenance".split():
    __import__(f"pcbench.results.{name}")
heavy = {"jax", "flax", "optax", "numpy", "scipy", "pyarrow", "rich", "wandb"} & sys.modules.keys()
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    assert started(code).wait() == 0


def git(directory, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


def test_git_state_is_of_the_checkout_that_tracks_the_package(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_state(package) == (None, None), "outside of git"
    git(tmp_path, "init")
    (tmp_path / "user.txt").write_text("mine")
    git(tmp_path, "add", "user.txt")
    git(tmp_path, "commit", "-m", "m")
    assert git_state(package) == (None, None), "in the user's repository, but not of it"
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "m")
    revision, dirty = git_state(package)
    assert len(revision) == 40 and dirty is False
    (package / "new.py").write_text("")
    assert git_state(package) == (revision, True)


def test_git_hooks_do_not_mislead_git_state(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert git_state(tmp_path) == (None, None)


def test_provenance_is_plain_and_complete():
    found = provenance()
    assert Record.new("a", "completed", {}, {}, (), found).provenance == found
    assert {"git_revision", "git_dirty", "jax_version", "host", "started"} <= found.keys()
    assert found["started"].endswith("+00:00")


def test_wandb_mirror_offline(tmp_path, monkeypatch):
    """The real wandb, without network and key: its file holds the history and the row."""
    pytest.importorskip("wandb")
    from pcbench.results.wandb_mirror import mirror

    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    history = {"history/epoch": np.array([1, 2]), "history/train_loss": np.array([0.5, np.nan])}
    settings = {"mode": "offline", "dir": str(tmp_path), "project": "p", "tags": ["t"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert mirror(record(test_accuracy_final=0.8125), history, settings)
    (log,) = tmp_path.rglob("run-run0.wandb")
    wanted, deadline = (b"train_loss", b"test_accuracy_final", b"0.8125"), time.monotonic() + 30
    while not all(w in log.read_bytes() for w in wanted) and time.monotonic() < deadline:
        time.sleep(0.1)  # wandb's own process writes the file
    assert all(w in log.read_bytes() for w in wanted)


def test_a_finished_sweep_is_mirrored_as_runs(tmp_path, monkeypatch):
    """One offline folder for each finished run; an unfinished one has none."""
    pytest.importorskip("wandb")
    from click.testing import CliRunner

    from pcbench.cli import main

    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    store = Store(tmp_path)
    for run_id in ("a", "b"):
        store.write(record(run_id), {"history/epoch": np.array([1])})
    store.add_to_sweep("s", ["a", "b", "unfinished"])
    done = CliRunner().invoke(main, ["wandb", "s", "--results", str(tmp_path)])
    assert done.exit_code == 0 and done.output.strip() == "2 of 2 finished runs copied, offline"
    folders = {path.name.rsplit("-", 1)[-1] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert folders == {"a", "b"}
    done = CliRunner().invoke(main, ["wandb", "t", "--results", str(tmp_path)])
    assert done.exit_code == 1 and "no sweep 't'. There: s." in done.output


def test_wandb_failure_is_a_warning(monkeypatch):
    from pcbench.results.wandb_mirror import mirror

    monkeypatch.setitem(sys.modules, "wandb", None)  # import wandb raises ImportError
    with pytest.warns(UserWarning, match="did not take run run0"):
        assert not mirror(record(), {}, {"mode": "offline"})
    assert not mirror(record(), {}, {"mode": "disabled"})
