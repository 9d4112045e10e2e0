"""Compiled programs are kept on disk, so that a second run of a program need not compile it."""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

import jax

from pcbench.data.cache import cache_dir

SWITCH = "PCBENCH_COMPILATION_CACHE"  # "off": compile anew in every process
WORTH_KEEPING = 0.2  # seconds of compilation


@cache
def keep_compiled_programs() -> None:
    """Use the cache of this host's type, unless the user has set one up. Once per process."""
    if os.environ.get(SWITCH) == "off" or jax.config.jax_compilation_cache_dir:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "programs" / host_type()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def host_type() -> str:
    """Programs are compiled for one processor: a cache shared by unlike hosts must not mix them."""
    features = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    return hashlib.sha256(features.encode()).hexdigest()[:12]
