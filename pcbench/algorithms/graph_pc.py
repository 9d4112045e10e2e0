"""Predictive coding on graphs: Salvatori et al. 2022, "Learning on Arbitrary Graph Topologies via
Predictive Coding", arXiv 2201.13180.

Every node v_i has a prediction μ_i from its neighbours, in loops as well:

    E(θ, v) = ½ Σ_i (v_i - μ_i)²        over all nodes; with input_error=false without the input's
    learn:   input and output held at a sample; repeat T times, hidden nodes: v ← v - γ ∂E/∂v
             Δθ = -∂/∂θ mean_B E(θ, v)
    ask:     hold what is known, relax all other nodes, read what was asked for

One graph so predicts outputs, generates inputs for an output and completes inputs. Where all cycles
go through the input, the prediction is the feed-forward pass: the minimum of E for a given input
without the input's own errors.

On a chain of layers (any other network) it is predictive coding, and E has no term of the input.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pcbench.algorithms.base import GradientAlgorithm, Info, Unsupported
from pcbench.energies.energy import layer_energies, per_layer, squared_error, total
from pcbench.networks.graph import Graph
from pcbench.relaxation.relax import Relaxed, relax
from pcbench.relaxation.updaters import gradient_updater


@dataclass(frozen=True)
class GraphPC(GradientAlgorithm):
    """`nodes` are (x, hidden …, output), whatever the network."""

    steps: int
    updater: str = "sgd"
    start: str = "feedforward"  # of hidden and output nodes: feedforward | zeros
    eval_steps: int = 0
    input_error: bool = True

    graphs = True

    def __post_init__(self):
        """Raises Unsupported under other losses and starts."""
        if self.loss is not squared_error:
            raise Unsupported("all nodes have the same energy: choose task.loss=squared_error.")
        if self.start not in ("feedforward", "zeros"):
            raise Unsupported(f"GraphPC starts from feedforward or zeros, not {self.start}.")

    # --- learning

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        start = (*self._start(weights, batch.x)[:-1], batch.target)
        free = (False, *(True for _ in start[1:-1]), False)
        nodes, _, trace = self._relax(weights, start, free, self.steps, hyper, measure)

        def mean_energy(w):
            return total(self.energies(w, nodes)) / len(batch.x)

        gradient = jax.grad(mean_energy)(weights)
        if not measure:
            return gradient, memory, None
        last = per_layer(self.energies(weights, nodes))[None]
        energy = jnp.concatenate([trace, last])
        residual = self._force(weights, nodes) / self._force(weights, start)
        return gradient, memory, Info(energy, residual, self._states(nodes))

    def energies(self, weights: Any, nodes: tuple) -> tuple:
        """One entry per factor, (B,) or of a stack (n, B)."""
        states = self._states(nodes)
        predictions = self.network.predict(weights, nodes[0], states)
        parts = layer_energies("pc", self.network, predictions, states)
        if self._input_predicted and not self.input_error:
            parts = (jnp.zeros_like(parts[0]), *parts[1:])
        return parts

    def _relax(self, weights, start, free, steps, hyper, trace=False) -> Relaxed:
        numbers = hyper["algorithm"]
        return relax(
            lambda nodes: self.energies(weights, nodes),
            start,
            steps=steps,
            updater=gradient_updater(self.updater, numbers["step_size"], numbers["momentum"]),
            free_mask=free,
            trace=trace,
        )

    def _force(self, weights, nodes) -> Array:
        """‖∂E/∂v‖ of the hidden nodes."""
        x, *hidden, output = nodes
        energy = lambda h: total(self.energies(weights, (x, *h, output)))  # noqa: E731
        return optax.tree.norm(jax.grad(energy)(hidden))

    # --- asking

    def states(self, weights, x, hyper):
        if self._acyclic:
            return self.network.forward(weights, x)
        nodes = self._start(weights, x)
        free = (False, *(True for _ in nodes[1:]))
        return self._states(self._relax(weights, nodes, free, self.eval_steps, hyper).states)

    def reference_gradient(self, weights, batch, hyper):
        """Of a graph with cycles through the unrolled relaxation."""

        def mean_loss(w):
            return jnp.mean(self.loss(self.predict(w, batch.x, hyper), batch.target))

        return jax.grad(mean_loss)(weights)

    def generate(self, trained, y, hyper, key):
        """(B, D): the input nodes after `eval_steps` with the output held at y, started at 0."""
        x = jnp.zeros((len(y), *self.network.input_shape), y.dtype)
        start = (*self._start(trained.weights, x)[:-1], y)
        free = (*(True for _ in start[:-1]), False)
        found = self._relax(trained.weights, start, free, self.eval_steps, hyper).states[0]
        return found.reshape(len(y), -1)

    def complete(self, trained, x, known, hyper, key):
        """x (B, …) with its unknown elements after `eval_steps`, started at 0; the output is free.
        known: booleans (B, D) of the flattened input."""
        known = known.reshape(x.shape)
        start = self._start(trained.weights, jnp.where(known, x, 0))
        free = (~known, *(True for _ in start[1:]))
        return self._relax(trained.weights, start, free, self.eval_steps, hyper).states[0]

    # --- nodes and states

    def _start(self, weights, x) -> tuple:
        states = self.network.forward(weights, x)
        nodes = states if self._input_predicted else (x, *states)
        return nodes if self.start == "feedforward" else (x, *map(jnp.zeros_like, nodes[1:]))

    def _states(self, nodes: tuple) -> tuple:
        """One entry per factor: a graph's first one predicts the input."""
        return nodes if self._input_predicted else nodes[1:]

    @property
    def _input_predicted(self) -> bool:
        return isinstance(self.network, Graph)

    @property
    def _acyclic(self) -> bool:
        return not isinstance(self.network, Graph) or self.network.acyclic

    @property
    def layer_updates_per_step(self):
        clamped = 2 if self._input_predicted else 1
        return self.steps * (self.network.layers - clamped)
