"""The truth about a run: one record a directory, written whole, verified when read.

    ROOT/runs/RUN_ID/record.json    its presence means: the run is finished
    ROOT/runs/RUN_ID/arrays.npz     history/..., weights/..., examples/COLUMN ...
    ROOT/runs/RUN_ID/traceback.txt  of a failed run
    ROOT/sweeps/NAME.json           the run ids of a sweep

Any number of processes on any number of hosts write at the same time: every file is replaced in
one step, two writers of one run write the same thing, and no reader ever sees half of it.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcbench.config.config import flatten
from pcbench.config.errors import nearest
from pcbench.results.columns import SCHEMA_VERSION, STATUSES
from pcbench.results.files import RecordError, whole_file

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Record", "RecordError", "Store"]

RECORD, ARRAYS, TRACEBACK = "record.json", "arrays.npz", "traceback.txt"


@dataclass(frozen=True)
class Record:
    """What is kept of one finished run. `Record.new` makes one; the fields are plain JSON values.

    The row holds every leaf of the config under its dotted path, then what was measured.
    """

    schema_version: int
    run_id: str
    status: str  # completed, diverged or failed
    config: dict[str, Any]
    row: dict[str, Any]
    evaluations: list[dict[str, Any]]  # {condition, metric, value}
    provenance: dict[str, Any]
    digest: str  # sha256 of the canonical JSON of all the other fields

    @classmethod
    def new(
        cls,
        run_id: str,
        status: str,
        config: Mapping[str, Any],
        row: Mapping[str, Any],
        evaluations: Iterable[Mapping[str, Any]] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> "Record":
        """A record of plain values: arrays and numpy scalars become lists and numbers, non-finite
        numbers null (JSON has none). Raises RecordError for a value with no such form."""
        if status not in STATUSES:
            raise RecordError(f"status '{status}' of run {run_id}." + nearest(status, STATUSES))
        identity = {"run_id": run_id, "status": status, "schema_version": SCHEMA_VERSION}
        content = {
            "schema_version": SCHEMA_VERSION,
            "run_id": _name(run_id),
            "status": status,
            "config": _plain(config, "config"),
            "row": _plain({**flatten(config), **row, **identity}, "row"),
            "evaluations": [_plain(e, "evaluations") for e in evaluations],
            "provenance": _plain(provenance or {}, "provenance"),
        }
        return cls(**content, digest=_digest(content))

    def to_json(self) -> str:
        """One line, sorted keys: a record is also a line of a published JSONL."""
        return _canonical(vars(self))

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "record") -> "Record":
        """Raises RecordError, naming `source`, unless this is what `to_json` wrote."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise RecordError(f"{source} is truncated or not JSON ({error}).") from None
        names = [f.name for f in fields(cls)]
        if not isinstance(content, dict) or not set(names) <= content.keys():
            raise RecordError(f"{source} is no record: it needs the keys {', '.join(names)}.")
        if content["schema_version"] != SCHEMA_VERSION:
            raise RecordError(
                f"{source} has schema version {content['schema_version']}; this pcbench reads "
                f"{SCHEMA_VERSION}. Use the pcbench that wrote it, or write it anew."
            )
        stated = content.pop("digest")
        try:
            actual = _digest(content)
        except ValueError:  # NaN or Infinity, which to_json never writes
            actual = None
        if stated != actual:
            raise RecordError(f"{source} was changed after it was written (wrong digest).")
        return cls(**content, digest=stated)


