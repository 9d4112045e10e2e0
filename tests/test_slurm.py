"""The Slurm executor on a real one-node cluster (skipped where Slurm is not installed)."""

import os
import signal
import subprocess
import sys
import time

import pytest
from slurm_cluster import slurm_cluster  # noqa: F401

from pcbench.config import ConfigError
from pcbench.results.records import Store
from pcbench.sweeps.execute import inline
from pcbench.sweeps.expand import expand
from pcbench.sweeps.jobs import status
from pcbench.sweeps.packs import claims
from pcbench.sweeps.plan import make_plan
from pcbench.sweeps.slurm import (
    cancel,
    job_state,
    job_states,
    log_file,
    parameters,
    run_job,
    slurm,
    submit,
)

pytest.importorskip("submitit", reason="no submitit: the extra `slurm` installs it")

SMALL = ["executor=slurm", "executor.pack_size=1", "model.width=16", "model.depth=3"]
SHORT = [*SMALL, "train.epochs=2"]
# Some seconds of epochs with a checkpoint after each, so that signals arrive in between.
LONG = [*SMALL, "train.epochs=300", "train.eval_every=50", "train.checkpoint_seconds=0"]
NUMBERS = ("test_accuracy_final", "validation_accuracy_best", "train_loss", "energy_initial")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def cluster(slurm_cluster):  # noqa: F811
    """No test leaves a job to the next one."""
    yield slurm_cluster
    subprocess.run(["scancel", "--user", str(os.getuid())])
    until(lambda: not subprocess.check_output(["squeue", "--noheader"]))


def plan(store, overrides):
    configs, duplicates = expand(None, overrides)
    return make_plan(configs, duplicates, store)


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def wait(store, *jobs):
    until(lambda: not job_states(jobs))
    return [job_state(job) for job in jobs], [log_file(store, job).read_text() for job in jobs]


def details(job) -> str:
    return subprocess.check_output(["scontrol", "show", "job", job], text=True)


def numbers(record) -> list:
    return [record.row[name] for name in NUMBERS]


