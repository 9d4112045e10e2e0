"""All records as one table, and the index file that makes reading it fast.

`DIR/table.parquet` is derived: it may be deleted at any time. A record whose file has not changed
(time and size) since it was indexed is not read again. Two processes that update the index at the
same time do the same work twice; the last replace wins.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pcbench.results.columns import COLUMNS, SCHEMA_VERSION
from pcbench.results.files import RecordError, whole_file
from pcbench.results.published import Published, opened
from pcbench.results.records import Store, report

if TYPE_CHECKING:
    import pyarrow as pa

INDEX = "table.parquet"
_VERSION = f"{SCHEMA_VERSION}.1".encode()  # of the row, then of the layout of the index
_MTIME, _SIZE = "_mtime_ns", "_size"
_KINDS = {bool: "boolean", int: "integer", float: "float", str: "string"}


def table(
    results_dir: str | os.PathLike, problems: list[str] | None = None, rebuild: bool = False
) -> "pa.Table":
    """One row a record, ordered by run id: the columns of `columns.COLUMNS`, then the others.

    A column whose type differs between runs becomes double (numbers) or string; a list is its JSON.
    Records that cannot be read are added to `problems`, or warned about without such a list.
    An absent or empty directory gives a table without rows.
    """
    store = opened(results_dir)
    if isinstance(store, Published):  # small, and no place for an index
        rows = from_rows(record.row for record in store.iterate(problems))
        return _with_sweeps(rows, store.sweeps(problems))
    path = store.root / INDEX
    with ThreadPoolExecutor(1) as reader:  # it reads while this thread asks for the files
        reading = None if rebuild else reader.submit(_stored, path)
        stamps = _stamps(store)
        stored = reading and reading.result()
    index = _updated(store, stored, stamps, problems)
    index = _with_sweeps(index, store.sweeps(problems))
    if stored is None or not index.equals(stored):
        _save(index, path, problems)
    return index.select([name for name in index.column_names if name not in (_MTIME, _SIZE)])


def with_unfinished(data: "pa.Table", rows: Iterable[Mapping[str, Any]]) -> "pa.Table":
    """The table and rows of runs that are asked for (`row.unfinished_row`)."""
    return _appended(data, from_rows(rows, seen=data.schema))


def from_rows(rows: Iterable[Mapping[str, Any]], seen: "pa.Schema | None" = None) -> "pa.Table":
    """Rows → typed columns. `seen`: the schema of rows that these will be appended to, whose
    columns and kinds of values then count as well."""
    import pyarrow as pa

    # Column by column from the start: 100,000 row dicts would take gigabytes.
    columns: dict[str, list] = defaultdict(list)
    count = 0
    for row in rows:
        for name, value in row.items():
            column = columns[name]
            if len(column) < count:
                column.extend([None] * (count - len(column)))
            column.append(sys.intern(value) if type(value) is str else value)
        count += 1
    kinds_seen = {} if seen is None else {field.name: _field_kinds(field) for field in seen}
    others = (columns.keys() | kinds_seen.keys()) - COLUMNS.keys()
    arrays, schema = [], []
    for name in [*COLUMNS, *sorted(others)]:
        values = columns.pop(name, [])
        values.extend([None] * (count - len(values)))
        declared = {COLUMNS[name].type} if name in COLUMNS else set()
        kinds = {_KINDS.get(t, "other") for t in set(map(type, values)) - {type(None)}}
        kinds |= declared | kinds_seen.get(name, set())
        if declared == {"float"}:  # whole numbers among them change nothing
            kinds.discard("integer")
        array = _array(values, kinds)
        arrays.append(array)
        schema.append(pa.field(name, array.type, metadata={"kinds": ",".join(sorted(kinds))}))
    return pa.Table.from_arrays(arrays, schema=pa.schema(schema, metadata={"pcbench": _VERSION}))


def _array(values: list, kinds: set[str]) -> "pa.Array":
    """One column, of the narrowest type that holds every kind of value in it."""
    import pyarrow as pa

    if "list" in kinds:  # declared
        lists = ([v] if isinstance(v, str) else v for v in values)
        return pa.array(lists, pa.list_(pa.string()))
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {"integer"}:
        return pa.array(values, pa.int64())
    if kinds <= {"integer", "float"}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds == {"boolean"}:
        return pa.array(values, pa.bool_())
    texts = (v if v is None or isinstance(v, str) else json.dumps(v) for v in values)
    return pa.array(texts, pa.string())


def _field_kinds(field: "pa.Field") -> set[str]:
    return set(filter(None, field.metadata[b"kinds"].decode().split(",")))


def _stamps(store: Store) -> dict[str, tuple[int, int]]:
    """(modification time, size) of every record."""
    found = {}
    for run_id, path in store.records():
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        found[run_id] = (stat.st_mtime_ns, stat.st_size)
    return found


def _stored(path) -> "pa.Table | None":
    """The index file, or null where it is absent, damaged or of another version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.ParquetFile(path).read()
        current = stored.schema.metadata.get(b"pcbench") == _VERSION
        return stored if current and {_MTIME, _SIZE} <= set(stored.column_names) else None
    except (OSError, AttributeError, KeyError, pa.ArrowException):
        return None


