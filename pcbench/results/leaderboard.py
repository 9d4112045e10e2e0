"""Ranks variants. Configs are chosen on the validation set, never on the test set.

A group is what may be compared: one task, dataset, network, size, parameterisation and protocol.
Within it a variant is scored by one config: all leaves that change numbers except the seed. The
config with the best mean validation accuracy over its seeds is chosen; where the variant has no
validation score, nothing is selected and every config is an entry of its own.

A diverged run scores chance on what its task ranks by, 0 on other accuracies and nothing on other
metrics; a failed run and one that is not finished score nothing; all are counted. Trials of a
search (``stage=tune``) are ranked only when asked for.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from pcbench.config.errors import ConfigError, nearest
from pcbench.config.schema import VOCABULARY
from pcbench.results.columns import (
    COLUMNS,
    UNFINISHED,
    is_accuracy,
    score_name,
    validation_column,
)
from pcbench.results.comparison import BASELINE, Examples, across, describe
from pcbench.results.statistics import interval

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_METRIC = "test_accuracy_at_best_validation"
PROTOCOL_METRICS = {"best_test_epoch": "test_{}_best_epoch"}
GROUP = ("task", "dataset", "model", "parameterisation")
SIZE = ("width", "depth", "model.widths")  # different sizes are different groups,
DATA = (  # so are different data under one name, and what of them is predicted,
    "dataset.train_size", "dataset.samples", "dataset.test_samples", "dataset.noise",
    "dataset.inputs", "dataset.outputs", "dataset.hidden", "task.context", "task.interval",
    "task.drifting", "task.tasks", "task.following",
)  # fmt: skip
MARKS = ("protocol", "schema_version")  # and so is what is not comparable
SHARED = (
    "status", "stage", "algorithm", "variant", "chance", "primary_metric",
    "primary_higher_is_better",
)  # fmt: skip
EACH = ("run_id", "seed")
SCORES = ("validation_{}_best", "test_{}_at_best_validation", "test_{}_final",
          *PROTOCOL_METRICS.values())  # fmt: skip

Row = dict[str, Any]


class QueryError(ConfigError):
    """A question that the table cannot answer: an unknown column, a value of the wrong type."""


def leaderboard(
    rows: "pa.Table | Iterable[Mapping[str, Any]]",
    metric: str | None = None,
    where: Mapping[str, Any] | None = None,
    by: str | Iterable[str] | None = None,
    higher_is_better: bool | None = None,
    baseline: str = BASELINE,
    examples: Examples | None = None,
) -> dict[str, Any]:
    """``{metric, higher_is_better, groups: [{task, dataset, model, parameterisation, entries}]}``.

    `rows` is what `table()` gives, or dicts. Without `metric` every group has its own, named in
    the group (``groups[i]["metric"]``); the top level then names it where all agree. `where` keeps
    the rows whose columns have these values (``null`` for missing, a member for a list). `by`
    names further columns to group by. `higher_is_better` is needed only for a metric without a
    declared direction. Intervals are 95 %, over seeds, unclipped, null for one seed. `baseline` is
    the variant that others are compared with; `examples` reads what each test example of a run
    scored (`comparison.stored_examples`). Raises ConfigError.
    """
    from pcbench.results.table import from_rows

    data = rows if hasattr(rows, "column_names") else from_rows(rows)
    where, by = dict(where or {}), [by] if isinstance(by, str) else list(by or [])
    for column in [*where, *by, *([metric] if metric else [])]:
        if column not in data.column_names:
            ends = [n for n in data.column_names if n.endswith(f".{column}")]  # of a leaf
            hint = nearest(min(ends, default=column), data.column_names)
            raise QueryError(f"unknown column '{column}'.{hint}")
    if metric is not None:
        _require_number(data, metric)
    found = data.num_rows
    data = filtered(data, where)
    leaves = varying_leaves(data)
    groups = [c for c in (*GROUP, *SIZE, *DATA, *MARKS, *by) if c in data.column_names]
    listed = any(COLUMNS[c].type == "list" for c in groups if c in COLUMNS)
    primary = set(data["primary_metric"].unique().to_pylist()) - {None}
    scores = {score_name(name) for name in (DEFAULT_METRIC, *primary)}
    named = [*primary, *map(validation_column, primary)]
    named += [column.format(score) for score in scores for column in SCORES]
    named = [name for name in named if name in data.column_names]
    shared, each = [*SHARED, *groups, *leaves], [*EACH, *named, *([metric] if metric else [])]
    reported = data.select(list(dict.fromkeys([*shared, *each])))
    if "stage" not in where and "stage" not in by:
        reported = _reported(reported)
    alike = runs_alike(reported, shared, each)

    if metric is not None:  # not by group: only the task that has it may declare its direction
        higher_is_better = _direction(metric, alike, higher_is_better)
    split: dict[tuple, list[Row]] = defaultdict(list)
    key_of = _values_of(groups)
    for row in alike:
        key = key_of(row)
        for one in _single(key) if listed else (key,):
            split[one].append(row)
    ranked = [
        _group(dict(zip(groups, key, strict=True)), members, leaves, metric, higher_is_better)
        for key, members in sorted(split.items(), key=lambda item: order(item[0]))
        if metric is None or _concerns(metric, members)
    ]
    directions = {(g["metric"], g["higher_is_better"]) for g in ranked}
    name, higher = directions.pop() if len(directions) == 1 else (metric or DEFAULT_METRIC, None)
    if higher is None:
        higher = _direction(name, [], higher_is_better)
    describe(ranked, data, baseline, examples)
    unfinished = reported["status"].to_pylist().count(UNFINISHED)
    return {
        "metric": name,
        "higher_is_better": higher,
        "baseline": baseline,
        "groups": ranked,
        "across": across(ranked),
        "where": {column: str(value) for column, value in where.items()},
        "rows": {
            "found": found,
            "ranked": reported.num_rows - unfinished,
            "unfinished": unfinished,
            "tuning": data.num_rows - reported.num_rows,
        },
    }


def _group(key: Row, rows: list[Row], leaves: list[str], metric, higher_is_better) -> Row:
    metric = metric or _default_metric(key, rows)
    higher = _direction(metric, rows, higher_is_better)
    selection = validation_column(_primary(rows) or DEFAULT_METRIC)
    lowest = rows[0]["primary_higher_is_better"] is False
    status = statuses(rows)
    begun = status[UNFINISHED] < status.total()
    validated = not begun or has(rows, selection)
    variants: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        variants[row["algorithm"], row["variant"] or row["algorithm"]].append(row)
    entries = []
    for (algorithm, variant), members in variants.items():
        ended = statuses(members)
        for entry in _entries(members, leaves, metric, selection if validated else None, lowest):
            entries.append({"rank": None, "algorithm": algorithm, "variant": variant, **entry})
            entries[-1] |= {"runs": ended.total(), "unfinished": ended[UNFINISHED]}
    sign = -1 if higher else 1
    entries.sort(
        key=lambda e: (
            e["mean"] is None, sign * (e["mean"] or 0.0), e["variant"] or "", e["run_ids"]
        )
    )  # fmt: skip
    for place, entry in enumerate(entries, start=1):
        before = entries[place - 2] if place > 1 else None
        if entry["mean"] is not None:
            tied = before is not None and before["mean"] == entry["mean"]
            entry["rank"] = before["rank"] if tied else place
    return {
        **key,
        "metric": metric,
        "higher_is_better": higher,
        "status": dict(status),
        "chance": next((row["chance"] for row in rows if row["chance"] is not None), None),
        "entries": entries,
    }


def _concerns(metric: str, rows: list[Row]) -> bool:
    """False for completed runs that have no such value, as those of another task."""
    completed = [row for row in rows if row["status"] == "completed"]
    return not completed or has(completed, metric)


def _entries(
    rows: list[Row], leaves: list[str], metric: str, selection: str | None, lowest: bool
) -> list[Row]:
    """The variant's scores: of the config that is best (or lowest) in the column `selection`, or of
    each where nothing can be chosen."""
    configs = by_config(rows, leaves)
    differing = [i for i in range(len(leaves)) if len({key[i] for key in configs}) > 1]
    validation = {}
    if selection:
        scores = {key: run_scores(members, selection) for key, members in configs.items()}
        validation = {key: _mean(list(s.values())) for key, s in scores.items() if s}
    if validation:
        best = (min if lowest else max)(validation.values())
        chosen = [min((key for key, mean in validation.items() if mean == best), key=order)]
    else:  # of a variant without a score, one stands for all
        chosen = sorted(configs, key=order)[: 1 if selection else None]
    entries = []
    for key in chosen:
        members, seeds = configs[key], {}
        for row in members:
            seeds |= zip(row["runs"]["run_id"], row["runs"]["seed"], strict=True)
        found = run_scores(members, metric)
        scored = {r: found[r] for r in sorted(found, key=lambda r: order((seeds[r], r)))}
        values = list(scored.values())
        low, high = interval(values)
        status = statuses(members)
        entries.append(
            {
                "mean": _mean(values) if values else None,
                "low": low,
                "high": high,
                "seeds": len(values),
                "run_ids": list(scored),
                "run_seeds": [seeds[run_id] for run_id in scored],
                "scores": values,
                "completed": status["completed"],
                "asked": status.total(),
                "status": dict(status),
                "config": {leaves[i]: key[i] for i in differing},
                "configs": len(configs),  # how many the choice was made from, or the variant has
                "validation": validation.get(key),
            }
        )
    return entries


def run_scores(rows: list[Row], metric: str) -> dict[str, float]:
    """Run id → value, of the runs that have one."""
    found = {}
    for row in rows:
        run_ids, values = row["runs"]["run_id"], row["runs"][metric]
        if row["status"] == "diverged":
            values = [_guessed(row, metric)] * len(run_ids)
        elif row["status"] != "completed":
            continue
        for run_id, value in zip(run_ids, values, strict=False):
            if value is not None and math.isfinite(value):
                found[run_id] = value
    return found


def statuses(rows: list[Row]) -> Counter:
    """How many runs ended how."""
    counts = Counter()
    for row in rows:
        counts[row["status"]] += row["runs"].count
    return counts


def has(rows: list[Row], column: str) -> bool:
    """Whether any run has a value in the column."""
    return any(v is not None for row in rows for v in row["runs"][column])


def _guessed(row: Row, metric: str) -> float | None:
    own = score_name(row["primary_metric"] or DEFAULT_METRIC) == score_name(metric)
    chance = row["chance"] if own else None
    return 0.0 if chance is None and is_accuracy(metric) else chance


def _default_metric(key: Row, rows: list[Row]) -> str:
    primary = _primary(rows)
    score = score_name(primary or DEFAULT_METRIC)
    if primary is not None and (score == primary or primary.endswith("_mean")):
        return primary  # of no split or of no epoch: a task's own
    _, chosen, final, *_ = (column.format(score) for column in SCORES)
    if key.get("protocol") in PROTOCOL_METRICS:
        return PROTOCOL_METRICS[key["protocol"]].format(score)
    completed = [row for row in rows if row["status"] == "completed"]
    return final if any(None in (row["runs"][chosen] or [None]) for row in completed) else chosen


def _primary(rows: list[Row]) -> str | None:
    """The primary metric of a group's task; of several (runs with and without validation) any."""
    return min({row["primary_metric"] for row in rows} - {None}, default=None)


