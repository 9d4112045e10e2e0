"""Difference target propagation (Lee, Zhang, Fischer & Bengio 2015, arXiv 1412.7525).

    t_{l-1} = h_{l-1} + g_l(t_l) - g_l(h_l)

`feedback_loss`:

- `reconstruction`: Σ_l ‖g_l(f_l(h + ξ)) - (h + ξ)‖² at h = h_{l-1}, ξ ~ N(0, σ²). In a linear layer
  the optimum is CAᵀ(ACAᵀ)⁻¹, C = E[hhᵀ] + σ²I: an inverse weighted by the data.
- `drl`, the difference reconstruction loss (DTPDRL; Meulemans et al. 2020, arXiv 2006.14331): layer
  l-1 alone is corrupted, h̃ = h_{l-1} + ξ, the change runs up to the output and, as a target, down
  again; g_l descends ‖ĥ - h̃‖²/σ² + λ‖ω‖², ĥ what arrives (the feedback above it held fixed). In a
  linear network targets then are Gauss–Newton's: the way down is Jᵀ(JJᵀ + λI)⁻¹, J = ∂h_L/∂h_{l-1}.

The output layer and the last hidden one learn as the others do (Lee et al. gave these true
gradients). What else: `target_propagation.py`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.target_propagation import Layerwise, layer_inputs
from pcbench.algorithms.tp import reconstruction


@dataclass(frozen=True)
class DTP(Layerwise):
    feedback_loss: str = "reconstruction"

    def reconstruction_loss(self, feedback, weights, x, states, noise, sigma):
        if self.feedback_loss == "drl":
            return self.difference_reconstruction(feedback, weights, x, states, noise, sigma)
        return self.per_layer(reconstruction, feedback, weights, x, states, noise)

    def difference_reconstruction(self, feedback, weights, x, states, noise, sigma) -> Array:
        """mean_B Σ_l ‖h_{l-1} + g_l(t_l) - g_l(h_l) - h̃‖²/σ², t_l what arrives at layer l."""
        total = jnp.zeros(())
        for k in range(len(states)):
            if not feedback[k]:
                continue
            h = layer_inputs(self.network, k, x, states)
            corrupted = h + noise[k]
            arrived = self._arrived(k, feedback, weights, x, states, corrupted)

            def reconstructed(q, t, state, source, k=k):
                return self.carry(partial(self.g(k), q), t, state, source)

            if self.network.factors[k].length is not None:
                reconstructed = jax.vmap(reconstructed)
            rebuilt = reconstructed(feedback[k], arrived, states[k], h)
            total += jnp.sum((rebuilt - corrupted) ** 2)
        return total / (sigma**2 * x.shape[0])

    def _arrived(self, k: int, feedback, weights, x, states, corrupted) -> Array:
        """The target of each layer of factor k when its source alone is corrupted: (B, …), of a
        stack (n, B, …)."""
        factor, fixed = self.network.factors[k], jax.lax.stop_gradient(feedback)

        def there_and_back(h):
            """From the state of factor k to the output, and down again to its own target(s)."""
            return self.down_to(k, fixed, x, states, self._up_from(k, weights, h))[0]

        if factor.length is None:
            return there_and_back(factor.apply(weights[k], corrupted))

        def of_layer(j):  # what lies below layer j of the stack changes nothing
            def layer(h, layer_of):
                p, place = layer_of
                return factor.apply(p, jnp.where(place == j, corrupted[j], h)), None

            places = (weights[k], jnp.arange(factor.length))
            return there_and_back(jax.lax.scan(layer, corrupted[0], places)[0])[j]

        return jax.lax.map(of_layer, jnp.arange(factor.length))

    def _up_from(self, k: int, weights, h: Array) -> Array:
        """The output when factor k's (last) state is h."""
        for above in range(k + 1, len(weights)):
            factor = self.network.factors[above]
            if factor.length is None:
                h = factor.apply(weights[above], h)
            else:
                layer = lambda h, p, factor=factor: (factor.apply(p, h), None)  # noqa: E731
                h, _ = jax.lax.scan(layer, h, weights[above])
        return h
