"""Predictive coding by optimising errors (ePC: Goemaere et al. 2025, arXiv 2505.20137).

The states are written as the forward pass with errors injected, s_l = f_l(s_{l-1}) + ε_l, and the
errors relax instead of the states:

    E(ε) = Σ_{l<L} ½‖ε_l‖² + loss(ŷ(x, ε), y),     ε = 0;  repeat T times:  ε ← ε - γ ∂E/∂ε

The map from errors to states is one-to-one, so that the stationary points are those of predictive
coding, but a signal reaches every layer in one step (each costs a forward and a backward pass).
The output has no error of its own: what would be one is the loss. The weights learn locally, from
the energy of the states held fixed: Δθ = -∂/∂θ mean_B F(θ, s(ε)).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from pcbench.algorithms.base import GradientAlgorithm, Info
from pcbench.energies.energy import per_layer, prediction_energy, total
from pcbench.relaxation.relax import relax
from pcbench.relaxation.updaters import gradient_updater


@dataclass(frozen=True)
class EPC(GradientAlgorithm):
    steps: int
    updater: str = "sgd"

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        numbers = hyper["algorithm"]
        network = self.network

        def energies(errors):
            output = network.forward(weights, batch.x, errors)[-1]
            return (*map(self._own, network.factors, errors), self.loss(output, batch.target))

        shapes = network.state_shapes(batch.x.shape[0])[:-1]
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, batch.x.dtype), shapes)
        errors, trace = start, None
        if start and self.steps:
            updater = gradient_updater(self.updater, numbers["step_size"], numbers["momentum"])
            errors, _, trace = relax(
                energies, start, steps=self.steps, updater=updater, trace=measure
            )
        states = (*network.forward(weights, batch.x, errors)[:-1], batch.target)

        def mean_energy(w):
            predictions = network.predict(w, batch.x, states)
            parts = prediction_energy(network, predictions, states, self.loss)
            return total(parts) / batch.x.shape[0]

        gradient = jax.grad(mean_energy)(weights)
        if not measure:
            return gradient, memory, None
        last = per_layer(energies(errors))[None]
        energy = last if trace is None else jnp.concatenate([trace, last])
        residual = jnp.full((), jnp.nan)
        if start:
            force = jax.grad(lambda e: total(energies(e)))
            residual = optax.tree.norm(force(errors)) / optax.tree.norm(force(start))
        return gradient, memory, Info(energy, residual, states)

    @staticmethod
    def _own(factor, error):
        features = tuple(range(1 if factor.length is None else 2, error.ndim))
        return 0.5 * jnp.sum(error**2, features)

    @property
    def layer_updates_per_step(self):
        return self.steps * (self.network.layers - 1)
