"""The contract of a learning rule.

An algorithm is `(init, step)` over static structure. What the next step needs is its `State`, one
serialisable pytree; what the log needs is its `Info`. All numbers that a sweep may vary arrive in
`hyper`, a traced pytree `{group: {key: number}}`, so changing one compiles nothing.

Most rules produce a gradient for the optimiser: they subclass `GradientAlgorithm` and write
`gradient`. Weights reach a rule *effective*, that is with the parameterisation's forward multiplier
folded in.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.energies.energy import Loss
from pcbench.networks.network import Network

Hyper = dict[str, dict[str, Array]]

# What a rule may offer beside learning. With `trained: Trained`, x an input (B, …), y an output
# (B, C), all on the scales that the rule learns from:
ABILITIES = (
    "predict",  # (weights, x, hyper) → y
    "generate",  # (trained, y, hyper, key) → an input for it, (B, D) flattened
    "reconstruct",  # (trained, x, y, hyper, key) → the output again, from the states inferred of it
    "complete",  # (trained, x, known, hyper, key) → x with its unknown elements filled in
    "recall",  # (trained, x, y, known, hyper, key) → y with its unknown elements filled in
    "associate",  # (trained, x, hyper) → the y that was learned with x
    "store",  # (weights, x, y) → the memory of these examples, of rules that learn from others
    "separate",  # (trained, x) → the sources of mixtures, (B, C)
    "follow",  # (trained, x, carried, hyper) → (what follows x in a sequence, (B, D) each, carried)
    "sample",  # (trained, count, hyper, key) → (count, C) outputs, of networks with a prior
)


class Batch(NamedTuple):
    """Inputs (B, …), targets (B, C), the samples' places in the training set (B,), the epoch ()."""

    x: Array
    target: Array
    index: Array
    epoch: Array


class Unsupported(ValueError):
    """A rule that cannot work on this network or loss. Raised when it is constructed; says why."""


class Sizes(NamedTuple):
    """What a rule that remembers states must know of the data."""

    samples: int  # in the training set
    batch: int
    outputs: int = 0  # C


class State(NamedTuple):
    """What training carries from one batch to the next."""

    params: Any  # drawn parameters, without forward multipliers
    optimizer: Any  # of the weights
    memory: Any  # the rule's own: () for a rule that remembers nothing
    step: Array  # weight updates so far, ()


class OwnWeights(NamedTuple):
    """The memory of a rule that learns weights beside the network's."""

    params: Any  # drawn, without forward multipliers
    optimizer: Any


class Trained(NamedTuple):
    """What an evaluation is given of a run's state."""

    weights: Any  # effective
    memory: Any


class Info(NamedTuple):
    """What a rule measured while it computed one gradient; NaN where it has no such thing."""

    energy: Array  # (steps + 1, L): mean energy per layer before the first step … after the last
    residual: Array  # rms of ∂F/∂h over the free states after relaxation, over that before
    states: Any = ()  # of the batch after relaxation with the target, one entry per factor

    @classmethod
    def undefined(cls) -> "Info":
        nan = jnp.full((), jnp.nan)
        return cls(nan[None, None], nan)

    @property
    def energy_initial(self) -> Array:
        return jnp.sum(self.energy[0])

    @property
    def energy_relaxed(self) -> Array:
        return jnp.sum(self.energy[-1])

    @property
    def output_energy_ratio(self) -> Array:
        return self.energy[-1, -1] / self.energy[0, -1]


class Learner(Protocol):
    """Parameters, their scaling and their optimiser: `training/learner.py`."""

    def init(self, key: Array) -> tuple[Any, Any]: ...
    def weights(self, params: Any, hyper: Hyper) -> Any: ...
    def update(
        self, params: Any, optimizer: Any, gradient: Any, step: Array | float, hyper: Hyper
    ) -> tuple[Any, Any]:
        """`step` counts batches: the learning-rate schedule is a function of it."""


