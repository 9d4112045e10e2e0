"""Target propagation (Bengio 2014, arXiv 1407.7906): layers are given targets by learned inverses.

    t_{l-1} = g_l(t_l)                                      no difference correction
    ω descends Σ_l ‖g_l(f_l(h + ξ)) - (h + ξ)‖² at h = h_{l-1},  ξ ~ N(0, σ²)

Where g_l is no exact inverse, t_{l-1} - h_{l-1} holds its error of reconstruction, whatever the
output wants: hence DTP. What else: `target_propagation.py`.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from pcbench.algorithms.target_propagation import Layerwise


@dataclass(frozen=True)
class TP(Layerwise):
    def carry(self, g, target, state, source):
        return g(target)

    def reconstruction_loss(self, feedback, weights, x, states, noise, sigma):
        return self.per_layer(reconstruction, feedback, weights, x, states, noise)


def reconstruction(f, g, h, xi):
    """‖g(f(h + ξ)) - (h + ξ)‖² of each sample: (B,)."""
    return jnp.sum((g(f(h + xi)) - (h + xi)) ** 2, -1)
