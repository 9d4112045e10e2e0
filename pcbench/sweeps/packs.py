"""Packs on disk: which runs one program computes together, and who is computing them now.

    ROOT/packs/PACK_ID.json   members and mode, kept from the plan until all members have records
    ROOT/packs/PACK_ID.npz    the checkpoint
    ROOT/claims/NAME.json     packs that a live process or job has queued or is running

A killed pack resumes as itself, because the bits of a `vmap` pack depend on its members. Nothing
is locked: two processes that compute the same pack write the same records.
"""

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pcbench.config import Config
from pcbench.config.config import build
from pcbench.results.files import whole_file
from pcbench.results.records import Store

LARGEST = 64  # members; more gain little and lose more when something goes wrong
HEARTBEAT = 30.0  # seconds between signs of life of a claim
MODES = ("auto", "none", "map", "vmap")  # auto: measured when the pack first runs


@dataclass(frozen=True)
class Pack:
    """Runs that one compiled program computes, in the order of their members."""

    configs: tuple[Config, ...]
    mode: str

    @property
    def run_ids(self) -> list[str]:
        return [config.run_id for config in self.configs]

    @property
    def pack_id(self) -> str:
        return hashlib.sha256(" ".join(self.run_ids).encode()).hexdigest()[:16]

    def file(self, store: Store) -> Path:
        return store.root / "packs" / f"{self.pack_id}.json"

    def checkpoint(self, store: Store) -> Path:
        return self.file(store).with_suffix(".npz")

    def save(self, store: Store) -> None:
        content = {"mode": self.mode, "configs": [config.to_tree() for config in self.configs]}
        with whole_file(self.file(store)) as file:
            file.write(json.dumps(content).encode())

    def remove(self, store: Store) -> None:
        self.checkpoint(store).unlink(missing_ok=True)
        self.file(store).unlink(missing_ok=True)

    def halves(self) -> list["Pack"]:
        middle = len(self.configs) // 2
        parts = (self.configs[:middle], self.configs[middle:])
        return [Pack(part, "none" if len(part) == 1 else self.mode) for part in parts]


def load_pack(path: Path) -> Pack | None:
    """None where the file is gone or damaged: its runs are then planned anew."""
    try:
        content = json.loads(path.read_bytes())
        return Pack(tuple(build(tree) for tree in content["configs"]), content["mode"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept_packs(store: Store, wanted: Set[str], done: Set[str]) -> Iterator[Pack]:
    """Packs of earlier launches that still have something to do, all of it wanted now."""
    for path in sorted((store.root / "packs").glob("*.json")):
        if path.name.startswith(".") or (pack := load_pack(path)) is None:
            continue
        if not all(run_id in wanted or run_id in done for run_id in pack.run_ids):
            continue
        if wanted.isdisjoint(pack.run_ids):
            pack.remove(store)  # was killed between its last record and its end
        else:
            yield pack


def new_packs(configs: Iterable[Config], mode: str, size: int | None, workers: int) -> list[Pack]:
    """Group configs that share a program; equal sizes, so that packs share it, too."""
    groups: dict[str, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.static_key, []).append(config)
    packs = []
    for group in groups.values():
        largest = 1 if mode == "none" else min(size or LARGEST, -(-len(group) // workers))
        count = -(-len(group) // largest)
        largest = -(-len(group) // count)
        for start in range(0, len(group), largest):
            members = tuple(group[start : start + largest])
            packs.append(Pack(members, "none" if len(members) == 1 else mode))
    return packs


@contextmanager
def claimed(store: Store, packs: Iterable[Pack]) -> Iterator[None]:
    """Tell others that this process takes care of `packs`, as long as the block runs."""
    import psutil

    process = psutil.Process()
    path = claim(
        store, f"{socket.gethostname()}-{process.pid}", packs, created=process.create_time()
    )
    stop = threading.Event()

    def beat():
        while not stop.wait(HEARTBEAT):
            os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        path.unlink(missing_ok=True)


def claim(store: Store, name: str, packs: Iterable[Pack], **owner) -> Path:
    """`owner`: ``created`` of the process that `name` (HOST-PID) tells, or a Slurm ``job``."""
    path = store.root / "claims" / f"{name}.json"
    content = {"name": name, "packs": {pack.pack_id: pack.run_ids for pack in packs}, **owner}
    with whole_file(path) as file:
        file.write(json.dumps(content).encode())
    return path


def claims(store: Store) -> list[dict]:
    """The live claims of others; those of the dead are removed."""
    found = {}
    for path in sorted((store.root / "claims").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            age = time.time() - path.stat().st_mtime
            found[path] = json.loads(path.read_bytes()) | {"age": age}
    jobs = _jobs([content["job"] for content in found.values() if "job" in content])
    live = []
    for path, content in found.items():
        state = jobs[content["job"]] if "job" in content else _process_state(content)
        if state:
            live.append(content | {"state": state})
        else:
            path.unlink(missing_ok=True)
    return live


def claimed_runs(store: Store) -> dict[str, str]:
    """State (queued, running) by run id of what others take care of."""
    return {
        run_id: content["state"]
        for content in claims(store)
        for run_ids in content["packs"].values()
        for run_id in run_ids
    }


def _process_state(content: dict) -> str | None:
    import psutil

    host, _, pid = content["name"].rpartition("-")
    if host != socket.gethostname():  # alive if it still gives signs of life
        return "running" if content["age"] < 10 * HEARTBEAT else None
    if int(pid) == os.getpid():
        return None
    try:
        alive = abs(psutil.Process(int(pid)).create_time() - content["created"]) < 1
    except psutil.Error:
        return None
    return "running" if alive else None


def _jobs(jobs: list[str]) -> dict[str, str | None]:
    """``queued`` or ``running`` while Slurm holds a job. Where nobody can be asked, it is taken to
    run: better wait than run it twice."""
    if not jobs:
        return {}
    from pcbench.sweeps.slurm import job_states

    held = job_states(jobs)
    if held is None:
        return dict.fromkeys(jobs, "running")
    waiting = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "SUSPENDED")
    states = {job: "queued" if state in waiting else "running" for job, state in held.items()}
    return {job: states.get(job) for job in jobs}
