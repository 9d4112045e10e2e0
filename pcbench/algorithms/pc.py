"""Predictive coding.

Whittington & Bogacz 2017, Neural Computation 29(5); in the form of PCX: Pinchetti et al. 2024,
"Benchmarking Predictive Coding Networks - Made Simple", arXiv 2407.01163.

With x clamped, states at the feed-forward pass and the output state held at h_L:

    F(θ, h) = Σ_{l<L} ½π_l‖h_l - μ_l(h_{l-1})‖² + π_L loss(μ_L(h_{L-1}), h_L)
    repeat T times:  h_l ← h_l - γ ∂F/∂h_l   (l < L, all at once, per sample)
    Δθ = -(1/β) ∂/∂θ mean_B F(θ, h)

Without nudging h_L = y and β = 1. Nudging (squared error) holds the output at ŷ - β(ŷ - y), fixed
before relaxation: β > 0 towards the target (`positive`), β < 0 away from it (`negative`), or a sign
per epoch (`centred`). Over epochs e: |β| = beta + e·beta_increment, at most 1; as in the code
published last a `negative` nudging that reaches 1 becomes plain PC (β = +1; in an older script it
stays at -1).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.inference import Inference
from pcbench.algorithms.phases import Phase, PhaseRule


@dataclass(frozen=True)
class PC(Inference, PhaseRule):
    nudging: str = "none"

    energies = ("pc",)
    starts = ("feedforward", "zeros", "persistent")
    nudgings = ("none", "positive", "negative", "centred")

    def phases(self, numbers, epoch, key):
        if self.nudging == "none":
            return (Phase("clamp", 1.0),)
        beta = self.beta(numbers, epoch)
        return (Phase("shift", 1.0 / beta, beta),)

    def beta(self, numbers: dict[str, Array], epoch: Array) -> Array:
        """Signed strength of the nudging in an epoch (counted from 0)."""
        size = numbers["beta"] + epoch * numbers["beta_increment"]
        if self.nudging == "positive":
            return jnp.minimum(size, 1.0)
        if self.nudging == "negative":
            return jnp.where(size < 1.0, -size, 1.0)
        signs = numbers.get("beta_signs")
        sign = 1.0 - 2.0 * (epoch % 2) if signs is None else signs[epoch]
        return sign * jnp.minimum(size, 1.0)
