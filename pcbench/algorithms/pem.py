"""Predictive entropy maximisation: Bozkurt, Gorguner, Innocenti & Bogacz 2026, arXiv 2605.19965.

Outputs that predict the mixtures and have the largest entropy are the sources. The entropy of a
Gaussian, ½ log det C, is expanded to first order in the off-diagonal part of C = D + O, so that no
matrix is inverted. Relaxation descends γ/2 ‖y - Wx‖² - ½ log det C on the running covariance,

    F = -γ(y - Wx) - D⁻¹(O D⁻¹ȳ - ȳ)      normalised,   ȳ = y - μ
    F = -γ(y - Wx) - (κ O ȳ - D⁻¹ȳ)        plain: lateral weights without division
    μ ← λμ + (1-λ)y,  C ← λC + (1-λ)ȳȳᵀ    with the new μ
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.separation import OnlineSeparation, small_product


class Moments(NamedTuple):
    mean: Array  # (n,)
    covariance: Array  # (n, n)


@dataclass(frozen=True)
class PEM(OnlineSeparation):
    lateral: str = "normalised"  # normalised | plain
    initial_variance: float = 0.2

    def statistics(self) -> Moments:
        size, dtype = self.sizes.outputs, jnp.result_type(float)
        return Moments(jnp.zeros(size, dtype), self.initial_variance * jnp.eye(size, dtype=dtype))

    def force(self, y, feedforward, statistics, numbers):
        centred = y - statistics.mean
        variance = jnp.diagonal(statistics.covariance)
        others = statistics.covariance - jnp.diag(variance)
        variance = variance + numbers["variance_floor"]
        if self.lateral == "normalised":
            inhibition = (small_product(others, centred / variance) - centred) / variance
        else:
            inhibition = (
                numbers["lateral_weight"] * small_product(others, centred) - centred / variance
            )
        return -numbers["prediction_weight"] * (y - feedforward) - inhibition

    def learn(self, y, statistics, numbers):
        keep = numbers["forgetting"]
        mean = keep * statistics.mean + (1 - keep) * y
        centred = y - mean
        outer = centred[:, None] * centred
        return Moments(mean, keep * statistics.covariance + (1 - keep) * outer)
