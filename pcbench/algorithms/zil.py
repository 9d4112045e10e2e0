"""Zero-divergence inference learning: predictive coding that is exactly backpropagation.

Song et al. 2020 (NeurIPS); convolutional and recurrent networks: Salvatori et al. 2021, arXiv
2103.03725; any computational graph: Salvatori et al. 2022, arXiv 2103.04689.

States start at the forward pass, the relaxation rate is γ = 1, and layer l's weights are updated at
step L - l, from the relaxation's own values at that step:

    z = forward pass; z_L = y;   for t = 0 … L-1:
        ε_k = z_k - μ_k(z_{k-1})                                  every layer
        l = L - t:   Δθ_l = -∂/∂θ_l ½‖ε_l‖²                        only this layer
        z_k ← z_k + γ(-ε_k + J_{k+1}ᵀ ε_{k+1})                     every hidden layer

At step t all errors below layer L - t are still zero and its source has not moved, so that only the
front needs computing: ε_{l-1} = γ J_lᵀ ε_l at the forward pass. Skips are levelled with identity
states: an error that crosses d levels is multiplied by γ^d. With γ ≠ 1 the gradient of layer l is
γ^(L-l) times backpropagation's. In a recurrent network layers are steps of time: the shared weights
learn the sum of what each step learns, with γ = 1 backpropagation through time.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pcbench.algorithms.base import GradientAlgorithm, Info
from pcbench.networks.network import INPUT


@dataclass(frozen=True)
class ZIL(GradientAlgorithm):
    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        gamma = hyper["algorithm"]["step_size"]
        network = self.network
        states = network.forward(weights, batch.x)
        mean_loss = lambda output: jnp.mean(self.loss(output, batch.target))  # noqa: E731
        slope = jax.grad(mean_loss)(states[-1])
        levels = self.levels
        # ∂F/∂μ of each factor, -ε, as it arrives from the factors that read its state
        errors, gradients = {len(states) - 1: slope}, {}
        for k in reversed(range(len(network.factors))):
            factor, sources = network.factors[k], network.sources(k, batch.x, states)
            if factor.length is None:
                _, pull = jax.vjp(factor.apply, weights[k], *sources)
                gradients[k], *arriving = pull(errors[k])
            else:

                def layer(error, inputs, factor=factor):
                    _, pull = jax.vjp(factor.apply, *inputs)
                    gradient, error, *_ = pull(error)
                    return gamma * error, gradient

                inputs = (factor.unrolled(weights[k]), *network.stack_inputs(k, batch.x, states))
                first, unrolled = jax.lax.scan(layer, errors[k], inputs, reverse=True)
                (gradients[k],) = jax.linear_transpose(factor.unrolled, weights[k])(unrolled)
                arriving = [first / gamma]  # the way out of the stack is counted by levels below
            for source, error in zip(factor.sources, arriving, strict=True):
                if source != INPUT:
                    crossed = levels[source] - levels[k] - ((factor.length or 1) - 1)
                    errors[source] = errors.get(source, 0.0) + gamma**crossed * error
        gradient = tuple(gradients[k] for k in range(len(network.factors)))
        return gradient, memory, Info.undefined() if measure else None

    @property
    def levels(self) -> list[int]:
        """Per factor, of a stack its last layer: the longest way to the output."""
        factors = self.network.factors
        levels = [0] * len(factors)
        for k in reversed(range(len(factors))):
            for source in factors[k].sources:
                if source != INPUT:
                    levels[source] = max(levels[source], levels[k] + (factors[k].length or 1))
        return levels

    @property
    def layer_updates_per_step(self):
        return self.network.layers - 1
