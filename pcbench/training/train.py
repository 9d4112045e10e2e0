"""Train a pack of runs that share one compiled program."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from pcbench.config import Config
from pcbench.training.checkpoint import Checkpoint, Preempted
from pcbench.training.compilation import keep_compiled_programs
from pcbench.training.datasets import Recent, load_dataset
from pcbench.training.epochs import epoch_lengths
from pcbench.training.outcome import Log, Outcome, member_outcome
from pcbench.training.program import MODES, Placement, Program, build, hyper_of, numerics


class Progress(NamedTuple):
    """What an observer is told after each stretch of epochs: scores per member, such as
    `test_accuracy`, none when not evaluated."""

    epoch: int
    epochs: int
    steps: int
    scores: dict[str, np.ndarray]


STRETCH = 0.5  # seconds of computing in one call: no sign of life, no stop, no checkpoint within

_programs = Recent(64)


def train(
    configs: list[Config],
    mode: str = "none",
    observe: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Checkpoint | None = None,
) -> list[Outcome]:
    """Train a pack; `configs` share their static leaves, their dynamic ones may differ.

    `observe` is called after every evaluation, and every STRETCH seconds in between. With a
    `checkpoint` the pack is kept every `train.checkpoint_seconds` and continues from there. Raises
    DataError when the dataset is not there, MemoryError when the pack does not fit, Preempted when
    it was asked to stop.
    """
    if mode not in MODES or (mode == "none" and len(configs) != 1):
        raise ValueError(f"a pack of {len(configs)} in mode {mode!r}")
    if len({config.static_key for config in configs}) != 1:
        raise ValueError("the runs of a pack must share all static leaves")
    keep_compiled_programs()
    with numerics(configs[0]):
        return Pack(configs, mode, checkpoint).train(observe)


class Pack:
    """A pack on its way: its program, numbers and data, and what was measured so far."""

    def __init__(self, configs: list[Config], mode: str, checkpoint: Checkpoint | None = None):
        self.clock = time.perf_counter()
        self.config, self.size, self.mode = configs[0], len(configs), mode
        self.checkpoint = checkpoint
        self.saved = self.clock
        place = Placement(self.size)
        self.data = load_dataset(self.config, place.shared, place.devices)
        self.lengths = epoch_lengths(self.config, self.data.facts)
        self.program: Program = _programs.obtain(
            (self.config.static_key, mode, self.size),
            lambda: build(self.config, self.data.facts, sum(self.lengths), mode, place),
        )
        self.compiled_before = self.program.compile_s
        self.hyper = place.members(hyper_of(configs))
        self.log = Log(self.size)
        self.found: dict[str, np.ndarray] = {}  # of the test set, (members, samples), the last one

    def train(self, observe: Callable[[Progress], None]) -> list[Outcome]:
        every = self.config["train.eval_every"]
        probe_every = self.config["train.probe_every"] or len(self.lengths)
        carry = self._restored(self.program.call("init", None, self.hyper))
        if not self.lengths:
            scores = self._evaluate(carry, 0)
            self._probe(carry, 0)
            observe(Progress(0, 0, 0, scores))
        while (epoch := len(self.log.step_s)) < len(self.lengths):
            stops = (every - epoch % every, probe_every - epoch % probe_every)
            carry = self._epochs(carry, self.lengths[epoch:][: min(stops)])
            epoch = len(self.log.step_s)
            last = epoch == len(self.lengths)
            scores: dict[str, np.ndarray] = {}
            if epoch % every == 0 or last:
                scores = self._evaluate(carry, epoch)
                if self.log.diverged.all():
                    break
            if last or epoch % probe_every == 0:
                self._probe(carry, epoch)
            observe(Progress(epoch, len(self.lengths), sum(self.lengths[:epoch]), scores))
            if not last:
                self._keep(carry)
        return self._outcomes(carry)

    def _epochs(self, carry, lengths: list[int]):
        """The first epochs of `lengths`: as many equally long ones as take STRETCH by the last."""
        compiled, clock = self.program.compile_s, time.perf_counter()
        steps, before = lengths[0], self.log.step_s[-1:]
        most = int(STRETCH / (steps * before[0])) if before else 1
        count = min(max(1, most), lengths.count(steps))
        data = (np.int32(count), *self.data.train)
        carry = self.program.call("epochs", carry, self.hyper, *data, steps=steps)
        jax.block_until_ready(carry)
        elapsed = time.perf_counter() - clock - (self.program.compile_s - compiled)
        self.log.step_s += [elapsed / (steps * count)] * count
        return carry

    def _evaluate(self, carry, epoch: int) -> dict[str, np.ndarray]:
        result = self.program.call("evaluate", carry, self.hyper, *self.data.held_out)
        found, finite = jax.device_get(result)
        scores, start = {}, 0
        for split, labels in self.data.labels.items():
            self.found = {k: v[:, start : start + len(labels)] for k, v in found.items()}
            images = partial(self.program.images, self.data.images[split])
            of_split = self.program.task.score(self.found, images, labels)
            scores |= {f"{split}_{name}": score for name, score in of_split.items()}
            start += len(labels)
        steps = sum(self.lengths[:epoch])
        so_far = {
            "epoch": epoch,
            "steps": steps,
            "weight_updates": steps * self.program.algorithm.weight_updates_per_step,
        }
        self.log.add(
            {name: np.full(self.size, count) for name, count in so_far.items()} | scores,
            self.program.task.examples(self.found, labels),
            self.config["train.selection"],
            self.program.task.higher_is_better,
        )
        self.log.diverged[~finite & (self.log.diverged == 0)] = epoch
        return scores

    def _probe(self, carry, epoch: int) -> None:
        measured = self.program.call("measure", carry, self.hyper, *self.data.train)
        self.log.probes.append({"epoch": np.full(self.size, epoch), **jax.device_get(measured)})

    def _restored(self, carry):
        """The carry of the checkpoint, where there is one, else the initial one."""
        stored = self.checkpoint.load() if self.checkpoint else None
        if stored is None:
            return carry
        leaves, structure = jax.tree.flatten(carry)
        kept = [stored.get(f"carry/{n}") for n in range(len(leaves))]
        if any(k is None or k.shape != leaf.shape for k, leaf in zip(kept, leaves, strict=True)):
            return carry
        self.log.restore(stored)
        return jax.device_put(structure.unflatten(kept), jax.tree.map(lambda a: a.sharding, carry))

    def _keep(self, carry) -> None:
        """Save when it is time; stop when asked to."""
        if self.checkpoint is None:
            return
        now, stop = time.perf_counter(), self.checkpoint.stop()
        interval = self.config["train.checkpoint_seconds"]
        old_enough = now - self.clock + self.log.seconds >= interval
        if now - self.saved >= interval or (stop and old_enough):
            leaves = jax.tree.leaves(jax.device_get(carry))
            arrays = {f"carry/{n}": leaf for n, leaf in enumerate(leaves)} | self.log.to_arrays()
            arrays["seconds"] = np.asarray(now - self.clock + self.log.seconds)
            self.checkpoint.save(arrays)
            self.saved = now
        if stop:
            raise Preempted

    def _outcomes(self, carry) -> list[Outcome]:
        algorithm, state = self.program.algorithm, carry.state
        weights = {str(k): own for k, own in enumerate(state.params)}
        weights = jax.device_get(weights | algorithm.own_weights(state.memory))
        seconds = np.median(self.log.step_s) if self.log.step_s else np.nan
        shared = {
            "compile_s": self.program.compile_s - self.compiled_before,
            "step_ms": 1e3 * float(seconds) / self.size,
            "flops_per_step": self.program.flops_per_step(self.hyper, *self.data.train),
            "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(weights)),
            "chance": self.program.task.chance,
            "pack_size": self.size,
            "pack_mode": self.mode,
            "device": jax.devices()[0].device_kind,
        }
        layer_updates = algorithm.layer_updates_per_step
        outcomes = []
        for member in range(self.size):
            outcome = member_outcome(
                self.log,
                member,
                weights,
                self.found,
                self.config["train.selection"],
                self.program.task,
            )
            epochs = int(self.log.diverged[member]) or len(self.lengths)
            steps = sum(self.lengths[:epochs])
            outcome.metrics |= shared | {
                "layer_updates": None if layer_updates is None else steps * layer_updates,
                "weight_updates": steps * algorithm.weight_updates_per_step,
            }
            outcomes.append(outcome)
        wall_s = time.perf_counter() - self.clock + self.log.seconds
        for outcome in outcomes:
            outcome.metrics["wall_s"] = wall_s
        return outcomes
