"""Detached sweeps: started here, looked after from any shell."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

from pcbench.config import ConfigError
from pcbench.config.errors import nearest
from pcbench.results.columns import STATUSES
from pcbench.results.records import Store
from pcbench.sweeps.packs import Pack, claimed_runs, claims

STARTS_WITHIN = 30.0  # seconds until a detached process has claimed its packs


def detach(arguments: Sequence[str], store: Store, packs: list[Pack]) -> str:
    """Start the sweep so that it outlives this shell; says how. Returns once it is claimed."""
    executor = packs[0].configs[0]["executor.name"]
    if executor == "slurm":
        from pcbench.sweeps.slurm import submit

        return f"submitted {len(submit(packs, store))} jobs"
    log = store.root / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pcbench", "sweep", *arguments, "--results", str(store.root)]
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    claim = store.root / "claims" / f"{socket.gethostname()}-{child.pid}.json"
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and child.poll() is None and not claim.exists():
        time.sleep(0.05)
    return f"process {child.pid}, output in {log}"


def status(store: Store, name: str | None = None) -> list[dict]:
    """Per sweep: runs by state. A run is completed, diverged, failed, running, queued, or missing
    (nobody takes care of it: launch the sweep again)."""
    sweeps = store.sweeps()
    if name is not None and name not in sweeps:
        raise ConfigError(f"no sweep '{name}' in {store.root}." + nearest(name, sweeps))
    taken, finished = claimed_runs(store), store.finished()
    rows = []
    for sweep, run_ids in sweeps.items():
        if name in (None, sweep):
            states = Counter(finished.get(r) or taken.get(r, "missing") for r in run_ids)
            counts = {s: states[s] for s in (*STATUSES, "running", "queued", "missing")}
            rows.append({"sweep": sweep, "runs": len(run_ids), **counts})
    return rows


def cancel(store: Store, name: str | None = None) -> list[str]:
    """Stop what computes runs of a sweep, or of all; returns what was stopped."""
    status(store, name)  # the sweep exists
    wanted = {r for sweep, ids in store.sweeps().items() if name in (None, sweep) for r in ids}
    stopped = []
    for content in claims(store):
        if wanted.isdisjoint(_members(content)):
            continue
        if "job" in content:
            from pcbench.sweeps.slurm import cancel as cancel_job

            cancel_job(content["job"])
        else:
            host, _, pid = content["name"].rpartition("-")
            if host != socket.gethostname():
                raise ConfigError(f"process {pid} runs on {host}: cancel it there.")
            os.kill(int(pid), signal.SIGTERM)
        stopped.append(content["name"])
    return stopped


def _members(content: dict) -> list[str]:
    return [run_id for members in content["packs"].values() for run_id in members]
