"""Run packs and write their records: one pack after the other in this process, or by workers."""

import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

from pcbench import data
from pcbench.config import Config, ConfigError
from pcbench.results.provenance import provenance
from pcbench.results.records import Record, RecordError, Store
from pcbench.results.row import make_row
from pcbench.sweeps.packs import MOST_STARTS, Pack
from pcbench.training.epochs import epoch_lengths

WRITERS = 8  # records that are written at the same time

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
    there, batches larger than the training set, choices that do not go together. Raises DataError,
    ConfigError."""
    from pcbench.training.assembly import assemble

    found: dict[tuple, data.Facts] = {}
    for config in {config.static_key: config for config in configs}.values():
        key = (str(config["dataset"]), fraction := config["train.validation_fraction"])
        if key not in found:
            found[key] = data.load(config["dataset"], fraction).facts
        assemble(config, found[key], sum(epoch_lengths(config, found[key])))


def run_pack(
    pack: Pack,
    store: Store,
    observe: Observe = lambda configs, progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Record]:
    """Train a pack and store one record per member.

    A pack that does not fit into memory is halved, and so is one that had its process killed every
    time. One that fails otherwise is run member by member, to find the culprit: its record is
    `failed` and has the traceback; the others complete. Parts replace the pack on disk, too, so a
    killed sweep goes on with them. What concerns every run alike (missing data, a refused file) is
    raised.
    """
    import jax

    from pcbench.training.outcome import Outcome

    origin, records = provenance(), []
    todo, largest = [pack], len(pack.configs)
    while todo:
        part = todo.pop(0)
        size = len(part.configs)
        if size > largest:  # one of this size did not fit
            todo = part.split(store, largest) + todo
            continue
        try:
            results = _train(part, store, observe, stop)
        except (ConfigError, data.DataError, RecordError):
            raise
        except Exception as error:
            headline = "".join(traceback.format_exception_only(error))
            if size > 1:
                if full := _out_of_memory(error):
                    largest = -(-size // 2)
                    error.__traceback__ = None  # its frames hold the arrays of the pack
                    jax.clear_caches()
                todo = part.split(store, largest if full else 1) + todo
                why = headline.strip().splitlines()[0]
                warnings.warn(
                    f"a pack of {size} runs goes on in parts of {len(todo[0].configs)}: {why}",
                    stacklevel=2,
                )
                continue
            trace = f"{headline}\n{traceback.format_exc()}"
            results = [(Outcome("failed", {}), trace)]
        records += _store_results(part.configs, results, origin, store)
        part.remove(store)
    return records


def _out_of_memory(error: Exception) -> bool:
    """XLA says so in one of two ways, under several types of errors."""
    told = ("RESOURCE_EXHAUSTED", "Out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def _train(pack: Pack, store: Store, observe: Observe, stop: Callable[[], bool]) -> list[tuple]:
    """(outcome, no traceback) per member. Notes on disk that the pack has started."""
    from pcbench.training.checkpoint import Checkpoint, Preempted
    from pcbench.training.packing import choose_mode
    from pcbench.training.train import train

    if pack.starts >= MOST_STARTS:
        raise MemoryError(
            "whoever ran it was killed before it came to a checkpoint, for its memory or "
            f"{MOST_STARTS} times"
        )
    configs = list(pack.configs)
    started = replace(pack, starts=pack.starts + 1)
    started.save(store)
    try:
        if started.mode == "auto":
            started = replace(started, mode=choose_mode(configs))
            started.save(store)
        checkpoint = Checkpoint(pack.checkpoint(store), stop)
        outcomes = train(configs, started.mode, lambda p: observe(configs, p), checkpoint)
    except (KeyboardInterrupt, Preempted, ConfigError, data.DataError, RecordError):
        with suppress(RecordError):
            replace(started, starts=0).save(store)
        raise
    return [(outcome, None) for outcome in outcomes]


def _store_results(
    configs: Sequence[Config], results: Sequence[tuple], origin: dict, store: Store
) -> list[Record]:
    """Several at a time: a disk takes about as long to sync many files as to sync one."""
    with ThreadPoolExecutor(min(WRITERS, len(configs))) as writers:
        stored = writers.map(
            lambda config, result: store_result(config, result, origin, store), configs, results
        )
        records = list(stored)
    for config, record, (outcome, _) in zip(configs, records, results, strict=True):
        settings = config["logging"]["wandb"]
        if settings["mode"] != "disabled":
            from pcbench.results.wandb_mirror import mirror

            mirror(record, outcome.arrays, settings | {"dir": str(store.root)})
    return records


def store_result(config: Config, result: tuple, origin: dict, store: Store) -> Record:
    outcome, error = result
    row = make_row(config, {**outcome.metrics, "static_key": config.static_key}, origin)
    record = Record.new(
        config.run_id, outcome.status, config.tree, row, outcome.evaluations, origin
    )
    store.write(record, outcome.arrays or None, error)
    return record


def reason(store: Store, run_id: str) -> str:
    """Why a run failed, in a line."""
    lines = (store.traceback(run_id) or "").strip().splitlines()
    return lines[0] if lines else "no traceback stored"


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
