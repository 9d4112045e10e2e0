"""Specs of published tables, read strictly: a table is data, `conf/paper/NAME.yaml`.

    title, citation            what the table shows, the publication
    arxiv                      its number, or a list of them
    caption                    what differs from the published protocol, and why
    rows, columns              {key: {label: …, and options}}; a cell is one of each
    cells                      {row: {column: what is published, or a mapping with `published`}};
                               `false`: there is no such cell. Published is a number or a text such
                               as "98.26 ± 0.04", in the unit of the table
    claims                     of papers whose numbers are not at hand; see `CLAIM`
    kind: coverage             a table of counts of records instead; see `coverage`

Options stand at the table, a column, a row or a cell; the later of these wins, mappings are merged:

    sweep                      a name under conf/sweep, of whose runs a cell selects some; without
                               one, a cell is the runs of `where` and `grid`
    select                     {leaf: value} of the sweep's runs
    where, grid                as in a block of a sweep; {row} and {column} in a text are the keys
    over_grid                  what several configs of a cell make: see `values`
    metric, honest             columns of the row: as published, and one that saw no test set, shown
                               beside it
    best: {seeds: 5, of: 7}    the published protocol averages the best seeds
    unit, multiply             of the published numbers; ours are multiplied to be in it
    tolerance                  of a verdict, in the unit; 0.5 where it is %
    judge: false               numbers are not comparable (other hardware, other sizes), here or at
                               a scale: no verdict
    source, note               where the published number was read; about the cell
    cannot                     why there are no runs
    scales                     {smoke|cpu|full: {seeds, where, grid, rows, columns, cannot, needs,
                               note}}: what the table runs at that scale. `rows` and `columns`
                               restrict it; `needs: gpu` waits for an accelerator
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcbench.config.errors import ConfigError, nearest
from pcbench.results.columns import is_accuracy

SCALES = ("smoke", "cpu", "full")
OPTIONS = {
    "sweep", "select", "where", "grid", "over_grid", "metric", "honest", "best", "unit",
    "multiply", "tolerance", "judge", "source", "note", "cannot", "scales",
}  # fmt: skip
OF_TABLE = {"title", "citation", "arxiv", "caption", "kind", "rows", "columns", "cells", "claims"}
OF_TABLES_SCALE = {"rows", "columns", "note"}
KEYS = {
    "table": OPTIONS | OF_TABLE,
    "line": OPTIONS | {"label"},
    "cell": OPTIONS | {"published"},
    "scale": {"seeds", "where", "grid", "cannot", "needs", "judge"} | OF_TABLES_SCALE,
    "line's scale": {"seeds", "where", "grid", "cannot", "needs", "judge"},
    "claim": {"text", "left", "op", "right", "factor", "margin", "columns"},
    "best": {"seeds", "of"},
    "over_grid": {"largest", "below", "share_within", "best_by"},
    "coverage": OF_TABLE - {"columns", "cells", "claims"},
    "coverage row": {"label", "where", "has", "note"},
}
TYPES = (  # of options
    ({"where", "grid", "select", "scales", "best", "over_grid"}, dict, "a mapping"),
    ({"multiply", "tolerance"}, int | float, "a number"),
    ({"judge"}, bool, "true or false"),
    (OPTIONS, str, "a text"),
)
OF_SCALES = (
    ("where", dict, "a mapping"),
    ("grid", dict, "a mapping"),
    ("judge", bool, "true or false"),
)
OPERATORS = (">", ">=", "<", "<=", "~")  # ~: equal up to the margin


@dataclass(frozen=True)
class Cell:
    row: str
    column: str
    published: float | None
    spread: float | None
    options: Mapping[str, Any]  # merged

    @property
    def metric(self) -> str:
        return self.options["metric"]

    @property
    def unit(self) -> str:
        return self.options.get("unit", "%" if is_accuracy(self.metric) else "")

    @property
    def multiply(self) -> float:
        return self.options.get("multiply", 100.0 if is_accuracy(self.metric) else 1.0)

    @property
    def tolerance(self) -> float | None:
        return self.options.get("tolerance", 0.5 if self.unit == "%" else None)

    def at(self, scale: str) -> dict[str, Any]:
        return self.options.get("scales", {}).get(scale, {})


@dataclass(frozen=True)
class Claim:
    """`left` op factor · right by at least `margin`, for one pair of cells or in each of `columns`.

    A side is a number, "ROW/COLUMN", or "ROW" (the cell of each column). A negative margin allows
    as much on the wrong side; of ~ it is the largest difference."""

    text: str
    left: str | float
    op: str
    right: str | float
    factor: float
    margin: float
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Spec:
    name: str
    table: Mapping[str, Any]  # the YAML
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]

    @property
    def arxiv(self) -> list[str]:
        found = self.table.get("arxiv") or []
        return [found] if isinstance(found, str) else found

    @property
    def coverage(self) -> bool:
        return self.table.get("kind") == "coverage"

    def label(self, lines: str, key: str) -> str:
        """Of a row or a column (`lines`)."""
        return str(self.table[lines][key].get("label", key))

    def scale(self, name: str) -> dict[str, Any]:
        return self.table.get("scales", {}).get(name, {})


def read_spec(source: str) -> Spec:
    """A name under conf/paper or a path to a YAML file. Raises ConfigError, which names the file,
    the place and the key."""
    from pcbench.config.compose import find_yaml, read_yaml

    path = Path(source) if source.endswith((".yaml", ".yml")) else find_yaml("paper", source)
    table = read_yaml(path)
    where = f"{path}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: a mapping with the keys title, rows, columns … is needed.")
    if table.get("kind", "coverage") != "coverage":
        raise ConfigError(
            f"{where}: kind '{table['kind']}'." + nearest(table["kind"], ["coverage"])
        )
    arxiv = table.get("arxiv", [])
    if not all(isinstance(n, str) for n in (arxiv if isinstance(arxiv, list) else [arxiv])):
        raise ConfigError(f"{where}: arxiv: {arxiv!r}: write the number as a text, in quotes.")
    for key in {"title", "citation", "caption"} & table.keys():
        if not isinstance(table[key], str):
            raise ConfigError(f"{where}: {key}: a text is needed, got {table[key]!r}.")
    coverage = table.get("kind") == "coverage"
    _check_keys(table, "coverage" if coverage else "table", where)
    _need(table, ("title", "citation", "rows", *(() if coverage else ("columns", "scales"))), where)
    if coverage:
        for key, row in _lines(table, "rows", where).items():
            _check_keys(row, "coverage row", f"{where}: rows.{key}")
        return Spec(path.stem, table, (), ())
    _check_options(table, where)
    for lines in ("rows", "columns"):
        for key, line in _lines(table, lines, where).items():
            _check_keys(line, "line", place := f"{where}: {lines}.{key}")
            _check_options(line, place)
    cells = tuple(_cells(table, where))
    claims = tuple(
        _claim(claim, table, f"{where}: claims[{n}]")
        for n, claim in enumerate(table.get("claims", []))
    )
    return Spec(path.stem, table, cells, claims)


def _lines(table: dict, lines: str, where: str) -> dict[str, dict]:
    """Rows or columns as mappings, an empty one for null."""
    if not isinstance(table[lines], dict) or not table[lines]:
        raise ConfigError(f"{where}: {lines}: a mapping of keys to options is needed.")
    table[lines] = {str(key): line or {} for key, line in table[lines].items()}
    return table[lines]


def _cells(table: dict, where: str) -> Iterable[Cell]:
    given = {str(row): own for row, own in (table.get("cells") or {}).items()}
    _check_names(given, table["rows"], f"{where}: cells")
    shared = {key: value for key, value in table.items() if key in OPTIONS}
    for row, own in given.items():
        if not isinstance(own or {}, dict):
            raise ConfigError(f"{where}: cells.{row}: a mapping of columns is needed, got {own!r}.")
    for row, row_options in table["rows"].items():
        own_cells = {str(column): own for column, own in (given.get(row) or {}).items()}
        _check_names(own_cells, table["columns"], f"{where}: cells.{row}")
        for column, column_options in table["columns"].items():
            place = f"{where}: cells.{row}.{column}"
            own = own_cells.get(column, {})
            if own is False:
                continue
            own = own if isinstance(own, dict) else {"published": own}
            _check_keys(own, "cell", place)
            _check_options(own, place)
            options: dict[str, Any] = {}
            for level in (shared, column_options, row_options, own):
                options = _merged(options, {k: v for k, v in level.items() if k in OPTIONS})
            value, spread = _published(own.get("published"), place)
            cell = Cell(row, column, value, spread, options)
            if "metric" not in options and "cannot" not in options:
                raise ConfigError(f"{place}: it needs the key 'metric', here or above.")
            judged = value is not None and options.get("judge", True) and "metric" in options
            if judged and spread is None and cell.tolerance is None:
                raise ConfigError(
                    f"{place}: no verdict is possible without a published spread: give it, "
                    "`tolerance` in the unit of the table, or `judge: false`."
                )
            yield cell


def _claim(claim: Any, table: dict, place: str) -> Claim:
    _check_keys(claim, "claim", place)
    _need(claim, ("text", "left", "op", "right"), place)
    if claim["op"] not in OPERATORS:
        raise ConfigError(f"{place}: op '{claim['op']}'." + nearest(str(claim["op"]), OPERATORS))
    for side in ("left", "right"):
        if isinstance(claim[side], str):
            row, _, column = claim[side].partition("/")
            _check_names([row], table["rows"], f"{place}: {side}")
            if column:
                _check_names([column], table["columns"], f"{place}: {side}")
    columns = [str(column) for column in claim.get("columns", table["columns"])]
    _check_names(columns, table["columns"], f"{place}: columns")
    factor, margin = claim.get("factor", 1.0), claim.get("margin", 0.0)
    sides = (claim["left"], claim["op"], claim["right"])
    return Claim(claim["text"], *sides, factor, margin, tuple(columns))


def _published(given: Any, place: str) -> tuple[float | None, float | None]:
    """``98.26 ± 0.04`` → (98.26, 0.04)."""
    if given is None:
        return None, None
    number = r"\s*(-?\d*\.?\d+(?:e-?\d+)?)\s*"
    matched = re.fullmatch(rf"{number}(?:±{number})?", str(given))
    if not matched:
        raise ConfigError(
            f"{place}: published '{given}': a number, or one ± its spread, is needed."
        )
    value, spread = matched.groups()
    return float(value), None if spread is None else float(spread)


def _check_options(options: dict, place: str) -> None:
    for key in OPTIONS & options.keys():
        wanted, called = next(own for names, *own in TYPES if key in names)
        if not isinstance(options[key], wanted):
            raise ConfigError(f"{place}: {key}: {called} is needed, got {options[key]!r}.")
    for key in ("best", "over_grid"):
        _check_keys(options.get(key, {}), key, f"{place}: {key}")
    if "best" in options:
        _need(options["best"], ("seeds", "of"), f"{place}: best")
    if "largest" in options.get("over_grid", {}):
        _need(options["over_grid"], ("below",), f"{place}: over_grid")
    for scale, own in options.get("scales", {}).items():
        if scale not in SCALES:
            raise ConfigError(f"{place}: scale '{scale}'." + nearest(str(scale), SCALES))
        at = f"{place}: scales.{scale}"
        _check_keys(own, "scale" if "rows" in options else "line's scale", at)
        for key, wanted, called in OF_SCALES:
            if not isinstance(own.get(key, wanted()), wanted):
                raise ConfigError(f"{at}: {key}: {called} is needed, got {own[key]!r}.")
        if not isinstance(own.get("seeds", 1), int | list):
            raise ConfigError(f"{at}: seeds: a number or a list is needed, got {own['seeds']!r}.")
        if own.get("needs", "gpu") != "gpu":
            raise ConfigError(f"{place}: scales.{scale}: needs '{own['needs']}'. Allowed: gpu.")
    if "rows" in options and "columns" in options:  # of the table
        for scale, own in options.get("scales", {}).items():
            for lines in ("rows", "columns"):
                _check_names(own.get(lines, []), options[lines], f"{place}: scales.{scale}.{lines}")


def _check_keys(given: Any, kind: str, place: str) -> None:
    if not isinstance(given, dict):
        raise ConfigError(f"{place}: a mapping is needed, got {given!r}.")
    for key in given:
        if key not in KEYS[kind]:
            raise ConfigError(f"{place}: unknown key '{key}'." + nearest(str(key), KEYS[kind]))


def _check_names(given: Iterable, known: Iterable, place: str) -> None:
    known = [str(name) for name in known]
    for name in map(str, given):
        if name not in known:
            raise ConfigError(f"{place}: '{name}'." + nearest(name, known))


def _need(given: dict, keys: Iterable[str], place: str) -> None:
    for key in keys:
        if key not in given:
            raise ConfigError(f"{place}: it needs the key '{key}'.")


def _merged(below: Any, above: Any) -> Any:
    """Mappings key by key, everything else as above."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _merged(below.get(key), value) for key, value in above.items()}
