"""Run packs and write their records: one pack after the other in this process, or by workers."""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from pcbench import data
from pcbench.config import Config, ConfigError
from pcbench.results.provenance import provenance
from pcbench.results.records import Record, RecordError, Store
from pcbench.results.row import make_row
from pcbench.sweeps.packs import Pack
from pcbench.training.epochs import epoch_lengths

Observe = Callable[[list[Config], object], None]


def inline(packs: list[Pack], store: Store, observe: Observe) -> Iterator[Record]:
    """Run in this process, one pack after the other; yields each record once it is stored."""
    with stop_on_signals() as stopped:
        for pack in packs:
            yield from run_pack(pack, store, observe, stopped.is_set)


def processes(packs: list[Pack], store: Store, observe: Observe) -> Iterator[Record]:
    """Run in worker processes that share the cores; they die with this one."""
    from pcbench.sweeps.workers import run_in_workers

    yield from run_in_workers(packs, store, packs[0].configs[0]["executor.workers"])


def check(configs: list[Config]) -> None:
    """What else could stop some of the runs, found before the first of them: data that are not
    there, batches larger than the training set. Raises DataError, ConfigError."""
    seen = set()
    for config in configs:
        key = (str(config["dataset"]), config["train.validation_fraction"])
        batch = config["train.batch_size"]
        if (*key, batch) not in seen:
            seen.add((*key, batch))
            dataset = data.load(config["dataset"], config["train.validation_fraction"])
            epoch_lengths(config, len(dataset.train.y), len(dataset.validation.y))


def run_pack(
    pack: Pack,
    store: Store,
    observe: Observe = lambda configs, progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Record]:
    """Train a pack and store one record per member.

    A pack that does not fit into memory is halved. One that fails otherwise is run member by
    member, to find the culprit: its record is `failed` and has the traceback; the others complete.
    What concerns every run alike (missing data, a refused file) is raised.
    """
    import jax

    from pcbench.training.checkpoint import Checkpoint
    from pcbench.training.packing import choose_mode
    from pcbench.training.train import train

    configs, origin = list(pack.configs), provenance()
    try:
        if pack.mode == "auto":
            pack = replace(pack, mode=choose_mode(configs))
        pack.save(store)
        checkpoint = Checkpoint(pack.checkpoint(store), stop)
        outcomes = train(configs, pack.mode, lambda p: observe(configs, p), checkpoint)
        results = [(o.status, o.metrics, o.arrays, None) for o in outcomes]
    except (ConfigError, data.DataError, RecordError):
        raise
    except Exception as error:
        if len(configs) > 1:
            full = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
            jax.clear_caches()
            parts = pack.halves() if full else [Pack((c,), "none") for c in configs]
            records = [r for part in parts for r in run_pack(part, store, observe, stop)]
            pack.remove(store)
            return records
        headline = "".join(traceback.format_exception_only(error))
        results = [("failed", {}, None, f"{headline}\n{traceback.format_exc()}")]
    records = [
        store_result(config, result, origin, store)
        for config, result in zip(configs, results, strict=True)
    ]
    pack.remove(store)
    return records


def store_result(config: Config, result: tuple, origin: dict, store: Store) -> Record:
    status, metrics, arrays, error = result
    row = make_row(config, {**metrics, "static_key": config.static_key}, origin)
    record = Record.new(config.run_id, status, config.tree, row, provenance=origin)
    store.write(record, arrays, error)
    settings = config["logging"]["wandb"]
    if settings["mode"] != "disabled":
        from pcbench.results.wandb_mirror import mirror

        mirror(record, arrays, settings | {"dir": str(store.root)})
    return record


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set when the process is asked to end (SIGTERM, and SIGUSR2 before a time limit): the pack
    that runs keeps a checkpoint at its next epoch and raises Preempted."""
    event, earlier = threading.Event(), {}
    if threading.current_thread() is threading.main_thread() and sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGUSR2):
            earlier[number] = signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
