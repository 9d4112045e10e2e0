"""Packs on disk: which runs one program computes together, and who is computing them now.

    ROOT/packs/PACK_ID.json       members and mode, kept from the plan until all have records
    ROOT/packs/PACK_ID.npz        the checkpoint
    ROOT/claims/NAME.json         packs that a live process or job has queued or is running
    ROOT/claims/ended/NAME.json   of a job or a detached process that has ended and left a log

A killed pack resumes as itself, because the bits of a `vmap` pack depend on its members; one that
was too large is replaced by its parts. Nothing is locked: two processes that compute the same pack
write the same records.
"""

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pcbench.config import Config, ConfigError
from pcbench.config.compose import stored
from pcbench.results.files import whole_file
from pcbench.results.records import Store
from pcbench.training import memory

LARGEST = 64  # members; more gain little and lose more when something goes wrong
MOST_STARTS = 10  # without an end or a checkpoint: then it is the pack that kills whoever runs it
HEARTBEAT = 30.0  # seconds between signs of life of a claim
MODES = ("auto", "none", "map", "vmap")  # auto: measured when the pack first runs


@dataclass(frozen=True)
class Pack:
    """Runs that one compiled program computes, in the order of their members.

    `starts` counts those that came neither to an end nor to a checkpoint, because whoever ran the
    pack was killed. One time is as good as MOST_STARTS where the kernel killed for memory since.
    """

    configs: tuple[Config, ...]
    mode: str
    starts: int = field(default=0, compare=False)

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
        content = {
            "mode": self.mode,
            "configs": [config.to_tree() for config in self.configs],
            "starts": self.starts,
            "checkpoint": modified(self.checkpoint(store)),
            "kills": _kills(),
        }
        with whole_file(self.file(store)) as file:
            file.write(json.dumps(content).encode())

    def remove(self, store: Store) -> None:
        self.checkpoint(store).unlink(missing_ok=True)
        self.file(store).unlink(missing_ok=True)

    def parts(self, largest: int) -> list["Pack"]:
        """Packs of at most `largest` members, as equal as can be: alike in size, they share a
        compiled program."""
        size = -(-len(self.configs) // -(-len(self.configs) // largest))
        members = [self.configs[n : n + size] for n in range(0, len(self.configs), size)]
        return [Pack(part, "none" if len(part) == 1 else self.mode) for part in members]

    def split(self, store: Store, largest: int) -> list["Pack"]:
        """Replace the pack by its parts, here and on disk."""
        parts = self.parts(largest)
        for part in parts:
            part.save(store)
        self.remove(store)
        return parts


def load_pack(path: Path) -> Pack | None:
    """None where the file is gone, damaged or of another version: its runs are then planned
    anew."""
    try:
        content = json.loads(path.read_bytes())
        stuck = content.get("checkpoint") == modified(path.with_suffix(".npz"))
        starts = content.get("starts", 0) if stuck else 0
        (host, before), (here, now) = content.get("kills", ("", 0)), _kills()
        if starts and host == here and now > before:
            starts = MOST_STARTS
        return Pack(tuple(stored(tree) for tree in content["configs"]), content["mode"], starts)
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None


def _kills() -> tuple[str, int]:
    """Kills for memory, of which those on another host say nothing."""
    return socket.gethostname(), memory.kills()


def kept_packs(store: Store, wanted: Set[str], done: Set[str] = frozenset()) -> Iterator[Pack]:
    """Packs of earlier launches that still have something to do, all of it wanted now; of two
    that share runs the one that was written later."""
    kept, covered, known = {}, set(), wanted | done
    paths = (store.root / "packs").glob("[!.]*.json")
    for path in sorted(paths, key=lambda path: modified(path) or 0, reverse=True):
        if (pack := load_pack(path)) is None:
            continue
        members = set(pack.run_ids)
        if not members <= known:
            continue
        if members.isdisjoint(wanted):
            pack.remove(store)  # was killed between its last record and its end
        elif members.isdisjoint(covered):
            kept[path] = pack
            covered |= members & wanted
    yield from (kept[path] for path in sorted(kept))


def unfinished(pack: Pack, store: Store) -> list[Pack]:
    """What is left of a saved pack that somebody ran: itself, or the parts that replaced it."""
    if kept := load_pack(pack.file(store)):
        return [kept]
    parts = list(kept_packs(store, set(pack.run_ids)))
    return parts or ([] if all(map(store.holds, pack.run_ids)) else [pack])


def unfinished_configs(store: Store, finished: Container[str]) -> list[Config]:
    """Of all packs on disk, those of the runs that are not finished."""
    paths = sorted((store.root / "packs").glob("[!.]*.json"))
    packs = [pack for path in paths if (pack := load_pack(path))]
    found = {config.run_id: config for pack in packs for config in pack.configs}
    return [config for run_id, config in found.items() if run_id not in finished]


def new_packs(configs: Iterable[Config], mode: str, size: int | None, workers: int) -> list[Pack]:
    """Group configs that share a program; equal sizes, so that packs share it, too.

    Without a `size`, a group is divided only where a worker would have more than its share of all
    runs: each part compiles the program again.
    """
    groups: dict[str, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.static_key, []).append(config)
    share = -(-sum(map(len, groups.values())) // workers)
    largest = 1 if mode == "none" else size or min(LARGEST, share)
    return [pack for g in groups.values() for pack in Pack(tuple(g), mode).parts(largest)]


@contextmanager
def claimed(store: Store, packs: Sequence[Pack]) -> Iterator[list[Pack]]:
    """Tell others that this process takes care of `packs`, as long as the block runs.

    Yields those that nobody claimed a moment earlier, between our plan and our claim.
    """
    import psutil

    process, now = psutil.Process(), time.time()
    name = f"{socket.gethostname()}-{process.pid}"
    owner = {"created": process.create_time(), "since": now}
    if (store.root / "logs" / f"{name}.log").exists():
        owner["log"] = f"logs/{name}.log"
    path = claim(store, name, packs, **owner)
    stop = threading.Event()

    def beat():
        while not stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        others = claims(store) if packs else []
        taken = {
            run_id
            for content in others
            if (content["since"], content["name"]) < (now, name)
            for run_id in members_of(content)
        }
        ours = [pack for pack in packs if taken.isdisjoint(pack.run_ids)]
        if len(ours) < len(packs):
            claim(store, name, ours, **owner)
        yield ours
    finally:
        stop.set()
        _retire(path, owner)


def claim(store: Store, name: str, packs: Iterable[Pack], **owner) -> Path:
    """`owner`: ``created`` of the process that `name` (HOST-PID) tells, or a Slurm ``job``; its
    ``log``, where it has one, relative to the results directory."""
    path = store.root / "claims" / f"{name}.json"
    packed = {pack.pack_id: pack.run_ids for pack in packs}
    content = {"name": name, "since": time.time(), "packs": packed, **owner}
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
        if state is None:
            _retire(path, content)
        elif state != "ours":
            live.append(content | {"state": state})
    return live


def ended_claims(store: Store) -> Iterator[tuple[Path, dict]]:
    """Jobs and detached processes that have ended and left a log, the latest first."""
    found = []
    for path in (store.root / "claims" / "ended").glob("[!.]*.json"):
        with contextlib.suppress(OSError, ValueError):
            found.append((path, json.loads(path.read_bytes())))
    yield from sorted(found, key=lambda item: item[1]["since"], reverse=True)


def members_of(content: Mapping) -> list[str]:
    """The runs that a claim names."""
    return [run_id for run_ids in content["packs"].values() for run_id in run_ids]


def claimed_runs(contents: Iterable[Mapping]) -> dict[str, str]:
    """State (queued, running) by run id of what others take care of. A job knows better than the
    process that waits for it."""
    return {
        run_id: content["state"]
        for content in sorted(contents, key=lambda content: "job" in content)
        for run_id in members_of(content)
    }


def _retire(path: Path, content: Mapping) -> None:
    """What is over claims nothing; its log may still be asked for."""
    with contextlib.suppress(OSError):
        if "log" in content:
            (path.parent / "ended").mkdir(exist_ok=True)
            path.replace(path.parent / "ended" / path.name)
        else:
            path.unlink(missing_ok=True)


def modified(path: Path) -> int | None:
    """When a file was written last; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _process_state(content: dict) -> str | None:
    import psutil

    host, _, pid = content["name"].rpartition("-")
    if host != socket.gethostname():  # alive if it still gives signs of life
        return "running" if content["age"] < 10 * HEARTBEAT else None
    try:
        if abs(psutil.Process(int(pid)).create_time() - content["created"]) >= 1:
            return None  # another process has the number now
    except psutil.Error:
        return None
    return "ours" if int(pid) == os.getpid() else "running"


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
