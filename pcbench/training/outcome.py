"""What a pack's log says about each of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from pcbench.metrics.probe import PER_LAYER


@dataclass
class Outcome:
    """One run's result: columns of its row, and arrays that are kept beside it."""

    status: str  # completed | diverged
    metrics: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # {condition, metric, value}


@dataclass
class Log:
    """What was measured of a pack so far. Rows hold one value per member."""

    size: int
    evaluations: list[dict[str, np.ndarray]] = field(default_factory=list)
    probes: list[dict[str, np.ndarray]] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)  # seconds per training step, per epoch
    seconds: float = 0.0  # before the last interruption

    def __post_init__(self):
        self.diverged = np.zeros(self.size, int)  # epoch at which it was seen; 0: never

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        return {
            **_stacked("evaluations", self.evaluations),
            **_stacked("probes", self.probes),
            "step_s": np.asarray(self.step_s),
            "seconds": np.asarray(self.seconds),
            "diverged": self.diverged,
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.evaluations = _unstacked("evaluations", arrays)
        self.probes = _unstacked("probes", arrays)
        self.step_s = arrays["step_s"].tolist()
        self.seconds = float(arrays["seconds"])
        self.diverged = arrays["diverged"]


def _stacked(group: str, rows: Sequence[Mapping]) -> dict[str, np.ndarray]:
    return (
        {f"{group}/{name}": np.stack([r[name] for r in rows]) for name in rows[0]} if rows else {}
    )


def _unstacked(group: str, arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    columns = {
        name.removeprefix(f"{group}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{group}/")
    }
    length = len(next(iter(columns.values()), ()))
    return [{name: array[n] for name, array in columns.items()} for n in range(length)]


def member_outcome(
    log: Log, member: int, params: Any, answers: Mapping[str, np.ndarray], selection: str
) -> Outcome:
    """A diverged member's record ends where the divergence was seen: its weights, predictions and
    probe are undefined, and equal those of a run that was alone in its pack."""
    end = int(log.diverged[member]) or np.inf
    arrays = {}
    for group, rows in (("history", log.evaluations), ("probe", log.probes)):
        kept = [row for row in rows if row["epoch"][member] <= end]
        for name in kept[0] if kept else ():
            arrays[f"{group}/{name}"] = np.stack([row[name][member] for row in kept])
    if end < np.inf:
        return Outcome("diverged", _scores(arrays, selection), arrays)
    arrays |= {
        "weights/" + jax.tree_util.keystr(path, simple=True, separator="/"): leaf[member]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    arrays["predictions/test"] = answers["test"][member]
    probes = {n.removeprefix("probe/"): v for n, v in arrays.items() if n.startswith("probe/")}
    probe = {n: float(v[-1]) for n, v in probes.items() if v.ndim == 1 and n != "epoch"}
    by_layer = [
        {"condition": f"layer={layer}", "metric": name, "value": float(value)}
        for name in PER_LAYER
        for layer, value in enumerate(probes[name][-1] if name in probes else (), start=1)
    ]
    return Outcome("completed", _scores(arrays, selection) | probe, arrays, by_layer)


def _scores(arrays: Mapping[str, np.ndarray], selection: str) -> dict[str, float]:
    """Only `selection=best_test_epoch`, a published protocol, looks at the test set."""
    test, validation = arrays["history/test_accuracy"], arrays.get("history/validation_accuracy")
    scores = {"test_accuracy_final": float(test[-1])}
    if validation is not None:
        best = int(np.argmax(validation))
        scores["validation_accuracy_best"] = float(validation[best])
        scores["test_accuracy_at_best_validation"] = float(test[best])
    if selection == "best_test_epoch":
        scores["test_accuracy_best_epoch"] = float(test.max())
    return scores
