"""Figures for papers, drawn from rows alone, each with its data as CSV.

`conf/figure/NAME.yaml` says which sweep a figure shows and how:

    title, caption, source     what it is, what it shows, the publication
    sweep                      conf/sweep/NAME.yaml; its rows, and no others, are shown
    table: rows                or `history` (measurements of the probe over training), `learning`
                               (scores over training; `steps`, `weight_updates` and `train_s`, the
                               seconds of training steps alone, are those so far), `inference`
                               (energy by step of the last measurement), `evaluations` (the second
                               table of a record, such as per layer)
    x, y                       columns; several y are several lines
    at                         column whose value the runs of a point share, where x differs between
                               them, such as a time: then their mean is drawn
    line, panel                column or columns whose values get a line, a panel each
    where                      {column: value, or a list of values} of the rows that are shown
    largest: {of, below}       instead of y, the largest value of the column `of` at which the mean
                               of y is below a number: a capacity. Where there is none, no point
    log                        axes with a logarithmic scale, of [x, y]
    limits                     {y: [low, high]}: what is beyond is cut off
    slope: true                of each line, log y against log x: in the legend and as CSV
    heat: true                 a map of x against line, with the mean as colour
    labels                     {column: what it is called in the figure}
    kind: images               pictures, not points: with keys of their own, see `pictures`

A point is the mean over the runs that share x (or `at`), line and panel, with its 95 % Student-t
interval.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from pcbench.config.errors import ConfigError, nearest
from pcbench.results import heat_figure
from pcbench.results.files import whole_file
from pcbench.results.records import Store
from pcbench.results.statistics import interval

COMMON = {"title", "caption", "source", "sweep", "kind", "line", "where", "labels"}
KEYS = {
    "points": COMMON
    | {"table", "x", "y", "panel", "log", "largest", "limits", "slope", "heat", "at"},
    "images": COMMON | {"images", "count"},
}
NEEDED = {"points": ("title", "sweep", "x", "y"), "images": ("title", "sweep", "images")}
DEFAULTS = {"table": "rows", "line": "variant", "panel": [], "where": {}, "log": [], "count": 8}
SERIES = {"history": "probe/", "learning": "history/"}  # table → arrays, by epoch
TABLES = ("rows", *SERIES, "inference", "evaluations")
Row = dict[str, Any]


class Point(NamedTuple):
    panel: Any
    line: str
    x: Any
    mean: float
    low: float | None
    high: float | None
    runs: int


def read_spec(source: str) -> tuple[str, dict[str, Any]]:
    """(its name, the complete YAML) of a figure: a name under conf/figure or a path to a YAML file.
    Raises ConfigError for an unknown figure, kind, key or table."""
    from pcbench.config.compose import find_yaml, read_yaml

    path = Path(source) if source.endswith((".yaml", ".yml")) else find_yaml("figure", source)
    name, spec = path.stem, read_yaml(path)
    kind = spec.setdefault("kind", "points")
    if kind not in KEYS:
        raise ConfigError(f"figure {name}: no kind '{kind}'." + nearest(kind, KEYS))
    for key in spec:
        if key not in KEYS[kind]:
            raise ConfigError(f"figure {name}: unknown key '{key}'." + nearest(key, KEYS[kind]))
    for key in NEEDED[kind]:
        if key not in spec:
            raise ConfigError(f"figure {name}: it needs the key '{key}'.")
    spec = DEFAULTS | spec
    if spec["table"] not in TABLES:
        raise ConfigError(
            f"figure {name}: no table '{spec['table']}'." + nearest(spec["table"], TABLES)
        )
    for key in spec.get("limits", {}):
        if key != "y":
            raise ConfigError(f"figure {name}: limits: unknown key '{key}'. Allowed: y.")
    for key in {"y", "line", "panel", "images"} & spec.keys():
        spec[key] = [spec[key]] if isinstance(spec[key], str) else spec[key] or []
    return name, spec


def points(spec: Mapping[str, Any], rows: Iterable[Row]) -> list[Point]:
    """What is drawn. Rows without x or y do not count; ConfigError where none is left, or where a
    column exists in none."""
    shared = spec.get("at", spec["x"])
    largest = spec.get("largest", {"of": shared})
    groups: dict[tuple, list[tuple]] = defaultdict(list)
    seen: set[str] = set()
    for row in rows:
        seen |= row.keys()
        if not all(holds(row.get(column), wanted) for column, wanted in spec["where"].items()):
            continue
        for column in spec["y"]:
            value, x = row.get(column), row.get(spec["x"])
            if value is None or x is None or value != value:
                continue
            line, panel = (joined(row, spec[key]) for key in ("line", "panel"))
            if len(spec["y"]) > 1 or line is None:
                line = label(spec, column) if line is None else f"{line}, {label(spec, column)}"
            key = (panel, line, row.get(shared), row.get(largest["of"]))
            groups[key].append((x, float(value)))
    named = (*spec["y"], *spec["line"], *spec["panel"], *spec["where"])
    for column in (spec["x"], shared, largest["of"], *named):
        if seen and column not in seen:
            raise ConfigError(f"the rows have no column '{column}'." + nearest(column, seen))
    if not groups:
        raise ConfigError(
            f"no run of sweep '{spec['sweep']}' has {spec['x']} and {' or '.join(spec['y'])}."
        )
    found = []
    for (panel, line, *_), pairs in groups.items():
        places, values = zip(*pairs, strict=True)
        x = sum(places) / len(places) if "at" in spec else places[0]
        low, high = interval(values)
        found.append(Point(panel, line, x, sum(values) / len(values), low, high, len(values)))
    if "largest" in spec:
        found = _largest(found, [at for *_, at in groups], largest["below"])
    return sorted(found, key=lambda p: (_order(p.panel), _order(p.line), _order(p.x)))


def _largest(means: list[Point], at: list, below: float) -> list[Point]:
    """Per panel, line and x, the largest `at` of a mean below the number, of all its runs."""
    groups: dict[tuple, list] = defaultdict(list)
    for point, value in zip(means, at, strict=True):
        groups[point[:3]].append((value, point))
    found = []
    for key, members in groups.items():
        enough = [value for value, point in members if point.mean < below]
        if enough:
            found.append(Point(*key, max(enough), None, None, sum(p.runs for _, p in members)))
    return found


class Slope(NamedTuple):
    panel: Any
    line: str
    slope: float
    error: float | None  # standard; None of two points
    points: int


def slopes(drawn: list[Point]) -> list[Slope]:
    """Of each line with two points or more, the least-squares slope of log mean against log x."""
    lines: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for point in drawn:
        if point.x > 0 and point.mean > 0:
            lines[point.panel, point.line].append((math.log(point.x), math.log(point.mean)))
    found = []
    for (panel, line), pairs in lines.items():
        n = len(pairs)
        if n < 2:
            continue
        x, y = (sum(column) / n for column in zip(*pairs, strict=True))
        spread = sum((a - x) ** 2 for a, _ in pairs)
        slope = sum((a - x) * (b - y) for a, b in pairs) / spread
        rest = sum((b - y - slope * (a - x)) ** 2 for a, b in pairs)
        error = math.sqrt(rest / (n - 2) / spread) if n > 2 else None
        found.append(Slope(panel, line, slope, error, n))
    return found


def table_rows(spec: Mapping[str, Any], store: Store, run_ids: Iterable[str]) -> Iterable[Row]:
    """The rows of the spec's table that belong to these runs; unfinished runs have none."""
    for run_id in run_ids:
        if not store.holds(run_id):
            continue
        record = store.read(run_id)
        if spec["table"] == "rows":
            yield record.row
        elif spec["table"] == "evaluations":
            by_condition: dict[str, Row] = defaultdict(dict)
            for entry in record.evaluations:
                by_condition[entry["condition"]][entry["metric"]] = entry["value"]
            for condition, metrics in by_condition.items():
                yield record.row | parsed(condition) | metrics
        elif spec["table"] == "inference":
            traces = store.arrays(run_id, "probe/energy_trace")
            for step, energies in enumerate(traces["probe/energy_trace"][-1] if traces else ()):
                yield record.row | {"step": step, "energy_of_step": float(energies.sum())}
        else:
            prefix = SERIES[spec["table"]]
            series = {k.removeprefix(prefix): v for k, v in store.arrays(run_id, prefix).items()}
            for n in range(len(series.get("epoch", ()))):
                measured = {k: v[n].item() for k, v in series.items() if v.ndim == 1}
                if "steps" in measured and record.row["step_ms"] is not None:
                    measured["train_s"] = measured["steps"] * record.row["step_ms"] / 1000
                yield record.row | measured


