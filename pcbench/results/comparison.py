"""What stands beside a rank: the paired difference to a baseline, cost, and scores across datasets.

Runs are paired by seed. Where all of them have stored what each test example scored
(``examples/METRIC``), seeds *and* examples are resampled, else seeds alone: the ``examples`` of a
difference say which. A difference is a tie unless its p-value is below 0.05 after Holm's correction
for all comparisons of its group.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from pcbench.config.errors import ConfigError, nearest
from pcbench.results.columns import is_accuracy
from pcbench.results.records import RecordError, Store
from pcbench.results.statistics import holm, iqm, paired_difference, stratified

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BASELINE = "bp"
COST = ("flops_per_step", "weight_updates", "step_ms", "wall_s", "trials")
MEASURED = ("energy_initial", "energy_relaxed", "inference_residual", "target_alignment",
            "target_alignment_finite", "gradient_cosine", "train_loss")  # fmt: skip
SIGNIFICANT = 0.05

Examples = Callable[[str, str], "np.ndarray | None"]  # (run id, metric) → (N,)
Group = dict[str, Any]
Entry = dict[str, Any]


def describe(
    groups: list[Group], data: "pa.Table", baseline: str, examples: Examples | None
) -> None:
    """Add to each group ``asked`` (the most runs of an entry) and ``baseline`` (a place among its
    entries, or null), to each entry ``iqm``, ``cost``, ``measured`` and ``difference``."""
    variants = {entry["variant"] for group in groups for entry in group["entries"]}
    if groups and baseline != BASELINE and baseline not in variants:
        raise ConfigError(f"no variant '{baseline}' to compare with." + nearest(baseline, variants))
    rows = _rows(groups, data)
    for group in groups:
        entries = group["entries"]
        for entry in entries:
            _measure(entry, [rows[run_id] for run_id in entry["run_ids"]])
        group["asked"] = max((entry["asked"] for entry in entries), default=0)
        scored = (n for n, e in enumerate(entries) if e["variant"] == baseline and e["scores"])
        group["baseline"] = next(scored, None)  # of several configs the best
        differences = compare(group, group["baseline"], examples)
        for entry, difference in zip(entries, differences, strict=True):
            entry["difference"] = difference


def compare(group: Group, baseline: int | None, examples: Examples | None) -> list[Entry | None]:
    """The difference of every entry to the one at place `baseline`; null for that one itself and
    where no seeds pair: ``{mean, low, high, p, seeds, examples, p_holm, verdict}``."""
    entries = group["entries"]
    if baseline is None:
        return [None] * len(entries)
    found = [
        None if n == baseline else _difference(entry, entries[baseline], group["metric"], examples)
        for n, entry in enumerate(entries)
    ]
    tested = [d for d in found if d is not None and d["p"] is not None]
    for difference, p in zip(tested, holm([d["p"] for d in tested]), strict=True):
        better = (difference["mean"] > 0) == group["higher_is_better"]
        difference["p_holm"] = p
        difference["verdict"] = "tie" if p >= SIGNIFICANT else "better" if better else "worse"
    return found


def _difference(entry: Entry, reference: Entry, metric: str, examples: Examples | None):
    runs = [
        dict(zip(e["run_seeds"], zip(e["run_ids"], e["scores"], strict=True), strict=True))
        for e in (entry, reference)
    ]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if not seeds:
        return None
    pair: list = [[of_seed[seed][1] for seed in seeds] for of_seed in runs]
    if examples is not None:
        kept = [[_of_run(*of_seed[s], metric, examples) for s in seeds] for of_seed in runs]
        if len({None if a is None else len(a) for row in kept for a in row}) == 1 and (
            kept[0][0] is not None
        ):
            pair = kept
    return paired_difference(*pair)._asdict() | {"p_holm": None, "verdict": None}


def _of_run(run_id: str, score: float, metric: str, examples: Examples) -> "np.ndarray | None":
    """Null as well where the arrays belong to another record of the run."""
    found = examples(run_id, metric)
    if found is None or abs(found.mean() - score) > 1e-5 * max(1.0, abs(score)):
        return None
    return found


def stored_examples(store: Store) -> Examples:
    """What the runs of a results directory have stored, read once."""

    @cache
    def read(run_id: str, metric: str):
        try:
            return store.arrays(run_id, f"examples/{metric}").get(f"examples/{metric}")
        except RecordError:
            return None

    return read


def across(groups: list[Group]) -> list[dict[str, Any]]:
    """Variants over several datasets, where scores can be normalised: 0 is chance, 1 the mean of
    the group's baseline. ``[{task, metric, protocol, datasets, entries: [{variant, groups, of,
    iqm, low, high}]}]``; those that miss a group come last and are not comparable."""
    families: dict[tuple, list[Group]] = defaultdict(list)
    for group in groups:
        metric, chance = group["metric"], group["chance"]
        if is_accuracy(metric) and chance is not None and group["baseline"] is not None:
            families[tuple(group.get(k) for k in ("task", "metric", "protocol"))].append(group)
    found = []
    for (task, metric, protocol), members in families.items():
        datasets = sorted({str(group["dataset"]) for group in members})
        if len(datasets) < 2:
            continue
        strata: dict[str, dict[str, list[float]]] = defaultdict(dict)
        for n, group in enumerate(members):
            unit = group["entries"][group["baseline"]]["mean"] - group["chance"]
            by_variant = defaultdict(list)
            for entry in group["entries"]:
                by_variant[entry["variant"]].append(entry)
            for variant, (entry, *others) in by_variant.items():
                if entry["scores"] and not others and unit > 0:
                    normalised = [(v - group["chance"]) / unit for v in entry["scores"]]
                    strata[variant][str(n)] = normalised
        entries = []
        for variant, parts in strata.items():
            mean, (low, high) = stratified(parts)
            counts = {"groups": len(parts), "of": len(members)}
            entries.append({"variant": variant, **counts, "iqm": mean, "low": low, "high": high})
        entries.sort(key=lambda e: (-e["groups"], -e["iqm"], e["variant"]))
        shared = {"task": task, "metric": metric, "protocol": protocol, "datasets": datasets}
        found.append({**shared, "entries": entries})
    return found


def _rows(groups: list[Group], data: "pa.Table") -> dict[str, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    run_ids = [run_id for g in groups for e in g["entries"] for run_id in e["run_ids"]]
    names = ["run_id", "status", "pack_size", "n_trials", *COST[:-1], *MEASURED]
    chosen = data.select(names).filter(pc.is_in(data["run_id"], pa.array(run_ids, pa.string())))
    return {row["run_id"]: row for row in chosen.to_pylist()}


def _measure(entry: Entry, rows: list[dict[str, Any]]) -> None:
    """Means over the completed runs: a diverged one stopped early and measured nothing."""
    rows = [row | _times(row) for row in rows if row["status"] == "completed"]
    trials = max((row["n_trials"] or 0 for row in rows), default=0)
    entry["iqm"] = iqm(entry["scores"]) if entry["scores"] else None
    entry["cost"] = {name: _mean(rows, name) for name in COST[:-1]}
    entry["cost"]["trials"] = trials or entry["configs"]
    entry["measured"] = {name: _mean(rows, name) for name in MEASURED}


def _times(row: dict[str, Any]) -> dict[str, float | None]:
    """Of a pack, its share of the wall time; a step's time is that of a run alone."""
    size, wall_s = row["pack_size"] or 1, row["wall_s"]
    return {
        "wall_s": None if wall_s is None else wall_s / size,
        "step_ms": row["step_ms"] if size == 1 else None,
    }


def _mean(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return sum(values) / len(values) if values else None
