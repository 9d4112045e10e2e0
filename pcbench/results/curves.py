"""What changes over a run, as curves over epochs or inference steps: means over seeds, intervals.

Of the runs of one leaderboard entry: its learning curve (``history/test_SCORE``), the alignment of
its update with the target (``probe/target_alignment``) and the energy over the inference steps of
the last measurement (``probe/energy_trace``, summed over layers).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from pcbench.results.statistics import interval

if TYPE_CHECKING:
    import numpy as np

MOST = 200  # points of a curve


class Curve(NamedTuple):
    x: list[float]
    mean: list[float]
    low: list[float | None]
    high: list[float | None]
    runs: int


def learning(arrays: Iterable[Mapping[str, "np.ndarray"]], score: str) -> Curve | None:
    return _over("history/epoch", f"history/test_{score}", arrays)


def alignment(arrays: Iterable[Mapping[str, "np.ndarray"]]) -> Curve | None:
    return _over("probe/epoch", "probe/target_alignment", arrays)


def energy(arrays: Iterable[Mapping[str, "np.ndarray"]], change: bool = False) -> Curve | None:
    """`change`: each run's, from what it was before inference."""
    traces = [a["probe/energy_trace"][-1].sum(-1) for a in arrays if "probe/energy_trace" in a]
    if any(len(trace) < 2 for trace in traces):  # of a rule without inference steps
        return None
    if change:
        traces = [trace - trace[0] for trace in traces]
    return curve([list(enumerate(trace.tolist())) for trace in traces])


def _over(x: str, y: str, arrays: Iterable[Mapping[str, "np.ndarray"]]) -> Curve | None:
    both = [(a[x], a[y]) for a in arrays if x in a and y in a]
    return curve([list(zip(x.tolist(), y.tolist(), strict=True)) for x, y in both])


def curve(runs: list[list[tuple[float, float]]]) -> Curve | None:
    """Mean over runs at every x that all of them have; null where they share none."""
    runs = [{x: y for x, y in points if y == y} for points in runs]
    shared = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    if not shared:
        return None
    stride = -(-len(shared) // MOST)
    xs = [*shared[:-1:stride], shared[-1]]
    values = [[run[x] for run in runs] for x in xs]
    intervals = [interval(v) for v in values]
    means = [sum(v) / len(v) for v in values]
    return Curve(xs, means, [i[0] for i in intervals], [i[1] for i in intervals], len(runs))