def _direction(metric: str, rows: list[Row], higher_is_better: bool | None) -> bool:
    if higher_is_better is not None:
        return higher_is_better
    if metric in COLUMNS and COLUMNS[metric].higher_is_better is not None:
        return COLUMNS[metric].higher_is_better
    for row in rows:
        named, higher = row["primary_metric"], row["primary_higher_is_better"]
        if named is not None and higher is not None and score_name(named) == score_name(metric):
            return higher
    if metric not in COLUMNS and not rows:  # no groups: nothing to rank
        return True
    ranked = [n for n, c in COLUMNS.items() if c.higher_is_better is not None]
    raise QueryError(
        f"'{metric}' has no declared direction, so nothing says which end is best. With one: "
        f"{', '.join(ranked)}, and a task's primary metric."
    )


def _require_number(data: "pa.Table", metric: str) -> None:
    import pyarrow as pa

    def is_number(type_) -> bool:
        return pa.types.is_integer(type_) or pa.types.is_floating(type_)

    if not is_number(data.schema.field(metric).type):
        numeric = [f.name for f in data.schema if is_number(f.type)]
        raise QueryError(f"'{metric}' is not a number." + nearest(metric, numeric))


def filtered(data: "pa.Table", where: Mapping[str, Any]) -> "pa.Table":
    import pyarrow as pa

    for column, wanted in where.items():
        matches = _matcher(column, data.schema.field(column).type, wanted)
        data = data.filter(pa.array(map(matches, data[column].to_pylist()), pa.bool_()))
    return data