def run_here(packs, tmp_path) -> list:
    return [numbers(r) for r in inline(packs, Store(tmp_path / "here"), lambda *_: None)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list:
    """The numbers of LONG."""
    there = tmp_path_factory.mktemp("undisturbed")
    return run_here(plan(Store(there), LONG).packs, there)


def test_a_detached_sweep_completes_and_no_run_is_sent_twice(store, cluster):
    """From its submission to its end, another launch finds all its runs taken, then finished."""
    sweep = [*SHORT, "seed=0,1,2,3", "optimizer.lr=0.001,0.01"]
    packs = plan(store, sweep).packs
    assert len(packs) == 8
    jobs = submit(packs, store)
    while job_states(jobs):
        again = plan(store, sweep)
        assert again.taken + again.finished >= 8 and not again.packs
        time.sleep(0.5)
    states, logs = wait(store, *jobs)
    assert states == ["COMPLETED"] * 8, logs
    again = plan(store, sweep)
    assert (again.finished, again.taken, again.packs) == (8, 0, [])
    assert set(store.finished().values()) == {"completed"}


def test_the_executor_yields_the_records_of_all_packs(store, cluster, tmp_path):
    sweep = [*SHORT, "executor.pack_size=2", "executor.pack_mode=map", "seed=0,1,2,3"]
    packs = plan(store, sweep).packs
    records = list(slurm(packs, store, lambda *_: None))
    assert sorted(r.run_id for r in records) == sorted(r for pack in packs for r in pack.run_ids)
    assert sorted(map(numbers, records)) == sorted(run_here(packs, tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        "--signal=USR2",
        pytest.param("--signal=TERM", marks=pytest.mark.slow),
        pytest.param("--signal=USR2 --full", marks=pytest.mark.slow),
    ],
)
def test_a_signalled_job_is_requeued_and_ends_with_the_same_numbers(
    store, cluster, undisturbed, options
):
    packs = plan(store, LONG).packs
    (job,) = submit(packs, store)
    until(packs[0].checkpoint(store).exists)
    subprocess.run(["scancel", *options.split(), job], check=True)
    until(lambda: "Restarts=1" in details(job))
    assert plan(store, LONG).taken == 1  # the claim outlives the first life
    states, logs = wait(store, job)
    assert states == ["COMPLETED"], logs
    assert "stopped at an epoch's end; requeued" in logs[0]
    assert numbers(store.read(packs[0].run_ids[0])) == undisturbed[0]


def test_a_failing_pack_fails_in_slurm_too(store, cluster):
    broken = 'executor.slurm.setup=["export JAX_PLATFORMS=nowhere"]'
    packs = plan(store, [*SHORT, broken]).packs
    store.add_to_sweep("broken", packs[0].run_ids)
    (record,) = slurm(packs, store, lambda *_: None)
    assert record.status == "failed"
    assert "nowhere" in store.traceback(record.run_id)
    (log,) = (store.root / "slurm").glob("*_log.out")
    assert record.run_id in log.read_text()
    assert "JobState=FAILED" in details(log.name.split("_")[0])
    (job,) = status(store, "broken")[0]["jobs"]
    assert (job["state"], job["runs"], store.root / job["log"]) == ("FAILED", 1, log)
    assert any("nowhere" in line for line in job["tail"])
    again = plan(store, SHORT).packs  # the same run: where it is executed is not its identity
    assert not again
    store.path(record.run_id).joinpath("record.json").unlink()
    list(inline(plan(store, SHORT).packs, store, lambda *_: None))
    assert not status(store, "broken")[0]["jobs"]  # all is well now


def test_jobs_go_on_after_ctrl_c_and_are_collected_later(store, cluster):
    command = [sys.executable, "-m", "pcbench"]
    overrides = [*SHORT, "seed=0,1"]
    waiting = subprocess.Popen(
        [*command, "sweep", *overrides, "--results", str(store.root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: sum("job" in content for content in claims(store)) == 2)
    waiting.send_signal(signal.SIGINT)
    _, message = waiting.communicate(timeout=60)
    (name,) = store.sweeps()
    assert waiting.returncode == 130
    for words in ("go on", f"pcbench status {name}", f"collect --wait {name}", f"cancel {name}"):
        assert words in message, message
    done = subprocess.run(
        [*command, "collect", "--wait", name, "--results", str(store.root)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs: 2 completed" in done.stdout and "output in slurm/" in done.stderr


def test_a_cancelled_job_ends_for_good_and_its_runs_are_missing_again(store, cluster):
    sweep = [*LONG, "train.epochs=100000", "seed=0,1,2"]
    packs = plan(store, sweep).packs
    jobs, running = submit(packs, store), packs[:2]  # the third waits: there are two cores
    until(lambda: all(pack.checkpoint(store).exists() for pack in running))
    assert {c["state"] for c in claims(store)} == {"queued", "running"}
    for job in jobs:
        cancel(job)
    until(lambda: not job_states(jobs))
    assert [job_state(job) for job in jobs] == ["CANCELLED"] * 3
    assert not store.finished()
    again = plan(store, sweep)
    assert (again.taken, len(again.packs)) == (0, 3)
    assert all(pack.checkpoint(store).exists() for pack in running)  # to be continued
    cancel(jobs[0])  # no error the second time


@pytest.mark.slow
def test_a_job_continues_after_its_time_limit(store, cluster, tmp_path):
    """One minute, of which Slurm grants at least the first fifteen seconds."""
    overrides = [*LONG, "train.epochs=2500", "train.eval_every=500", "executor.slurm.time=1"]
    packs = plan(store, overrides).packs
    (job,) = submit(packs, store)
    until(lambda: job_states([job]) == {}, seconds=400)
    assert job_state(job) == "COMPLETED", log_file(store, job).read_text()
    assert "Restarts=0" not in details(job)
    record = store.read(packs[0].run_ids[0])
    assert [numbers(record)] == run_here(packs, tmp_path)


def test_settings_that_slurm_refuses_are_named(store, cluster):
    packs = plan(store, [*SHORT, "executor.slurm.partition=nowhere"]).packs
    with pytest.raises(ConfigError, match=r"Invalid partition.*nowhere"):
        submit(packs, store)
    assert plan(store, SHORT).taken == 0


def test_a_machine_without_slurm_is_told_so(store, monkeypatch):
    monkeypatch.setenv("PATH", str(store.root))
    with pytest.raises(ConfigError, match="no sbatch"):
        submit(plan(store, SHORT).packs, store)


def test_a_job_that_wakes_up_after_its_end_does_nothing(store):
    """Requeued between its last record and its exit: its pack's file is gone."""
    packs = plan(store, SHORT).packs
    (record,) = inline(packs, store, lambda *_: None)
    assert not packs[0].file(store).exists()
    run_job(str(store.root), packs[0])
    assert store.read(record.run_id) == record


def test_the_config_reaches_sbatch():
    from submitit.slurm.slurm import _make_sbatch_string

    settings = {
        "partition": "gpu", "account": "lab", "qos": "high", "gpus": 2, "cpus": 4, "mem": "16G",
        "time": 30, "setup": ["module load cuda"],
    }  # fmt: skip
    script = _make_sbatch_string("COMMAND", "logs", **parameters(settings))
    for line in (
        "--partition=gpu", "--account=lab", "--qos=high", "--gpus-per-node=2", "--cpus-per-task=4",
        "--mem=16G", "--time=30", "--signal=USR2@90", "--requeue",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load cuda\n" in script
