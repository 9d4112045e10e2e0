"""The leaderboard as one HTML file that needs neither network nor server.

The page is `page.html` with its style, its script and its content as JSON put in. Nothing of a
record is ever markup: the script writes texts alone, and the JSON cannot end its own element.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcbench.config.config import flatten
from pcbench.results import curves, render
from pcbench.results.columns import COLUMNS, SCHEMA_VERSION, is_accuracy, score_name
from pcbench.results.comparison import BASELINE, compare, stored_examples
from pcbench.results.files import RecordError, whole_file
from pcbench.results.heatmaps import heat_maps
from pcbench.results.leaderboard import PROTOCOL_METRICS
from pcbench.results.records import Store
from pcbench.results.reproduce import Reproducer

if TYPE_CHECKING:
    import pyarrow as pa

Board = dict[str, Any]


def write(path: Path, board: Board, rows: "pa.Table", store: Store) -> None:
    """Write the page of a leaderboard and of the runs behind it. Raises RecordError."""
    with whole_file(path) as file:
        file.write(page(content(board, rows, store)).encode())


def page(found: Mapping[str, Any]) -> str:
    folder = Path(__file__).parent
    parts = {  # in the order of their marks in page.html
        "style": (folder / "page.css").read_text(),
        # `<` could end the element (`</script>`) or begin a comment
        "content": json.dumps(found, allow_nan=False).replace("<", "\\u003c"),
        "charts": (folder / "charts.js").read_text(),
        "script": (folder / "page.js").read_text(),
    }
    text, rest = "", (folder / "page.html").read_text()
    for name, part in parts.items():  # what is put in is not searched again
        before, _, rest = rest.partition(f"/*{name}*/")
        text += before + part
    return text + rest


def content(board: Board, rows: "pa.Table", store: Store) -> dict[str, Any]:
    """All that the page shows, as plain values."""
    reproducer, examples = Reproducer(), stored_examples(store)
    groups = [
        _group(group, n, store, reproducer, examples) for n, group in enumerate(board["groups"])
    ]
    return {
        "latest": max(filter(None, rows["started"].to_pylist()), default=""),
        "where": board["where"],
        "baseline": board["baseline"],
        "rows": board["rows"],
        "empty": None if groups else render.empty(board, str(store.root)),
        "notes": render.notes(board),
        "groups": groups,
        "across": board["across"],
        "heat": heat_maps(rows, board["where"]),
        "variants": _variants(board),
    }


def _variants(board: Board) -> list[str]:
    """In the order of their colours: the same in every chart."""
    found = {entry["variant"] for group in board["groups"] for entry in group["entries"]}
    return sorted(found, key=lambda variant: (variant != BASELINE, variant))


def _group(group: Board, place: int, store: Store, reproducer: Reproducer, examples) -> Board:
    metric, entries = group["metric"], group["entries"]
    differences = [compare(group, n, examples) for n in range(len(entries))]
    shown = [_entry(entry, group, store, reproducer) for entry in entries]
    _mark_differing(shown)
    return {
        "id": f"group-{place + 1}",
        **render.names(group),
        "metric": metric,
        "score": score_name(metric),
        "meaning": COLUMNS[metric].meaning if metric in COLUMNS else "",
        "percent": is_accuracy(metric),
        "higher_is_better": group["higher_is_better"],
        "chance": group["chance"],
        "asked": group["asked"],
        "baseline": group["baseline"],
        "flags": _flags(group),
        "headline": headline(group, differences),
        "glance": glance(group, differences),
        "entries": shown,
        "differences": differences,  # [baseline][entry]
    }


def _flags(group: Board) -> list[str]:
    """What makes the scores of a group differ from those of others."""
    found = []
    if group.get("protocol") in PROTOCOL_METRICS:
        found.append("The epoch was chosen on the test set, as this published protocol does.")
    elif all(entry["validation"] is None for entry in group["entries"]):
        found.append("No validation set: nothing was selected, every config is an entry.")
    if group.get("schema_version") not in (None, SCHEMA_VERSION):
        version = group["schema_version"]
        found.append(f"Rows of schema version {version}; this pcbench writes {SCHEMA_VERSION}.")
    if few := [e["variant"] for e in group["entries"] if e["asked"] < group["asked"]]:
        found.append(f"Fewer seeds than the {group['asked']} of others: {', '.join(few)}.")
    ended = ("diverged", "failed")
    if lost := [e["variant"] for e in group["entries"] if any(s in e["status"] for s in ended)]:
        found.append(f"Runs that diverged or failed: {', '.join(lost)}.")
    if missing := render.unfinished(group):
        found.append(f"Runs that are not finished, over all configs: {missing}.")
    return found


def headline(group: Board, differences: list[list[Board | None]]) -> str:
    """Who leads, by how much, how sure that is and what it costs, in a sentence or two."""
    entries, metric = group["entries"], group["metric"]
    if not entries or entries[0]["mean"] is None:
        return "No run of this group has a score."
    first, base = entries[0], group["baseline"] or 1  # the baseline; of the baseline, the next
    unit, points = (" %", " points") if is_accuracy(metric) else ("", "")
    text = f"On {_place(group)}, {first['variant']} leads: {score_name(metric)} "
    text += render.number(first["mean"], metric)
    text += unit if first["low"] is None else f"{unit} {render.interval(first, metric)}"
    found = differences[base][0] if len(entries) > base else None
    if found is not None:
        text += f"; {render.number(found['mean'], metric, '+')}{points} over "
        text += entries[base]["variant"]
        if found["low"] is not None:
            text += f" (95 % interval {render.interval(found, metric, '+')}: {_surely(found)})"
        if ratio := _times_the_operations(first, entries[base]):
            text += f", at {ratio}× the operations a step"
    return f"{text}. {_others(entries[1:], differences[0][1:])}".rstrip()


def glance(group: Board, differences: list[list[Board | None]]) -> list[list[str]] | None:
    """The same in the words of a table: ``[title, text]`` of what leads, how good it is, by how
    much, how sure that is and what it costs; null where there is no score."""
    entries, metric = group["entries"], group["metric"]
    if not entries or entries[0]["mean"] is None:
        return None
    first, base = entries[0], group["baseline"] or 1
    unit, points = ("%", "points ") if is_accuracy(metric) else ("", "")
    found = differences[base][0] if len(entries) > base else None
    ahead = sure = "–"
    cost = [f"{first['cost']['trials']} trials of tuning"]
    if found is not None:
        ahead = (
            f"{render.number(found['mean'], metric, '+')} {points}over {entries[base]['variant']}"
        )
        sure = _others(entries[1:], differences[0][1:])
        if found["low"] is not None:
            shown = render.interval(found, metric, "+")
            surely = _surely(found) if found["verdict"] == "tie" else "significant"
            sure = f"{surely}: 95 % interval {shown}. {sure}"
        if ratio := _times_the_operations(first, entries[base]):
            cost.insert(0, f"{ratio}× the operations of {entries[base]['variant']} a step")
    return [
        ["On", _place(group)],
        ["Best", first["variant"]],
        [f"{score_name(metric)} {unit}".strip(), render.score(first, metric)],
        ["By how much", ahead],
        ["How sure", sure],
        ["At what cost", ", ".join(cost)],
    ]


def _place(group: Board) -> str:
    return " · ".join(str(group[k]) for k in ("dataset", "model") if group.get(k) is not None)


def _surely(found: Board) -> str:
    if found["verdict"] == "tie" and not found["low"] <= 0 <= found["high"]:
        return "a tie, because so many are compared"
    return found["verdict"]


def _times_the_operations(entry: Board, other: Board) -> str | None:
    flops, reference = (e["cost"]["flops_per_step"] for e in (entry, other))
    return f"{flops / reference:.2g}" if flops and reference else None


def _others(entries: list[Board], differences: list[Board | None]) -> str:
    """What is sure about those that the leader is compared with."""
    told = [d["verdict"] for d in differences if d is not None and d["verdict"] is not None]
    if not entries:
        return ""
    if not told:
        return "With so few seeds no difference is sure."
    tied = [
        entry["variant"]
        for entry, found in zip(entries, differences, strict=True)
        if found is not None and found["verdict"] == "tie"
    ]
    if tied:
        return f"Not distinguishable from it: {', '.join(tied)}."
    return "All that it can be compared with are significantly worse."


def _entry(entry: Board, group: Board, store: Store, reproducer: Reproducer) -> Board:
    kept = ("rank", "algorithm", "variant", "mean", "low", "high", "iqm", "scores", "run_ids",
            "run_seeds", "completed", "asked", "cost", "measured", "config", "configs",
            "validation")  # fmt: skip
    records, arrays = [], []
    for run_id in entry["run_ids"]:
        try:
            record = store.read(run_id)
            records.append(record)
            if record.status == "completed":
                arrays.append(store.arrays(run_id, "history/") | store.arrays(run_id, "probe/"))
        except RecordError:  # removed meanwhile, or without arrays
            continue
    found = {
        "learning": curves.learning(arrays, score_name(group["metric"])),
        "alignment": curves.alignment(arrays),
        "energy": curves.energy(arrays),
        "energy_change": curves.energy(arrays, change=True),
    }
    first = records[0] if records else None
    leaves = flatten(first.config) if first else {}
    leaves.pop("seed", None)
    seeds = sorted(entry["run_seeds"])
    command = first and reproducer.command(first.config, first.run_id, seeds)
    return {
        **{name: entry[name] for name in kept},
        "seeds": render.seeds(entry, group),
        "energy": first.row.get("energy") if first else None,
        "curves": {name: c and c._asdict() for name, c in found.items()},
        "leaves": {name: json.dumps(value) for name, value in sorted(leaves.items())},
        "command": command,
        "provenance": _provenance(records),
    }


def _provenance(records) -> dict[str, list[str]]:
    """Where the runs come from: every value that one of them has."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        told = dict(record.provenance)
        versions = told.pop("versions", None) or {}
        told = {
            **told,
            "device": record.row.get("device"),
            **versions,
            "protocol": record.row.get("protocol"),
        }
        told["git_dirty"] = told.get("git_dirty") or None  # worth a line where there were changes
        for name in ("command", "jax_version", "host"):  # known better, or nobody's business
            told.pop(name, None)
        for name, value in told.items():
            if value is not None:
                found[name][str(value)] = None
    return {name: sorted(values) for name, values in found.items()}


def _mark_differing(entries: list[Board]) -> None:
    """``differing``: the leaves that are not the same in all entries of the group."""
    names = sorted({name for entry in entries for name in entry["leaves"]})
    differing = [n for n in names if len({entry["leaves"].get(n) for entry in entries}) > 1]
    for entry in entries:
        entry["differing"] = [name for name in differing if name in entry["leaves"]]
