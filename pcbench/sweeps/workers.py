"""Worker processes on this machine."""

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace

from pcbench.results.records import Record, Store
from pcbench.sweeps.execute import run_pack, stop_on_signals, store_result
from pcbench.sweeps.packs import Pack, load_pack, unfinished
from pcbench.training import memory
from pcbench.training.checkpoint import Preempted
from pcbench.training.outcome import Outcome

PR_SET_PDEATHSIG = 1
POLL = 0.5  # seconds between two looks at a request to stop
GRACE = 60.0  # seconds for the epoch that runs


def run_in_workers(packs: list[Pack], store: Store, workers: int | None) -> Iterator[Record]:
    """Yields each pack's records once they are stored.

    A worker that dies (a crash, the kernel's memory limit) takes the packs of all workers with it:
    each of those is then run alone. One that kills its worker alone is halved, and a run that does
    is recorded as failed. Asked to stop, the workers keep their checkpoints and Preempted is
    raised.
    """
    from loky.process_executor import BrokenProcessPool

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    todo = list(packs)
    with stop_on_signals() as stopped:
        while todo:
            try:
                yield from _compute(todo, store, workers or cores, cores, stopped.is_set)
            except BrokenProcessPool:
                suspects = [pack for pack in todo if _has_started(pack, store)] or list(todo)
                todo = [pack for pack in todo if pack not in suspects]
                for pack in suspects:
                    yield from _alone(pack, store, cores, stopped.is_set)


def _compute(
    todo: list[Pack], store: Store, workers: int, cores: int, stopped: Callable[[], bool]
) -> Iterator[Record]:
    """Take packs out of `todo` as their records are stored; BrokenProcessPool leaves the rest."""
    executor = _executor(min(workers, len(todo)), cores)
    try:
        waiting = {executor.submit(_work, str(store.root), pack): pack for pack in todo}
        while waiting:
            done, _ = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                records = future.result()
                todo.remove(waiting.pop(future))
                yield from records
            if stopped():
                _stop_workers(waiting)
    except KeyboardInterrupt:
        for pack in todo:  # it is not their fault that their workers are killed now
            if _has_started(pack, store):
                pack.save(store)
        raise
    finally:
        executor.shutdown(wait=False, kill_workers=True)


def _stop_workers(waiting: dict) -> None:
    """Let the running packs reach their next epoch, where they keep a checkpoint."""
    import psutil

    for future in waiting:
        future.cancel()
    for worker in psutil.Process().children():
        worker.terminate()
    wait([future for future in waiting if not future.cancelled()], timeout=GRACE)
    raise Preempted


def _has_started(pack: Pack, store: Store) -> bool:
    """Since it was sent; its file is gone when parts have replaced it."""
    kept = load_pack(pack.file(store))
    return kept is None or kept.starts != pack.starts


def _alone(pack: Pack, store: Store, cores: int, stopped: Callable[[], bool]) -> Iterator[Record]:
    """A pack whose worker died, in a worker of its own; what did end before is read."""
    from loky.process_executor import BrokenProcessPool

    left = unfinished(pack, store)
    again = {run_id for part in left for run_id in part.run_ids}
    yield from (store.read(run_id) for run_id in pack.run_ids if run_id not in again)
    for part in left:
        part = replace(part, starts=0)  # perhaps it was another worker's pack
        try:
            yield from _compute([part], store, 1, cores, stopped)
        except BrokenProcessPool as error:
            size = len(part.configs)
            if size == 1:
                yield _dead(part, store, error)
                continue
            for half in part.split(store, -(-size // 2)):
                yield from _alone(half, store, cores, stopped)


def _dead(pack: Pack, store: Store, error: Exception) -> Record:
    from pcbench.results.provenance import provenance

    why = f"the worker process died: {error}"
    record = store_result(pack.configs[0], (Outcome("failed", {}), why), provenance(), store)
    pack.remove(store)
    return record


def _executor(workers: int, cores: int):
    from loky import ProcessPoolExecutor

    share = memory.SHARE * memory.free_on_host() / workers
    threads = str(max(1, cores // workers))  # XLA reads NPROC for the size of its pool
    environment = {"NPROC": threads, "OMP_NUM_THREADS": threads}
    # Loky restarts a worker that has grown by 300 MB, and warns of a leak. These keep data and
    # programs for the next pack: a quarter of a share is a reason to start anew, none to worry.
    environment["LOKY_MAX_MEMORY_LEAK_SIZE"] = str(share / 4)
    warnings.filterwarnings("ignore", "A worker (was restarted|stopped) while some jobs")
    if not {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & os.environ.keys():
        environment["XLA_CLIENT_MEM_FRACTION"] = str(memory.SHARE / workers)  # of a GPU
    return ProcessPoolExecutor(
        max_workers=workers, env=environment, initializer=_begin, initargs=(os.getpid(), share)
    )


def _begin(parent: int, share: float) -> None:
    """Workers outlive a killed parent otherwise, and go on with what was queued. Ctrl-C is the
    parent's to handle."""
    memory.limit(share)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def _work(root: str, pack: Pack) -> list[Record]:
    with stop_on_signals() as stopped:
        return run_pack(pack, Store(root), stop=stopped.is_set)
