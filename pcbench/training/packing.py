"""How a pack is best computed on this machine: measured once, then remembered."""

import hashlib
import json
import time
from pathlib import Path

import jax

from pcbench.config import Config
from pcbench.data.cache import cache_dir
from pcbench.files import whole_file
from pcbench.training.compilation import host_type, keep_compiled_programs
from pcbench.training.program import numerics
from pcbench.training.train import Pack

STEPS = 20  # training steps that are timed


def choose_mode(configs: list[Config]) -> str:
    """``map`` or ``vmap``, whichever takes a pack of these programs and this size through a few
    steps faster. Kept per machine, program and size in the cache."""
    if len(configs) == 1:
        return "none"
    path = _place(configs)
    try:
        return json.loads(path.read_bytes())["mode"]
    except (OSError, ValueError, KeyError):
        pass
    keep_compiled_programs()
    seconds = {mode: _time(configs, mode) for mode in ("map", "vmap")}
    mode = min(seconds, key=seconds.get)
    try:
        with whole_file(path) as file:
            file.write(json.dumps({"mode": mode, "seconds": seconds}).encode())
    except OSError:
        pass  # measured again next time
    return mode


def _place(configs: list[Config]) -> Path:
    device, count = jax.devices()[0].device_kind, jax.local_device_count()
    machine = (host_type(), device, count)
    what = json.dumps([configs[0].static_key, len(configs), machine, jax.__version__])
    return cache_dir() / "packing" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"


def _time(configs: list[Config], mode: str) -> float:
    """Seconds for STEPS steps of the pack, compilation left out."""
    with numerics(configs[0]):
        pack = Pack(configs, mode)
        steps = min(STEPS, pack.lengths[0])
        best = float("inf")
        for _ in range(3):  # the first one compiles
            carry = pack.program.call("init", None, pack.hyper)
            jax.block_until_ready(carry)
            started = time.perf_counter()
            carry = pack.program.call("epoch", carry, pack.hyper, *pack.data.train, steps=steps)
            jax.block_until_ready(carry)
            best = min(best, time.perf_counter() - started)
        return best
