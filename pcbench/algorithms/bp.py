"""Backpropagation (Rumelhart, Hinton & Williams 1986): the gradient of the mean loss.

Δθ = -∂/∂θ mean_B loss(ŷ(θ, x), y)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pcbench.algorithms.base import GradientAlgorithm, Info, loss_gradient


@dataclass(frozen=True)
class BP(GradientAlgorithm):
    eval_steps: int = 0

    def recall(self, trained, x, y, known, hyper, key):
        """Iterates y ← the network's output for y, the known elements re-clamped; (B, C)."""

        def step(_, current):
            output = self.predict(trained.weights, current.reshape(x.shape), hyper)
            return jnp.where(known, y, output)

        return jax.lax.fori_loop(0, self.eval_steps or 1, step, y)

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        _, gradient = loss_gradient(self, weights, batch)
        return gradient, memory, Info.undefined() if measure else None
