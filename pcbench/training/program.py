"""The compiled program of a static config: `init`, `epochs`, `evaluate`, `measure`.

Every function works on a *pack*: its carry and its numbers have a leading member axis; the data are
shared. A pack of one is the single run.

- mode ``none``: one member, without the axis inside;
- mode ``map``: one member after the other inside the program, equal to single runs (on CPUs bit for
  bit);
- mode ``vmap``: all members at once.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pcbench.algorithms.base import Algorithm, Batch, State, Trained
from pcbench.config import Config
from pcbench.data.dataset import Facts
from pcbench.data.transforms import augment, evaluate_crop, normalise
from pcbench.metrics import flops
from pcbench.metrics.probe import probe
from pcbench.metrics.theory import THEORY
from pcbench.networks.products import BFLOAT16
from pcbench.tasks.task import Task
from pcbench.training import memory
from pcbench.training.assembly import assemble

MODES = ("none", "map", "vmap")
EVALUATION_BATCH = 1000  # bounds the memory of an evaluation
ROLES = (
    "weights",
    "order",
    "augmentation",
    "noise",
    "probe",
    "evaluation",
    "data",
    "change",
)  # of random keys; only append


class Carry(NamedTuple):
    """All that a run carries from epoch to epoch: one serialisable pytree."""

    state: State
    epoch: Array


def member_key(hyper: Mapping, role: str) -> Array:
    """A key from the member's own seed and a role: never from its place, never from the rule."""
    key = jax.random.key(hyper["seed"], impl="threefry2x32")  # whatever the default is
    return jax.random.fold_in(key, ROLES.index(role))


@contextmanager
def numerics(config: Config):
    """The floating-point types and the product precision of a config."""
    matmul = config["matmul_precision"]
    if config["precision"] == "bfloat16":
        matmul = BFLOAT16
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(config["precision"] == "float64"))
        stack.enter_context(jax.default_matmul_precision(matmul))
        yield


def hyper_of(configs: list[Config]) -> dict:
    """The dynamic leaves of a pack, stacked: {group: {key: (members,) or (members, n)}}."""
    from pcbench.config.config import nest

    stacked = {}
    for path, first in configs[0].kind("dynamic").items():
        if first is None:
            continue
        values = [config[path] for config in configs]
        dtype = jnp.uint32 if path == "seed" else jnp.result_type(float)
        stacked[path] = jnp.asarray(values, dtype)
    return nest(stacked)


