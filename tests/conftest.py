"""What every test shares: a compilation cache, one core's worth of threads, the datasets' folder.

Only environment variables are set, so that a test which needs no JAX does not import it.
"""

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _threads_per_worker() -> int:
    """The cores shared out over the xdist workers, at least one each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


# XLA reads NPROC for the size of its pool, BLAS and OpenMP read theirs. Without a bound, two
# workers on two cores run four computing threads and take turns.
for _name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, str(_threads_per_worker()))

# Tests interrupt processes that they start. Run in the background of a shell script they would
# inherit that interrupts are ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compilation takes most of the tests' time, and the programs seldom change between two runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

# Most programs here run for milliseconds: LLVM's optimisations take longer than they save.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# As `pcbench` sets it, which some tests import after JAX.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# As `pcbench` itself computes: an accelerator's default products are far coarser than float32.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture(scope="session")
def tfds_dir() -> Path:
    """The prepared TFDS datasets; the test is skipped where TFDS_DATA_DIR names no folder."""
    name = os.environ.get("TFDS_DATA_DIR")
    if not name:
        pytest.skip("TFDS_DATA_DIR is not set: no prepared datasets to read")
    if not Path(name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR names no folder: {name}")
    return Path(name)


@pytest.fixture(scope="module", autouse=True)
def _release_programs():
    """A compiled program holds some ten memory maps, of which Linux allows a process 65,530: the
    whole suite in one process has more, and ends in a segmentation fault."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
