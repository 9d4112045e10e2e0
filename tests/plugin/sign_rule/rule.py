"""The sign of backpropagation's gradient, smoothed: g / (|g| + damping·max|g|)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pcbench.algorithms.base import GradientAlgorithm, Info, loss_gradient


@dataclass(frozen=True)
class SignRule(GradientAlgorithm):
    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        damping = hyper["algorithm"]["damping"]
        _, gradient = loss_gradient(self, weights, batch)
        signed = jax.tree.map(
            lambda g: g / (jnp.abs(g) + damping * jnp.max(jnp.abs(g)) + 1e-12), gradient
        )
        return signed, memory, Info.undefined() if measure else None
