"""Published sets: the records of a finished sweep as one compressed file, and what its leaderboard
draws from the runs that it shows.

    FOLDER/SWEEP.jsonl.gz   a record a line
    FOLDER/SWEEP.npz        arrays of the shown runs, if any, under RUN_ID/NAME: histories,
                            measurements, what each test example scored; no weights

A folder of them is read wherever a results directory is (``--results results/published``).
"""

import gzip
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pcbench.results.files import RecordError, whole_file
from pcbench.results.records import Record, Store

if TYPE_CHECKING:
    import numpy as np

RECORDS, ARRAYS = ".jsonl.gz", ".npz"
SHOWN = ("history/", "probe/", "examples/")  # of the arrays of a run
PRIVATE = ("command", "host", "platform")  # the machine's paths, name and kernel


class Published(Store):
    """A folder of published sets, read only."""

    def __init__(self, root: str | os.PathLike):
        super().__init__(root)
        self._opened: dict[str, tuple] = {}

    @cached_property
    def _files(self) -> dict[str, tuple[str, Record]]:
        """(file, record) by run id; of a run in two sets the last one."""
        found = {}
        for path in sorted(self.root.glob(f"*{RECORDS}")):
            try:
                lines = gzip.decompress(path.read_bytes()).splitlines()
            except (OSError, EOFError) as error:
                raise RecordError(f"{path} cannot be read: {error}.") from error
            for number, line in enumerate(lines, start=1):
                record = Record.from_json(line, source=f"line {number} of {path}")
                found[record.run_id] = (str(path), record)
        return dict(sorted(found.items()))

    def read(self, run_id: str) -> Record:
        try:
            return self._files[run_id][1]
        except KeyError:
            raise RecordError(f"{self.root} holds no run {run_id}.") from None

    def arrays(self, run_id: str, prefix: str = "") -> "dict[str, np.ndarray]":
        path, begin = self._files[run_id][0].removesuffix(RECORDS) + ARRAYS, f"{run_id}/"
        stored, names = self._stored(path)
        if run_id not in names:
            raise RecordError(f"{path} holds no arrays of run {run_id}.")
        wanted = [name for name in names[run_id] if name.startswith(begin + prefix)]
        return {name.removeprefix(begin): stored[name] for name in wanted}

    def _stored(self, path: str):
        """(the arrays of a set, their names by run id), opened once."""
        import numpy as np

        if path not in self._opened:
            names = defaultdict(list)
            try:
                stored = np.load(path, allow_pickle=False)
                for name in stored.files:
                    names[name.split("/")[0]].append(name)
            except FileNotFoundError:
                stored = {}  # a set without arrays
            except (OSError, ValueError) as error:
                raise RecordError(f"{path} cannot be read: {error}.") from error
            self._opened[path] = stored, names
        return self._opened[path]

    def holds(self, run_id: str) -> bool:
        return run_id in self._files

    def finished(self) -> dict[str, str]:
        return {run_id: record.status for run_id, (_, record) in self._files.items()}

    def records(self):
        yield from ((run_id, path) for run_id, (path, _) in self._files.items())

    def sweeps(self, problems: list[str] | None = None) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for run_id, (path, _) in self._files.items():
            found.setdefault(Path(path).name.removesuffix(RECORDS), []).append(run_id)
        return found

    def write(self, record, arrays=None, traceback=None) -> None:
        self.require_writable()

    def require_writable(self) -> None:
        raise RecordError(
            f"{self.root} is a published set, which is read only: choose another directory with "
            "--results DIR."
        )


def opened(root: str | os.PathLike) -> Store:
    """The results directory, or the folder of published sets, at `root`."""
    folder = Path(root)
    published = not (folder / "runs").exists() and any(folder.glob(f"*{RECORDS}"))
    return Published(folder) if published else Store(folder)


def publish(stores: Iterable[Store], sweep: str, folder: Path, shown: Iterable[str]) -> list[Path]:
    """Write the runs of a sweep that the stores have finished, the last store's where several have
    one, and the arrays of the runs `shown`. The same runs make the same bytes."""
    found: dict[str, tuple[Store, Record]] = {}
    for store in stores:
        for run_id in store.sweeps().get(sweep, ()):
            if store.holds(run_id):
                found[run_id] = (store, _public(store.read(run_id)))
    if not found:
        raise RecordError(f"no finished run of sweep '{sweep}' to publish.")
    lines = "".join(f"{found[run_id][1].to_json()}\n" for run_id in sorted(found))
    arrays: dict[str, np.ndarray] = {}
    for run_id in sorted(set(shown) & found.keys()):
        store, record = found[run_id]
        if record.status == "completed":
            try:
                of_run = store.arrays(run_id)
            except RecordError as error:  # published before, when another config was the best
                warnings.warn(str(error), stacklevel=2)
                continue
            kept = {k: v for k, v in sorted(of_run.items()) if k.startswith(SHOWN)}
            arrays |= {f"{run_id}/{name}": array for name, array in kept.items()}
    contents = {RECORDS: _compressed(lines)} | ({ARRAYS: _npz(arrays)} if arrays else {})
    for end, content in contents.items():
        with whole_file(folder / f"{sweep}{end}") as file:
            file.write(content)
    return [folder / f"{sweep}{end}" for end in contents]


def _public(record: Record) -> Record:
    row = {name: None if name in PRIVATE else value for name, value in record.row.items()}
    origin = {k: v for k, v in record.provenance.items() if k not in PRIVATE}
    fields = (record.run_id, record.status, record.config, row, record.evaluations, origin)
    return Record.new(*fields)


def _compressed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def _npz(arrays: "Mapping[str, np.ndarray]") -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()