def _updated(store: Store, stored, stamps, problems) -> "pa.Table":
    import pyarrow as pa

    if stored is None:
        return from_rows(_rows(store, stamps, problems, stamps))
    run_ids, *known = (stored[name].to_pylist() for name in ("run_id", _MTIME, _SIZE))
    before = dict(zip(run_ids, zip(*known, strict=True), strict=True))
    if before == stamps:
        return stored
    current = [before[run_id] == stamps.get(run_id) for run_id in run_ids]
    kept = stored.filter(pa.array(current, pa.bool_()))
    new = stamps.keys() - set(kept["run_id"].to_pylist())
    fresh = from_rows(_rows(store, sorted(new), problems, stamps), seen=stored.schema)
    # Once 1 has been stored as 1.0, its text is lost; and where a removed row was the reason for
    # a wider type, the rest is as wide. Both are rare: read everything again.
    rewritten = any(
        field.type != before.type
        and not pa.types.is_null(before.type)
        and not (pa.types.is_integer(before.type) and pa.types.is_floating(field.type))
        for field, before in ((fresh.schema.field(f.name), f) for f in stored.schema)
    )
    narrower = not all(current) and any(
        len(_field_kinds(field) - {"list"}) > 1 for field in stored.schema
    )
    if rewritten or narrower:
        return from_rows(_rows(store, stamps, [], stamps))
    if fresh.num_rows == 0:
        return kept
    return _appended(kept, fresh).sort_by("run_id").combine_chunks()


def _appended(kept: "pa.Table", fresh: "pa.Table") -> "pa.Table":
    """`fresh` has all columns of `kept`, in types as wide or wider."""
    import pyarrow as pa

    widened = [
        kept[f.name].cast(f.type) if f.name in kept.column_names
        else pa.nulls(kept.num_rows, f.type)
        for f in fresh.schema
    ]  # fmt: skip
    return pa.concat_tables([pa.Table.from_arrays(widened, schema=fresh.schema), fresh])


def _rows(store: Store, run_ids: Iterable[str], problems, stamps) -> Iterable[dict[str, Any]]:
    for run_id in run_ids:
        try:
            row = store.read(run_id).row
        except RecordError as error:
            report(str(error), problems)
        else:
            mtime, size = stamps[run_id]
            yield {**row, _MTIME: mtime, _SIZE: size}


def _with_sweeps(index: "pa.Table", sweeps: Mapping[str, list[str]]) -> "pa.Table":
    import pyarrow as pa

    names = defaultdict(list)
    for name, members in sweeps.items():
        for run_id in members:
            names[run_id].append(name)
    column = [names.get(run_id, []) for run_id in index["run_id"].to_pylist()]
    place = index.column_names.index("sweep")
    field = index.schema.field("sweep")
    return index.set_column(place, field, pa.array(column, field.type))


def _save(index: "pa.Table", path, problems) -> None:
    import pyarrow.parquet as pq

    if not path.parent.is_dir():  # asking for the table of an absent directory must not make it
        return
    try:
        with whole_file(path) as file:
            pq.write_table(index, file, compression="zstd")
    except RecordError as error:  # a published, read-only directory: right, only slower
        report(f"{error} The table is complete, but will be read from the records again.", problems)