def _matcher(column: str, type_: "pa.DataType", wanted: Any):
    """Whether a value of the column is the wanted one, which the command line gives as text."""
    import pyarrow as pa

    text = "null" if wanted is None else str(wanted)
    if text.lower() in ("null", "none"):
        return lambda value: value is None
    if pa.types.is_list(type_):
        return lambda value: text in (value or ())
    if pa.types.is_boolean(type_):
        if text.lower() not in ("true", "false"):
            raise QueryError(f"{column}={text}: the column is true, false or null.")
        return lambda value: value is (text.lower() == "true")
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        try:
            number = float(text)
        except ValueError:
            raise QueryError(f"{column}={text}: the column holds numbers (or null).") from None
        return lambda value: value == number
    return lambda value: value == text


def varying_leaves(data: "pa.Table") -> list[str]:
    """The leaves of the config that change numbers and are not the same in every row.

    A leaf has a dot, or is one of the vocabulary's few top-level ones; a task's column has none.
    """

    def is_leaf(name: str) -> bool:
        known = VOCABULARY.get(name)
        if name in COLUMNS or (known is None and "." not in name):
            return False
        return name.split(".")[0] not in ("executor", "logging") and (
            known is None or known.kind != "operational"
        )

    leaves = [name for name in data.column_names if is_leaf(name)]
    return [name for name in leaves if not _constant(data[name])]


