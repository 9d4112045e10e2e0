"""What a pack's log says about each of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from pcbench.metrics.probe import PER_LAYER
from pcbench.tasks.task import Task

PICTURES = 16  # examples of which what a task shows is kept


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
    examples: dict[str, np.ndarray] = field(default_factory=dict)  # (members, n), see `add`
    step_s: list[float] = field(default_factory=list)  # seconds per training step, per epoch
    seconds: float = 0.0  # before the last interruption

    def __post_init__(self):
        self.diverged = np.zeros(self.size, int)  # epoch at which it was seen; 0: never

    def add(
        self, scores: dict, examples: np.ndarray | None, selection: str, higher_is_better: bool
    ) -> None:
        """An evaluation; `examples`: what each member scores on each example of the test set. Kept
        of the last evaluation and of the one that the selection chooses."""
        self.evaluations.append(scores)
        if examples is None:
            return
        self.examples["final"] = examples
        if (chooser := _chooser(scores, selection)) in scores:
            values = np.stack([row[chooser] for row in self.evaluations])
            best = _best(higher_is_better)(values, 0) == len(values) - 1
            before = self.examples.get("chosen", examples)
            self.examples["chosen"] = np.where(best[:, None], examples, before)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        return {
            **_stacked("evaluations", self.evaluations),
            **_stacked("probes", self.probes),
            **{f"examples/{name}": values for name, values in self.examples.items()},
            "step_s": np.asarray(self.step_s),
            "seconds": np.asarray(self.seconds),
            "diverged": self.diverged,
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.evaluations = _unstacked("evaluations", arrays)
        self.probes = _unstacked("probes", arrays)
        kept = [name for name in arrays if name.startswith("examples/")]
        self.examples = {name.removeprefix("examples/"): arrays[name] for name in kept}
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
    log: Log,
    member: int,
    weights: Any,
    found: Mapping[str, np.ndarray],
    selection: str,
    task: Task,
) -> Outcome:
    """`weights`: of all members, by name; `found`: per member and example of the test set. A
    diverged member's record ends where the divergence was seen: its weights, predictions and probe
    are undefined, and equal those of a run that was alone in its pack."""
    end = int(log.diverged[member]) or np.inf
    arrays = {}
    for group, rows in (("history", log.evaluations), ("probe", log.probes)):
        kept = [row for row in rows if row["epoch"][member] <= end]
        for name in kept[0] if kept else ():
            arrays[f"{group}/{name}"] = np.stack([row[name][member] for row in kept])
    scores = _scores(arrays, selection, task)
    if end < np.inf:
        return Outcome("diverged", scores, arrays)
    arrays |= {
        "weights/" + jax.tree_util.keystr(path, simple=True, separator="/"): leaf[member]
        for path, leaf in jax.tree_util.tree_leaves_with_path(weights)
    }
    for name, values in found.items():
        whole = values.ndim == 2  # (members, examples); of what is larger, such as images, a few
        arrays[f"{name}/test"] = values[member] if whole else values[member, :PICTURES]
    final, primary = next(iter(scores)), scores["primary_metric"]
    for column, name in ((final, "final"), (primary, "chosen")):
        if name in log.examples and not (name == "chosen" and task.over_training):
            arrays[f"examples/{column}"] = log.examples[name][member]
    probes = {n.removeprefix("probe/"): v for n, v in arrays.items() if n.startswith("probe/")}
    probe = {n: float(v[-1]) for n, v in probes.items() if v.ndim == 1 and n != "epoch"}
    by_layer = [
        {"condition": f"layer={layer}", "metric": name, "value": float(value)}
        for name in PER_LAYER
        for layer, value in enumerate(probes[name][-1] if name in probes else (), start=1)
    ]
    return Outcome("completed", scores | probe, arrays, by_layer)


def _chooser(scores: Mapping, selection: str) -> str:
    """What the epoch is chosen by: the task's first score, on the validation set."""
    split = "test" if selection == "best_test_epoch" else "validation"
    return f"{split}_{_primary(scores)}"


def _primary(scores: Mapping) -> str:
    return next(name for name in scores if name.startswith("test_")).removeprefix("test_")


def _best(higher_is_better: bool):
    return np.argmax if higher_is_better else np.argmin


def _scores(arrays: Mapping[str, np.ndarray], selection: str, task: Task) -> dict:
    """Columns of the row. The first score chooses the epoch; only `selection=best_test_epoch`, a
    published protocol, looks at the test set for it."""
    history = {
        name.removeprefix("history/"): values
        for name, values in arrays.items()
        if name.startswith("history/")
    }
    scores = {n.removeprefix("test_"): v for n, v in history.items() if n.startswith("test_")}
    primary, best_of = _primary(history), _best(task.higher_is_better)
    columns = {f"test_{name}_final": float(values[-1]) for name, values in scores.items()}
    validation = history.get(f"validation_{primary}")
    column = f"test_{primary}_final"
    if validation is not None:
        best = int(best_of(validation))
        columns[f"validation_{primary}_best"] = float(validation[best])
        column = f"test_{primary}_at_best_validation"
        columns[column] = float(scores[primary][best])
    for split in ("validation", "test"):
        if (values := history.get(f"{split}_{primary}")) is not None:
            columns[f"{split}_{primary}_mean"] = float(np.mean(values))
    if selection == "best_test_epoch":
        column = f"test_{primary}_best_epoch"
        for name in (primary, f"top5_{primary}"):  # each at its own best epoch, as published
            if name in scores:
                columns[f"test_{name}_best_epoch"] = float(scores[name][best_of(scores[name])])
    if task.over_training:
        column = f"test_{primary}_mean"
    return columns | {"primary_metric": column, "primary_higher_is_better": task.higher_is_better}
