"""Sweeps that go on by themselves: started here, looked after from any shell."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pcbench.config import ConfigError
from pcbench.config.errors import nearest
from pcbench.results.columns import STATUSES
from pcbench.results.records import TRACEBACK, RecordError, Store
from pcbench.sweeps import slurm
from pcbench.sweeps.execute import reason
from pcbench.sweeps.packs import Pack, claimed_runs, claims, ended_claims, members_of

STARTS_WITHIN = 30.0  # seconds until a detached process has claimed its packs
TAIL = 5  # lines of a log that are shown
SHOWN = 5  # jobs that have ended: the latest


def detach(arguments: Sequence[str], store: Store, packs: list[Pack]) -> str:
    """Start the sweep so that it outlives this shell; says how. Returns once it is claimed.

    Raises RecordError, with the end of its log, where it fails before that.
    """
    executor = packs[0].configs[0]["executor.name"]
    if executor == "slurm":
        jobs = slurm.submit(packs, store)
        return f"submitted {len(jobs)} jobs, output in {store.root / 'slurm'}"
    logs = store.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    opened = logs / f".{socket.gethostname()}-{os.getpid()}.log"
    command = [sys.executable, "-m", "pcbench", "sweep", *arguments, "--results", str(store.root)]
    with open(opened, "wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    name = f"{socket.gethostname()}-{child.pid}"  # its claim finds its log by that
    log = opened.replace(logs / f"{name}.log")
    claim = store.root / "claims" / f"{name}.json"
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and child.poll() is None and not claim.exists():
        time.sleep(0.05)
    if child.returncode:
        raise RecordError("\n".join([f"the detached process failed ({log}):", *tail(log)]))
    return f"process {child.pid}, output in {log}"


def status(store: Store, name: str | None = None) -> list[dict[str, Any]]:
    """Per sweep: runs by state, and the jobs and detached processes behind them.

    A run is completed, diverged, failed, running, queued, or missing (nobody takes care of it:
    launch the sweep again). Jobs: ``{name, state, runs, log, tail}``, those that run or wait, and
    the latest of those that ended and left runs failed or missing, with the end of their logs.
    """
    sweeps = store.sweeps()
    if name is not None and name not in sweeps:
        raise ConfigError(f"no sweep '{name}' in {store.root}." + nearest(name, sweeps))
    live = claims(store)
    taken, finished = claimed_runs(live), store.finished()
    states = {r: finished.get(r) or taken.get(r, "missing") for ids in sweeps.values() for r in ids}
    ended = _ended(store, states)
    in_jobs = {r for content in live if "job" in content for r in members_of(content)}
    live = [c for c in live if "job" in c or in_jobs.isdisjoint(members_of(c))]  # c waits for jobs
    rows = []
    for sweep, run_ids in sweeps.items():
        if name in (None, sweep):
            counted = Counter(states[r] for r in run_ids)
            counts = {s: counted[s] for s in (*STATUSES, "running", "queued", "missing")}
            jobs = [*_jobs(live, run_ids), *_jobs(ended, run_ids)[:SHOWN]]
            rows.append({"sweep": sweep, "runs": len(run_ids), **counts, "jobs": jobs})
    return rows


def _ended(store: Store, states: dict[str, str]) -> list[dict]:
    """Claims of jobs and processes that ended and whose runs are still failed or missing."""
    found = []
    for path, content in ended_claims(store):
        open_runs = [r for r in members_of(content) if states.get(r) in ("failed", "missing")]
        log = store.root / content["log"]
        if not open_runs:
            path.unlink(missing_ok=True)  # it has nothing more to say
            continue
        state = "ended"
        if len(found) < SHOWN and "job" in content:
            state = slurm.job_state(content["job"]) or state
        told = {"state": state, "tail": tail(log) if len(found) < SHOWN else []}
        found.append(content | {"packs": {"open": open_runs}} | told)
    return found


def _jobs(contents: Iterable[dict], run_ids: Iterable[str]) -> list[dict]:
    wanted, found = set(run_ids), []
    for content in contents:
        if runs := len(wanted.intersection(members_of(content))):
            shown = {key: content.get(key) for key in ("name", "state", "log")}
            found.append({**shown, "runs": runs, "tail": content.get("tail", [])})
    return found


def cancel(store: Store, name: str | None = None) -> list[str]:
    """Stop what computes runs of a sweep, or of all; returns what was stopped.

    Raises RecordError at the end for what could not be, a process of another host for one.
    """
    status(store, name)  # the sweep exists
    wanted = {r for sweep, ids in store.sweeps().items() if name in (None, sweep) for r in ids}
    stopped, refused = [], []
    for content in claims(store):
        if wanted.isdisjoint(members_of(content)):
            continue
        try:
            _stop(content)
            stopped.append(content["name"])
        except ConfigError as error:
            refused.append(str(error))
    if refused:
        done = f" Stopped: {', '.join(stopped)}." if stopped else ""
        raise RecordError(" ".join(refused) + done)
    return stopped


def _stop(content: dict) -> None:
    if "job" in content:
        slurm.cancel(content["job"])
        return
    host, _, pid = content["name"].rpartition("-")
    if host != socket.gethostname():
        raise ConfigError(f"process {pid} runs on {host}: cancel it there.")
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(int(pid), signal.SIGTERM)


def tail(log: Path) -> list[str]:
    """The last lines of a log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-TAIL:]


def wait(
    store: Store, name: str | None, progress: Callable[[list[dict]], None]
) -> list[dict[str, Any]]:
    """Until nobody computes or queues runs of the sweep, or of any; `progress` sees every status
    that differs from the one before."""
    earlier, began = None, time.monotonic()
    while True:
        rows = status(store, name)
        if rows != earlier:
            progress(rows)
        if not any(row["running"] + row["queued"] for row in rows):
            return rows
        earlier = rows
        slurm.pause(began)


def collect(store: Store, sweeps: Iterable[str]) -> dict[str, list]:
    """What some sweeps left, read into the table.

    ``variants``: ``{sweep, variant, dataset, model, completed, diverged, failed}``; ``failures``
    as `failures` gives them; ``problems``: records that cannot be read.
    """
    from pcbench.results.table import table

    problems: list[str] = []
    groups = ("variant", "dataset", "model")
    data = table(store.root, problems)
    present = [name for name in ("run_id", "status", *groups) if name in data.column_names]
    rows = {row["run_id"]: row for row in data.select(present).to_pylist()}
    variants, failed, members = defaultdict(Counter), {}, store.sweeps()
    for sweep in sweeps:
        for row in (rows[r] for r in members[sweep] if r in rows):
            variants[sweep, *(row.get(key) for key in groups)][row["status"]] += 1
            if row["status"] == "failed":
                failed[row["run_id"]] = None  # once, also in two sweeps
    return {
        "variants": [
            dict(zip(("sweep", *groups), key, strict=True)) | {s: counts[s] for s in STATUSES}
            for key, counts in variants.items()
        ],
        "failures": failures(failed, store),
        "problems": problems,
    }


def failures(run_ids: Iterable[str], store: Store) -> list[dict[str, Any]]:
    """``{reason, run_ids, traceback}``: failed runs, those that failed alike together."""
    alike: dict[str, list[str]] = defaultdict(list)
    for run_id in run_ids:
        alike[reason(store, run_id)].append(run_id)
    return [
        {"reason": why, "run_ids": ids, "traceback": str(store.path(ids[0]) / TRACEBACK)}
        for why, ids in alike.items()
    ]
