"""The Python interface: what the command line does, as functions."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

from pcbench.config import Config
from pcbench.results.records import Record, Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RESULTS = "results"


class Run(NamedTuple):
    """A finished run: its record, and its arrays by name.

    ``history/*`` per evaluation, ``probe/*`` per measurement, ``weights/FACTOR/NAME``,
    those of a rule's own such as ``weights/encoder/FACTOR/NAME``, ``predictions/test``,
    ``examples/COLUMN``: what each test example scored, of which that column of the row is the mean.
    """

    record: Record
    arrays: "dict[str, np.ndarray]"


def run(
    overrides: Sequence[str] | Config = (),
    results: str | PathLike = RESULTS,
    force: bool = False,
    observe: Callable = lambda configs, progress: None,
) -> Record:
    """One run; a finished one is returned from its record unless `force` runs it again.

    Raises ConfigError for a config that cannot be run, DataError for data that are not there,
    RecordError when the record cannot be written. A run that raises is a record of status
    ``failed``.
    """
    from pcbench.sweeps.execute import check, run_pack
    from pcbench.sweeps.expand import single
    from pcbench.sweeps.packs import Pack

    config = overrides if isinstance(overrides, Config) else single(overrides)
    store = Store(results)
    if not force and store.holds(config.run_id):
        return store.read(config.run_id)
    check([config])
    store.require_writable()
    return run_pack(Pack((config,), "none"), store, observe)[0]


def expand(sweep: str | None = None, overrides: Sequence[str] = ()) -> list[Config]:
    """The configs of a sweep (a name under conf/sweep, or a path), duplicates dropped."""
    from pcbench.sweeps.expand import expand as expand_sweep

    return expand_sweep(sweep, overrides)[0]


def load(run_id: str, results: str | PathLike = RESULTS) -> Run:
    """A finished run by its id, or a prefix of it. Raises RecordError."""
    from pcbench.results.published import opened

    store = opened(results)
    run_id = store.resolve(run_id)
    return Run(store.read(run_id), store.arrays(run_id))


def table(results_dir: str | PathLike = RESULTS) -> "pa.Table":
    """One row per finished run; the columns are documented in `pcbench.results.columns`."""
    from pcbench.results.table import table as read_table

    return read_table(results_dir)
