"""Sweeps: packs, culprits, interruptions, workers, detached ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import jax
import pytest
from click.testing import CliRunner

from pcbench.cli import main
from pcbench.results.records import Store
from pcbench.sweeps import execute, workers
from pcbench.sweeps.expand import expand
from pcbench.sweeps.packs import (
    LARGEST,
    MOST_STARTS,
    Pack,
    claim,
    claimed,
    claims,
    kept_packs,
    load_pack,
    new_packs,
    unfinished,
)
from pcbench.sweeps.plan import make_plan
from pcbench.training import train as training
from pcbench.training.packing import choose_mode

TINY = ["train.epochs=2", "model.width=16", "model.depth=3"]


def configs_of(*overrides):
    return expand(None, [*TINY, *overrides])[0]


def run_all(store, configs, **options):
    plan = make_plan(configs, 0, store, **options)
    return list(execute.inline(plan.packs, store, lambda *_: None))


def numbers(store):
    names = ("status", "test_accuracy_final", "train_loss", "target_alignment")
    return {r.run_id: [r.row[n] for n in names] for r in store.iterate()}


def start(*arguments):
    command = [sys.executable, "-m", "pcbench", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


# --- plans and packs ----------------------------------------------------------------------------


def test_packs_hold_runs_of_one_program_in_equal_sizes():
    configs = configs_of("algorithm=bp,pc", "seed=range(70)")
    packs = new_packs(configs, "auto", None, 1)
    assert [len(p.configs) for p in packs] == [35, 35, 35, 35] and LARGEST == 64
    assert all(len({c.static_key for c in p.configs}) == 1 for p in packs)
    assert [r for p in packs for r in p.run_ids] == [c.run_id for c in configs]
    assert [len(p.configs) for p in new_packs(configs[:70], "map", 16, 1)] == [14] * 5
    assert [len(p.configs) for p in new_packs(configs[:70], "map", None, 2)] == [35, 35]
    assert [len(p.configs) for p in new_packs(configs[:60], "map", 60, 8)] == [60]
    assert {p.mode for p in new_packs(configs, "none", None, 1)} == {"none"}


def test_a_pack_of_runs_without_a_step_to_time_is_a_map():
    assert choose_mode(configs_of("train.max_steps=0", "seed=0,1")) == "map"


def test_a_pack_survives_the_disk(tmp_path):
    store = Store(tmp_path)
    pack = Pack(tuple(configs_of("seed=0,1", "algorithm.precisions=[1,2,1]")), "map")
    pack.save(store)
    again = load_pack(pack.file(store))
    assert (again.run_ids, again.mode, again.pack_id) == (pack.run_ids, "map", pack.pack_id)
    pack.file(store).write_text("{half a f")
    assert load_pack(pack.file(store)) is None


def test_a_pack_of_an_earlier_version_keeps_its_runs(tmp_path):
    """Leaves that came since are at the value with which they were introduced."""
    store = Store(tmp_path)
    pack = Pack(tuple(configs_of("seed=0,1")), "map")
    pack.save(store)
    content = json.loads(pack.file(store).read_bytes())
    for tree in content["configs"]:
        del tree["train"]["epoch_steps"], tree["algorithm"]["precisions"]
    pack.file(store).write_text(json.dumps(content))
    again = load_pack(pack.file(store))
    assert again.run_ids == pack.run_ids
    assert again.configs[0].flat == pack.configs[0].flat
    content["configs"][0]["train"]["gone_since"] = 3
    pack.file(store).write_text(json.dumps(content))
    assert load_pack(pack.file(store)) is None


def test_an_interrupted_pack_is_planned_as_itself(tmp_path):
    """Also when some of its members have records already: vmap bits depend on the members."""
    store = Store(tmp_path)
    configs = configs_of("seed=range(4)")
    pack = Pack(tuple(configs), "vmap")
    pack.save(store)
    run_all(store, configs[:1])
    plan = make_plan(configs, 0, store)
    assert [(p.run_ids, p.mode) for p in plan.packs] == [(pack.run_ids, "vmap")]
    assert plan.finished == 1
    subset = make_plan(configs[2:], 0, store)  # nobody asked for all of it: planned anew
    assert [p.run_ids for p in subset.packs] == [[c.run_id for c in configs[2:]]]


def test_what_others_have_claimed_is_not_sent_again(tmp_path):
    store = Store(tmp_path)
    pack = Pack(tuple(configs_of("seed=range(3)")), "map")
    pack.save(store)
    host, parent = os.uname().nodename, os.getppid()
    import psutil

    created = psutil.Process(parent).create_time()
    path = claim(store, f"{host}-{parent}", [pack], created=created)  # alive, and not us
    plan = make_plan(configs_of("seed=range(4)"), 0, store)
    assert plan.taken == 3 and [len(p.configs) for p in plan.packs] == [1]
    claim(store, f"{host}-{parent}", [pack], created=created - 99)  # another process of that number
    assert make_plan(configs_of("seed=range(4)"), 0, store).taken == 0
    assert not path.exists()  # the dead's claim is removed
    far = claim(store, "elsewhere-1", [pack], created=0.0)
    assert claims(store)[0]["state"] == "running"  # it gave a sign of life just now
    os.utime(far, (0, 0))
    assert claims(store) == []
    with claimed(store, [pack]):
        assert list((store.root / "claims").iterdir())
    assert not list((store.root / "claims").iterdir())


@pytest.mark.parametrize("executor", ["processes", "slurm", "inline"])
def test_a_kept_pack_is_sent_by_the_executor_of_this_launch(executor, tmp_path):
    """With a member that is not asked for any more, and is finished."""
    store, before = Store(tmp_path), configs_of("seed=0,1", "executor=inline")
    Pack(tuple(before), "map").save(store)
    run_all(Store(tmp_path / "other"), before[:1])
    shutil.copytree(tmp_path / "other" / "runs", tmp_path / "runs")
    own = configs_of("seed=1", f"executor={executor}")
    (pack,) = make_plan(own, 0, store).packs
    assert pack.run_ids == [c.run_id for c in before]
    assert [c["executor"] for c in pack.configs] == [own[0]["executor"]] * 2


def test_of_kept_packs_that_share_runs_the_later_one_counts(tmp_path):
    """No run is planned twice, whatever was interrupted in between."""
    store = Store(tmp_path)
    configs = configs_of("seed=range(4)")
    whole = Pack(tuple(configs), "map")
    whole.save(store)
    part = Pack(tuple(configs[2:]), "map")
    os.utime(whole.file(store), (0, 0))
    part.save(store)
    assert [p.run_ids for p in kept_packs(store, set(whole.run_ids))] == [part.run_ids]
    planned = [r for p in make_plan(configs, 0, store).packs for r in p.run_ids]
    assert sorted(planned) == sorted(whole.run_ids)


def test_a_pack_that_was_split_is_found_in_its_parts(tmp_path):
    store = Store(tmp_path)
    pack = Pack(tuple(configs_of("seed=range(5)")), "vmap")
    pack.save(store)

    def left():
        return {p.pack_id for p in unfinished(pack, store)}

    assert left() == {pack.pack_id}
    three, two = pack.split(store, 3)
    assert [len(p.configs) for p in (three, two)] == [3, 2] and not pack.file(store).exists()
    assert left() == {three.pack_id, two.pack_id}
    three.remove(store)
    assert left() == {two.pack_id}
    two.remove(store)
    assert left() == {pack.pack_id}  # there are no records: it was never run


def test_two_sweeps_launched_at_once_share_the_packs(tmp_path):
    """Both planned before either had claimed: the earlier claim counts."""
    import psutil

    store = Store(tmp_path)
    packs = [Pack((config,), "none") for config in configs_of("seed=range(3)")]
    host, parent = os.uname().nodename, os.getppid()
    owner = {"created": psutil.Process(parent).create_time()}
    claim(store, f"{host}-{parent}", packs[:1], **owner, since=time.time() - 1)
    with claimed(store, packs) as ours:
        assert ours == packs[1:]
        mine = json.loads((tmp_path / "claims" / f"{host}-{os.getpid()}.json").read_text())
        assert len(mine["packs"]) == 2
    claim(store, f"{host}-{parent}", packs[:1], **owner, since=time.time() + 60)
    with claimed(store, packs) as ours:
        assert ours == packs


def test_a_plan_of_ten_thousand_runs_takes_seconds(tmp_path):
    rates = ",".join(str(n) for n in range(1, 101))
    started = time.process_time()  # others' load is not ours
    result = CliRunner().invoke(
        main,
        ["plan", "seed=range(100)", f"optimizer.lr={rates}", "--json", "--results", str(tmp_path)],
    )
    assert json.loads(result.stdout)["runs"] == 10_000
    assert time.process_time() - started < 3


def test_a_sweep_adds_under_ten_milliseconds_a_run(tmp_path, monkeypatch):
    """Expansion, plan, packs on disk and records of 64 runs whose training takes no time.

    Processor time, because others' load is not ours; scripts/pack_gain.py times the disk, too.
    """
    overrides = ["algorithm=bp", "executor.pack_mode=map", "train.epochs=1", "seed=range(64)"]
    (outcome,) = training.train(expand(None, [*overrides, "seed=0"])[0])
    monkeypatch.setattr(training, "train", lambda configs, *_: [outcome] * len(configs))
    seconds = []
    for n in range(5):
        store, started = Store(tmp_path / str(n)), time.process_time()
        plan = make_plan(*expand(None, overrides), store)
        assert len(list(execute.inline(plan.packs, store, lambda *_: None))) == 64
        seconds.append(time.process_time() - started)
    assert min(seconds) / 64 < 0.010


# --- packs that go wrong ------------------------------------------------------------------------


def test_the_culprit_of_a_failing_pack_is_found_and_the_others_complete(tmp_path, monkeypatch):
    real = training.train

    def train(configs, *arguments):
        if any(c["seed"] == 2 for c in configs):
            raise RuntimeError("seed 2 is cursed")
        return real(configs, *arguments)

    monkeypatch.setattr(training, "train", train)
    store = Store(tmp_path)
    run_all(store, configs_of("seed=range(4)", "executor.pack_mode=map"))
    statuses = {r.row["seed"]: r.status for r in store.iterate()}
    assert statuses == {0: "completed", 1: "completed", 2: "failed", 3: "completed"}
    failed = next(r for r in store.iterate() if r.status == "failed")
    assert "seed 2 is cursed" in store.traceback(failed.run_id)
    assert not list((tmp_path / "packs").iterdir())
    monkeypatch.undo()
    run_all(store, configs_of("seed=range(4)"), retry=["failed"])
    assert set(store.finished().values()) == {"completed"}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")]
)
def test_a_pack_that_does_not_fit_is_halved(error, tmp_path, monkeypatch):
    real, sizes = training.train, []

    def train(configs, *arguments):
        sizes.append(len(configs))
        if len(configs) > 2:
            raise error
        return real(configs, *arguments)

    monkeypatch.setattr(training, "train", train)
    store = Store(tmp_path)
    run_all(store, configs_of("seed=range(6)", "executor.pack_mode=map"))
    assert sizes == [6, 3, 2, 1, 2, 1]  # the second three is not tried: the first did not fit
    assert list(store.finished().values()) == ["completed"] * 6


def test_a_pack_that_always_kills_its_process_is_halved(tmp_path, monkeypatch):
    """What is on disk tells: it was started again and again, and came to no checkpoint."""
    store, configs = Store(tmp_path), configs_of("seed=range(4)", "executor.pack_mode=map")
    Pack(tuple(configs), "map", starts=MOST_STARTS - 1).save(store)
    real, seen = training.train, []

    def train(configs, mode, observe, checkpoint):
        seen.append((len(configs), load_pack(checkpoint.path.with_suffix(".json")).starts))
        if len(configs) == 4:
            raise Killed
        return real(configs, mode, observe, checkpoint)

    class Killed(BaseException):
        """Nothing is done about it, as after a SIGKILL."""

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(Killed):
        run_all(store, configs)
    assert make_plan(configs, 0, store).packs[0].starts == MOST_STARTS
    run_all(store, configs)
    assert seen == [(4, MOST_STARTS), (2, 1), (2, 1)]
    assert list(store.finished().values()) == ["completed"] * 4


@pytest.mark.parametrize("kills,starts", [(7, 1), (8, MOST_STARTS)])
def test_a_kill_for_memory_counts_at_once_and_any_other_kill_hardly(
    kills, starts, tmp_path, monkeypatch
):
    from pcbench.training import memory

    store, pack = Store(tmp_path), Pack(tuple(configs_of("seed=0,1")), "map", starts=1)
    monkeypatch.setattr(memory, "kills", lambda: 7)
    pack.save(store)
    monkeypatch.setattr(memory, "kills", lambda: kills)
    assert load_pack(pack.file(store)).starts == starts


def test_a_stop_or_a_checkpoint_takes_back_that_a_pack_has_started(tmp_path, monkeypatch):
    from pcbench.training.checkpoint import Preempted

    store, configs = Store(tmp_path), configs_of("seed=range(2)")
    pack = Pack(tuple(configs), "map", starts=1)

    def train(configs, mode, observe, checkpoint):
        raise Preempted

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(Preempted):
        run_all(store, [*configs])
    assert load_pack(pack.file(store)).starts == 0
    pack.save(store)
    assert load_pack(pack.file(store)).starts == 1
    pack.checkpoint(store).write_bytes(b"further than before")
    assert load_pack(pack.file(store)).starts == 0


LIMITED = """
import os, resource, sys, psutil
from pcbench.sweeps import execute
from pcbench.sweeps.expand import expand
from pcbench.sweeps.plan import make_plan
from pcbench.results.records import Store
from pcbench.training import memory

