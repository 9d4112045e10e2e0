"""Train a pack of runs that share one compiled program."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcbench import data
from pcbench.config import Config, ConfigError
from pcbench.training.program import Program, build, hyper_of, numerics

MODES = ("none", "map", "vmap")


class Progress(NamedTuple):
    """What an observer is told after each epoch; accuracies per member, None when not evaluated."""

    epoch: int
    epochs: int
    steps: int
    validation_accuracy: np.ndarray | None
    test_accuracy: np.ndarray | None


@dataclass
class Outcome:
    """One run's result: columns of its row, and arrays that are kept beside it."""

    status: str  # completed | diverged
    metrics: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Dataset(NamedTuple):
    """A dataset where it is needed: training samples and held-out inputs on the device, the
    held-out labels here."""

    train: tuple[jax.Array, jax.Array]
    held_out: jax.Array  # inputs of validation and test, one after the other
    labels: dict[str, np.ndarray]  # validation (absent when nothing is held out), test
    shape: tuple[int, ...]
    classes: int


class _Recent(OrderedDict):
    """Keeps the last few values, so that a next run in this process makes nothing again."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def obtain(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
            if len(self) > self.size:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


_datasets = _Recent(2)
_programs = _Recent(64)


def load_dataset(config: Config) -> Dataset:
    """The config's dataset, kept for the next run of this process. Raises DataError when it is not
    there."""

    def load() -> Dataset:
        loaded = data.load(config["dataset"], config["train.validation_fraction"])
        held_out = {"validation": loaded.validation, "test": loaded.test}
        held_out = {name: split for name, split in held_out.items() if len(split.y)}
        return Dataset(
            (jnp.asarray(loaded.train.x), jnp.asarray(loaded.train.y, jnp.int32)),
            jnp.asarray(np.concatenate([split.x for split in held_out.values()])),
            {name: split.y for name, split in held_out.items()},
            loaded.shape,
            loaded.classes,
        )

    key = (str(config["dataset"]), config["train.validation_fraction"], config["precision"])
    return _datasets.obtain(key, load)


def epoch_lengths(config: Config, samples: int) -> list[int]:
    """Batches of each epoch: all complete ones, until `train.max_steps`."""
    per_epoch = samples // config["train.batch_size"]
    if per_epoch == 0:
        raise ConfigError(
            f"train.batch_size={config['train.batch_size']} is more than the {samples} training "
            f"samples of '{config['dataset.name']}'."
        )
    total = per_epoch * config["train.epochs"]
    full, rest = divmod(min(total, config["train.max_steps"] or total), per_epoch)
    return [per_epoch] * full + ([rest] if rest else [])


def train(
    configs: list[Config],
    mode: str = "none",
    observe: Callable[[Progress], None] = lambda progress: None,
) -> list[Outcome]:
    """Train a pack; `configs` share their static leaves, their dynamic ones may differ.

    `observe` is called after each epoch. Raises DataError when the dataset is not there.
    """
    if mode not in MODES or (mode == "none" and len(configs) != 1):
        raise ValueError(f"a pack of {len(configs)} in mode {mode!r}")
    if len({config.static_key for config in configs}) != 1:
        raise ValueError("the runs of a pack must share all static leaves")
    with numerics(configs[0]):
        return _Pack(configs, mode).train(observe)


class _Pack:
    """A pack on its way: its program, numbers and data, and what was measured so far."""

    def __init__(self, configs: list[Config], mode: str):
        self.started = time.perf_counter()
        self.config, self.size, self.mode = configs[0], len(configs), mode
        self.data = load_dataset(self.config)
        self.lengths = epoch_lengths(self.config, self.data.train[0].shape[0])
        self.program: Program = _programs.obtain(
            (self.config.static_key, mode, self.size),
            lambda: build(self.config, self.data.shape, self.data.classes, sum(self.lengths), mode),
        )
        self.compiled_before = self.program.compile_s
        self.hyper = hyper_of(configs)
        self.evaluations: list[dict[str, np.ndarray]] = []
        self.probes: list[dict[str, np.ndarray]] = []
        self.answers: dict[str, np.ndarray] = {}  # per split (members, samples), the last ones
        self.step_s: list[float] = []
        self.steps = 0

    def train(self, observe: Callable[[Progress], None]) -> list[Outcome]:
        every, probe_every = self.config["train.eval_every"], self.config["train.probe_every"]
        carry = self.program.call("init", None, self.hyper)
        finite = np.ones(self.size, bool)
        for epoch, steps in enumerate(self.lengths, start=1):
            carry = self._epoch(carry, steps)
            last = epoch == len(self.lengths)
            scores: dict = {}
            if epoch % every == 0 or last:
                scores = self._evaluate(carry, epoch)
                finite = scores["finite"]
                last = last or not finite.any()
            if last or (probe_every and epoch % probe_every == 0):
                self._probe(carry, epoch)
            observe(
                Progress(
                    epoch,
                    len(self.lengths),
                    self.steps,
                    scores.get("validation_accuracy"),
                    scores.get("test_accuracy"),
                )
            )
            if last:
                break
        return self._outcomes(carry, finite)

    def _epoch(self, carry, steps: int):
        compiled, clock = self.program.compile_s, time.perf_counter()
        carry = self.program.call("epoch", carry, self.hyper, *self.data.train, steps=steps)
        jax.block_until_ready(carry)
        elapsed = time.perf_counter() - clock - (self.program.compile_s - compiled)
        self.step_s.append(elapsed / steps)
        self.steps += steps
        return carry

    def _evaluate(self, carry, epoch: int) -> dict[str, np.ndarray]:
        result = self.program.call("evaluate", carry, self.hyper, self.data.held_out)
        result = jax.device_get(result)
        scores, start = {"epoch": np.full(self.size, epoch)}, 0
        for name, labels in self.data.labels.items():
            self.answers[name] = result["answers"][:, start : start + len(labels)]
            scores[f"{name}_accuracy"] = np.mean(self.answers[name] == labels, axis=1)
            start += len(labels)
        self.evaluations.append(scores)
        return scores | {"finite": result["finite"]}

    def _probe(self, carry, epoch: int) -> None:
        measured = self.program.call("measure", carry, self.hyper, *self.data.train)
        self.probes.append({"epoch": np.full(self.size, epoch), **jax.device_get(measured)})

    def _outcomes(self, carry, finite: np.ndarray) -> list[Outcome]:
        algorithm, params = self.program.algorithm, jax.device_get(carry.state.params)
        shared = {
            "compile_s": self.program.compile_s - self.compiled_before,
            "step_ms": 1e3 * float(np.median(self.step_s)) / self.size,
            "layer_updates": self.steps * algorithm.layer_updates_per_step,
            "weight_updates": self.steps * algorithm.weight_updates_per_step,
            "flops_per_step": self.program.flops_per_step(self.hyper, *self.data.train),
            "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
            "chance": self.program.task.chance,
            "pack_size": self.size,
            "pack_mode": self.mode,
            "device": jax.devices()[0].device_kind,
        }
        selection = self.config["train.selection"]
        outcomes = []
        for member in range(self.size):
            arrays = {
                **_column_arrays("history", self.evaluations, member),
                **_column_arrays("probe", self.probes, member),
                **_weight_arrays(params, member),
                "predictions/test": self.answers["test"][member],
            }
            outcomes.append(
                Outcome(
                    "completed" if finite[member] else "diverged",
                    shared | _summary(arrays, selection),
                    arrays,
                )
            )
        wall_s = time.perf_counter() - self.started
        for outcome in outcomes:
            outcome.metrics["wall_s"] = wall_s
        return outcomes


def _column_arrays(group: str, rows: list[dict], member: int) -> dict[str, np.ndarray]:
    """Rows of per-member values → one array per column over time."""
    return {f"{group}/{name}": np.stack([row[name][member] for row in rows]) for name in rows[0]}


def _weight_arrays(params: Any, member: int) -> dict[str, np.ndarray]:
    """``weights/0/W`` …: the drawn parameters of each factor, without forward multipliers."""
    return {
        "weights/" + jax.tree_util.keystr(path, simple=True, separator="/"): leaf[member]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _summary(arrays: dict[str, np.ndarray], selection: str) -> dict[str, Any]:
    """The row's scores. Only `selection=best_test_epoch`, a published protocol, looks at test."""
    test = arrays["history/test_accuracy"]
    validation = arrays.get("history/validation_accuracy")
    summary = {
        name.removeprefix("probe/"): float(values[-1])
        for name, values in arrays.items()
        if name.startswith("probe/") and name not in ("probe/epoch", "probe/energy_trace")
    }
    summary["test_accuracy_final"] = float(test[-1])
    if validation is not None:
        best = int(np.argmax(validation))
        summary["validation_accuracy_best"] = float(validation[best])
        summary["test_accuracy_at_best_validation"] = float(test[best])
    if selection == "best_test_epoch":
        summary["test_accuracy_best_epoch"] = float(test.max())
    return summary
