"""A published table with our numbers beside it, from the records of its runs.

The rule of a verdict, on the difference of our number, got by the published protocol, to theirs:

    inside spread    it is not larger than the published spread
    inside T         else, it is not larger than the tolerance T (0.5 where the unit is %)
    outside          else

A claim is passed or failed; both are null until all the runs that they need are there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pcbench.config import Config
from pcbench.papers.runs import CellRuns
from pcbench.papers.spec import Claim, Spec
from pcbench.papers.values import Value, value
from pcbench.results.records import Record, Store
from pcbench.results.statistics import MANY

Table = dict[str, Any]  # plain JSON values
EPSILON = 1e-9  # of a difference that equals its bound but for rounding


def make_table(spec: Spec, scale: str, runs: Sequence[CellRuns], store: Store) -> Table:
    """Reads records only; a cell without all of its runs is told as such and has no verdict."""
    usable = {run_id for run_id, status in store.finished().items() if status != "failed"}
    wanted = {config.run_id for own in runs for config in own.configs}
    records = {run_id: store.read(run_id) for run_id in wanted & usable}
    cells = [_cell(spec, scale, own, records) for own in runs]
    by_name = {(cell["row"], cell["column"]): cell for cell in cells}
    claims = [_claim(claim, by_name) for claim in spec.claims]
    table = {
        "name": spec.name,
        "title": spec.table["title"],
        "citation": spec.table["citation"],
        "arxiv": spec.arxiv,
        "scale": scale,
        "cells": cells,
        "claims": claims,
        "notes": notes(spec, scale, cells),
    }
    return table | {"summary": summary(table)}


def _cell(spec: Spec, scale: str, own: CellRuns, records: Mapping[str, Record]) -> Table:
    cell = own.cell
    rows = [
        [records[c.run_id].row for c in configs if c.run_id in records]
        for configs in by_config(own.configs)
    ]
    there = [row for of_config in rows for row in of_config]
    complete = bool(own.configs) and len(there) == len(own.configs)
    found = value(cell, rows) if there else Value(None)
    difference = verdict_ = None
    if found.published is not None and cell.published is not None:
        difference = found.published - cell.published
        if complete and all(o.get("judge", True) for o in (cell.options, cell.at(scale))):
            verdict_ = verdict(difference, cell.spread, cell.tolerance)
    return {
        "row": cell.row,
        "row_label": spec.label("rows", cell.row),
        "column": cell.column,
        "column_label": spec.label("columns", cell.column),
        "metric": cell.options.get("metric"),
        "unit": cell.unit if "metric" in cell.options else "",
        "published": cell.published,
        "published_spread": cell.spread,
        "source": cell.options.get("source"),
        "note": cell.options.get("note"),
        "ours": found.published,
        "ours_spread": found.spread,
        "all_seeds": _mean(found.seeds),
        "honest": _mean(found.honest),
        "difference": difference,
        "verdict": verdict_,
        "complete": complete,
        "reason": None if there else own.reason or "not run",
        "seeds": max(map(len, rows), default=0),
        "runs": len(there),
        "asked": len(own.configs),
        "diverged": found.diverged,
        "run_ids": [config.run_id for config in own.configs],
    }


def _mean(found) -> Table | None:
    return None if found is None else found._asdict()


def by_config(configs: Iterable[Config]) -> list[list[Config]]:
    """Those that differ in the seed alone together."""
    groups: dict[tuple, list[Config]] = {}
    for config in configs:
        rest = sorted((k, repr(v)) for k, v in config.identity.items() if k != "seed")
        groups.setdefault(tuple(rest), []).append(config)
    return list(groups.values())


def verdict(difference: float, spread: float | None, tolerance: float | None) -> str:
    if spread is not None and abs(difference) <= spread + EPSILON:
        return "inside spread"
    if tolerance is not None and abs(difference) <= tolerance + EPSILON:
        return f"inside {tolerance:g}"
    return "outside"


def _claim(claim: Claim, cells: Mapping[tuple[str, str], Table]) -> Table:
    """Passed where it holds in every column that it is about; `sides`: the numbers, by column."""
    rowwise = [side for side in (claim.left, claim.right)
               if isinstance(side, str) and "/" not in side]  # fmt: skip
    sides = {}
    for column in claim.columns if rowwise else ("",):
        sides[column] = [_side(side, column, cells) for side in (claim.left, claim.right)]
    known = all(number is not None for pair in sides.values() for number in pair)
    passed = None
    if known:
        passed = all(holds(left, claim, right) for left, right in sides.values())
    return asdict(claim) | {"columns": list(sides), "sides": sides, "passed": passed}


def _side(side: str | float, column: str, cells: Mapping[tuple[str, str], Table]) -> float | None:
    if not isinstance(side, str):
        return float(side)
    row, _, own = side.partition("/")
    cell = cells.get((row, own or column))
    return cell["ours"] if cell and cell["complete"] else None


def holds(left: float, claim: Claim, right: float) -> bool:
    bound = claim.factor * right
    if claim.op == "~":
        return abs(left - bound) <= claim.margin + EPSILON
    margin = claim.margin if claim.op[0] == ">" else -claim.margin
    return {
        ">": left > bound + margin,
        ">=": left >= bound + margin - EPSILON,
        "<": left < bound + margin,
        "<=": left <= bound + margin + EPSILON,
    }[claim.op]


def summary(table: Table) -> Table:
    """What `paper list` shows."""
    cells, claims = table["cells"], table["claims"]
    return {
        "scale": table["scale"],
        "cells": len(cells),
        "filled": sum(cell["complete"] for cell in cells),
        "verdicts": dict(Counter(cell["verdict"] for cell in cells if cell["verdict"])),
        "claims": len(claims),
        "passed": sum(claim["passed"] is True for claim in claims),
        "failed": sum(claim["passed"] is False for claim in claims),
    }


def notes(spec: Spec, scale: str, cells: Sequence[Table]) -> list[str]:
    """The caption: protocol, what was scaled down, how to read a verdict."""
    table, own, told = spec.table, spec.scale(scale), []
    if "caption" in table:
        told.append(" ".join(table["caption"].split()))
    told += dict.fromkeys(f"{cell['row_label']}: {cell['note']}." for cell in cells if cell["note"])
    sources = dict.fromkeys(
        c["source"] for c in cells if c["source"] and c["published"] is not None
    )
    told += [f"Published numbers: {'; '.join(sources)}."] if sources else []
    told.append(f"Scale {scale}: " + "; ".join(_scaled(spec, scale)) + ".")
    if scale == "smoke":
        told.append("This scale shows that the table can be made; its numbers say nothing.")
    if "note" in own:
        told.append(" ".join(own["note"].split()))
    intervals = [cell for cell in cells if (cell["all_seeds"] or {}).get("low") is not None]
    if intervals:
        kind = "bootstrap" if any(c["seeds"] >= MANY for c in intervals) else "Student-t"
        told.append(f"ours: mean over seeds [95 % interval, {kind}, not clipped].")
    if any(cell["verdict"] for cell in cells):
        told.append(
            "Verdict, on the difference, ours by the published protocol minus published: inside "
            "spread, if not larger than the published spread; else inside T, if not larger than T; "
            "else outside."
        )
    return told


def _scaled(spec: Spec, scale: str) -> list[str]:
    """What the scale sets, for all cells, for some lines and for single cells."""
    at_scale = {
        lines: [k for k in spec.table[lines]
                if k in map(str, spec.scale(scale).get(lines, spec.table[lines]))]
        for lines in ("rows", "columns")
    }  # fmt: skip
    places = [("", spec.table)]
    places += [
        (f"{spec.label(lines, key)}: ", spec.table[lines][key])
        for lines, keys in at_scale.items()
        for key in keys
    ]
    places += [
        (f"{spec.label('rows', str(row))}, {spec.label('columns', str(column))}: ", cell)
        for row, own in (spec.table.get("cells") or {}).items()
        for column, cell in (own or {}).items()
        if isinstance(cell, dict)
        and str(row) in at_scale["rows"]
        and str(column) in at_scale["columns"]
    ]
    found = []
    for name, place in places:
        own = place.get("scales", {}).get(scale, {})
        parts = [f"{key}={_shown(v)}" for key, v in own.get("where", {}).items()]
        parts += [f"{key} in {_shown(v)}" for key, v in own.get("grid", {}).items()]
        if "seeds" in own:
            count = own["seeds"] if isinstance(own["seeds"], int) else len(own["seeds"])
            parts.insert(0, f"{count} seed" + "s" * (count > 1))
        found += [name + ", ".join(parts)] if parts else []
    return found or ["as published"]


def _shown(setting: Any) -> str:
    if isinstance(setting, list):
        return "[" + ", ".join(map(_shown, setting)) + "]"
    return "null" if setting is None else str(setting).lower() if setting is True else str(setting)