@dataclass(frozen=True)
class Algorithm:
    """Static structure that every rule has; subclasses add their own static choices as fields.

    A rule that does not learn by gradient has no weights: no `observe`, nothing that a probe could
    measure.
    """

    learns_by_gradient = True
    infers = False  # whether hidden states can be inferred from the output alone
    generative = False  # whether it learns in no other networks than generative ones
    graphs = False  # whether it learns on a `networks.graph.Graph`
    temporal = False  # whether it learns on a `networks.temporal.Temporal`

    network: Network
    loss: Loss
    learner: Learner
    sizes: Sizes = field(default=Sizes(0, 0), kw_only=True)

    def init(self, key: Array) -> State:
        params, optimizer = self.learner.init(key)
        memory = self.memory(jax.random.fold_in(key, 1))
        return State(params, optimizer, memory, jnp.zeros((), jnp.int32))

    def memory(self, key: Array) -> Any:
        """What the rule itself carries between batches, at the start."""
        return ()

    def own_weights(self, memory: Any) -> dict[str, Any]:
        """The weights in a memory by name: kept with a run's results, and counted."""
        return {}

    def step(self, state: State, batch: Batch, hyper: Hyper, key: Array) -> State:
        """Learn from one batch."""
        raise NotImplementedError

    def observe(
        self, state: State, batch: Batch, hyper: Hyper, key: Array
    ) -> tuple[Any, Info, State]:
        """(gradient with respect to the effective weights, info, the state after the step), for
        the log: the step that `step` makes, with its measurements."""
        raise NotImplementedError

    def states(self, weights: Any, x: Array, hyper: Hyper) -> tuple:
        """The states of a prediction for inputs (B, …), one entry per factor."""
        return self.network.forward(weights, x)

    def noise(self, numbers: dict[str, Array]) -> Array | None:
        """Standard deviation of what is added to the gradient of the states at every step of a
        relaxation; None: nothing."""
        return None

    @property
    def abilities(self) -> frozenset[str]:
        """What the rule can be asked for of ABILITIES: the methods that it has, those here and its
        own. A task names those that it needs."""
        own = frozenset(name for name in ABILITIES if hasattr(self, name))
        own = own if self.network.has_prior else own - {"sample"}
        return own - {"associate"} if self.network.generative else own

    def predict(self, weights: Any, x: Array, hyper: Hyper) -> Array:
        """Outputs (B, C) for inputs (B, …); logits under cross-entropy."""
        return self.states(weights, x, hyper)[-1]

    def reconstruct(self, trained: Trained, x: Array, y: Array, hyper: Hyper, key: Array) -> Array:
        """The output y as the network makes it: (B, C)."""
        return self.predict(trained.weights, x, hyper)

    def associate(self, trained: Trained, x: Array, hyper: Hyper) -> Array:
        """Outputs (B, C) for inputs (B, …) that may be corrupted."""
        return self.predict(trained.weights, x, hyper)

    def beginning(self, count: int) -> Any:
        """What `follow` carries before `count` sequences begin."""
        return ()

    def reference_gradient(self, weights: Any, batch: Batch, hyper: Hyper) -> Any:
        """The exact gradient of the loss of what `predict` returns: by backpropagation."""
        return loss_gradient(self, weights, batch)[1]

    @property
    def layer_updates_per_step(self) -> int | None:
        """Updates of one layer's states in one `step`: relaxation steps × hidden layers. None of
        relaxations that end where they are at rest."""
        return 0

    @property
    def weight_updates_per_step(self) -> int:
        return 1


class GradientAlgorithm(Algorithm):
    """A rule that hands one gradient per batch to the optimiser."""

    def gradient(
        self, weights: Any, memory: Any, batch: Batch, hyper: Hyper, key: Array, measure=False
    ) -> tuple[Any, Any, Info | None]:
        """(gradient with respect to the effective weights: a mean over the batch; memory; info).

        `measure` (static) asks for the `Info`, which costs extra energies and gradients.
        """
        raise NotImplementedError

    def step(self, state: State, batch: Batch, hyper: Hyper, key: Array) -> State:
        return self._step(state, batch, hyper, key)[-1]

    def observe(self, state, batch, hyper, key):
        return self._step(state, batch, hyper, key, measure=True)

    def _step(self, state, batch, hyper, key, measure=False):
        weights = self.learner.weights(state.params, hyper)
        gradient, memory, info = self.gradient(weights, state.memory, batch, hyper, key, measure)
        params, optimizer = self.learner.update(
            state.params, state.optimizer, gradient, state.step, hyper
        )
        return gradient, info, State(params, optimizer, memory, state.step + 1)


def loss_gradient(algorithm: Algorithm, weights: Any, batch: Batch) -> tuple[Array, Any]:
    """(mean loss of the feed-forward prediction, its gradient): what backpropagation computes."""

    def mean_loss(w):
        return jnp.mean(algorithm.loss(algorithm.network.forward(w, batch.x)[-1], batch.target))

    return jax.value_and_grad(mean_loss)(weights)


def flat(x: Array) -> Array:
    """(B, …) → (B, D)."""
    return x.reshape(x.shape[0], -1)
