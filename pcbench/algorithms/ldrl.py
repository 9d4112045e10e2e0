"""Local difference reconstruction loss (L-DRL; Ernoult et al. 2022, arXiv 2201.13415).

Targets as in DTP, t_{l-1} = h_{l-1} + g_l(t_l) - g_l(h_l), but feedback that learns to be the
*transpose* of the layer's Jacobian: with s = f_l(h) at h = h_{l-1}, and dx, dy ~ N(0, σ²),

    ω descends (1/σ²) Σ_l -2⟨dx, g_l(f_l(h + dx)) - g_l(s)⟩ + ‖g_l(s + dy) - g_l(s)‖²

which for small σ is ‖J_g - J_fᵀ‖² - ‖J_f‖² on average. Where J_g = J_fᵀ, (h - t)/η is the error of
backpropagation up to O(η). (The paper's loss is without 1/σ², which keeps the size of an update
independent of σ.) The form of g is that of the authors of FW-DTP, who have this rule as a baseline;
in Ernoult's code g applies σ before its linear map, as a transposed Jacobian of σ(hW) does, so that
with tanh g can be the transpose only where σ' is near 1. What else: `target_propagation.py`.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from pcbench.algorithms.target_propagation import Layerwise


@dataclass(frozen=True)
class LDRL(Layerwise):
    def corrupted(self, x, states):
        """Of every layer with a feedback, the source and the state."""
        sources = super().corrupted(x, states)
        return tuple(h if h is None else (h, s) for h, s in zip(sources, states, strict=True))

    def reconstruction_loss(self, feedback, weights, x, states, noise, sigma):
        def loss(f, g, h, noise):
            dx, dy = noise
            s = f(h)
            correlation = jnp.sum(dx * (g(f(h + dx)) - g(s)), -1)
            spread = jnp.sum((g(s + dy) - g(s)) ** 2, -1)
            return (spread - 2 * correlation) / sigma**2

        return self.per_layer(loss, feedback, weights, x, states, noise)
