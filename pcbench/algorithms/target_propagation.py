"""What the rules of target propagation share; each rule is a file of its own.

With h the states of the forward pass, every layer is given a target and learns to meet it:

    t_L = h_L - η ∂loss/∂h_L                              the output's target
    t_l = a function of t_{l+1} (or of t_L) and of the feedback weights ω
    ĝ   = (1/η) ∂/∂θ mean_B Σ_l ½‖f_l(θ_l, h_{l-1}) - t_l‖²    (h and t held fixed)

Dividing by η puts ĝ on the scale of backpropagation; the output layer's is exactly that. ω lives in
the rule's memory with an optimiser of its own. Each batch first updates ω `feedback_steps` times by
the gradient of a loss of reconstructed states plus λ‖ω‖² (sums over units, means over the batch),
θ held fixed; a weight decay w of a loss that is a mean over n units is λ = wn/2.

Layerwise rules give each layer after the first the feedback g_l(t) = σ(tQ_l + c_l), with σ the
activation of the state that it reconstructs, h_{l-1}.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcbench.algorithms.base import GradientAlgorithm, Info
from pcbench.networks.layers import Declared, Dense
from pcbench.networks.network import Factor, Network
from pcbench.networks.parameterisations import Standard, initialise

OPTIMIZERS = {"sgd": optax.sgd, "adam": optax.adam}


class Feedback(NamedTuple):
    """The memory of a rule: feedback weights ω, and the state of their optimiser."""

    weights: tuple  # one entry per factor, a stack's with its leading axis
    optimizer: Any  # () where the weights stay as drawn


@dataclass(frozen=True)
class TargetPropagation(GradientAlgorithm):
    """The order of events in a batch; a rule is its feedback, its targets and what ω learns."""

    feedback_steps: int = 0
    feedback_optimizer: str = "adam"

    @property
    def declared(self) -> tuple:
        """The declared feedback weights."""
        raise NotImplementedError

    def targets(self, feedback, weights, x, states, output_target, numbers) -> tuple:
        """A target for every state."""
        raise NotImplementedError

    def corrupted(self, x: Array, states: tuple) -> Any:
        """The values that the reconstruction loss adds noise to."""
        raise NotImplementedError

    def reconstruction_loss(self, feedback, weights, x, states, noise, sigma) -> Array:
        """What ω descends besides its decay: a mean over the batch. `noise` ~ N(0, σ²)."""
        raise NotImplementedError

    @property
    def learns_feedback(self) -> bool:
        return self.feedback_steps > 0

    def memory(self, key):
        feedback = initialise(Standard(), key, self.declared) if self.declared else ()
        if not self.learns_feedback:
            return Feedback(feedback, ())
        # the shape of an optimiser's state depends on no number: any will do
        return Feedback(feedback, OPTIMIZERS[self.feedback_optimizer](0.0).init(feedback))

    def own_weights(self, memory):
        return {"feedback": memory.weights} if self.feedback_steps else {}

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        numbers = hyper["algorithm"]
        states = self.network.forward(weights, batch.x)
        if self.learns_feedback:
            memory = self.learn_feedback(memory, weights, batch.x, states, numbers, key)
        eta = numbers["target_step"]
        output_target = states[-1] - eta * output_error(self, states, batch)
        targets = self.targets(memory.weights, weights, batch.x, states, output_target, numbers)
        gradient = local_gradient(self.network, weights, batch.x, states, targets, eta)
        return gradient, memory, Info.undefined() if measure else None

    def learn_feedback(self, memory, weights, x, states, numbers, key) -> Feedback:
        """`feedback_steps` updates, each with noise of its own; θ stays as it is."""
        optimizer = OPTIMIZERS[self.feedback_optimizer](numbers["feedback_lr"])

        def step(memory, key):
            noise = normal_like(key, self.corrupted(x, states), numbers["feedback_noise"])
            gradient = self.feedback_gradient(memory.weights, weights, x, states, noise, numbers)
            updates, state = optimizer.update(gradient, memory.optimizer)
            return Feedback(optax.apply_updates(memory.weights, updates), state), None

        return jax.lax.scan(step, memory, jax.random.split(key, self.feedback_steps))[0]

    def feedback_gradient(self, feedback, weights, x, states, noise, numbers) -> tuple:
        """∂/∂ω of the reconstruction loss plus λ‖ω‖²."""

        def loss(w):
            decay = numbers["feedback_weight_decay"] * optax.tree.norm(w, squared=True)
            sigma = numbers["feedback_noise"]
            return self.reconstruction_loss(w, weights, x, states, noise, sigma) + decay

        return jax.grad(loss)(feedback)

    @property
    def layer_updates_per_step(self) -> int:
        return self.network.layers - 1  # each hidden layer is given one target


def normal_like(key: Array, tree: Any, sigma) -> Any:
    """Noise N(0, σ²) for every value of a pytree, of one draw: each draw costs time to compile."""
    leaves, structure = jax.tree.flatten(tree)
    if not leaves:
        return tree
    sizes = [leaf.size for leaf in leaves]
    noise = sigma * jax.random.normal(key, (sum(sizes),), jnp.result_type(float))
    parts = jnp.split(noise, np.cumsum(sizes)[:-1])
    return structure.unflatten(
        part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
    )


def output_error(algorithm: GradientAlgorithm, states: tuple, batch) -> Array:
    """∂loss/∂h_L of each sample: (B, C)."""
    return jax.grad(lambda o: jnp.sum(algorithm.loss(o, batch.target)))(states[-1])


def local_gradient(network: Network, weights, x, states: tuple, targets: tuple, eta):
    """(1/η) ∂/∂θ mean_B Σ_l ½‖f_l(θ_l, h_{l-1}) - t_l‖²: no layer hears of another's weights."""

    def energy(w):
        predictions = network.predict(w, x, states)
        squares = [jnp.sum((p - t) ** 2) for p, t in zip(predictions, targets, strict=True)]
        return 0.5 * sum(squares) / (eta * x.shape[0])

    return jax.grad(energy)(weights)


