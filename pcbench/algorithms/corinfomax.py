"""Correlative information maximisation, online: Bozkurt, Ateş & Erdogan 2023, "Correlative
Information Maximization Based Biologically Plausible Neural Networks for Correlated Source
Separation", ICLR; arXiv 2210.04222.

As `pem`, with the inverse B of the outputs' correlation matrix instead of an expansion:

    F = γ(Wx - y) + g B y                 g = (1-λ)/λ
    B ← (B - g (By)(By)ᵀ / (1 + g yᵀBy)) / λ      the inverse of R ← λR + (1-λ)yyᵀ

The authors leave the denominator out, as it is near 1; without it B can lose its sign in a stream
that was quiet for a while, and with it the run.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from pcbench.algorithms.separation import OnlineSeparation, small_product


@dataclass(frozen=True)
class CorInfoMax(OnlineSeparation):
    def statistics(self):
        return 5 * jnp.eye(self.sizes.outputs, dtype=jnp.result_type(float))

    def force(self, y, feedforward, statistics, numbers):
        gain = (1 - numbers["forgetting"]) / numbers["forgetting"]
        inhibition = gain * small_product(statistics, y)
        return numbers["prediction_weight"] * (feedforward - y) + inhibition

    def learn(self, y, statistics, numbers):
        keep = numbers["forgetting"]
        z = small_product(statistics, y)
        gain = (1 - keep) / keep
        outer = z[:, None] * z
        found = (statistics - gain / (1 + gain * jnp.sum(y * z)) * outer) / keep
        return (found + found.T) / 2  # what rounding makes asymmetric would grow by 1/λ a step
