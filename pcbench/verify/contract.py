"""What every learning rule promises, whatever it computes: that of a plugin as well.

A rule is built from its YAML the way a run builds it, with a small network on the digits dataset,
and asked to learn; where it remembers sequences, digits row by row.
"""

import io
from functools import cache, cached_property
from threading import Lock

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Algorithm, Batch
from pcbench.config import Config, ConfigError, load_target
from pcbench.config.compose import choice_yaml
from pcbench.data.transforms import normalise
from pcbench.metrics import flops
from pcbench.sweeps.expand import single
from pcbench.training.assembly import construct
from pcbench.training.datasets import load_dataset
from pcbench.training.program import hyper_of
from pcbench.verify.checks import contract, contract_of_gradients
from pcbench.verify.measured import Measured
from pcbench.verify.problems import difference, jit, largest, norm

SETTINGS = (
    "train.batch_size=32",
    # updates in proportion to the gradient: Adam's would take rounding for a direction
    "optimizer=sgd",
    "optimizer.lr=0.1",
)
# Most of the time goes into compiling; deeper networks are in the identities.
NETWORK = ("model.width=8", "model.depth=2", "model.activation=tanh")
GENERATIVE = ("model=decoder", "model.latent=4", "model.prior=standard", "task=generation")
PATTERNS = ("model=patterns", "dataset.train_size=32")  # one batch
SEQUENCES = ("task=sequence_memory", "train.validation_fraction=0", "train.selection=final")
STEPS = 60  # of training
PROMISED = 1e-5  # how near a vmapped or eager float32 step comes to the compiled single one


def rule_of(algorithm: str) -> type[Algorithm]:
    return load_target(choice_yaml("algorithm", algorithm)["target"])


class Subject:
    """A rule with its config and data, and what several checks need of it."""

    def __init__(self, algorithm: str):
        kind = rule_of(algorithm)
        model = NETWORK if kind.learns_by_gradient else PATTERNS
        if kind.generative:
            model = (*model, *GENERATIVE)
        if kind.temporal:
            model = ("model=temporal", *model)
        if hasattr(kind, "follow"):
            model = (*model, *SEQUENCES)
        self.config = single([f"algorithm={algorithm}", *model, *SETTINGS])
        self.traces = 0

    @cached_property
    def data(self):
        return load_dataset(self.config, lambda tree: tree)

    @cached_property
    def rule(self):
        return self._assembled(self.config)[0]

    def _assembled(self, config: Config):
        return construct(config, self.data.facts, STEPS)

    def hyper(self, config: Config | None = None) -> dict:
        """The numbers of a run."""
        stacked = hyper_of([config or self.config])
        return jax.tree.map(lambda a: np.asarray(a)[0], stacked)

    def batch(self, n: int) -> Batch:
        """The n-th batch of the training set, without shuffling."""
        size = self.config["train.batch_size"]
        index = np.arange(n * size, (n + 1) * size) % len(self.data.train[1])
        return self._batch(*self.data.train, index, np.int32(0))

    @cached_property
    def _batch(self):
        dataset, task = self.config["dataset"], self._assembled(self.config)[1]

        def batch(x, y, index, epoch):
            images = normalise(x[index], dataset["mean"], dataset["std"], jnp.result_type(float))
            x, target = task.pair(images, y[index])
            return Batch(self.rule.network.given(x), target, index, epoch)

        return jit(batch)

    @cached_property
    def state(self):
        return self.started(0)

    def started(self, seed: int):
        return self._init(jax.random.key(seed))

    @cached_property
    def _init(self):
        return jit(self.rule.init)

    @cached_property
    def step(self):
        """The rule's step, compiled; `traces` counts how often."""

        def step(state, batch, hyper, key):
            self.traces += 1
            return self.rule.step(state, batch, hyper, key)

        return jax.jit(step)

    @cached_property
    def first(self):
        """The state after the first batch."""
        return self.step(self.state, self.batch(0), self.hyper(), jax.random.key(1))

    @cached_property
    def members(self):
        """Two members of a pack that differ in seed and learning rate: (states, numbers, keys)
        stacked, and the states that single steps give."""
        configs = [self.config, self.config.replace({"optimizer.lr": 0.03})]
        states = [self.started(seed) for seed in range(2)]
        keys = jax.random.split(jax.random.key(1))
        singles = [
            self.step(state, self.batch(0), self.hyper(config), key)
            for state, config, key in zip(states, configs, keys, strict=True)
        ]
        return (_stacked(states), hyper_of(configs), keys), _stacked(singles)

    @cached_property
    def observed(self):
        """((gradient, info, state) of an observed step; outputs and mean loss before it)."""

        def observed(state, batch, hyper, key):
            weights = self.rule.learner.weights(state.params, hyper)
            outputs = self.rule.predict(weights, batch.x, hyper)
            loss = jnp.mean(self.rule.loss(outputs, batch.target))
            return self.rule.observe(state, batch, hyper, key), outputs, loss

        return jax.jit(observed)


