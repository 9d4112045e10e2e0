"""Which checks there are, and what comes out of them."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from threading import Event
from typing import NamedTuple

import jax

from pcbench.training.compilation import keep_compiled_programs
from pcbench.training.program import numerics
from pcbench.verify import (  # noqa: F401  (they register their checks)
    alignment,
    bidirectional,
    equilibrium_propagation,
    exactness,
    generation,
    graphs,
    linear,
    memories,
    predictive_coding,
    separation,
    sequences,
    target_propagation,
)
from pcbench.verify.checks import CHECKS, CONTRACT, OF_GRADIENTS, Check
from pcbench.verify.contract import rule_of, subject
from pcbench.verify.measured import Measured


class Result(NamedTuple):
    """A check that was run. `error`: what it raised, if it did; then nothing was measured."""

    check: Check
    measured: float | None
    bound: float | None
    seconds: float
    error: str = ""

    @property
    def passed(self) -> bool:
        return self.measured is not None and self.measured <= self.bound

    def to_json(self) -> dict:
        known = self.measured is not None and math.isfinite(self.measured)
        return {
            "name": self.check.name,
            "source": self.check.source,
            "kind": self.check.kind,
            "measured": self.measured if known else None,
            "bound": self.bound,
            "passed": self.passed,
            "algorithms": list(self.check.algorithms),
            "seconds": round(self.seconds, 3),
        }


def select(names: Sequence[str], implemented: Sequence[str]) -> list[Check]:
    """The identities that concern the named algorithms, then the contract of each; everything
    where none is named."""
    chosen = [c for c in CHECKS if not names or set(c.algorithms) & set(names)]
    return chosen + [promise(f, name) for name in names or implemented for f in promises(name)]


def promises(algorithm: str) -> list[Callable]:
    """What a rule promises: without weights, nothing about their gradient and the loss."""
    without_weights = not rule_of(algorithm).learns_by_gradient
    return [f for f in CONTRACT if not (without_weights and f in OF_GRADIENTS)]


def promise(function: Callable, algorithm: str) -> Check:
    """A promise of every rule, as a check of one."""
    name = f"{function.__name__}[{algorithm}]"
    measure = partial(_measure_promise, function)
    return Check(name, "the contract of a rule", (algorithm,), "contract", measure, (algorithm,))


def _measure_promise(function: Callable, algorithm: str) -> Measured:
    own = subject(algorithm)
    with numerics(own.config):
        return function(own)


def run(checks: Sequence[Check]) -> Iterator[Result]:
    """Each check's result as it comes. A check that raises has failed, and the others go on.

    Most of the time goes into compiling, which threads share out over the cores; what shares
    compiled programs stays on one thread.
    """
    keep_compiled_programs()
    groups = [list(group) for _, group in groupby(checks, _group)]
    results: SimpleQueue[Result] = SimpleQueue()
    stop = Event()

    def work(group: list[Check]) -> None:
        for check in group:
            if stop.is_set():
                return
            results.put(outcome(check))

    with ThreadPoolExecutor(min(4, _cores())) as pool:
        for group in groups:
            pool.submit(work, group)
        try:
            for _ in checks:
                yield results.get()
        finally:
            stop.set()


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(usable(0)) if usable else os.cpu_count() or 1


def _group(check: Check) -> tuple:
    return (check.case if check.kind == "contract" else getattr(check.measure, "__module__", ""),)


def outcome(check: Check) -> Result:
    """Run one check, in float64 unless it chooses otherwise."""
    started, measured, bound, error = time.perf_counter(), None, None, ""
    try:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            measured, bound = map(float, check())
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return Result(check, measured, bound, time.perf_counter() - started, error)
