"""Scores over learning rate and width, a map for each variant.

More learning rates than a map has room for, as of a random sweep, are put together by half decades:
1e-3 stands for all that are nearer to it than to 3e-4 and 3e-3.
"""

from collections import defaultdict
from collections.abc import Mapping
from math import fsum, log10
from typing import TYPE_CHECKING, Any

from pcbench.results import render
from pcbench.results.columns import is_accuracy, validation_column
from pcbench.results.leaderboard import (
    DATA,
    DEFAULT_METRIC,
    EACH,
    GROUP,
    MARKS,
    SHARED,
    by_config,
    filtered,
    has,
    order,
    run_scores,
    runs_alike,
    varying_leaves,
)

if TYPE_CHECKING:
    import pyarrow as pa

AXES = ("lr", "width")
FEWEST, MOST = 2, 12  # values of the learning rate that make a map, and that have room in it


def heat_maps(rows: "pa.Table", where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``[{title, rest, score, percent, higher_is_better, maps: [{variant, lr, width, cells}]}]``; a
    cell is ``{mean, runs}`` or null. The score is the validation's, which selection sees, or the
    task's own; of several configs in a cell the best mean is shown."""
    data = filtered(rows, where)
    leaves = varying_leaves(data)
    groups = [c for c in (*GROUP, "depth", *DATA, *MARKS) if c in data.column_names]
    primary = set(data["primary_metric"].unique().to_pylist()) - {None}
    columns = {name for p in (DEFAULT_METRIC, *primary) for name in (p, validation_column(p))}
    shared = [*SHARED, *AXES, *groups, *leaves]
    each = [*EACH, *sorted(columns & set(data.column_names))]
    split: dict[tuple, list[dict]] = defaultdict(list)
    for row in runs_alike(data, shared, each):
        if row["stage"] != "tune" and row["lr"] is not None and row["width"] is not None:
            split[tuple(row[name] for name in groups)].append(row)
    found = []
    for key, members in sorted(split.items(), key=lambda item: order(item[0])):
        metric = min({row["primary_metric"] for row in members} - {None}, default=DEFAULT_METRIC)
        if has(members, validation_column(metric)):
            metric = validation_column(metric)
        higher = members[0]["primary_higher_is_better"] is not False
        maps = _maps(members, leaves, metric, max if higher else min)
        if maps:
            shown = render.names(dict(zip(groups, key, strict=True)))
            shown |= {"score": metric, "percent": is_accuracy(metric), "higher_is_better": higher}
            found.append({**shown, "maps": maps})
    return found


def _maps(rows: list[dict], leaves: list[str], metric: str, best) -> list[dict[str, Any]]:
    variants: dict[str, dict[tuple, list[dict]]] = defaultdict(lambda: defaultdict(list))
    together = len({row["lr"] for row in rows}) > MOST
    for row in rows:
        lr = half_decade(row["lr"]) if together else row["lr"]
        variants[row["variant"] or row["algorithm"]][lr, row["width"]].append(row)
    found = []
    for variant, cells in sorted(variants.items()):
        lrs, widths = (sorted({cell[n] for cell in cells}) for n in range(2))
        if len(lrs) < FEWEST:
            continue
        table = [
            [_cell(cells.get((lr, w), []), leaves, metric, best) for lr in lrs] for w in widths
        ]
        if any(cell for line in table for cell in line):
            found.append({"variant": variant, "lr": lrs, "width": widths, "cells": table})
    return found


def half_decade(value: float) -> float:
    """The nearest, in logarithms, of … 0.1, 0.3, 1, 3, …; 0 is itself."""
    if value <= 0:
        return value
    tens, half = divmod(round(2 * log10(value)), 2)
    return float(f"{3 if half else 1}e{tens}")


def _cell(rows: list[dict], leaves: list[str], metric: str, best) -> dict[str, Any] | None:
    configs = by_config(rows, leaves).values()
    scores = [list(s.values()) for members in configs if (s := run_scores(members, metric))]
    if not scores:
        return None
    mean, runs = best((fsum(s) / len(s), len(s)) for s in scores)
    return {"mean": mean, "runs": runs}