def _constant(column: "pa.ChunkedArray") -> bool:
    """Whether all values are the same, nulls included."""
    import pyarrow.compute as pc

    if column.null_count:
        return column.null_count == len(column)
    return len(column) == 0 or pc.all(pc.equal(column, column[0])).as_py()


def _reported(data: "pa.Table") -> "pa.Table":
    """Without the trials of searches."""
    import pyarrow.compute as pc

    return data.filter(pc.fill_null(pc.not_equal(data["stage"], "tune"), True))


def by_config(rows: list[Row], leaves: list[str]) -> dict[tuple, list[Row]]:
    """The rows of each config. A leaf that a run was made before is equal to the default with which
    it was introduced."""
    stored, configs = defaultdict(list), defaultdict(list)
    key_of = _values_of(leaves)
    for row in rows:
        stored[key_of(row)].append(row)
    defaults = [VOCABULARY[leaf].default if leaf in VOCABULARY else None for leaf in leaves]
    for key, members in stored.items():
        same = zip(key, defaults, strict=True)
        configs[tuple([None if value == default else value for value, default in same])] += members
    return configs


class Runs(NamedTuple):
    """The runs of a row: ``runs[column]`` is the list of their values."""

    columns: dict[str, list]
    start: int
    end: int

    def __getitem__(self, column: str) -> list:
        return self.columns[column][self.start : self.end] if column in self.columns else []

    @property
    def count(self) -> int:
        return self.end - self.start


def runs_alike(data: "pa.Table", shared: Iterable[str], each: Iterable[str]) -> list[Row]:
    """Runs that agree in the columns `shared`, of which configs are a part, as one row: its values
    of these, and in ``runs`` their values in the columns `each`.

    Choosing among 100,000 runs is choosing among some thousand configs: a row for every run would
    take most of the time.
    """
    import pyarrow as pa

    same, differing = {}, {}
    for name in dict.fromkeys(shared):
        if pa.types.is_list(data.schema.field(name).type):  # of no use as a key
            differing[name] = pa.array(map(json.dumps, data[name].to_pylist()))
        elif len(distinct := data[name].unique()) == 1 and differing:  # one key is needed
            same[name] = distinct[0].as_py()
        else:
            differing[name] = data[name]
    lists = [name for name in differing if pa.types.is_list(data.schema.field(name).type)]
    places = pa.table({**differing, "place": pa.array(range(data.num_rows), pa.int64())})
    grouped = places.group_by(list(differing), use_threads=False).aggregate([("place", "list")])
    members = grouped["place_list"].combine_chunks()
    ends, members = members.offsets.to_pylist(), members.flatten()
    columns = {name: data[name].take(members).to_pylist() for name in dict.fromkeys(each)}
    found = []
    for n, key in enumerate(zip(*(grouped[c].to_pylist() for c in differing), strict=True)):
        row = {**same, **dict(zip(differing, key, strict=True))}
        row |= {name: json.loads(row[name]) for name in lists}
        row["runs"] = Runs(columns, ends[n], ends[n + 1])
        found.append(row)
    return found


def _values_of(names: list[str]) -> Callable[[Row], tuple]:
    """A row's values of these columns."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple([row[name] for name in names])


def _single(key: tuple) -> list[tuple]:
    """The groups of a row that is grouped by a list, its sweeps: one for each, or of none."""
    keys: list[tuple] = [()]
    for value in key:
        values = (value or [None]) if isinstance(value, list) else [value]
        keys = [(*before, v) for before in keys for v in values]
    return keys


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def order(key: tuple) -> list[tuple]:
    """A sort key for values of any types: null, then numbers, then the rest as text."""
    return [
        (0, 0.0, "")
        if value is None
        else (1, float(value), "")
        if isinstance(value, int | float)
        else (2, 0.0, str(value))
        for value in key
    ]
