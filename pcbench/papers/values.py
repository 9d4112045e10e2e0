"""From the rows of a cell's runs to the number that stands in it.

One config over seeds: the mean, with its 95 % interval. Several configs (`grid`, or what `select`
leaves of a sweep) need `over_grid`:

    {best_by: COLUMN}                  the config with the best mean of COLUMN (on validation)
    {largest: LEAF, below: NUMBER}     the largest LEAF of a config with a mean below: a capacity
    {share_within: NUMBER}             the share of configs with a mean that close to the best, in %
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from pcbench.config.errors import ConfigError, nearest
from pcbench.papers.spec import Cell
from pcbench.results.columns import COLUMNS, is_accuracy
from pcbench.results.statistics import interval

Row = Mapping[str, Any]


ALONE = ("step_ms", "wall_s", "compile_s")  # times, which a pack shares out


class Mean(NamedTuple):
    """Over seeds, with its 95 % interval; nulls for a single seed."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Value:
    """In the unit of the table; nulls where there is none."""

    published: float | None  # as the published protocol has it
    spread: float | None = None  # its standard deviation over the seeds that `best` chose
    seeds: Mean | None = None  # of all seeds
    honest: Mean | None = None  # of the column that saw no test set
    diverged: int = 0  # of the runs that the number is of


def value(cell: Cell, by_config: Sequence[Sequence[Row]]) -> Value:
    """`by_config`: the finished runs of each config of the cell."""
    over = cell.options.get("over_grid", {})
    groups = [rows for rows in by_config if rows]
    if not groups:
        return Value(None)
    if not over:
        if len(groups) > 1:
            raise ConfigError(
                f"cell {cell.row}/{cell.column} has {len(groups)} configs: say with `over_grid` "
                "what they make, or choose one."
            )
        return _of_seeds(cell, groups[0])
    if "best_by" in over:
        return _of_seeds(cell, _best(over["best_by"], groups))
    means = [(fmean(scores), rows) for rows in groups if (scores := column(cell.metric, rows))]
    if not means:
        return Value(None)
    if "largest" in over:
        within = [rows[0][over["largest"]] for mean, rows in means if mean < over["below"]]
        return Value(float(max(within, default=0)), diverged=sum(map(_diverged, groups)))
    best = max if _higher(cell.metric, groups[0]) else min
    top = best(mean for mean, _ in means)
    near = sum(abs(mean - top) <= over["share_within"] for mean, _ in means)
    return Value(100 * near / len(by_config), diverged=sum(map(_diverged, groups)))


def _of_seeds(cell: Cell, rows: Sequence[Row]) -> Value:
    scores = [score * cell.multiply for score in column(cell.metric, rows)]
    if not scores:
        return Value(None)
    honest, best, spread = cell.options.get("honest"), cell.options.get("best"), None
    others = [score * cell.multiply for score in column(honest, rows)] if honest else []
    chosen = scores
    if best and len(scores) >= best["of"]:
        chosen = sorted(scores, reverse=_higher(cell.metric, rows))[: best["seeds"]]
        spread = pstdev(chosen)
    beside = Mean(fmean(others), *interval(others)) if others else None
    all_seeds = Mean(fmean(scores), *interval(scores))
    return Value(fmean(chosen), spread, all_seeds, beside, _diverged(rows))


def _diverged(rows: Sequence[Row]) -> int:
    return sum(row["status"] == "diverged" for row in rows)


def column(name: str, rows: Sequence[Row]) -> list[float]:
    """Its values. A diverged run scores chance on an accuracy and has no other number; a time is
    that of a run alone. Records of before a column was measured have no number for it."""
    if rows and name not in COLUMNS and not any(name in row for row in rows):
        raise ConfigError(f"the rows have no column '{name}'." + nearest(name, set().union(*rows)))
    found = []
    for row in rows:
        number = row.get(name)
        if row["status"] == "diverged":
            number = _guessed(name, row.get("chance")) if is_accuracy(name) else None
        if name in ALONE and row.get("pack_size") != 1:
            number = None
        if number is not None:
            found.append(float(number))
    return found


def _guessed(name: str, chance: float | None) -> float | None:
    return chance if chance is None or "top5" not in name else min(1.0, 5 * chance)


def _best(name: str, groups: Sequence[Sequence[Row]]) -> Sequence[Row]:
    scored = [(fmean(scores), n) for n, rows in enumerate(groups) if (scores := column(name, rows))]
    if not scored:
        return groups[0]
    return groups[(max if _higher(name, groups[0]) else min)(scored)[1]]


def _higher(name: str, rows: Sequence[Row]) -> bool:
    """Of columns that a task adds, the direction is that of its first one."""
    known = COLUMNS.get(name)
    if known is not None and known.higher_is_better is not None:
        return known.higher_is_better
    return any(row.get("primary_higher_is_better") for row in rows)
