"""What a sweep will do: which runs are missing, in which packs, how long it may take."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median

from pcbench.config import Config
from pcbench.results.records import RecordError, Store

RETRY = ("failed", "diverged")


@dataclass(frozen=True)
class Pack:
    """Runs that one compiled program computes."""

    run_ids: list[str]
    mode: str
    size: int
    seconds: float | None  # estimated; None: no record of such runs


@dataclass(frozen=True)
class Plan:
    runs: int  # asked for, duplicates dropped
    finished: int  # of those, not to be run again
    duplicates: int
    packs: list[Pack]
    configs: dict[str, Config]  # by run id, those to run

    @property
    def seconds(self) -> float | None:
        """Estimated computing time; None as long as any pack's is unknown."""
        times = [pack.seconds for pack in self.packs]
        return None if any(t is None for t in times) else sum(times)

    def to_json(self) -> dict:
        return {
            "runs": self.runs,
            "finished": self.finished,
            "duplicates": self.duplicates,
            "packs": [asdict(pack) for pack in self.packs],
            "seconds": self.seconds,
        }


def make_plan(
    configs: list[Config],
    duplicates: int,
    store: Store,
    retry: Iterable[str] = (),
    force: bool = False,
) -> Plan:
    """`retry`: statuses of finished runs that are run again; `force`: all are."""
    finished = {} if force else store.finished()
    done = {run_id for run_id, status in finished.items() if status not in retry}
    missing = {c.run_id: c for c in configs if c.run_id not in done}
    seconds = _past_seconds(missing.values(), finished, store)
    packs = [Pack([r], "none", 1, seconds.get(c.static_key)) for r, c in missing.items()]
    return Plan(len(configs), len(configs) - len(missing), duplicates, packs, missing)


def _past_seconds(
    missing: Iterable[Config], finished: dict[str, str], store: Store
) -> dict[str, float]:
    """Median wall time of finished runs by static key. Such runs differ from a missing one in
    dynamic leaves alone, so reading the records stops after a few for each key."""
    wanted = {config.static_key for config in missing}
    if not wanted or not finished:
        return {}
    times: dict[str, list[float]] = defaultdict(list)
    for run_id in finished:
        if wanted <= {key for key, found in times.items() if len(found) >= 3}:
            break
        try:
            row = store.read(run_id).row
        except RecordError:
            continue
        if row.get("static_key") in wanted and row.get("wall_s"):
            times[row["static_key"]].append(row["wall_s"])
    return {key: median(found) for key, found in times.items()}