@dataclass
class Program:
    """Compiled functions of one static config, for packs of one size in one mode."""

    algorithm: Algorithm
    task: Task
    dataset: Mapping  # the composed `dataset` group
    batch_size: int
    mode: str
    placement: "Placement"
    probe_size: int
    theory: str | None  # what `measure` includes of it
    compile_s: float = 0.0
    _compiled: dict = field(default_factory=dict)
    _flops: float | None = None

    def call(self, name: str, carry: Carry | None, hyper: dict, *data: Array, **static) -> Any:
        """Call a function below for all members, compiled ahead of time on first use (its cost adds
        to `compile_s`). The carry of epochs is donated: it must not be used again. Raises
        MemoryError for a function that does not fit into memory."""
        args = (carry, hyper, *data)
        shapes = jax.tree.map(lambda a: (a.shape, a.dtype), args)
        key = (name, tuple(sorted(static.items())), str(shapes))
        if key not in self._compiled:
            started = time.perf_counter()
            function = self._packed(partial(getattr(self, f"_{name}"), **static))
            donate = (0,) if name == "epochs" else ()
            compiled = jax.jit(function, donate_argnums=donate).lower(*args).compile()
            self.compile_s += time.perf_counter() - started
            memory.require(compiled, self.placement.devices)
            self._compiled[key] = compiled
        return self._compiled[key](*args)

    def _packed(self, function: Callable) -> Callable:
        """Lift a function of one member's carry and numbers to a pack; the data are shared."""

        def packed(carry, hyper, *data):
            if self.mode == "vmap":
                return jax.vmap(lambda c, h: function(c, h, *data))(carry, hyper)
            if self.mode == "map":
                return jax.lax.map(lambda member: function(*member, *data), (carry, hyper))
            single = jax.tree.map(lambda a: a[0], (carry, hyper))
            return jax.tree.map(lambda a: a[None], function(*single, *data))

        return self.placement.spread(packed)

    def _init(self, _: None, hyper: dict) -> Carry:
        return Carry(self.algorithm.init(member_key(hyper, "weights")), jnp.zeros((), jnp.int32))

    def _epochs(
        self, carry: Carry, hyper: dict, count: Array, x: Array, y: Array, *, steps: int
    ) -> Carry:
        """`count` epochs of `steps` batches. What a member learns from is found once for all."""
        own = self._learned(hyper, x, y)
        epoch = lambda _, carry: self._epoch(carry, hyper, *own, steps)  # noqa: E731
        return jax.lax.fori_loop(0, count, epoch, carry)

    def _epoch(self, carry: Carry, hyper: dict, x: Array, y: Array, steps: int) -> Carry:
        """Batches in an order of their own for every epoch and seed."""
        epoch = carry.epoch
        y, taught = self.task.at(y, epoch, member_key(hyper, "change"))
        key = jax.random.fold_in(member_key(hyper, "order"), epoch)
        order = _ordered(key, x.shape[0], taught)[: steps * self.batch_size]
        noise = jax.random.fold_in(member_key(hyper, "noise"), epoch)
        crops = jax.random.fold_in(member_key(hyper, "augmentation"), epoch)

        def step(state: State, inputs):
            n, index = inputs
            images = self._augmented(jax.random.fold_in(crops, n), x[index])
            batch = self._batch(images, y[index], index, epoch)
            return self.algorithm.step(state, batch, hyper, jax.random.fold_in(noise, n)), None

        batches = (jnp.arange(steps), order.reshape(steps, self.batch_size))
        state, _ = jax.lax.scan(step, carry.state, batches)
        return Carry(state, epoch + 1)

    def _evaluate(self, carry: Carry, hyper: dict, x: Array, y: Array) -> tuple[dict, Array]:
        """(what the task finds for every example, whether all weights are finite)."""
        weights = self.algorithm.learner.weights(carry.state.params, hyper)
        trained = Trained(weights, carry.state.memory)
        key = member_key(hyper, "evaluation")
        if self.task.evaluates == "train":
            x, y = self._drawn(hyper, x, y)
            if "store" in self.algorithm.abilities:
                images = evaluate_crop(x, self.dataset["crop_size"])
                own = self._batch(images, y, jnp.arange(len(x)), carry.epoch)
                memory = self.algorithm.store(weights, own.x, own.target)
                trained = trained._replace(memory=memory)
        y, _ = self.task.at(y, _last(carry.epoch), member_key(hyper, "change"))
        n = x.shape[0]
        size = min(EVALUATION_BATCH, n)
        index = jnp.minimum(jnp.arange(-(-n // size) * size), n - 1).reshape(-1, size)

        def of_rows(rows):
            images = evaluate_crop(x[rows], self.dataset["crop_size"])
            batch = self._batch(images, y[rows], rows, carry.epoch)
            own_key = jax.random.fold_in(key, rows[0])
            return self.task.evaluate(self.algorithm, trained, batch, hyper, own_key)

        found = jax.lax.map(of_rows, index)
        found = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], found)
        return found, _finite(carry.state.params)

    def _measure(self, carry: Carry, hyper: dict, x: Array, y: Array) -> dict[str, Array]:
        """The probe metrics on `probe_size` training samples chosen by the seed; {} of a rule that
        does not learn by gradient."""
        if not self.algorithm.learns_by_gradient:
            return {}
        x, y = self._learned(hyper, x, y)
        epoch = _last(carry.epoch)
        y, _ = self.task.at(y, epoch, member_key(hyper, "change"))
        key = member_key(hyper, "probe")
        size = min(self.probe_size, x.shape[0])
        index = jax.random.permutation(key, x.shape[0])[:size]
        images = evaluate_crop(x[index], self.dataset["crop_size"])
        batch = self._batch(images, y[index], index, epoch)
        measured = probe(self.algorithm, carry.state, batch, hyper, jax.random.fold_in(key, 1))
        if self.theory:
            weights = self.algorithm.learner.weights(carry.state.params, hyper)
            more = jax.random.fold_in(key, 2)
            measured |= THEORY[self.theory](self.algorithm, weights, batch, hyper, more)
        return measured

    def _batch(self, images: Array, y: Array, index: Array, epoch: Array) -> Batch:
        x, target = self.task.pair(self._normalised(images), y)
        return Batch(self.algorithm.network.given(x), target, index, epoch)

    def _drawn(self, hyper: dict, x: Array, y: Array) -> tuple[Array, Array]:
        """The training set or the member's own part of it, as the task gives it."""
        return self._part(hyper, x, y, slice(self.dataset.get("draw")))

    def _learned(self, hyper: dict, x: Array, y: Array) -> tuple[Array, Array]:
        """What the member learns from: what it draws, or all others."""
        size = self.dataset.get("draw")
        part = slice(size, None) if self.task.learns_from == "others" else slice(size)
        return self._part(hyper, x, y, part)

    def _part(self, hyper: dict, x: Array, y: Array, part: slice) -> tuple[Array, Array]:
        """A slice of the training set in an order of the member's own."""
        key = member_key(hyper, "data")
        if part != slice(None):
            index = jax.random.permutation(key, x.shape[0])[part]
            x, y = x[index], y[index]
        return self.task.given(x, y, hyper, jax.random.fold_in(key, 1))

    def images(self, x: np.ndarray) -> np.ndarray:
        """Examples as a network is given them for evaluation."""
        return np.asarray(
            self._normalised(evaluate_crop(jnp.asarray(x), self.dataset["crop_size"]))
        )

    def _augmented(self, key: Array, x: Array) -> Array:
        d = self.dataset
        return augment(key, x, d["crop_size"], d["crop_padding"], d["flip"])

    def _normalised(self, x: Array) -> Array:
        return normalise(x, self.dataset["mean"], self.dataset["std"], jnp.result_type(float))

    def flops_per_step(self, hyper: dict, x: Array, y: Array) -> float:
        """Operations of one training step of one member, data handling left out."""
        if self._flops is None:
            self._flops = self._count_flops(hyper, x, y)
        return self._flops

    def _count_flops(self, hyper: dict, x: Array, y: Array) -> float:
        one = jax.tree.map(lambda a: a[0], hyper)
        x, y = jax.eval_shape(self._learned, one, x, y)
        size = self.batch_size
        images = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        labels = jax.ShapeDtypeStruct((size, *y.shape[1:]), y.dtype)
        index = jax.ShapeDtypeStruct((size,), jnp.int32)
        zero = jax.ShapeDtypeStruct((), jnp.int32)
        crop = lambda v: evaluate_crop(v, self.dataset["crop_size"])  # noqa: E731
        batch = jax.eval_shape(
            lambda v, *rest: self._batch(crop(v), *rest), images, labels, index, zero
        )
        state = jax.eval_shape(self.algorithm.init, jax.random.key(0))
        return flops.count(self.algorithm.step, state, batch, one, jax.random.key(0))


class Placement:
    """Where the members of a pack live: evenly on as many local devices as divide their number."""

    def __init__(self, members: int):
        local = jax.local_devices()
        self.devices = max(d for d in range(1, len(local) + 1) if members % d == 0)
        self.mesh = Mesh(np.array(local[: self.devices]), ("members",))

    def members(self, tree: Any) -> Any:
        """Split arrays with a leading member axis."""
        return jax.device_put(tree, NamedSharding(self.mesh, P("members")))

    def shared(self, tree: Any) -> Any:
        """Copy arrays to every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, P()))

    def spread(self, function: Callable) -> Callable:
        """A function of (carry, hyper, *data) on each device's own members."""
        if self.devices == 1:
            return function

        def spread(carry, hyper, *data):
            own, whole = P("members"), P()
            specs = (own, own, *(whole for _ in data))
            return jax.shard_map(
                function, mesh=self.mesh, in_specs=specs, out_specs=own, check_vma=False
            )(carry, hyper, *data)

        return spread


def build(config: Config, data: Facts, steps: int, mode: str, placement: Placement) -> Program:
    """A `Program` from a config's static leaves; `steps`: all batches of the run."""
    algorithm, task = assemble(config, data, steps)
    plain = {"mean": [0.0], "std": [1.0], "crop_size": None, "crop_padding": 0, "flip": False}
    dataset = plain | config["dataset"]  # a dataset's YAML need not speak of them
    return Program(
        algorithm,
        task,
        dataset,
        config["train.batch_size"],
        mode,
        placement,
        config["train.probe_size"],
        config["train.theory"],
    )


def _last(epochs: Array) -> Array:
    """The epoch that was learned last."""
    return jnp.maximum(epochs - 1, 0)


def _ordered(key: Array, size: int, taught: Array | None) -> Array:
    """An order of the examples, (size,): of those that are taught, (size,), again and again."""
    order = jax.random.permutation(key, size)
    if taught is None:
        return order
    order = order[jnp.argsort(~taught[order])]  # stable
    return order[jnp.arange(size) % jnp.sum(taught)]


def _finite(tree) -> Array:
    """Whether all numbers of a tree are; those of an empty one are."""
    finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), tree)
    return jax.tree.reduce(jnp.logical_and, finite, jnp.ones((), bool))
