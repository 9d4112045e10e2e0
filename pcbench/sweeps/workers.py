"""Worker processes on this machine."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait

from pcbench.results.records import Record, Store
from pcbench.sweeps.execute import run_pack, stop_on_signals, store_result
from pcbench.sweeps.packs import Pack
from pcbench.training.checkpoint import Preempted

PR_SET_PDEATHSIG = 1
POLL = 0.5  # seconds between two looks at a request to stop
GRACE = 60.0  # seconds for the epoch that runs


def run_in_workers(packs: list[Pack], store: Store, workers: int | None) -> Iterator[Record]:
    """Yields each pack's records once they are stored.

    A worker that dies (a crash, the kernel's memory limit) takes the packs of all workers with it:
    those are run again one by one, and a run that kills its worker alone is recorded as failed.
    Asked to stop, the workers keep their checkpoints and Preempted is raised.
    """
    from loky.process_executor import BrokenProcessPool

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    executor = _executor(min(workers or cores, len(packs)), cores)
    waiting = {executor.submit(_work, str(store.root), pack): pack for pack in packs}
    try:
        with stop_on_signals() as stopped:
            while waiting:
                done, _ = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
                    del waiting[future]
                if stopped.is_set():
                    _stop_workers(waiting)
    except BrokenProcessPool:
        for pack in list(waiting.values()):
            yield from _alone(pack, store, cores)
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


def _alone(pack: Pack, store: Store, cores: int) -> list[Record]:
    from loky.process_executor import BrokenProcessPool

    executor = _executor(1, cores)
    try:
        return executor.submit(_work, str(store.root), pack).result()
    except BrokenProcessPool as error:
        if len(pack.configs) > 1:
            parts = [Pack((config,), "none") for config in pack.configs]
            return [record for part in parts for record in _alone(part, store, cores)]
        return [_dead(pack, store, error)]
    finally:
        executor.shutdown(wait=False, kill_workers=True)


def _dead(pack: Pack, store: Store, error: Exception) -> Record:
    from pcbench.results.provenance import provenance

    why = f"the worker process died: {error}"
    record = store_result(pack.configs[0], ("failed", {}, None, why), provenance(), store)
    pack.remove(store)
    return record


def _executor(workers: int, cores: int):
    from loky import ProcessPoolExecutor

    threads = str(max(1, cores // workers))  # XLA reads NPROC for the size of its pool
    environment = {"NPROC": threads, "OMP_NUM_THREADS": threads}
    return ProcessPoolExecutor(
        max_workers=workers, env=environment, initializer=_die_with_parent, initargs=(os.getpid(),)
    )


def _die_with_parent(parent: int) -> None:
    """Workers outlive a killed parent otherwise, and go on with what was queued. Ctrl-C is the
    parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def _work(root: str, pack: Pack) -> list[Record]:
    with stop_on_signals() as stopped:
        return run_pack(pack, Store(root), stop=stopped.is_set)