def _stacked(trees: list):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@cache
def subject(algorithm: str) -> Subject:
    with _making:
        made = Subject(algorithm)
        made.data  # noqa: B018  (read by one thread, for all)
        return made


_making = Lock()  # Hydra composes one config at a time


def _moved(found, expected, start) -> float:
    """The difference of two states, over the change that the step made."""
    found, expected, start = map(_numbers, (found, expected, start))
    change = norm(difference(expected, start))
    return norm(difference(found, expected)) / change if change else np.inf


def _numbers(state):
    """The numeric leaves of a state's parameters, optimiser and memory, as numpy arrays."""
    return [
        np.asarray(leaf, np.float64)
        for leaf in jax.tree.leaves((state.params, state.optimizer, state.memory))
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]


@contract
def a_step_keeps_the_structure_of_the_state(subject: Subject) -> Measured:
    """`step` returns the tree, the shapes and the types that it was given, so that it can be
    scanned. Measured: leaves that changed."""
    before, after = subject.state, subject.first
    if jax.tree.structure(before) != jax.tree.structure(after):
        return Measured(np.inf, 0)
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return Measured(sum((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in pairs), 0)


@contract
def changing_numbers_traces_nothing_again(subject: Subject) -> Measured:
    """Every dynamic leaf of the config is traced data: after the first step none of them makes a
    new program. Measured: programs beyond one."""
    subject.first  # noqa: B018
    for path, value in subject.config.kind("dynamic").items():
        if value is None or path == "seed":
            continue
        changed = _other(subject.config, path, value)
        if changed.static_key != subject.config.static_key:
            return Measured(np.inf, 0)
        subject.step(subject.state, subject.batch(0), subject.hyper(changed), jax.random.key(2))
    return Measured(subject.traces - 1, 0)


def _other(config: Config, path: str, value) -> Config:
    """The config with another number at a dynamic leaf."""
    for factor, offset in ((0.5, 0.0), (0.75, 0.1), (1.5, 0.1), (1.0, 0.0)):
        other = [factor * v for v in value] if isinstance(value, list) else factor * value + offset
        try:
            if other != value:
                return config.replace({path: other})
        except ConfigError:
            continue
    return config


@contract
def a_vmapped_pack_equals_single_steps(subject: Subject) -> Measured:
    """Members that differ in seed and learning rate, all at once, against one after the other:
    the difference over the change."""
    (states, hyper, keys), expected = subject.members
    data, step = subject.batch(0), subject.rule.step
    packed = jax.jit(jax.vmap(lambda s, h, k: step(s, data, h, k)))
    return Measured(_moved(packed(states, hyper, keys), expected, states), PROMISED)


@contract
def a_mapped_pack_equals_single_steps_bit_for_bit(subject: Subject) -> Measured:
    """Members one after the other inside a program: no bit differs from single steps. An
    accelerator's compiler may choose other kernels for another program: there, to rounding."""
    (states, hyper, keys), expected = subject.members
    data, step = subject.batch(0), subject.rule.step
    packed = jax.jit(lambda *m: jax.lax.map(lambda own: step(own[0], data, *own[1:]), m))
    found = packed(states, hyper, keys)
    if jax.default_backend() != "cpu":
        return Measured(_moved(found, expected, states), PROMISED)
    return Measured(largest(difference(_numbers(found), _numbers(expected))), 0)


@contract
def compiled_and_eager_steps_agree(subject: Subject) -> Measured:
    """The step, operation by operation, against the compiled one: the difference over the
    change."""
    eager = subject.rule.step(
        subject.state, subject.batch(0), jax.tree.map(jnp.asarray, subject.hyper()),
        jax.random.key(1),
    )  # fmt: skip
    return Measured(_moved(eager, subject.first, subject.state), PROMISED)


@contract_of_gradients
def observing_learns_as_stepping_does(subject: Subject) -> Measured:
    """`observe` ends in the state of `step`, and its gradient has the structure of the weights."""
    arguments = (subject.batch(0), subject.hyper(), jax.random.key(1))
    (gradient, _, state), *_ = subject.observed(subject.state, *arguments)
    if jax.tree.structure(gradient) != jax.tree.structure(subject.state.params):
        return Measured(np.inf, PROMISED)
    return Measured(_moved(state, subject.first, subject.state), PROMISED)


@contract_of_gradients
def the_loss_falls(subject: Subject) -> Measured:
    """The loss of what the rule predicts, after 60 batches of digits over that before."""
    state, data = subject.state, [subject.batch(n) for n in range(STEPS)]
    losses = []
    for n in range(STEPS + 1):
        if n in (0, STEPS):
            held = [
                subject.observed(state, data[m], subject.hyper(), jax.random.key(0))[-1]
                for m in range(8)
            ]
            losses.append(float(np.mean(held)))
        if n < STEPS:
            state = subject.step(state, data[n], subject.hyper(), jax.random.key(n))
    return Measured(losses[1] / losses[0], 0.9)


@contract_of_gradients
def predictions_are_finite_numbers(subject: Subject) -> Measured:
    """One number per sample and class. Measured: those that are not finite."""
    arguments = (subject.batch(0), subject.hyper(), jax.random.key(1))
    _, outputs, _ = subject.observed(subject.first, *arguments)
    if outputs.shape != arguments[0].target.shape:
        return Measured(np.inf, 0)
    return Measured(int(np.sum(~np.isfinite(outputs))), 0)


@contract
def a_state_survives_being_written(subject: Subject) -> Measured:
    """A state is a pytree of arrays: written as npz and read back, it goes on with the same
    bits. Measured: leaves that differ."""
    leaves, structure = jax.tree.flatten(subject.first)
    file = io.BytesIO()
    np.savez(file, **{str(n): np.asarray(leaf) for n, leaf in enumerate(leaves)})
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        restored = structure.unflatten([jnp.asarray(stored[str(n)]) for n in range(len(leaves))])
    arguments = (subject.batch(1), subject.hyper(), jax.random.key(3))
    found, expected = (subject.step(s, *arguments) for s in (restored, subject.first))
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return Measured(sum(not np.array_equal(a, b) for a, b in pairs), 0)


@contract
def updates_are_counted_as_they_are_computed(subject: Subject) -> Measured:
    """Twice the relaxation steps: `layer_updates_per_step` grows by the factor by which the loops
    of the program do, and is at least one state a loop; it is None where they have no length.
    Measured: by how much it does not."""
    longer = {
        path: 2 * value
        for path, value in subject.config.kind("static").items()
        if path in ("algorithm.steps", "algorithm.free_steps")
    }
    rules = [subject.rule]
    if longer:
        rules.append(subject._assembled(subject.config.replace(longer))[0])
    updates = [rule.layer_updates_per_step for rule in rules]
    arguments = (subject.state, subject.batch(0), subject.hyper(), jax.random.key(1))
    if None in updates:
        return Measured(0 if np.isnan(flops.count(subject.rule.step, *arguments)) else np.inf, 0)
    least = 1 if subject.rule.learns_by_gradient else 0  # updates of the weights
    if min(updates) < 0 or any(rule.weight_updates_per_step < least for rule in rules):
        return Measured(np.inf, 0)
    if not longer:
        return Measured(0, 0)
    loops = [_loops(jax.make_jaxpr(rule.step)(*arguments).jaxpr) for rule in rules]
    off = abs(updates[1] * loops[0] - updates[0] * loops[1])
    return Measured(off + max(0, loops[0] - updates[0]), 0)


def _loops(jaxpr) -> int:
    """Iterations of all loops of a program, those of nested ones multiplied."""
    count = 0
    for equation in jaxpr.eqns:
        inner = [p for p in equation.params.values() if hasattr(p, "jaxpr") or hasattr(p, "eqns")]
        bodies = sum(_loops(getattr(p, "jaxpr", p)) for p in inner)
        length = equation.params["length"] if equation.primitive.name == "scan" else None
        count += bodies if length is None else length * max(bodies, 1)
    return count
