"""Packs as Slurm jobs: one pack is one job, submitted with submitit.

    ROOT/slurm/JOB_0_log.out        what the job said; beside it what submitit needs
    ROOT/claims/slurm-JOB.json      keeps the pack from being sent again while Slurm holds the job

A job that is warned (SIGUSR2 before its time limit, SIGTERM or SIGUSR2 before preemption, or
`scancel --signal`) keeps a checkpoint at its next epoch, puts itself back into the queue under the
same number and continues from there. It does so only while Slurm calls it RUNNING: a plain
`scancel`, and a preemption that requeues by itself, change that state before they signal.

Jobs are watched with `squeue` and `scontrol`, which need no accounting database.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pcbench.config import Config, ConfigError
from pcbench.results.records import RECORD, Record, RecordError, Store
from pcbench.sweeps.execute import reason, run_pack, stop_on_signals
from pcbench.sweeps.packs import Pack, claim, modified, unfinished
from pcbench.training.checkpoint import Preempted

WARNING = 90  # seconds between SIGUSR2 and the time limit; Slurm may send it a minute earlier
POLL = (0.5, 15.0)  # seconds between two looks at the queue: at first, and after five minutes


def slurm(
    packs: list[Pack], store: Store, observe: Callable[[list[Config], object], None]
) -> Iterator[Record]:
    """Submit, wait, and yield each pack's new records when its job has ended.

    Jobs do not depend on the caller: they go on when it is interrupted. Raises ConfigError when
    nothing can be submitted, and RecordError at the end when jobs left runs without a record.
    """
    earlier = {run_id: _written(store, run_id) for pack in packs for run_id in pack.run_ids}
    waiting, lost = dict(zip(submit(packs, store), packs, strict=True)), []
    began = time.monotonic()
    while waiting:
        held = job_states(waiting)
        for job in [job for job in waiting if held is not None and job not in held]:
            pack = waiting.pop(job)
            new = [r for r in pack.run_ids if _written(store, r) not in (None, earlier[r])]
            yield from map(store.read, new)
            if len(new) < len(pack.run_ids):
                lost.append(f"job {job} ({job_state(job) or 'ended'}): {log_file(store, job)}")
        if waiting:
            pause(began)
    if lost:
        raise RecordError(
            f"{len(lost)} Slurm jobs ended without the records of all their runs; launching the "
            "sweep again runs these. " + "; ".join(lost[:5]) + ("; …" if len(lost) > 5 else "")
        )


def pause(began: float) -> None:
    """Between two looks at the queue of somebody who has waited since `began` (monotonic)."""
    elapsed = time.monotonic() - began
    time.sleep(min(POLL[1], POLL[0] + elapsed / 300 * POLL[1]))


def submit(packs: Iterable[Pack], store: Store) -> list[str]:
    """Send one job per pack and return their numbers. Each is claimed as soon as it is queued.

    Raises ConfigError without submitit or Slurm, and when Slurm refuses a job.
    """
    submitit = _submitit()
    store = Store(store.root.resolve())
    jobs: list[str] = []
    for pack in packs:
        settings = pack.configs[0]["executor.slurm"]
        executor = submitit.SlurmExecutor(store.root / "slurm")
        executor.update_parameters(**parameters(settings))
        pack.save(store)
        try:
            with _outside_any_job():
                job = executor.submit(_job, str(store.root), pack).job_id
        except (submitit.core.utils.FailedJobError, subprocess.SubprocessError) as error:
            told = str(error).strip().splitlines()[-1]
            raise ConfigError(
                f"Slurm refused a job ({told}) with executor.slurm={settings}."
                + (f" The {len(jobs)} jobs before it go on." if jobs else "")
            ) from error
        log = log_file(store, job).relative_to(store.root)
        claim(store, f"slurm-{job}", [pack], job=job, log=str(log))
        jobs.append(job)
    return jobs


def cancel(job: str) -> None:
    """End a job for good; its last checkpoint stays, and its runs count as missing again."""
    done = subprocess.run(["scancel", job], capture_output=True, text=True)
    if done.returncode and "Invalid job id" not in done.stderr:  # that one has ended long ago
        raise ConfigError(f"job {job} cannot be cancelled: {done.stderr.strip()}")


def parameters(settings: Mapping) -> dict:
    """`executor.slurm` as submitit's parameters."""
    cpus = settings["cpus"]
    return {
        "job_name": "pcbench",
        "time": settings["time"],
        "partition": settings["partition"],
        "account": settings["account"],
        "qos": settings["qos"],
        "mem": settings["mem"],
        "cpus_per_task": cpus,
        "gpus_per_node": settings["gpus"] or None,
        "signal_delay_s": min(WARNING, 15 * settings["time"]),
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
        "srun_args": [f"--cpus-per-task={cpus}"],  # a step does not inherit it from its job
        "setup": [
            "trap '' USR2 TERM",  # for the step alone: the shell must outlive it
            f"export NPROC={cpus} OMP_NUM_THREADS={cpus}",  # XLA reads NPROC
            *(settings["setup"] or ()),
        ],
    }