def parsed(condition: str) -> Row:
    """``layer=3,noise=0.2`` → {layer: 3, noise: 0.2}."""
    found: Row = {}
    for part in condition.split(","):
        name, _, text = part.partition("=")
        try:
            found[name] = float(text) if "." in text or "e" in text else int(text)
        except ValueError:
            found[name] = text
    return found


def save(name: str, spec: Mapping[str, Any], drawn: list[Point], folder: Path) -> list[Path]:
    """NAME.csv, NAME.png and NAME.pdf under `folder`, NAME-slopes.csv where it has slopes."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    panel = ", ".join(spec["panel"]) or "panel"
    paths = [folder / f"{name}.csv"]
    write_csv(paths[0], [panel, "line", spec["x"], *Point._fields[3:]], drawn)
    if spec.get("slope"):
        paths.append(folder / f"{name}-slopes.csv")
        write_csv(paths[-1], [panel, *Slope._fields[1:]], slopes(drawn))
    heat = spec.get("heat")
    figure = heat_figure.draw(spec, drawn, Figure, label) if heat else draw(spec, drawn, Figure)
    for suffix in ("png", "pdf"):
        paths.append(folder / f"{name}.{suffix}")
        with whole_file(paths[-1]) as file:
            figure.savefig(file, format=suffix, dpi=160)
    return paths


def write_csv(path: Path, names: list[str], rows: Iterable[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(rows)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


# Distinguishable by people who see fewer colours, in print too (Wong 2011, Nature Methods 8:441);
# the marker tells lines apart without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
MARKERS = "osD^vPX*"
FEW = 7  # values of x that an axis has room for


WIDTH, HEIGHT = 3.9, 3.1  # inches of a panel


def draw(spec: Mapping[str, Any], drawn: list[Point], figure_class):
    from matplotlib.ticker import LogLocator

    panels = list(dict.fromkeys(p.panel for p in drawn))
    lines = sorted({p.line for p in drawn}, key=_order)  # not every panel has every one
    columns = min(3, len(panels))
    count = -(-len(panels) // columns)
    per_row = min(len(lines), columns * WIDTH // (0.9 + 0.075 * max(map(len, map(str, lines)))))
    per_row = max(1, int(per_row))
    legend = 0.2 * -(-len(lines) // per_row) if len(lines) > 1 else 0
    size = (1 + WIDTH * columns, 1.1 + HEIGHT * count + legend)
    figure = figure_class(figsize=size, layout="constrained")
    axes = figure.subplots(count, columns, squeeze=False, sharey=True).flat
    numeric = all(isinstance(p.x, int | float) for p in drawn)
    values = list(dict.fromkeys(p.x for p in drawn))
    fits = {(s.panel, s.line): s.slope for s in slopes(drawn)} if spec.get("slope") else {}
    handles = {}
    for axis, panel in zip(axes, panels, strict=False):
        for n, line in enumerate(lines):
            own = [p for p in drawn if p.panel == panel and p.line == line]
            if not own:
                continue
            fit = fits.get((panel, line))
            name = str(line) if fit is None else f"{line} (slope {fit:.3f})"
            style = {"color": COLOURS[n % len(COLOURS)], "ms": 4}
            marker = MARKERS[n // len(COLOURS) % len(MARKERS)] if len(own) < 60 else ""
            handles[n, name] = _curve(axis, own, numeric, values, marker, style)
        if panel is not None:
            names = ", ".join(label(spec, column) for column in spec["panel"])
            axis.set_title(f"{names} = {panel}", fontsize=9)
        axis.set_xlabel(label(spec, spec["x"]))
        if "y" in spec["log"]:
            axis.set_yscale("log")
        if "x" in spec["log"]:
            positive = min((x for x in values if x > 0), default=1)
            if min(values) > 0:
                axis.set_xscale("log")
                axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # labels that have room
            else:  # linear from zero to the smallest value
                axis.set_xscale("symlog", linthresh=positive)
            if len(values) <= FEW:  # the values themselves, not powers of ten
                axis.set_xticks(values, [f"{x:g}" for x in values])
                axis.minorticks_off()
        if not numeric:
            axis.set_xticks(range(len(values)), [str(x) for x in values], rotation=20, ha="right")
            axis.set_xlim(-0.5, len(values) - 0.5)
        if "y" in spec.get("limits", {}):
            axis.set_ylim(*spec["limits"]["y"])
        axis.grid(alpha=0.25)
    axes = list(figure.axes)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    axes[0].set_ylabel(label(spec, spec["y"][0]) if len(spec["y"]) == 1 else "")
    if len(lines) > 1 or len(spec["y"]) > 1:
        in_order = sorted(handles)
        figure.legend(
            [handles[key] for key in in_order],
            [name for _, name in in_order],
            title=", ".join(label(spec, column) for column in spec["line"]) or None,
            loc="outside lower center",
            ncols=per_row,
            fontsize=8,
            title_fontsize=8,
            frameon=False,
        )
    figure.suptitle("\n".join(wrap(spec["title"], int(size[0] * 11))), fontsize=10)
    return figure


def _curve(axis, own: list[Point], numeric: bool, values: list, marker: str, style: dict):
    """A line with its intervals as a band; a single point, or points over names, with error
    bars."""
    mean = [p.mean for p in own]
    known = all(p.low is not None for p in own)
    low, high = ([p.low for p in own], [p.high for p in own]) if known else (mean, mean)
    if numeric and len(own) > 1:
        x = [p.x for p in own]
        (drawn,) = axis.plot(x, mean, marker + "-", **style)
        if known:
            axis.fill_between(x, low, high, color=style["color"], alpha=0.2, lw=0)
        return drawn
    below, above = ([abs(m - v) for m, v in zip(mean, edge, strict=True)] for edge in (low, high))
    places = [p.x if numeric else values.index(p.x) for p in own]
    return axis.errorbar(places, mean, (below, above), fmt=marker, capsize=3, **style)


def label(spec: Mapping[str, Any], column: str) -> str:
    return spec.get("labels", {}).get(column, column.rsplit(".", 1)[-1].replace("_", " "))


def joined(row: Row, columns: list[str]) -> Any:
    """The value of one column; of several, those that the row has, as text; None without any."""
    values = [value for column in columns if (value := row.get(column)) is not None]
    if len(columns) == 1:
        return values[0] if values else None
    return ", ".join(map(str, values)) or None


def holds(value: Any, wanted: Any) -> bool:
    return str(value) in map(str, wanted if isinstance(wanted, list) else [wanted])


def _order(value: Any):
    """Nothing, then numbers by size (those written as text, too), then texts."""
    if value is None:
        return 0, 0
    try:
        return 1, float(value)
    except ValueError:
        return 2, value
