"""How a pack is best computed on this machine: on CPUs measured once, then remembered."""

import hashlib
import json
import time
from pathlib import Path

import jax
import numpy as np

from pcbench.config import Config
from pcbench.data.cache import cache_dir
from pcbench.files import whole_file
from pcbench.training.compilation import host_type, keep_compiled_programs
from pcbench.training.program import Program, numerics
from pcbench.training.train import Pack

STEPS = 20  # training steps that are timed
CLEAR = 1.25  # a ratio of two times that is large enough to decide without timing again


def choose_mode(configs: list[Config]) -> str:
    """``map`` or ``vmap``, whichever takes a pack of these programs and this size through a few
    steps faster. Kept per machine, program and size in the cache.

    A pack that takes less time as a ``map`` than a second program takes to compile stays one. An
    accelerator, which small members cannot fill one by one, always runs a ``vmap``.
    Raises MemoryError when the pack does not fit.
    """
    if len(configs) == 1:
        return "none"
    if jax.default_backend() != "cpu":
        return "vmap"
    if configs[0]["train.max_steps"] == 0:  # measured as they start: no step to time
        return "map"
    path = _place(configs)
    try:
        return json.loads(path.read_bytes())["mode"]
    except (OSError, ValueError, KeyError):
        pass
    keep_compiled_programs()
    with numerics(configs[0]):
        mapped = _Timed(configs, "map")
        if mapped.whole_run < mapped.compile_s:
            return "map"
        try:
            vmapped = _Timed(configs, "vmap", mapped.pack.program)
        except MemoryError:
            return "map"
        if 1 / CLEAR < mapped.seconds / vmapped.seconds < CLEAR:
            for timed in (mapped, vmapped):
                timed.run()
    seconds = {"map": mapped.seconds, "vmap": vmapped.seconds}
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


class _Timed:
    """A pack in one mode: seconds for a few steps, compilation left out.

    `first` makes the initial carry, which is the same in both modes.
    """

    def __init__(self, configs: list[Config], mode: str, first: Program | None = None):
        self.pack = Pack(configs, mode)
        self.first = first or self.pack.program
        self.steps = min(STEPS, self.pack.lengths[0])
        self.seconds = float("inf")
        before = self.pack.program.compile_s
        self.run()
        self.compile_s = self.pack.program.compile_s - before

    @property
    def whole_run(self) -> float:
        """Seconds of training in this mode, from the few steps."""
        return self.seconds * sum(self.pack.lengths) / self.steps

    def run(self) -> None:
        program, hyper = self.pack.program, self.pack.hyper
        data = (np.int32(1), *self.pack.data.train)
        carry = jax.block_until_ready(self.first.call("init", None, hyper))
        compiled, started = program.compile_s, time.perf_counter()
        jax.block_until_ready(program.call("epochs", carry, hyper, *data, steps=self.steps))
        elapsed = time.perf_counter() - started - (program.compile_s - compiled)
        self.seconds = min(self.seconds, elapsed)
