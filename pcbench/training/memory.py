"""Whether a compiled program fits into the memory that is left. Imports no JAX."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARE = 0.9  # of the free memory that a program may take: records and checkpoints need some, too
MARGIN = 128e6  # bytes; large programs were seen to take some 70 MB more than is counted

_budget = math.inf  # bytes of this process, where several share the machine's memory


def limit(budget: float) -> None:
    """Let this process take no more than `budget` bytes of the host's memory."""
    global _budget
    _budget = budget


def require(compiled: Any, devices: int) -> None:
    """Raise MemoryError where a call of the compiled program, whose arguments are in memory
    already, cannot fit. The kernel would kill the process otherwise: it promises more than it has.
    """
    stats = compiled.memory_analysis()
    if stats is None:  # not every platform tells
        return
    needed = stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    free = free_per_device(devices)
    if needed + min(needed, MARGIN) > SHARE * free:
        raise MemoryError(f"{needed / 1e9:.3g} GB more are needed, {free / 1e9:.3g} GB are free")


def free_per_device(devices: int) -> float:
    """Bytes; simulated devices share the host's memory."""
    import jax

    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return free_for_process() / devices


def free_for_process() -> float:
    """What this process can still take: of the host's memory, its budget and its own limits."""
    import psutil

    own = psutil.Process().memory_info()
    return max(0.0, min(free_on_host(), _budget - own.rss, *_free_of_limits(own)))


def _free_of_limits(own: Any) -> Iterator[float]:
    """Of the limits that `ulimit` sets."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, used in (("RLIMIT_AS", own.vms), ("RLIMIT_DATA", getattr(own, "data", 0))):
        most, _ = resource.getrlimit(getattr(resource, name))
        if most != resource.RLIM_INFINITY:
            yield most - used


def free_on_host() -> float:
    """Bytes that all processes of this host, container or job can still take together."""
    import psutil

    return min([psutil.virtual_memory().available, *_free_in_cgroups()])


def kills() -> int:
    """How many processes the kernel of this host has killed for memory since it started; 0 where it
    does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    except (OSError, StopIteration):
        return 0


def _free_in_cgroups() -> Iterator[float]:
    """Of every control group around this process that has a limit (versions 2 and 1)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        place = root / path.lstrip("/")
        for folder in (place, *place.parents):
            try:
                most, used = (int((folder / name).read_text()) for name in names)
                counts = dict(s.split() for s in (folder / "memory.stat").read_text().splitlines())
                # files that were read are dropped when memory is needed
                cached = counts.get("total_inactive_file") or counts.get("inactive_file", 0)
                yield most - used + int(cached)
            except (OSError, ValueError):  # no such group, or "max": no limit
                pass
            if folder == root:
                break
