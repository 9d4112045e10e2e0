"""A published table with ours beside it: terminal, Markdown, HTML, LaTeX, CSV."""

import csv as csv_
import html as html_
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcbench.papers.runs import not_at
from pcbench.papers.spec import SCALES
from pcbench.papers.table import Table
from pcbench.results.files import whole_file
from pcbench.results.render import pipes, tabular

if TYPE_CHECKING:
    from rich.console import Console

CLAIM = ("claim", "found", "verdict")
WIDEST = 8  # columns
CSV = (
    "row", "column", "metric", "unit", "published", "published_spread", "ours", "ours_spread",
    "difference", "verdict", "seeds", "runs", "asked", "diverged", "reason", "source",
)  # fmt: skip


def terminal(table: Table, console: "Console") -> None:
    from rich.table import Table as Shown
    from rich.text import Text

    header, lines = grid(table)
    parts = [(title(table), header, lines)]
    if table["claims"]:
        parts.append(("claims", CLAIM, claim_lines(table)))
    for name, names, rows in parts:
        shown = Shown(title=Text(name), title_justify="left")
        for column in names:
            shown.add_column(column, overflow="fold")
        for row in rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
    console.print("\n".join(table["notes"]), markup=False, highlight=False)


def markdown(table: Table) -> str:
    parts = [f"# {table['title']}\n", f"{reference(table)}\n"]
    parts += [pipes(header, lines) for header, lines in grids(table)]
    return "\n".join([*parts, *(f"- {note}" for note in table["notes"])]) + "\n"


def latex(table: Table) -> str:
    parts = [f"% {title(table)}\n"]
    parts += [tabular("l" * len(header), header, lines) for header, lines in grids(table)]
    return "\n".join([*parts, *(f"% {note}\n" for note in table["notes"])])


STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border-bottom:1px solid #ccc;"
    "padding:.25rem .7rem;text-align:left;vertical-align:top}"
)


def html(table: Table) -> str:
    """One page, of nothing but itself."""
    parts = [_html_table(header, lines) for header, lines in grids(table)]
    notes = "".join(f"<li>{html_.escape(note)}</li>" for note in table["notes"])
    name = html_.escape(table["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f"<style>{STYLE}</style><h1>{name}</h1><p>{html_.escape(reference(table))}</p>"
        f"{''.join(parts)}<ul>{notes}</ul></html>\n"
    )


def csv(table: Table) -> str:
    """A line a cell, unrounded."""
    out = io.StringIO()
    means = [
        f"{name}_{part}" for name in ("all_seeds", "honest") for part in ("mean", "low", "high")
    ]
    names = ["row", "column", "count"] if table.get("kind") == "coverage" else [*CSV, *means]
    writer = csv_.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for cell in table["cells"]:
        own = {
            f"{name}_{part}": number
            for name in ("all_seeds", "honest")
            for part, number in (cell.get(name) or {}).items()
        }
        writer.writerow(cell | own)
    return out.getvalue()


def save(table: Table, folder: Path) -> list[Path]:
    """NAME.{md,html,tex,csv} and, for `paper list`, NAME.json. A table of a smaller scale, or of a
    larger one that has fewer numbers, replaces none: it is written as NAME-SCALE."""
    stem, before = table["name"], stored(folder, table["name"])
    if before and before["scale"] != table["scale"] and not _better(table, before):
        stem += f"-{table['scale']}"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "md": markdown(table),
        "html": html(table),
        "tex": latex(table),
        "csv": csv(table),
        "json": json.dumps(table, indent=1, allow_nan=False) + "\n",
    }
    for suffix, text in texts.items():
        with whole_file(folder / f"{stem}.{suffix}") as file:
            file.write(text.encode())
    return [folder / f"{stem}.{suffix}" for suffix in texts]


def _better(table: Table, before: Table) -> bool:
    filled = table["summary"]["filled"] >= before["summary"]["filled"]
    return filled and SCALES.index(table["scale"]) > SCALES.index(before["scale"])


