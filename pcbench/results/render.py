"""A leaderboard as a table in the terminal, Markdown, CSV, JSON or LaTeX.

Accuracies are shown in percent, other metrics with four significant digits, both with the 95 %
Student-t interval over seeds, which is not clipped. CSV and JSON hold the unrounded values.
"""

import csv as csv_
import io
import json as json_
from typing import TYPE_CHECKING, Any

from pcbench.results.columns import COLUMNS, SCHEMA_VERSION

if TYPE_CHECKING:
    from rich.console import Console

Board = dict[str, Any]
HEADER = ("rank", "variant", "score", "seeds", "completed", "config")
ENTRY = (
    "rank", "algorithm", "variant", "mean", "low", "high", "seeds", "completed", "asked",
    "configs", "validation", "config", "run_ids",
)  # fmt: skip


def table(board: Board, console: "Console", results_dir: str = "results") -> None:
    """Print to `console`: one table a group."""
    from rich.table import Table
    from rich.text import Text

    if not board["groups"]:
        console.print(empty(board, results_dir), markup=False, highlight=False)
        return
    for group in board["groups"]:
        shown = Table(title=Text(_title(group)), title_justify="left", caption_justify="left")
        for name in _header(group):
            numeric = name in ("rank", "seeds", "completed")
            shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for entry in group["entries"]:
            shown.add_row(*(Text(cell) for cell in _cells(entry, group)))
        console.print(shown)
    console.print(_note(board), markup=False, highlight=False)


def markdown(board: Board, results_dir: str = "results") -> str:
    if not board["groups"]:
        return empty(board, results_dir) + "\n"
    parts = []
    for group in board["groups"]:
        lines = [_header(group), ["---"] * len(HEADER)]
        lines += [_cells(entry, group) for entry in group["entries"]]
        escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        rows = "\n".join("| " + " | ".join(line) + " |" for line in escaped)
        parts.append(f"### {_title(group)}\n\n{rows}\n")
    return "\n".join([*parts, _note(board)]) + "\n"


def csv(board: Board) -> str:
    """One line an entry; `run_ids` separated by spaces, `config` as JSON."""
    groups = board["groups"]
    keys = list(dict.fromkeys(k for g in groups for k in g if k not in ("entries", "status")))
    out = io.StringIO()
    writer = csv_.DictWriter(out, [*keys, *ENTRY], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for group in groups:
        for entry in group["entries"]:
            texts = {
                "run_ids": " ".join(entry["run_ids"]),
                "config": json_.dumps(entry["config"]) if entry["config"] else "",
            }
            writer.writerow({**group, **entry, **texts})
    return out.getvalue()


def json(board: Board) -> str:
    return json_.dumps(board, indent=2, allow_nan=False) + "\n"


def latex(board: Board, results_dir: str = "results") -> str:
    r"""A ``tabular`` a group, with the rules of booktabs."""
    if not board["groups"]:
        return "".join(f"% {line}\n" for line in empty(board, results_dir).splitlines())
    parts = []
    for group in board["groups"]:
        lines = [
            f"% {_title(group)}",
            r"\begin{tabular}{rllrrl}",
            r"\toprule",
            " & ".join(_escaped(name) for name in _header(group)) + r" \\",
            r"\midrule",
        ]
        for entry in group["entries"]:
            lines.append(" & ".join(_escaped(cell) for cell in _cells(entry, group)) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n")
    notes = "".join(f"% {line}\n" for line in _note(board).splitlines())
    return "\n".join(parts) + notes


TEXT = {"markdown": markdown, "csv": csv, "json": json, "latex": latex}
FORMATS = ("table", *TEXT)


def empty(board: Board, results_dir: str = "results") -> str:
    """Why there is nothing to show, and what to do about it."""
    rows, where = board["rows"], board["where"]
    if not rows["found"]:
        return (
            f"No finished runs in '{results_dir}'. `pcbench run` makes one, `make demo` a few; "
            "--results DIR looks elsewhere."
        )
    asked = " ".join(f"--where {k}={v}" for k, v in where.items())
    if rows["tuning"]:
        return (
            f"'{results_dir}' holds only trials of searches{' for ' if asked else ''}{asked} "
            f"({rows['tuning']} runs). `--where stage=tune` ranks them."
        )
    if not rows["ranked"]:
        return f"None of the {rows['found']} runs in '{results_dir}' matches {asked}."
    return f"None of the {rows['ranked']} runs asked for has a value of '{board['metric']}'."


def _header(group: Board) -> list[str]:
    arrow = "↑" if group["higher_is_better"] else "↓"
    unit = " (%)" if _is_accuracy(group["metric"]) else ""
    return [f"{group['metric']}{unit} {arrow}" if name == "score" else name for name in HEADER]


def _cells(entry: Board, group: Board) -> list[str]:
    diverged = entry["status"].get("diverged", 0)
    return [
        "–" if entry["rank"] is None else str(entry["rank"]),
        str(entry["variant"]),
        _score(entry, group["metric"]),
        str(entry["seeds"]),
        f"{entry['completed']}/{entry['asked']}" + (f" ({diverged} diverged)" if diverged else ""),
        " ".join(f"{key}={_value(value)}" for key, value in entry["config"].items()),
    ]


def _score(entry: Board, metric: str) -> str:
    values = [entry["mean"], entry["low"], entry["high"]]
    if _is_accuracy(metric):
        texts = ["–" if v is None else f"{100 * v:.2f}" for v in values]
    else:
        texts = ["–" if v is None else f"{v:.4g}" for v in values]
    return texts[0] if entry["low"] is None else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _is_accuracy(metric: str) -> bool:
    return metric in COLUMNS and COLUMNS[metric].unit == "accuracy"


def _title(group: Board) -> str:
    keys = ("metric", "higher_is_better", "status", "entries")
    named = ("task", "dataset", "model", "parameterisation")
    names = [str(group[key]) for key in named if group.get(key) is not None]
    others = [
        f"{key}={_value(value)}"
        for key, value in group.items()
        if key not in (*keys, *named, "schema_version") and value is not None
    ]
    # shown where it says something: rows of another version stand in a group of their own
    if group.get("schema_version") not in (None, SCHEMA_VERSION):
        others.append(f"schema_version={group['schema_version']}")
    return " · ".join([*names, *others])


def _note(board: Board) -> str:
    notes = [
        "mean [95 % Student-t interval over seeds, not clipped]; diverged runs score chance on "
        "accuracies; failed runs score nothing.",
        "Of several configs the one with the best mean validation score is shown; without a "
        "validation set every config is an entry.",
    ]
    if board["rows"]["tuning"]:
        notes.append(f"Left out: {board['rows']['tuning']} trials of searches (stage=tune).")
    return "\n".join(notes)


def _value(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
    }  # fmt: skip
    return "".join(special.get(c, rf"\{c}" if c in "&%$#_{}" else c) for c in text)