class Store:
    """The results directory."""

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)

    def path(self, run_id: str) -> Path:
        return self.root / "runs" / _name(run_id)

    def write(
        self,
        record: Record,
        arrays: "Mapping[str, np.ndarray] | None" = None,
        traceback: str | None = None,
    ) -> None:
        """Store a finished run, replacing an earlier record of it.

        The record comes last: whoever sees it sees all that belongs to it. Raises RecordError when
        the file system refuses; then the run counts as unfinished (or keeps its old record).
        """
        directory = self.path(record.run_id)
        _write_or_remove(directory / ARRAYS, arrays, _save_arrays)
        _write_or_remove(directory / TRACEBACK, traceback, lambda f, t: f.write(t.encode()))
        with whole_file(directory / RECORD) as file:
            file.write(record.to_json().encode() + b"\n")

    def holds(self, run_id: str) -> bool:
        """Whether there is a record of the run, valid or not."""
        return (self.path(run_id) / RECORD).exists()

    def require_writable(self) -> None:
        """Raises RecordError now rather than after hours of training."""
        probe = self.root / ".writable"
        with whole_file(probe) as file:
            file.write(bytes(1 << 16))  # some space, too
        probe.unlink(missing_ok=True)

    def read(self, run_id: str) -> Record:
        """The record of a finished run. Raises RecordError: missing, truncated or changed."""
        path = self.path(run_id) / RECORD
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise RecordError(f"{path} is missing: the run is not finished.") from None
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
        try:
            record = Record.from_json(text, source=str(path))
            if record.run_id != run_id:
                raise RecordError(f"{path} is the record of another run, {record.run_id}.")
        except RecordError as error:
            remedy = "Replace it with `pcbench run --force …`, or remove its directory."
            raise RecordError(f"{error} {remedy}") from None
        return record

    def arrays(self, run_id: str, prefix: str = "") -> "dict[str, np.ndarray]":
        """The stored arrays whose name starts with `prefix` (``history/`` spares the weights)."""
        import zipfile

        import numpy as np

        path = self.path(run_id) / ARRAYS
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files if name.startswith(prefix)}
        except FileNotFoundError:
            raise RecordError(f"{path} is missing: the run stored no arrays.") from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(
                f"{path} is damaged ({error}). Replace it with `pcbench run --force …`."
            ) from error

    def traceback(self, run_id: str) -> str | None:
        """Why a run failed, or null."""
        try:
            return (self.path(run_id) / TRACEBACK).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def finished(self) -> dict[str, str]:
        """Status by run id, without reading the records.

        Keys are sorted, so `status` is the last and the file's end tells it. A truncated record
        has another end and counts as unfinished, so launching its sweep again repairs it; only
        `read` verifies the digest.
        """
        found = {}
        for run_id, path in self.records():
            end = f'"run_id":"{run_id}","schema_version":{SCHEMA_VERSION},"status":"'.encode()
            try:
                with open(path, "rb", buffering=0) as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - len(end) - 20))
                    _, matched, status = file.read().partition(end)
            except OSError:  # removed meanwhile, or not there
                continue
            status = status.removesuffix(b'"}\n').decode(errors="replace")
            if matched and status in STATUSES:
                found[run_id] = status
        return found

    def iterate(self, problems: list[str] | None = None) -> Iterator[Record]:
        """Every valid record, by run id. What cannot be read is added to `problems`, or warned
        about where there is no such list: nothing is dropped in silence."""
        for run_id, path in self.records():
            if not os.path.exists(path):
                continue
            try:
                yield self.read(run_id)
            except RecordError as error:
                report(str(error), problems)

    def resolve(self, prefix: str) -> str:
        """The one finished run whose id starts with `prefix`; RecordError for none or several."""
        ids = [run_id for run_id, path in self.records() if os.path.exists(path)]
        matches = [run_id for run_id in ids if run_id.startswith(prefix)]
        if prefix in matches:
            return prefix
        if len(matches) > 1:
            shown = ", ".join(matches[:8]) + (", …" if len(matches) > 8 else "")
            raise RecordError(f"'{prefix}' begins {len(matches)} run ids: {shown}. Add characters.")
        if not matches:
            if not ids:
                raise RecordError(f"{self.root} holds no finished run. `pcbench run` makes one.")
            hint = re.sub(r" Allowed:.*", "", nearest(prefix, ids))
            raise RecordError(
                f"no finished run in {self.root} has an id that starts with '{prefix}'.{hint} "
                "`pcbench leaderboard --format json` lists the ids."
            )
        return matches[0]

    def add_to_sweep(self, name: str, run_ids: Iterable[str]) -> None:
        """Add members. Of two processes that add to one sweep at the same instant, one may be
        lost; launching the sweep again, which every resume does, adds its members again."""
        path = self.root / "sweeps" / f"{_name(name)}.json"
        present = _members(path) if path.exists() else []
        members = list(dict.fromkeys([*present, *run_ids]))
        if members != present or not path.exists():
            with whole_file(path) as file:
                file.write(json.dumps({"run_ids": members}).encode() + b"\n")

    def sweeps(self, problems: list[str] | None = None) -> dict[str, list[str]]:
        """The members of every sweep, finished or not; unreadable files as in `iterate`."""
        found = {}
        for path in sorted((self.root / "sweeps").glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                found[path.stem] = _members(path)
            except RecordError as error:
                report(str(error), problems)
        return found

    def unfinished(self, finished: Iterable[str]) -> int:
        """How many runs sweeps ask for that are not among the finished ones."""
        members = {run_id for runs in self.sweeps([]).values() for run_id in runs}
        return len(members.difference(finished))

    def records(self) -> Iterator[tuple[str, str]]:
        """Run id and the place of its record, which need not exist (an unfinished run).

        Plain strings: at 100,000 runs, making Path objects takes longer than asking for the files.
        """
        runs = self.root / "runs"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for run_id in sorted(os.listdir(runs)):
                yield run_id, f"{runs}/{run_id}/{RECORD}"


def report(problem: str, problems: list[str] | None) -> None:
    """Add to the caller's list, or warn: a record is never dropped in silence."""
    if problems is None:
        warnings.warn(problem, stacklevel=3)
    else:
        problems.append(problem)


def _members(path: Path) -> list[str]:
    try:
        members = json.loads(path.read_bytes())["run_ids"]
        if not all(isinstance(m, str) for m in members):
            raise TypeError("run_ids must be strings")
        return members
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is damaged ({error!r}). Remove it and launch the sweep again: finished runs "
            "are not repeated."
        ) from None


def _write_or_remove(path: Path, content: Any, write) -> None:
    """A file of an earlier attempt must not stay beside a record that it does not belong to."""
    if content is not None:
        with whole_file(path) as file:
            write(file, content)
    else:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise RecordError(f"cannot remove {path}: {error.strerror}.") from error


def _save_arrays(file, arrays: "Mapping[str, np.ndarray]") -> None:
    import numpy as np

    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in arrays.items():
        if value.dtype.kind in "OV":  # npz would pickle objects, and lose the type of bfloat16
            raise RecordError(
                f"array '{name}' has type {value.dtype}, which npz cannot hold: numbers, booleans "
                "and strings are allowed. Convert it (bfloat16 to float32) before storing it."
            )
    np.savez(file, **arrays)


def _name(name: str) -> str:
    """Names become file names: nothing that leaves the directory or hides the file."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", name):
        raise RecordError(
            f"'{name}' cannot name a run or a sweep: letters, digits and ._+- are allowed, and a "
            "letter, digit or _ comes first."
        )
    return name


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays and numpy scalars, whichever library they come from
        return _plain(value.tolist(), where)
    raise RecordError(
        f"{where} holds a {type(value).__name__}: numbers, strings, booleans, null, and lists and "
        "mappings of these are allowed."
    )


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
