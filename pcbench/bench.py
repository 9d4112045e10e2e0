"""How fast this machine trains: step and compile time, packing gain, share of the matrix peak."""

import platform
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from pcbench.config import Config, ConfigError
from pcbench.config.compose import find_yaml
from pcbench.sweeps.expand import single
from pcbench.training.program import numerics
from pcbench.training.train import Pack

STEPS = 20  # training steps that are timed at once
ROUNDS = 5  # of which the median counts
PRODUCT_SIZES = (128, 256, 512, 1024, 2048)
INTERRUPTED = "interrupted"


def seconds(function: Callable, *arguments: Any) -> float:
    started = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started


def matrix_peak() -> float:
    """Operations per second of the best float32 product n×n×n of PRODUCT_SIZES."""
    best = 0.0
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    for n in PRODUCT_SIZES:
        a = jax.random.normal(jax.random.key(0), (n, n))
        seconds(product, a)
        best = max(best, 2 * n**3 / min(seconds(product, a) for _ in range(10)))
    return best


def machine() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "peak_gflops": matrix_peak() / 1e9,
    }


def bench(
    algorithms: Sequence[str],
    overrides: Sequence[str],
    sizes: Sequence[int],
    progress: Callable[[str], None] = lambda label: None,
) -> dict[str, Any]:
    """{machine, rows, skipped}: one row per algorithm, pack size and mode.

    `member_step_ms` is the time of a training step divided by the members; `gain` compares it with
    the smallest pack's. What cannot be measured (a rule that the network does not support, a pack
    that does not fit) is ``{algorithm, size, mode, reason}`` in `skipped`, and the others go on; so
    is all that was left when the user stopped it, with the reason INTERRUPTED.
    Raises ConfigError when the overrides suit no algorithm.
    """
    configs, skipped, refused = {}, [], []
    for algorithm in algorithms:
        find_yaml("algorithm", algorithm)
        try:
            config = single([f"algorithm={algorithm}", *overrides])
            configs[algorithm] = config
        except ConfigError as error:
            refused.append(error)
            told = {"algorithm": algorithm, "size": None, "mode": None, "reason": str(error)}
            skipped.append(told)
    if not configs:
        raise refused[0]
    described, rows = machine(), []
    modes = ("map", "vmap") if jax.default_backend() == "cpu" else ("vmap",)  # as packs run
    places = [
        {"algorithm": algorithm, "size": size, "mode": mode}
        for algorithm in configs
        for size in sizes
        for mode in (("none",) if size == 1 else modes)
    ]
    alone: dict[str, float] = {}
    while places:
        place = places.pop(0)
        progress("{algorithm}, {size} x {mode}".format(**place))
        try:
            row = _measure(configs[place["algorithm"]], place["size"], place["mode"])
        except KeyboardInterrupt:  # what was measured is worth having
            skipped += [left | {"reason": INTERRUPTED} for left in (place, *places)]
            break
        except Exception as error:  # whatever a rule of somebody else's raises
            headline = "".join(traceback.format_exception_only(error)).strip()
            skipped.append(place | {"reason": headline.splitlines()[0]})
            continue
        first = alone.setdefault(place["algorithm"], row["member_step_ms"])
        rate = row["flops_per_step"] / row["member_step_ms"] / 1e6
        derived = {
            "gain": first / row["member_step_ms"],
            "peak_share": rate / described["peak_gflops"],
        }
        rows.append(place | row | derived)
    return {"machine": described, "rows": rows, "skipped": skipped}


def _measure(config: Config, size: int, mode: str) -> dict[str, Any]:
    with numerics(config):
        pack = Pack([config.replace({"seed": seed}) for seed in range(size)], mode)
        steps = min(STEPS, pack.lengths[0])
        before = pack.program.compile_s
        times = []
        epoch = partial(pack.program.call, "epochs", steps=steps)
        for _ in range(ROUNDS + 1):  # the first one compiles
            carry = jax.block_until_ready(pack.program.call("init", None, pack.hyper))
            times.append(seconds(epoch, carry, pack.hyper, jnp.int32(1), *pack.data.train))
        return {
            "member_step_ms": 1e3 * median(times[1:]) / steps / size,
            "compile_s": pack.program.compile_s - before,
            "flops_per_step": pack.program.flops_per_step(pack.hyper, *pack.data.train),
        }