def stored(folder: Path, name: str) -> Table | None:
    try:
        return json.loads((folder / f"{name}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def grids(table: Table) -> list[tuple[Sequence[str], list[list[str]]]]:
    """The overview, where there are several columns; the cells one by one; the claims."""
    found = [grid(table)]
    if table.get("kind") != "coverage" and len({cell["column"] for cell in table["cells"]}) > 1:
        found.insert(0, overview(table))
    if table["claims"]:
        found.append((CLAIM, claim_lines(table)))
    return found


def overview(table: Table) -> tuple[list[str], list[list[str]]]:
    """Rows and columns as published: ours (published). A table that is wider than a page and wider
    than long is turned."""
    rows: dict[str, dict[str, str]] = {}
    any_published = any(cell["published"] is not None for cell in table["cells"])
    corner = "ours (published)" if any_published else "ours"
    for cell in table["cells"]:
        ours = "–" if cell["ours"] is None else number(cell["ours"], cell)
        published = "" if cell["published"] is None else f" ({number(cell['published'], cell)})"
        rows.setdefault(cell["row_label"], {})[cell["column_label"]] = ours + published
    columns = list(dict.fromkeys(cell["column_label"] for cell in table["cells"]))
    if len(columns) > max(WIDEST, len(rows)):
        lines = [[column, *(own.get(column, "") for own in rows.values())] for column in columns]
        return [corner, *rows], lines
    lines = [[row, *(own.get(column, "") for column in columns)] for row, own in rows.items()]
    return [corner, *columns], lines


def grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and one line a cell, without those that have no number at this scale, published or
    ours; columns that no cell fills are left out. Counts are a matrix."""
    if table.get("kind") == "coverage":
        return _matrix(table["cells"])
    lines = [_line(cell) for cell in table["cells"] if not _outside(cell, table["scale"])]
    names = [name for name in lines[0] if any(line[name] for line in lines)] if lines else []
    told = {"ours": "ours, all seeds"} if "ours, published protocol" in names else {}
    return [told.get(n, n) for n in names], [[line[name] for name in names] for line in lines]


def _outside(cell: Table, scale: str) -> bool:
    return cell["reason"] == not_at(scale) and cell["published"] is None


def _matrix(cells: list[Table]) -> tuple[list[str], list[list[str]]]:
    """A line an algorithm, a column a capability."""
    by_line: dict[str, dict[str, str]] = {}
    for cell in cells:
        by_line.setdefault(cell["column"], {})[cell["row_label"]] = str(cell["count"] or "–")
    names = list(dict.fromkeys(cell["row_label"] for cell in cells))
    return ["algorithm", *names], [[a, *own.values()] for a, own in by_line.items()]


def _line(cell: Table) -> dict[str, str]:
    best = cell["ours_spread"] is not None
    ours = "" if not best else f"{number(cell['ours'], cell)} ± {number(cell['ours_spread'], cell)}"
    single = None if cell["ours"] is None else {"mean": cell["ours"], "low": None}
    seeds = cell["all_seeds"] or single
    runs = f"{cell['seeds']}"
    if cell["runs"] < cell["asked"]:
        runs = f"{cell['runs']} of {cell['asked']} runs"
    if cell["diverged"]:
        runs += f", {cell['diverged']} diverged"
    published = number(cell["published"], cell)
    if cell["published_spread"] is not None:
        published += f" ± {number(cell['published_spread'], cell)}"
    return {
        "": cell["row_label"],
        " ": cell["column_label"],
        "unit": cell["unit"],
        "published": published,
        "ours, published protocol": ours,
        "ours": cell["reason"] or (mean(seeds, cell) if seeds else "–"),
        "ours, no test set seen": mean(cell["honest"], cell) if cell["honest"] else "",
        "difference": number(cell["difference"], cell, "+"),
        "verdict": cell["verdict"] or "",
        "seeds": "" if cell["reason"] else runs,
    }


def claim_lines(table: Table) -> list[list[str]]:
    names = {cell["column"]: f"{cell['column_label']}: " for cell in table["cells"]}
    lines = []
    for claim in table["claims"]:
        found = "; ".join(
            f"{names.get(column, '')}{_side(left)} {claim['op']} {_bound(claim, right)}"
            for column, (left, right) in claim["sides"].items()
        )
        told = {True: "passed", False: "failed", None: "not run"}[claim["passed"]]
        lines.append([claim["text"], found, told])
    return lines


def _bound(claim: Table, right: float | None) -> str:
    factor = "" if claim["factor"] == 1 else f"{claim['factor']:g} · "
    above = (claim["op"][0] == ">") == (claim["margin"] > 0)
    sign = "±" if claim["op"] == "~" else "+" if above else "-"
    margin = "" if claim["margin"] == 0 else f" {sign} {abs(claim['margin']):g}"
    return f"{factor}{_side(right)}{margin}"


def _side(side: float | None) -> str:
    return "–" if side is None else plain(side)


def plain(value: float, sign: str = "") -> str:
    """Four significant digits, of a cosine near 1 those that tell it from 1."""
    if 0.999 <= abs(value) < 1 - 5e-10:
        return f"{value:{sign}.9f}".rstrip("0")
    return f"{value:{sign}.4g}"


def mean(found: Table, cell: Table) -> str:
    shown = number(found["mean"], cell)
    if found["low"] is None:
        return shown
    return f"{shown} [{number(found['low'], cell)}, {number(found['high'], cell)}]"


def number(value: float | None, cell: Table, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}.2f}" if cell["unit"] == "%" else plain(value, sign)


def title(table: Table) -> str:
    return f"{table['title']} ({reference(table)})"


def reference(table: Table) -> str:
    numbers = "".join(f", arXiv {number}" for number in table["arxiv"])
    return f"{table['citation']}{numbers}"


def _html_table(header: Any, lines: list[list[str]]) -> str:
    def row(tag, line):
        return "<tr>" + "".join(f"<{tag}>{html_.escape(c)}</{tag}>" for c in line) + "</tr>"

    body = "".join(row("td", line) for line in lines)
    return f"<table><thead>{row('th', header)}</thead><tbody>{body}</tbody></table>"
