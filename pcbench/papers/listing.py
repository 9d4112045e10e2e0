"""What became of each published table, in a line."""

from pathlib import Path
from typing import Any

from pcbench.config.compose import choices
from pcbench.papers.render import stored
from pcbench.papers.spec import read_spec

HEADER = ("table", "arXiv", "scale", "cells", "verdicts", "claims passed")


def listing(folder: Path) -> list[dict[str, Any]]:
    """Of every spec, with what the tables in the folder say."""
    rows = []
    for name in choices("paper"):
        spec, table = read_spec(name), stored(folder, name)
        none = {"scale": None, "cells": len(spec.cells), "filled": 0, "verdicts": {},
                "claims": len(spec.claims), "passed": 0, "failed": 0}  # fmt: skip
        own = {"name": name, "arxiv": spec.arxiv, "title": spec.table["title"]}
        rows.append(own | (table["summary"] if table else none))
    return rows


def line(row: dict[str, Any]) -> list[str]:
    """In the order of HEADER."""
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items())
    claims = f"{row['passed']}/{row['claims']}" if row["claims"] else ""
    open_ = row["claims"] - row["passed"] - row["failed"]
    for count, what in ((row["failed"], "failed"), (open_ if row["scale"] else 0, "not run")):
        claims += f", {count} {what}" if count else ""
    cells = f"{row['filled']}/{row['cells']}"
    return [
        row["name"], " ".join(row["arxiv"]), row["scale"] or "not run", cells, verdicts, claims,
    ]  # fmt: skip
