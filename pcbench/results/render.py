"""A leaderboard as a table in the terminal, Markdown, CSV, JSON or LaTeX.

Accuracies are shown in percent, other metrics with four significant digits, both with their 95 %
interval over seeds, which is not clipped. CSV and JSON hold the unrounded values.
"""

import csv as csv_
import io
import json as json_
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pcbench.results.columns import SCHEMA_VERSION, is_accuracy, score_name
from pcbench.results.comparison import COST, MEASURED

if TYPE_CHECKING:
    from rich.console import Console

Board = dict[str, Any]
HEADER = ("rank", "variant", "score", "difference", "seeds", "flop/step", "config")
ENTRY = (
    "rank", "algorithm", "variant", "mean", "low", "high", "iqm", "seeds", "completed", "asked",
    "runs", "unfinished", "configs", "validation", "config", "run_ids",
    *(f"difference_{name}" for name in ("mean", "low", "high", "p_holm", "verdict", "examples")),
    *COST, *MEASURED,
)  # fmt: skip
NOT_NAMES = ("metric", "higher_is_better", "status", "entries", "chance", "asked", "baseline")


def table(board: Board, console: "Console", results_dir: str = "results") -> None:
    """Print to `console`: one table a group."""
    from rich.table import Table
    from rich.text import Text

    if not board["groups"]:
        console.print(empty(board, results_dir), markup=False, highlight=False)
        return
    for group in board["groups"]:
        shown = Table(title=Text(title(group)), title_justify="left", caption_justify="left")
        for name in _header(group):
            numeric = name in ("rank", "seeds", "flop/step")
            shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for entry in group["entries"]:
            shown.add_row(*(Text(cell) for cell in _cells(entry, group)))
        console.print(shown)
    console.print("\n".join(notes(board)), markup=False, highlight=False)


def markdown(board: Board, results_dir: str = "results") -> str:
    if not board["groups"]:
        return empty(board, results_dir) + "\n"
    parts = []
    for group in board["groups"]:
        lines = [_cells(entry, group) for entry in group["entries"]]
        parts.append(f"### {title(group)}\n\n{pipes(_header(group), lines)}")
    return "\n".join(parts) + "\n" + "\n\n".join(notes(board)) + "\n"


def pipes(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in escaped)


