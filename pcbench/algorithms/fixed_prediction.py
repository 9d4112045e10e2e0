"""Predictive coding under the fixed-prediction assumption.

Millidge, Tschantz & Buckley 2022, arXiv 2006.04182; Rosenbaum 2022 (Torch2PC), arXiv 2106.13082.
Predictions and Jacobians stay those of the forward pass while the errors relax for T sweeps at
rate γ, all layers at once, with ε_L = -∂loss/∂ŷ held:

    ε_l ← ε_l + γ (J_{l+1}ᵀ ε_{l+1} - ε_l),      Δθ_l = ε_l ∂μ_l/∂θ_l

Layer l's gradient is backpropagation's times P[Binomial(T - 1, γ) ≥ L - l] in a chain: exact for
γ = 1 and T ≥ L.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pcbench.algorithms.base import GradientAlgorithm, Info


@dataclass(frozen=True)
class FixedPrediction(GradientAlgorithm):
    steps: int

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        gamma = hyper["algorithm"]["step_size"]
        states = self.network.forward(weights, batch.x)
        mean_loss = lambda output: jnp.mean(self.loss(output, batch.target))  # noqa: E731
        top = jax.grad(mean_loss)(states[-1])
        predict = lambda w, h: self.network.predict(w, batch.x, (*h, states[-1]))  # noqa: E731
        _, pull = jax.vjp(predict, weights, states[:-1])

        def sweep(errors, _):
            arriving = pull((*errors, top))[1]
            move = lambda e, a: e + gamma * (a - e)  # noqa: E731
            return jax.tree.map(move, errors, arriving), None

        # the first of the T sweeps only sees that hidden errors are zero
        zero = jax.tree.map(jnp.zeros_like, states[:-1])
        errors, _ = jax.lax.scan(sweep, zero, length=self.steps - 1)
        gradient = pull((*errors, top))[0]
        return gradient, memory, Info.undefined() if measure else None

    @property
    def layer_updates_per_step(self):
        return (self.steps - 1) * (self.network.layers - 1)
