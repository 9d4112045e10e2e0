"""Bidirectional predictive coding (Oliviers, Tang & Bogacz 2025, arXiv 2505.23415).

Every layer is predicted from below by weights V, the network's own, and from above by weights W, a
mirrored network from the label x_L to the input x_1. With f the activation (`model.states=pre`; a
network of `post` states has f around the weights instead, in both directions):

    E = Σ_{l<L} ½a_gen ‖x_l - W_{l+1} f(x_{l+1})‖² + Σ_{l>1} a_disc loss(V_{l-1} f(x_{l-1}), x_l)

where loss(μ, x) is ½‖x - μ‖², at the label that of the task. Input and label enter without f.

    x_1 and x_L clamped, the others from the bottom-up sweep
    repeat T times:  x_l ← x_l - γ ∂E/∂x_l   (1 < l < L, all at once, per sample)
    ΔV = -∂/∂V mean_B E,  ΔW = -∂/∂W mean_B E   (the states held fixed; one optimiser for both)

Limits, in `generative_weight` a_gen and `discriminative_weight` a_disc:

- a_gen = 0: discriminative predictive coding; W does not learn.
- a_disc = 0: generative predictive coding, that of W with label and input exchanged; V only starts
  the states, and does not learn.
- a_disc → 0: hybrid predictive coding (Tschantz et al. 2023). The states follow W alone, and V
  learns to predict where they end, by a gradient in proportion to a_disc: an optimiser that ignores
  the scale of gradients (Adam) learns at full speed.

Pixels outnumber labels, so that classification needs a_gen well below a_disc.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pcbench.algorithms.base import (
    Algorithm,
    Batch,
    Hyper,
    Info,
    OwnWeights,
    State,
    Trained,
    Unsupported,
)
from pcbench.energies.energy import per_layer, prediction_energy, squared_error, total
from pcbench.networks.activations import IDENTITY
from pcbench.networks.layers import Dense
from pcbench.networks.network import Factor, Network
from pcbench.relaxation.relax import Relaxed, relax
from pcbench.relaxation.updaters import MIRROR, PROJECTED, gradient_updater


@dataclass(frozen=True)
class BPC(Algorithm):
    """`nodes` below are x_1 … x_L, from input to label: L arrays (B, units)."""

    steps: int
    updater: str = "sgd"
    eval_steps: int = 0  # of `generate` and `infer`

    def __post_init__(self):
        if reason := _not_mirrored(self.network):
            raise Unsupported(
                f"bidirectional predictive coding mirrors a chain of dense layers; {reason}. "
                "Use model=mlp or model=linear."
            )
        if self.updater in (PROJECTED, MIRROR):
            raise Unsupported(
                f"updater={self.updater} is not for states that are predicted from two sides; use "
                "an optax optimiser, such as updater=sgd."
            )

    @cached_property
    def top_down(self):
        """The learner of W."""
        return replace(self.learner, network=mirrored(self.network))

    def memory(self, key):
        return OwnWeights(*self.top_down.init(key))

    def own_weights(self, memory):
        return {"top_down": memory.params}

    # --- learning

    def step(self, state, batch, hyper, key):
        return self._step(state, batch, hyper)[-1]

    def observe(self, state, batch, hyper, key):
        """The gradient is V's. A layer's energy is that of both of its weights: V between x_l and
        x_{l+1}, and W."""
        return self._step(state, batch, hyper, measure=True)

    def _step(self, state: State, batch: Batch, hyper: Hyper, measure=False):
        v = self.learner.weights(state.params, hyper)
        w = self.top_down.weights(state.memory.params, hyper)
        (for_v, for_w), info = self.gradients(v, w, batch, hyper, measure)
        params, optimizer = self.learner.update(
            state.params, state.optimizer, for_v, state.step, hyper
        )
        memory = OwnWeights(*self.top_down.update(*state.memory, for_w, state.step, hyper))
        return for_v, info, State(params, optimizer, memory, state.step + 1)

    def gradients(self, v, w, batch: Batch, hyper: Hyper, measure=False):
        """((∂/∂V, ∂/∂W) mean_B E at the relaxed states, info): v, w are effective weights."""
        numbers = hyper["algorithm"]
        start = [*self._sweep(v, batch.x)[:-1], batch.target]
        nodes, _, trace = self.relax(v, w, start, numbers, self.steps, trace=measure)

        def mean_energy(v, w):
            return total(self.energies(v, w, nodes, numbers)) / batch.x.shape[0]

        gradients = jax.grad(mean_energy, (0, 1))(v, w)
        if not measure:
            return gradients, None
        last = per_layer(self.energies(v, w, nodes, numbers))[None]
        upward, downward = jnp.split(jnp.concatenate([trace, last]), 2, axis=1)
        residual = self._residual(v, w, start, nodes, numbers)
        states = as_factors(self.network, nodes[1:])
        return gradients, Info(upward + downward[:, ::-1], residual, states)

    def energies(self, v, w, nodes: list, numbers: dict, known=({}, {})) -> tuple:
        """E per factor: those of V, input to label, then those of W, label to input. `known`:
        predictions of either network that need no computing."""
        up, down = self.network, self.top_down.network
        above, below = as_factors(up, nodes[1:]), as_factors(down, nodes[-2::-1])
        upward = up.predict(v, nodes[0], above, known[0])
        downward = down.predict(w, nodes[-1], below, known[1])
        upward = prediction_energy(up, upward, above, self.loss)
        downward = prediction_energy(down, downward, below, squared_error)
        a_disc, a_gen = numbers["discriminative_weight"], numbers["generative_weight"]
        return (*(a_disc * e for e in upward), *(a_gen * e for e in downward))

    def relax(
        self, v, w, nodes: list, numbers: dict, steps: int, free=(False, False), trace=False
    ) -> Relaxed:
        """`steps` updates of the hidden nodes, and of the input and the label where `free`."""
        known = tuple(
            {} if moves else {0: network.factors[0].apply(weights[0], end)}
            for network, weights, end, moves in (
                (self.network, v, nodes[0], free[0]),
                (self.top_down.network, w, nodes[-1], free[1]),
            )
        )
        return relax(
            lambda moved: self.energies(v, w, moved, numbers, known),
            nodes,
            steps=steps,
            updater=gradient_updater(self.updater, numbers["step_size"], numbers["momentum"]),
            free_mask=[free[0], *(True for _ in nodes[1:-1]), free[1]],
            trace=trace,
        )

    def _sweep(self, v, x: Array) -> list:
        """The nodes of the bottom-up sweep."""
        return [x.reshape(len(x), -1), *as_layers(self.network, self.network.forward(v, x))]

    def _residual(self, v, w, start: list, nodes: list, numbers) -> Array:
        if len(nodes) == 2:
            return jnp.full((), jnp.nan)
        ends = (nodes[0], nodes[-1])
        force = jax.grad(lambda h: total(self.energies(v, w, [ends[0], *h, ends[1]], numbers)))
        return optax.tree.norm(force(nodes[1:-1])) / optax.tree.norm(force(start[1:-1]))

    # --- what it can be asked for (`predict`: the bottom-up sweep)

    def infer(self, trained: Trained, x: Array, hyper: Hyper) -> Array:
        """Labels (B, C) by `eval_steps` of inference from the bottom-up sweep, the input (B, …)
        clamped and the label free: what `predict`, which has only V, becomes with W. Raises
        Unsupported under cross-entropy, which has no energy of a free label."""
        if self.loss is not squared_error:
            raise Unsupported("a label is inferred under task.loss=squared_error only.")
        numbers, w = hyper["algorithm"], self.top_down.weights(trained.memory.params, hyper)
        start = self._sweep(trained.weights, x)
        return self.relax(
            trained.weights, w, start, numbers, self.eval_steps, free=(False, True)
        ).states[-1]

    def generate(self, trained: Trained, y: Array, hyper: Hyper, key: Array) -> Array:
        """Inputs (B, D) for labels (B, C): the top-down sweep, where E's top-down part is least
        (zero), then `eval_steps` of inference of all but the label."""
        numbers, w = hyper["algorithm"], self.top_down.weights(trained.memory.params, hyper)
        down = self.top_down.network
        start = [*reversed(as_layers(down, down.forward(w, y))), y]
        return self.relax(
            trained.weights, w, start, numbers, self.eval_steps, free=(True, False)
        ).states[0]

    @property
    def layer_updates_per_step(self):
        return self.steps * (self.network.layers - 1)


# --- the mirrored network


def mirrored(network: Network) -> Network:
    """From the output to the flattened input: for each factor, in reverse order, one that predicts
    its source from its state. The hidden states keep the activations that they have as targets and
    as sources; the input, as the output before it, is linear."""
    *hidden, output = network.factors
    factors: list[Factor] = []
    for k, factor in reversed(list(enumerate(network.factors))):
        first, last = not factors, not k
        layer = Dense(
            network.declared[k]["W"].value.shape[-2],
            role="output" if last else "input" if first else "hidden",
            activation=IDENTITY if last else hidden[0].activation,
            source_activation=IDENTITY if first else output.module.source_activation,
            bias=factor.module.bias,
        )
        factors.append(Factor(layer, (len(factors) - 1,), factor.length))
    return Network(tuple(factors), (output.module.features,))


def _not_mirrored(network: Network) -> str | None:
    """Why a network has no mirror image; None where it has one."""
    for k, factor in enumerate(network.factors):
        if factor.sources != (k - 1,):
            return f"factor {k} reads other states than the one before it"
        if type(factor.module) is not Dense:
            return f"factor {k} is a {type(factor.module).__name__}"
        if factor.module.skip or factor.module.average:
            return f"factor {k} {'has a skip connection' if factor.module.skip else 'averages'}"
        if factor.length is not None and k in (0, len(network.factors) - 1):
            return f"factor {k}, at an end of the network, is a stack"
    targets = {factor.activation for factor in network.factors[:-1]}
    sources = {factor.module.source_activation for factor in network.factors[1:]}
    if len(targets) > 1 or len(sources) > 1:
        return "the hidden layers have several activations"
    return None


def as_layers(network: Network, states: tuple) -> list:
    """States per factor → per layer: (B, units) each."""
    layers: list = []
    for factor, state in zip(network.factors, states, strict=True):
        layers += [state] if factor.length is None else list(state)
    return layers


def as_factors(network: Network, layers: list) -> tuple:
    """States per layer → per factor; of a stack (n, B, units)."""
    remaining, states = list(layers), []
    for factor in network.factors:
        own = [remaining.pop(0) for _ in range(factor.length or 1)]
        states.append(own[0] if factor.length is None else jnp.stack(own))
    return tuple(states)
