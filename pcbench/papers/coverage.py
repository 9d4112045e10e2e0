"""What the records in a results directory cover: capability × algorithm, counts of completed runs.

kind: coverage
rows      {key: {label, where: {column of the row: value or list}, has, note}}; `has` is a column
          whose number shows the capability, too; without either pcbench does not cover it
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pcbench.papers.spec import Spec
from pcbench.papers.table import Table, summary
from pcbench.results.figures import holds

COLUMNS = ("algorithm", "status", "stage")  # of the rows, beside those that `where` names


def needed(spec: Spec) -> set[str]:
    """Columns of the results table."""
    rows = spec.table["rows"].values()
    named = (name for row in rows for name in (*row.get("where", ()), row.get("has")) if name)
    return {*COLUMNS, *named}


def _shows(row: Mapping[str, Any], capability: Mapping[str, Any]) -> bool:
    where, has = capability.get("where", {}), capability.get("has")
    if has and row.get(has) is not None:
        return True
    return bool(where) and all(holds(row.get(name), wanted) for name, wanted in where.items())


def make_coverage(spec: Spec, rows: Iterable[Mapping[str, Any]]) -> Table:
    counted = [r for r in rows if r["status"] == "completed" and r["stage"] != "tune"]
    algorithms = sorted({row["algorithm"] for row in counted})
    cells = []
    for key, own in spec.table["rows"].items():
        for algorithm in algorithms or ["–"]:
            count = sum(row["algorithm"] == algorithm and _shows(row, own) for row in counted)
            cells.append({
                "row": key, "row_label": spec.label("rows", key), "column": algorithm,
                "column_label": algorithm, "count": count, "complete": bool(count),
                "verdict": None,
            })  # fmt: skip
    told = [f"{spec.label('rows', k)}: {r['note']}" for k, r in spec.table["rows"].items()
            if "note" in r]  # fmt: skip
    caption = [" ".join(spec.table["caption"].split())] if "caption" in spec.table else []
    table = {
        "kind": "coverage",
        "name": spec.name,
        "title": spec.table["title"],
        "citation": spec.table["citation"],
        "arxiv": spec.arxiv,
        "scale": "full",
        "cells": cells,
        "claims": [],
        "notes": [*caption, *told, "A number counts completed records; –: none."],
    }
    return table | {"summary": summary(table)}