def _job(root: str, pack: Pack) -> None:
    """`run_job`, with signals ignored from its end to the end of the process: a warning that comes
    while the interpreter shuts down would kill it, and a finished job would count as failed."""
    for number in (signal.SIGTERM, signal.SIGUSR2):  # both are submitit's so far
        signal.signal(number, signal.SIG_IGN)
    run_job(root, pack)


def run_job(root: str, pack: Pack) -> None:
    """What a job does, in each of its lives. Exits non-zero when a run failed."""
    with stop_on_signals() as stopped:
        store, began = Store(root), time.monotonic()
        left = unfinished(pack, store)  # with the mode that the first life chose
        older = _progress(left, store)
        try:
            records = [r for part in left for r in run_pack(part, store, stop=stopped.is_set)]
        except Preempted:
            stuck = _progress(unfinished(pack, store), store) == older
            _run_again(pack.configs[0], time.monotonic() - began, stuck)
            return
    failed = [record.run_id for record in records if record.status == "failed"]
    if failed:
        raise SystemExit("\n".join(f"pcbench: run {r} failed: {reason(store, r)}" for r in failed))


def _progress(packs: Iterable[Pack], store: Store) -> list:
    return [modified(pack.checkpoint(store)) for pack in packs]


def _run_again(config: Config, seconds: float, stuck: bool) -> None:
    """Back into the queue, unless Slurm is ending the job or it never gets any further."""
    job, minutes = os.environ["SLURM_JOB_ID"], config["executor.slurm.time"]
    for _ in range(5):
        if state := job_state(job):
            break
        time.sleep(1)  # a busy controller does not always answer
    if state != "RUNNING":
        raise SystemExit(f"pcbench: stopped for good, as Slurm calls the job {state}")
    at_limit = seconds > 60 * minutes - 2 * WARNING
    if stuck and at_limit and int(os.environ.get("SLURM_RESTART_COUNT", 0)) >= 2:
        raise SystemExit(
            f"pcbench: {minutes} minutes do not suffice for one checkpoint: set "
            "executor.slurm.time higher or train.checkpoint_seconds lower"
        )
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pcbench: stopped, and Slurm refuses to requeue: {done.stderr.strip()}")
    print("pcbench: stopped at an epoch's end; requeued", flush=True)


def job_states(jobs: Iterable[str]) -> dict[str, str] | None:
    """The states of those `jobs` that Slurm has not done with; None when it cannot be asked."""
    command = ["squeue", "--noheader", "--format=%i %T", f"--jobs={','.join(jobs)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:  # asked for one job alone that is forgotten, squeue fails
        return {} if "Invalid job id" in done.stderr else None
    return dict(line.split() for line in done.stdout.splitlines())


def job_state(job: str) -> str | None:
    """The state of a job, also for some minutes after its end; None when Slurm has forgotten it."""
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bJobState=(\w+)", done.stdout)
    return found and found[1]


def log_file(store: Store, job: str) -> Path:
    return store.root / "slurm" / f"{job}_0_log.out"


def _submitit():
    try:
        import submitit
    except ImportError:
        raise ConfigError("executor=slurm needs submitit: pip install 'pcbench[slurm]'.") from None
    absent = [name for name in ("sbatch", "srun", "squeue") if not shutil.which(name)]
    if absent:
        raise ConfigError(
            f"executor=slurm needs Slurm's commands; there is no {', '.join(absent)} on this "
            "machine's PATH. Launch it on a login node, or choose executor=inline or processes."
        )
    return submitit


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """A sweep may be launched inside a job (`salloc`), whose settings are not for its jobs."""
    from submitit.helpers import clean_env

    configuration = os.environ.get("SLURM_CONF")
    with clean_env():
        if configuration:
            os.environ["SLURM_CONF"] = configuration
        yield


def _written(store: Store, run_id: str) -> int | None:
    return modified(store.path(run_id) / RECORD)
