"""Predictive coding.

Whittington & Bogacz 2017, Neural Computation 29(5); in the form of PCX: Pinchetti et al. 2024,
"Benchmarking Predictive Coding Networks - Made Simple", arXiv 2407.01163.

With x clamped, states at the feed-forward pass and the output state held at h_L:

    F(θ, h) = Σ_{l<L} ½π_l‖h_l - μ_l(h_{l-1})‖² + π_L loss(μ_L(h_{L-1}), h_L)
    repeat T times:  h_l ← h_l - γ ∂F/∂h_l   (l < L, all at once, per sample)
    Δθ = -(1/β) ∂/∂θ mean_B F(θ, h)

Without nudging h_L = y and β = 1. Nudging (squared error) holds the output at ŷ - β(ŷ - y), fixed
before relaxation: β > 0 towards the target (`positive`), β < 0 away from it (`negative`), or a sign
per epoch (`centred`). Over epochs e: |β| = beta + e·beta_increment, at most 1; as in the published
code a `negative` nudging that reaches 1 becomes plain PC (β = +1).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import GradientAlgorithm, Info
from pcbench.energies.energy import per_factor, per_layer, prediction_energy, total
from pcbench.relaxation.frontier import Window, windows
from pcbench.relaxation.relax import relax
from pcbench.relaxation.updaters import gradient_updater


@dataclass(frozen=True)
class PC(GradientAlgorithm):
    steps: int
    updater: str = "sgd"
    start: str = "feedforward"
    schedule: str = "sync"
    energy: str = "pc"
    nudging: str = "none"

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        numbers = hyper["algorithm"]
        forward = self.network.forward(weights, batch.x)
        beta = self.beta(numbers, batch.epoch)
        output = batch.target
        if self.nudging != "none":
            output = forward[-1] - beta * (forward[-1] - batch.target)

        def energies(w, hidden, known):
            """F's terms; predictions in `known` are those of the feed-forward pass."""
            states = (*hidden, output)
            predictions = self.network.predict(w, batch.x, states, {k: forward[k] for k in known})
            precisions = numbers.get("precisions")
            if precisions is not None:
                precisions = per_factor(self.network, precisions)
            return prediction_energy(self.network, predictions, states, self.loss, precisions)

        hidden, updater_state, traces = self._start(forward), None, []
        updater = gradient_updater(self.updater, numbers["step_size"], numbers["momentum"])
        for window in self._windows() if hidden else ():
            hidden, updater_state, trace = relax(
                lambda h, known=window.known: energies(weights, h, known),
                hidden,
                steps=window.steps,
                updater=updater,
                free_mask=window.free[:-1],
                discount=numbers.get("step_discount"),
                updater_state=updater_state,
                trace=measure,
            )
            traces.append(trace)

        def mean_energy(w):
            return total(energies(w, hidden, ())) / batch.x.shape[0]

        gradient = jax.tree.map(lambda g: g / beta, jax.grad(mean_energy)(weights))
        if not measure:
            return gradient, memory, None
        if not hidden:  # one layer: nothing relaxes
            parts = per_layer(energies(weights, hidden, ()))
            return gradient, memory, Info(parts[None], jnp.full((), jnp.nan))
        constant = self._constant()
        forces = jax.grad(lambda h: total(energies(weights, h, constant)))
        info = Info(
            jnp.concatenate([*traces, per_layer(energies(weights, hidden, constant))[None]]),
            _norm(forces(hidden)) / _norm(forces(self._start(forward))),
        )
        return gradient, memory, info

    def beta(self, numbers: dict[str, Array], epoch: Array) -> Array | float:
        """Signed strength of the nudging in an epoch (counted from 0)."""
        if self.nudging == "none":
            return 1.0
        size = numbers["beta"] + epoch * numbers["beta_increment"]
        if self.nudging == "positive":
            return jnp.minimum(size, 1.0)
        if self.nudging == "negative":
            return jnp.where(size < 1.0, -size, 1.0)
        signs = numbers.get("beta_signs")
        sign = 1.0 - 2.0 * (epoch % 2) if signs is None else signs[epoch]
        return sign * jnp.minimum(size, 1.0)

    def _start(self, forward: tuple) -> tuple:
        hidden = forward[:-1]
        return hidden if self.start == "feedforward" else jax.tree.map(jnp.zeros_like, hidden)

    def _constant(self) -> tuple[int, ...]:
        """Factors whose prediction no free state enters: constant during relaxation."""
        factors = self.network.factors
        return tuple(k for k, f in enumerate(factors) if not f.length and max(f.sources) < 0)

    def _windows(self):
        if self.start == "feedforward":
            return list(windows(self.network, self.steps))
        free = (*(True for _ in self.network.factors[:-1]), False)
        return [Window(self.steps, free, self._constant())] if self.steps else []

    @property
    def layer_updates_per_step(self) -> int:
        return self.steps * (self.network.layers - 1)


def _norm(tree) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