limit, checked, results, *overrides = sys.argv[1:]
import jax
jax.devices()
own = psutil.Process().memory_info()
if checked == "unchecked":
    memory.require = lambda *_: None
if limit == "rlimit":
    most = own.data + 1_000_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
else:
    with open(f"{limit}/memory.limit_in_bytes", "w") as file:
        file.write(str(own.rss + 1_000_000_000))
    with open(f"{limit}/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
from pcbench.config.config import build, nest
configs = expand(None, overrides)[0]
if checked == "unchecked":  # in workers, too
    configs = [build(nest({**c.flat, "model.target": "blind.model"})) for c in configs]
plan, store = make_plan(configs, 0, Store(results)), Store(results)
executor = getattr(execute, configs[0]["executor.name"])
for record in executor(plan.packs, store, lambda *_: None):
    print(record.status, record.row["pack_size"])
"""
LARGE = ["algorithm=bp", "model.width=1024", "model.depth=3", "train.max_steps=2", "seed=range(48)"]
LARGE += ["executor.pack_mode=vmap", "executor.pack_size=48"]  # 1.5 GB to initialise


def run_limited(tmp_path, limit, checked, *overrides):
    (tmp_path / "blind.py").write_text(
        "from pcbench.networks.chains import mlp as model\n"
        "from pcbench.training import memory\nmemory.require = lambda *_: None\n"
    )
    return subprocess.run(
        [sys.executable, "-c", LIMITED, limit, checked, tmp_path / "results", *LARGE, *overrides],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip


def assert_all_completed_in_smaller_packs(done):
    assert done.returncode == 0, done.stderr[-2000:]
    statuses, sizes = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert statuses == ("completed",) * 48 and max(map(int, sizes)) < 48


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_a_pack_too_large_for_a_limit_of_the_process_is_halved(tmp_path):
    assert_all_completed_in_smaller_packs(run_limited(tmp_path, "rlimit", "checked"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_a_pack_whose_memory_was_counted_wrong_is_halved(tmp_path):
    """An allocation that fails ends in an error, an abort or a crash of the worker, as it likes."""
    executor = ["executor=processes", "executor.workers=1"]
    done = run_limited(tmp_path, "rlimit", "unchecked", *executor)
    assert_all_completed_in_smaller_packs(done)


@pytest.fixture
def cgroup(request):
    """A control group, whose limit the kernel enforces by killing."""
    place = Path("/sys/fs/cgroup/memory") / f"pcbench-{os.getpid()}"
    try:
        place.mkdir()
    except OSError:
        pytest.skip("no control group for memory (version 1) can be made here")
    yield place
    wait_for(lambda: not (place / "cgroup.procs").read_text())
    place.rmdir()


@pytest.mark.slow
def test_a_pack_too_large_for_a_control_group_is_halved(cgroup, tmp_path):
    assert_all_completed_in_smaller_packs(run_limited(tmp_path, str(cgroup), "checked"))


@pytest.mark.slow
def test_a_pack_that_the_kernel_kills_is_halved_at_the_next_launch(cgroup, tmp_path):
    assert run_limited(tmp_path, str(cgroup), "unchecked").returncode == -signal.SIGKILL
    assert_all_completed_in_smaller_packs(run_limited(tmp_path, str(cgroup), "unchecked"))


@pytest.mark.slow
def test_a_pack_whose_workers_the_kernel_kills_is_halved(cgroup, tmp_path):
    executor = ["executor=processes", "executor.workers=1"]
    done = run_limited(tmp_path, str(cgroup), "unchecked", *executor)
    assert_all_completed_in_smaller_packs(done)


def test_a_run_that_alone_does_not_fit_has_failed(tmp_path, monkeypatch):
    def train(*_):
        raise MemoryError("too large")

    monkeypatch.setattr(training, "train", train)
    (record,) = run_all(Store(tmp_path), configs_of("seed=0"))
    assert record.status == "failed"


def test_a_diverging_member_is_an_outcome_beside_the_others(tmp_path):
    store = Store(tmp_path)
    configs = configs_of("optimizer=sgd", "optimizer.lr=0.1,1e6", "executor.pack_mode=vmap")
    run_all(store, configs)
    assert [store.read(c.run_id).status for c in configs] == ["completed", "diverged"]


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """The modes that were measured; a `map` pack is said to take `timed.whole_run` seconds."""
    from pcbench.training import packing

    if jax.default_backend() != "cpu":
        pytest.skip("on an accelerator a pack is a vmap without being timed")

    class Timed(packing._Timed):
        modes: ClassVar = []
        whole_run = float("inf")

        def __init__(self, configs, mode, *first):
            self.modes.append(mode)
            super().__init__(configs, mode, *first)

    monkeypatch.setenv("PCBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(packing, "_Timed", Timed)
    return Timed


def test_an_auto_pack_measures_once_and_keeps_its_mode(tmp_path, timed):
    modes = set()
    for name in ("a", "b"):
        store = Store(tmp_path / name)
        run_all(store, configs_of("seed=0,1"))
        modes |= {r.row["pack_mode"] for r in store.iterate()}
    assert timed.modes == ["map", "vmap"] and len(modes) == 1 and modes <= {"map", "vmap"}


def test_a_pack_that_is_done_sooner_than_a_second_program_is_a_map(tmp_path, timed):
    timed.whole_run = 0.0
    run_all(Store(tmp_path), configs_of("seed=0,1,2"))
    assert timed.modes == ["map"]
    assert {r.row["pack_mode"] for r in Store(tmp_path).iterate()} == {"map"}


def test_an_auto_pack_whose_vmap_does_not_fit_is_a_map(tmp_path, timed, monkeypatch):
    def run(pack):
        if pack.pack.mode == "vmap":
            raise MemoryError
        pack.seconds = 1.0

    monkeypatch.setattr(timed, "run", run)
    for name in ("a", "b"):  # the free memory of a moment is not remembered
        run_all(Store(tmp_path / name), configs_of("seed=0,1"))
        assert {r.row["pack_mode"] for r in Store(tmp_path / name).iterate()} == {"map"}
    assert timed.modes == ["map", "vmap"] * 2


def test_map_packs_store_what_single_runs_store(tmp_path):
    configs = configs_of("seed=range(3)")
    packed, single = Store(tmp_path / "packed"), Store(tmp_path / "single")
    list(execute.inline([Pack(tuple(configs), "map")], packed, lambda *_: None))
    list(execute.inline(new_packs(configs, "none", None, 1), single, lambda *_: None))
    if jax.default_backend() == "cpu":
        assert numbers(packed) == numbers(single)
    else:  # another program may be compiled to other kernels
        for run, found in numbers(packed).items():
            assert found[0] == numbers(single)[run][0]
            assert found[1:] == pytest.approx(numbers(single)[run][1:], rel=1e-4)


# --- processes ----------------------------------------------------------------------------------


def test_worker_processes_compute_the_same_numbers(tmp_path):
    overrides = [*TINY, "seed=range(4)", "executor.pack_mode=map"]
    for executor in ("inline", "processes"):
        done = CliRunner().invoke(
            main,
            ["sweep", *overrides, f"executor={executor}", "--results", str(tmp_path / executor)],
        )
        assert done.exit_code == 0, done.output
    here, there = Store(tmp_path / "inline"), Store(tmp_path / "processes")
    assert numbers(here) == numbers(there) and len(numbers(here)) == 4


def test_worker_processes_share_cores_and_the_memory_of_a_gpu(monkeypatch):
    """No process takes most of the GPU at once, this one included, nor more than its share."""
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    executor = workers._executor(2, cores=8)
    try:
        names = ("NPROC", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE")
        cores, share, preallocate = executor.map(os.getenv, names)
    finally:
        executor.shutdown(kill_workers=True)
    assert cores == "4" and float(share) <= 0.5
    assert preallocate == os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_a_run_that_kills_its_worker_is_recorded_and_the_others_complete(tmp_path):
    """The plugin-like network below ends its process without a word for one width."""
    (tmp_path / "deadly.py").write_text(
        "import os\nfrom pcbench.networks.chains import mlp\n"
        "def model(config, *shapes):\n"
        "    if config['width'] == 13: os._exit(9)\n"
        "    return mlp(config, *shapes)\n"
    )
    code = (
        "import sys; from pcbench.sweeps.expand import expand\n"
        "from pcbench.sweeps.packs import new_packs; from pcbench.results.records import Store\n"
        "from pcbench.sweeps.workers import run_in_workers\n"
        "from pcbench.config.config import build, nest\n"
        "configs = expand(None, sys.argv[2:])[0]\n"
        "deadly = {'model.target': 'deadly.model'}\n"
        "configs = [build(nest({**c.flat, **deadly})) for c in configs]\n"
        "packs = new_packs(configs, 'none', None, 2)\n"
        "for r in run_in_workers(packs, Store(sys.argv[1]), 2): print(r.row['width'], r.status)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "results"), *TINY, "model.width=12,13,14"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    statuses = dict(line.split() for line in done.stdout.splitlines())
    assert statuses == {"12": "completed", "13": "failed", "14": "completed"}


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is signalled on Linux only")
def test_workers_die_with_their_parent(tmp_path):
    import psutil

    overrides = ["seed=range(2)", "train.epochs=2000", "executor=processes", "executor.workers=2"]
    running = start("sweep", *overrides, "--results", tmp_path)
    parent = psutil.Process(running.pid)
    wait_for(lambda: len(parent.children()) >= 2)
    time.sleep(3)  # in the middle of it
    workers = parent.children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not [w for w in alive if w.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_a_sweep_says_how_to_resume_and_does(executor, number, tmp_path):
    overrides = [
        "seed=0,1", "train.epochs=400", "model.width=16", f"executor={executor}",
        "train.checkpoint_seconds=0", "executor.pack_mode=map", "executor.pack_size=2",
    ]  # fmt: skip
    running = start("sweep", *overrides, "--results", tmp_path)
    wait_for(lambda: list((tmp_path / "packs").glob("[!.]*.npz")))
    running.send_signal(number)
    _, message = running.communicate(timeout=60)
    assert running.returncode == 130 and "Resume with: pcbench sweep" in message, message
    assert list((tmp_path / "packs").glob("[!.]*.npz")) and not Store(tmp_path).finished()
    kept = [load_pack(path).run_ids for path in (tmp_path / "packs").glob("[!.]*.json")]
    plan = CliRunner().invoke(main, ["plan", *overrides, "--json", "--results", str(tmp_path)])
    planned = [p["run_ids"] for p in json.loads(plan.stdout)["packs"]]
    assert sorted(planned) == sorted(kept) and sum(map(len, kept)) == 2


def test_a_detached_sweep_is_looked_after_from_any_shell(tmp_path):
    def pcbench(*arguments, code=0):
        done = CliRunner().invoke(main, [*arguments, "--results", str(tmp_path)])
        assert done.exit_code == code, done.output
        return done

    overrides = [*TINY, "seed=0,1", "executor=processes"]
    started = time.monotonic()
    name = pcbench("sweep", *overrides, "--detach").stdout.split("status ")[1].split()[0]
    assert time.monotonic() - started < 20
    again = json.loads(pcbench("plan", *overrides, "--json").stdout)
    assert again["taken"] + again["finished"] == 2 and not again["packs"]

    def state(name):
        return json.loads(pcbench("status", name, "--json").stdout)["sweeps"][0]

    wait_for(lambda: state(name)["completed"] == 2)
    assert "2 completed" in pcbench("collect").stdout
    assert f"Did you mean '{name}'" in pcbench("status", name[:-1], code=2).stderr
    long = ["seed=7", "train.epochs=100000", "model.width=16"]
    name = pcbench("sweep", *long, "--detach").stdout.split("status ")[1].split()[0]
    assert state(name)["running"] == 1
    time.sleep(5)
    assert pcbench("cancel", name).stdout
    wait_for(lambda: state(name)["missing"] == 1)
    assert "nothing was running" in pcbench("cancel").stdout


def test_a_sweep_says_what_failed_before_and_how_to_run_it_again(tmp_path, monkeypatch):
    def sweep(*more, code):
        command = ["sweep", *TINY, "seed=0,1,2", *more, "--results", str(tmp_path)]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == code, done.output
        return done

    def train(configs, *_):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", train)
        done = sweep(code=1)
    assert done.stderr.count("RuntimeError: out of luck") == 1  # for all three
    assert "3 runs failed; --retry failed runs them again" in done.stderr
    again = sweep(code=1)
    assert "3 finished" in again.stderr and "3 runs failed (3 of them in an earlier" in again.stderr
    collected = CliRunner().invoke(main, ["collect", "--json", "--results", str(tmp_path)])
    found = json.loads(collected.stdout)
    assert collected.exit_code == 1 and len(found["failures"][0]["run_ids"]) == 3
    assert found["variants"][0] | {"sweep": ""} == {
        "sweep": "", "variant": "pc", "dataset": "digits", "model": "mlp",
        "completed": 0, "diverged": 0, "failed": 3,
    }  # fmt: skip
    sweep("--retry=failed", code=0)
    collected = CliRunner().invoke(main, ["collect", "--results", str(tmp_path)])
    assert collected.exit_code == 0 and "3 completed" in collected.stdout


def test_a_missing_run_that_nobody_takes_care_of_is_no_success(tmp_path):
    Store(tmp_path).add_to_sweep("lost", ["0" * 16])
    done = CliRunner().invoke(main, ["collect", "lost", "--wait", "--results", str(tmp_path)])
    assert done.exit_code == 1 and "1 missing" in done.stdout
    assert "launch the sweep again" in done.stderr


def test_the_output_of_a_detached_sweep_is_found_when_it_fails(tmp_path, monkeypatch):
    """It fails at once here, because its child has no such device."""
    monkeypatch.setenv("JAX_PLATFORMS", "nowhere")
    command = ["sweep", *TINY, "seed=0,1", "--detach", "--results", str(tmp_path)]
    started = CliRunner().invoke(main, command)
    assert started.exit_code == 0, started.output

    def status():
        done = CliRunner().invoke(main, ["status", "--json", "--results", str(tmp_path)])
        return json.loads(done.stdout)["sweeps"][0]

    wait_for(lambda: status()["failed"] == 2 and not status()["running"])
    wait_for(lambda: [job["state"] for job in status()["jobs"]] == ["ended"])
    (job,) = status()["jobs"]
    assert (tmp_path / job["log"]).exists() and any("nowhere" in line for line in job["tail"])


# --- writers and disks --------------------------------------------------------------------------

WRITER = """
import sys
from pcbench.results.records import Record, Store
store, name, count = Store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for n in range(count):
    run_id = f"{name}x{n}"
    store.write(Record.new(run_id, "completed", {"seed": n}, {"run_id": run_id}), {"a": [n]})
"""


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_eight_writers_lose_nothing(count, tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, f"w{n}", str(count)]) for n in range(8)]
    assert [w.wait() for w in writers] == [0] * 8
    problems = []
    records = list(Store(tmp_path).iterate(problems))
    assert len(records) == 8 * count and not problems


def test_a_truncated_record_is_run_again_and_an_edited_one_is_reported(tmp_path):
    def pcbench(*arguments, code=0):
        done = CliRunner().invoke(main, [*arguments, "--results", str(tmp_path)])
        assert done.exit_code == code, done.output
        return done

    overrides = [*TINY, "seed=0,1,2", "executor.pack_mode=map"]
    pcbench("sweep", *overrides)
    before, paths = numbers(Store(tmp_path)), sorted((tmp_path / "runs").glob("*/record.json"))
    paths[0].write_text(paths[0].read_text()[:-100])
    again = pcbench("sweep", *overrides)
    assert "2 finished" in again.stderr and "3 completed" in again.stdout
    assert numbers(Store(tmp_path)) == before
    paths[1].write_text(paths[1].read_text().replace('"train_loss":0.', '"train_loss":1.'))
    collected = pcbench("collect", code=1)
    assert f"{paths[1]} was changed" in collected.stderr
    assert json.loads(pcbench("collect", "--json", code=1).stdout)["problems"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_an_error_and_no_record_is_damaged(small_disk):
    """Twelve runs of 0.2 MB do not fit: the sweep says so; what is stored is whole."""
    arguments = ["sweep", "seed=range(12)", "train.epochs=1", "model.width=128", "model.depth=3"]
    arguments += ["executor.pack_size=2", "executor.pack_mode=map"]
    done = CliRunner().invoke(main, [*arguments, "--results", str(small_disk)])
    assert done.exit_code == 1 and "the disk is full" in done.stderr
    problems = []
    records = list(Store(small_disk).iterate(problems))
    assert 0 < len(records) < 12 and not problems
    for record in records:
        assert Store(small_disk).arrays(record.run_id)


@pytest.mark.parametrize(
    "executor,mode", [("inline", "map"), pytest.param("processes", "vmap", marks=pytest.mark.slow)]
)
def test_killed_sweeps_end_as_undisturbed_ones(executor, mode):
    """The short form of scripts/kill_sweep.py, whose default is 50 kills."""
    command = [sys.executable, "scripts/kill_sweep.py", "--kills", "2"]
    done = subprocess.run(
        [*command, "--executor", executor, "--mode", mode], capture_output=True, text=True
    )
    assert done.returncode == 0 and "0 problems" in done.stdout, done.stdout + done.stderr
