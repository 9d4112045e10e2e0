"""What a sweep will do: which runs are missing, in which packs, how long it may take."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median

from pcbench.config import Config
from pcbench.config.config import build, nest
from pcbench.results.records import RecordError, Store
from pcbench.sweeps.packs import Pack, claimed_runs, claims, kept_packs, new_packs


@dataclass(frozen=True)
class Plan:
    runs: int  # asked for, duplicates dropped
    finished: int  # of those, not to be run again
    taken: int  # of those, queued or running elsewhere
    duplicates: int
    packs: list[Pack]
    seconds: list[float | None]  # estimate per pack; None: no record of such runs

    @property
    def total_seconds(self) -> float | None:
        """Estimated computing time; None as long as any pack's is unknown."""
        return None if any(s is None for s in self.seconds) else sum(self.seconds)

    def to_json(self) -> dict:
        packs = [
            {"run_ids": pack.run_ids, "mode": pack.mode, "size": len(pack.configs), "seconds": s}
            for pack, s in zip(self.packs, self.seconds, strict=True)
        ]
        return {
            "runs": self.runs,
            "finished": self.finished,
            "taken": self.taken,
            "duplicates": self.duplicates,
            "packs": packs,
            "seconds": self.total_seconds,
        }


def make_plan(
    configs: list[Config],
    duplicates: int,
    store: Store,
    retry: Iterable[str] = (),
    force: bool = False,
) -> Plan:
    """`retry`: statuses of finished runs that are run again; `force`: all are."""
    # claims before records: a run that ends in between is then finished, and never sent twice
    claimed = claimed_runs(claims(store))
    finished = {} if force else store.finished()
    done = {run_id for run_id, status in finished.items() if status not in retry}
    missing = {c.run_id: c for c in configs if c.run_id not in done}
    taken = claimed.keys() & missing
    open_runs = missing.keys() - taken
    packs = [_sent_by(configs, pack) for pack in kept_packs(store, open_runs, done)]
    new = open_runs - {run_id for pack in packs for run_id in pack.run_ids}
    left = [config for run_id, config in missing.items() if run_id in new]
    if left:
        executor = left[0]["executor"]
        packs += new_packs(
            left, executor["pack_mode"], executor["pack_size"], executor.get("workers") or 1
        )
    seconds = _past_seconds(missing.values(), finished, store)
    estimates = [_estimate(pack, seconds) for pack in packs]
    return Plan(len(configs), len(configs) - len(missing), len(taken), duplicates, packs, estimates)


def _sent_by(configs: list[Config], pack: Pack) -> Pack:
    """A pack that is taken up again has the executor of this launch, not of the one before."""
    asked = {config.run_id: config for config in configs}
    executor = {k: v for k, v in configs[0].flat.items() if k.startswith("executor.")}

    def sent(config: Config) -> Config:
        rest = {k: v for k, v in config.flat.items() if not k.startswith("executor.")}
        return asked.get(config.run_id) or build(nest(rest | executor))

    return replace(pack, configs=tuple(map(sent, pack.configs)))


def _estimate(pack: Pack, seconds: dict[str, float]) -> float | None:
    each = seconds.get(pack.configs[0].static_key)
    return None if each is None else each * len(pack.configs)


def _past_seconds(
    missing: Iterable[Config], finished: dict[str, str], store: Store
) -> dict[str, float]:
    """Median seconds per run of finished runs by static key: such runs differ from a missing one in
    dynamic leaves alone. A few for each key are read."""
    wanted = {config.static_key for config in missing}
    times: dict[str, list[float]] = defaultdict(list)
    for run_id in finished if wanted else ():
        if wanted <= {key for key, found in times.items() if len(found) >= 3}:
            break
        try:
            row = store.read(run_id).row
        except RecordError:
            continue
        if row.get("static_key") in wanted and row.get("wall_s"):
            times[row["static_key"]].append(row["wall_s"] / row["pack_size"])
    return {key: median(found) for key, found in times.items()}