def csv(board: Board) -> str:
    """One line an entry; `run_ids` separated by spaces, `config` as JSON."""
    groups = board["groups"]
    shown = ("metric", "higher_is_better")
    keys = dict.fromkeys(k for g in groups for k in g if k in shown or k not in NOT_NAMES)
    out = io.StringIO()
    writer = csv_.DictWriter(out, [*keys, *ENTRY], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for group in groups:
        for entry in group["entries"]:
            compared = entry["difference"] or {}
            texts = {
                **entry["cost"],
                **entry["measured"],
                **{f"difference_{name}": value for name, value in compared.items()},
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
        lines = [_cells(entry, group) for entry in group["entries"]]
        parts.append(f"% {title(group)}\n" + tabular("rlllrrl", _header(group), lines))
    told = "".join(f"% {line}\n" for line in notes(board))
    return "\n".join(parts) + told


def tabular(columns: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    r"""A ``tabular`` with the rules of booktabs."""
    header, *rows = (" & ".join(map(escaped, line)) + r" \\" for line in (header, *lines))
    begin = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule"]
    return "\n".join([*begin, *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


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
    unit = " (%)" if is_accuracy(group["metric"]) else ""
    titles = {"score": f"{score_name(group['metric'])}{unit} {arrow}"}
    if group["baseline"] is not None:
        titles["difference"] = f"minus {group['entries'][group['baseline']]['variant']}"
    return [titles.get(name, name) for name in HEADER]


def _cells(entry: Board, group: Board) -> list[str]:
    flops = entry["cost"]["flops_per_step"]
    return [
        "–" if entry["rank"] is None else str(entry["rank"]),
        str(entry["variant"]),
        score(entry, group["metric"]),
        difference(entry["difference"], group["metric"]),
        seeds(entry, group),
        "–" if flops is None else f"{flops:.2g}",
        settings(entry["config"]),
    ]


def settings(config: Mapping[str, Any]) -> str:
    """``lr=0.01 step_size=0.1``: leaves by their last name where that is enough."""
    last = Counter(key.rpartition(".")[2] for key in config)
    named = {key: key.rpartition(".")[2] for key in config}
    short = {key: name if last[name] == 1 else key for key, name in named.items()}
    return " ".join(f"{short[key]}={_value(value)}" for key, value in config.items())


def score(entry: Board, metric: str, sign: str = "") -> str:
    """``98.35 [98.30, 98.40]``: mean and interval of an entry, or of a difference (`sign`: +)."""
    mean = number(entry["mean"], metric, sign)
    return mean if entry["low"] is None else f"{mean} {interval(entry, metric, sign)}"


def interval(entry: Board, metric: str, sign: str = "") -> str:
    return f"[{number(entry['low'], metric, sign)}, {number(entry['high'], metric, sign)}]"


def number(value: float | None, metric: str, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{100 * value:{sign}.2f}" if is_accuracy(metric) else f"{value:{sign}.4g}"


def difference(found: Board | None, metric: str) -> str:
    """The same of a paired difference, and what it says; `*`: of seeds alone."""
    if found is None:
        return ""
    mark = "" if found["examples"] is not None else "*"
    return f"{score(found, metric, '+')} {found['verdict'] or 'unknown'}{mark}"


def seeds(entry: Board, group: Board) -> str:
    """Completed runs of as many as the group's other entries have, and what became of the rest."""
    others = [f"{n} {status}" for status, n in entry["status"].items() if status != "completed"]
    if missing := group["asked"] - entry["asked"]:
        others.append(f"{missing} not run")
    shown = f"{entry['completed']}/{group['asked']}"
    return f"{shown} ({', '.join(others)})" if others else shown


def unfinished(group: Board) -> str:
    """``pc 3 of 60, ep 60 of 60``: runs of all configs of a variant; empty where all are there."""
    entries = {entry["variant"]: entry for entry in group["entries"] if entry["unfinished"]}
    return ", ".join(f"{name} {e['unfinished']} of {e['runs']}" for name, e in entries.items())


def title(group: Board) -> str:
    named = ("task", "dataset", "model", "parameterisation")
    names = [str(group[key]) for key in named if group.get(key) is not None]
    others = [
        f"{key}={_value(value)}"
        for key, value in group.items()
        if key not in (*NOT_NAMES, *named, "schema_version") and value is not None
    ]
    # shown where it says something: rows of another version stand in a group of their own
    if group.get("schema_version") not in (None, SCHEMA_VERSION):
        others.append(f"schema_version={group['schema_version']}")
    return " · ".join([*names, *others, group["metric"]])


def names(group: Board) -> dict[str, str]:
    """What the runs of a group share: what a reader looks for (`title`), and the `rest`."""
    shown = {k: v for k, v in group.items() if k not in NOT_NAMES and v is not None}
    chief = [str(shown.pop(k)) for k in ("dataset", "model") if k in shown]
    chief += [f"{k} {shown.pop(k)}" for k in ("width", "depth") if k in shown]
    shown.pop("schema_version", None)
    rest = [str(v) if k == "task" else f"{k} {v}" for k, v in shown.items()]
    return {"title": " · ".join(chief), "rest": ", ".join(rest)}


def notes(board: Board) -> list[str]:
    """How to read the numbers."""
    told = [
        "mean [95 % interval over seeds: Student-t, from 20 seeds on a bootstrap; not clipped]; "
        "diverged runs score chance where a task has one; failed runs score nothing.",
        "Of several configs the one with the best mean validation score is shown; without a "
        "validation set every config is an entry.",
    ]
    if any(group["baseline"] is not None for group in board["groups"]):
        told.append(
            f"Differences to {board['baseline']} are paired by seed, for new seeds and new test "
            "examples (*: new seeds alone); a tie unless p < 0.05 after Holm's correction in the "
            "group."
        )
    for group in board["groups"]:
        if missing := unfinished(group):
            told.append(f"Runs not finished, of {title(group)}: {missing}.")
    if board["rows"]["tuning"]:
        told.append(f"Left out: {board['rows']['tuning']} trials of searches (stage=tune).")
    return told


def _value(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def escaped(text: str) -> str:
    """For LaTeX."""
    special = {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "±": r"$\pm$", "<": "$<$", ">": "$>$",
        "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$",
        "‖": r"$\Vert$", "½": r"$\frac12$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$",
        "ε": r"$\varepsilon$", "λ": r"$\lambda$", "μ": r"$\mu$", "π": r"$\pi$", "ρ": r"$\rho$",
        "σ": r"$\sigma$", "θ": r"$\theta$", "τ": r"$\tau$", "Δ": r"$\Delta$",
    }  # fmt: skip
    special |= {digit: f"$_{n}$" for n, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")}
    special |= {"²": "$^2$", "³": "$^3$"}
    return "".join(special.get(c, rf"\{c}" if c in "&%$#_{}" else c) for c in text)
