"""Monte Carlo predictive coding (Oliviers, Bogacz & Meulemans 2024, PLOS Computational Biology).

The states do not settle at the most likely ones but wander over the posterior: Langevin dynamics
at temperature τ, with ξ ~ N(0, 1) and in the limit of small steps

    h ← h - γ ∂F/∂h + √(2γτ) ξ        samples of p(h | data) ∝ exp(-F/τ)

With momentum m the noise that the gradient is given has the variance 2τ(1 - m)/γ. The weights learn
at the last sample. `sample` runs the same dynamics with the output free, too, and reads it.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from pcbench.algorithms.base import Unsupported
from pcbench.algorithms.pc import PC


@dataclass(frozen=True)
class MCPC(PC):
    def __post_init__(self):
        super().__post_init__()
        if self.updater != "sgd":
            raise Unsupported(
                f"its noise has the right temperature under gradient descent, with momentum or "
                f"without, not under updater={self.updater}: set algorithm.updater=sgd."
            )

    def noise(self, numbers):
        tau, gamma = numbers["temperature"], numbers["step_size"]
        return jnp.sqrt(2 * tau * (1 - numbers["momentum"]) / gamma)

    def sample(self, trained, count, hyper, key):
        """`count` outputs after `eval_steps` of the dynamics from zero states, each of a chain of
        its own: (count, C)."""
        x = jnp.zeros((count, *self.network.input_shape))
        like = self.network.state_shapes(count)[-1]
        start = jnp.zeros(like.shape, x.dtype)
        everything = jnp.zeros(like.shape, bool)
        return self.settle(trained.weights, x, start, everything, hyper, key)[-1]
