"""Temporal predictive coding: Tang, Barron & Bogacz 2023, "Sequential Memory with Temporal
Predictive Coding", arXiv 2305.11982.

A network of one step of time predicts it from the step before (`networks/temporal.py`). Of a
sequence x_1 … x_T, with one layer and with two:

    E_t = ½‖x_t - W f(x_{t-1})‖²
    E_t = ½‖z_t - W_r f(z_{t-1})‖² + ½‖x_t - W_o f(z_t)‖²
    infer:  for every t, from the prediction, repeat: z_t ← z_t - γ ∂E_t/∂z_t     (z_{t-1} held)
    learn:  Δθ = -∂/∂θ mean_{B,t} E_t      with all states held: one update for a sequence
    recall: x̂_{t+1} is the prediction from the state inferred at x_t

What comes before a sequence is zero. With one layer nothing is inferred: x is the state. Recall is
online where the x_t are the true ones; offline they are its own predictions, which have no error
(but for what a task rounds to bits), so that z_{t+1} = W_r f(z_t). (The published code updates the
weights after every step of time, but for one linear layer, and starts from random states.)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pcbench.algorithms.base import GradientAlgorithm, Hyper, Info, Trained
from pcbench.energies.energy import per_layer, prediction_energy, total
from pcbench.relaxation.relax import Relaxed, relax
from pcbench.relaxation.updaters import gradient_updater


@dataclass(frozen=True)
class TPC(GradientAlgorithm):
    steps: int
    updater: str = "sgd"

    temporal = True
    abilities = frozenset({"follow"})  # it predicts sequences, no outputs for inputs

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        before, found = self._inferred(weights, batch.x, hyper, measure)
        before, states = jax.tree.map(_merged, (before, found.states))

        def mean_energy(w):
            return total(self._energies(w, before, states)) / len(before)

        gradient = jax.grad(mean_energy)(weights)
        if not measure:
            return gradient, memory, None
        energy = per_layer(self._energies(weights, before, states))[None]
        if found.trace is not None:
            energy = jnp.concatenate([jnp.mean(found.trace, 0), energy])
        residual = self._residual(weights, before, states)
        learned = tuple(_by_sample(h[1:]) for h in found.states)
        return gradient, memory, Info(energy, residual, learned)

    def states(self, weights, x, hyper):
        """Predictions of every step from the true ones before it: (B, (T-1)·units) each."""
        _, found = self._inferred(weights, x, hyper)
        carried = found.states[0][:-1]
        forward = self.network.forward(weights, _merged(carried))
        return tuple(_by_sample(h.reshape(*carried.shape[:2], -1)) for h in forward)

    def reference_gradient(self, weights, batch, hyper):
        """Through the inference of the states."""

        def mean_loss(w):
            return jnp.mean(self.loss(self.predict(w, batch.x, hyper), batch.target))

        return jax.grad(mean_loss)(weights)

    def beginning(self, count: int) -> Array:
        return jnp.zeros((count, *self.network.input_shape), jnp.result_type(float))

    def follow(self, trained: Trained, x: Array, carried: Array, hyper: Hyper):
        carried = self._infer(trained.weights, carried, x, hyper).states[0]
        return self.network.forward(trained.weights, carried)[-1], carried

    # --- inference

    def _inferred(self, weights, x: Array, hyper: Hyper, trace=False) -> tuple[Array, Relaxed]:
        """(the first states of the step before, all states) of every step: (T, B, units) each."""
        x = jnp.moveaxis(x.reshape(*x.shape[:2], -1), 1, 0)

        def step(before, now):
            found = self._infer(weights, before, now, hyper, trace)
            return found.states[0], (before, found)

        return jax.lax.scan(step, self.beginning(x.shape[1]), x)[1]

    def _infer(self, weights, before, x, hyper, trace=False) -> Relaxed:
        """The states of one step with the output held at x, from the prediction."""
        hidden = self.network.forward(weights, before)[:-1]
        if not hidden:
            return Relaxed((x,), (), None)
        numbers = hyper["algorithm"]
        found = relax(
            lambda h: self._energies(weights, before, (*h, x)),
            hidden,
            steps=self.steps,
            updater=gradient_updater(self.updater, numbers["step_size"], numbers["momentum"]),
            trace=trace,
        )
        return Relaxed((*found.states, x), (), found.trace)

    def _energies(self, weights, before, states) -> tuple:
        predictions = self.network.predict(weights, before, states)
        return prediction_energy(self.network, predictions, states, self.loss)

    def _residual(self, weights, before, states) -> Array:
        *hidden, x = states
        if not hidden:
            return jnp.full((), jnp.nan)
        energy = lambda h: total(self._energies(weights, before, (*h, x)))  # noqa: E731
        start = self.network.forward(weights, before)[:-1]
        relaxed, initial = (optax.tree.norm(jax.grad(energy)(tuple(h))) for h in (hidden, start))
        return relaxed / initial

    @property
    def layer_updates_per_step(self):
        return self.network.length * self.steps * (self.network.layers - 1)


def _merged(states: Array) -> Array:
    """(T, B, units) → (T·B, units)."""
    return states.reshape(-1, states.shape[-1])


def _by_sample(states: Array) -> Array:
    """(T, B, units) → (B, T·units)."""
    return jnp.moveaxis(states, 0, 1).reshape(states.shape[1], -1)