# --- layerwise feedback


@dataclass(frozen=True)
class Layerwise(TargetPropagation):
    """Targets travel down layer by layer: t_{l-1} = `carry`(g_l, t_l, h_l, h_{l-1})."""

    biased = True  # whether g has its c

    def __post_init__(self):
        for k, factor in enumerate(self.network.factors):
            if reason := self._no_feedback(k, factor):
                raise ValueError(
                    f"feedback from layer to layer is defined for chains of dense layers; {reason}."
                )

    def _no_feedback(self, k: int, factor: Factor) -> str | None:
        module = factor.module
        if factor.sources != (k - 1,):
            return f"factor {k} reads other states than the one before it"
        if type(module) is not Dense:
            return f"factor {k} is a {type(module).__name__}"
        if module.skip:
            return f"factor {k} has a skip connection"
        hidden = {f.activation.name for f in self.network.factors[:-1]}
        return f"the hidden layers have several activations: {hidden}" if len(hidden) > 1 else None

    @property
    def declared(self):
        return declared_layerwise(self.network, self.biased)

    def carry(self, g: Callable, target: Array, state: Array, source: Array) -> Array:
        """t_{l-1}; by default with the difference correction, which makes h its own target."""
        return source + g(target) - g(state)

    def g(self, k: int) -> Callable:
        """The feedback function of a layer of factor k, of (its weights, a state or target)."""
        activation = self.network.factors[0].activation  # that of every hidden layer

        def g(q, t):
            return activation(t @ q["Q"] + q.get("c", 0.0))

        return g

    def targets(self, feedback, weights, x, states, output_target, numbers):
        return self.down_to(0, feedback, x, states, output_target)

    def down_to(self, first: int, feedback, x, states, target) -> tuple:
        """From the output's target to those of factors `first` and above."""
        targets = ()
        for k in reversed(range(first, len(states))):
            inputs = layer_inputs(self.network, k, x, states)

            def layer(t, layer_of, k=k):
                q, h, source = layer_of
                return self.carry(partial(self.g(k), q), t, h, source), t

            if self.network.factors[k].length is not None:
                down = (feedback[k], states[k], inputs)
                target, stacked = jax.lax.scan(layer, target, down, reverse=True)
                targets = (stacked, *targets)
            else:
                targets = (target, *targets)
                if k:
                    target, _ = layer(target, (feedback[k], states[k], inputs))
        return targets

    def corrupted(self, x, states):
        """By default the source of every layer that has a feedback; None for a first layer."""
        return tuple(
            layer_inputs(self.network, k, x, states) if entry else None
            for k, entry in enumerate(self.declared)
        )

    def per_layer(self, loss: Callable, feedback, weights, x, states, noise) -> Array:
        """mean_B Σ_l `loss`(f_l, g_l, h_{l-1}, noise_l), of losses (B,)."""
        total = jnp.zeros(())
        for k, factor in enumerate(self.network.factors):
            if not feedback[k]:
                continue

            def layer(p, q, h, xi, k=k, factor=factor):
                return loss(partial(factor.apply, p), partial(self.g(k), q), h, xi)

            if factor.length is not None:
                layer = jax.vmap(layer)
            source = layer_inputs(self.network, k, x, states)
            total += jnp.sum(layer(weights[k], feedback[k], source, noise[k]))
        return total / x.shape[0]


def layer_inputs(network: Network, k: int, x: Array, states: tuple) -> Array:
    """h_{l-1} of factor k's layers: (B, …), of a stack (n, B, …)."""
    source = network.sources(k, x, states)[0]
    if network.factors[k].length is None:
        return source
    return jnp.concatenate([source[None], states[k][:-1]])


def declared_layerwise(network: Network, biased: bool) -> tuple:
    """Per factor {Q: (features, source), c: (source,)}; {} of a first layer, whose source is given.

    A stack's Q and c have its leading axis.
    """
    entries: list[dict] = []
    for k, factor in enumerate(network.factors):
        if not k and factor.length is None:
            entries.append({})
            continue
        source, features = network.declared[k]["W"].value.shape[-2:]
        shapes = {"Q": (features, source)} | ({"c": (source,)} if biased else {})
        entries.append({n: _declare(s, features, factor.length) for n, s in shapes.items()})
    return tuple(entries)


# --- direct feedback, from the output to every hidden state


def declared_direct(network: Network) -> tuple:
    """Q_l: (C, units) for every hidden state, of any shape; a stack's has its leading axis."""
    *hidden, output = network.state_shapes(1)
    return tuple(
        _declare((output.size, h.size // (factor.length or 1)), output.size, factor.length)
        for factor, h in zip(network.factors, hidden, strict=False)
    )


def project(q: Array, output: Array, state: Array) -> Array:
    """Q_l · output, in the shape of the state: (C, units), (B, C) → (B, …); (n, …) of a stack."""
    return (output @ q).reshape(state.shape)


def _declare(shape: tuple[int, ...], fan_in: int, length: int | None) -> Declared:
    shape = shape if length is None else (length, *shape)
    return Declared(jax.ShapeDtypeStruct(shape, jnp.float32), "hidden", "weight", fan_in)
