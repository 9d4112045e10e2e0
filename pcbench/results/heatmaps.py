"""Scores over learning rate and width, a map for each variant: what a search or a sweep saw."""

from collections import defaultdict
from collections.abc import Mapping
from math import fsum
from typing import TYPE_CHECKING, Any

from pcbench.results import render
from pcbench.results.columns import is_accuracy
from pcbench.results.leaderboard import (
    DATA,
    DEFAULT_METRIC,
    GROUP,
    MARKS,
    NEEDED,
    SCORES,
    by_config,
    filtered,
    order,
    run_scores,
    score_name,
    varying_leaves,
)

if TYPE_CHECKING:
    import pyarrow as pa

AXES = ("lr", "width")
FEWEST = 2  # values of the learning rate that make a map


def heat_maps(rows: "pa.Table", where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``[{title, rest, score, percent, higher_is_better, maps: [{variant, lr, width, cells}]}]``; a
    cell is ``{mean, runs}`` or null. The score is the validation's, which selection sees, or the
    task's own; of several configs in a cell the best mean is shown."""
    data = filtered(rows, where)
    leaves = [n for n in varying_leaves(data) if n not in ("optimizer.lr", "model.width")]
    groups = [c for c in (*GROUP, "depth", *DATA, *MARKS) if c in data.column_names]
    primary = set(data["primary_metric"].unique().to_pylist()) - {None}
    columns = {name for p in (DEFAULT_METRIC, *primary) for name in (p, _validation(p))}
    wanted = dict.fromkeys([*NEEDED, *AXES, *groups, *leaves, *sorted(columns)])
    wanted = [name for name in wanted if name in data.column_names]
    split: dict[tuple, list[dict]] = defaultdict(list)
    for row in data.select(wanted).to_pylist():
        if row["stage"] != "tune" and row["lr"] is not None and row["width"] is not None:
            split[tuple(row[name] for name in groups)].append(row)
    found = []
    for key, members in sorted(split.items(), key=lambda item: order(item[0])):
        metric = min({row["primary_metric"] for row in members} - {None}, default=DEFAULT_METRIC)
        if any(row.get(_validation(metric)) is not None for row in members):
            metric = _validation(metric)
        higher = members[0]["primary_higher_is_better"] is not False
        maps = _maps(members, leaves, metric, max if higher else min)
        if maps:
            shown = render.names(dict(zip(groups, key, strict=True)))
            shown |= {"score": metric, "percent": is_accuracy(metric), "higher_is_better": higher}
            found.append({**shown, "maps": maps})
    return found


def _validation(primary: str) -> str:
    return SCORES[0].format(score_name(primary))


def _maps(rows: list[dict], leaves: list[str], metric: str, best) -> list[dict[str, Any]]:
    variants: dict[str, dict[tuple, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        variants[row["variant"] or row["algorithm"]][row["lr"], row["width"]].append(row)
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


def _cell(rows: list[dict], leaves: list[str], metric: str, best) -> dict[str, Any] | None:
    configs = by_config(rows, leaves).values()
    scores = [list(s.values()) for members in configs if (s := run_scores(members, metric))]
    if not scores:
        return None
    mean, runs = best((fsum(s) / len(s), len(s)) for s in scores)
    return {"mean": mean, "runs": runs}
