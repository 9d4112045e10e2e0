"""Equilibrium propagation.

Scellier & Bengio 2017, arXiv 1602.05179; centred: Laborieux et al. 2021, arXiv 2006.03824; the
rules compared: Scellier et al. 2023, arXiv 2312.15103; on the `pc` energy: Kerjan, Høier &
Scellier 2026, arXiv 2606.03584.

With h^β the stationary states of F + βC (C: the loss of the output *state*):

    positive   Δθ = -(1/β)  ∂/∂θ [F(θ, h^β) - F(θ, h⁰)]
    negative   Δθ = -(1/β)  ∂/∂θ [F(θ, h⁰) - F(θ, h^-β)]
    centred    Δθ = -(1/2β) ∂/∂θ [F(θ, h^β) - F(θ, h^-β)]
    random     positive or negative, drawn for every batch

β → 0 gives the gradient of the loss at the free equilibrium, with an error of O(β), centred O(β²).
On `pc` and `fenchel_young` the free state is the forward pass, F(h⁰) has no gradient, and the limit
is backpropagation.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pcbench.algorithms.phases import Phase, PhaseRule


@dataclass(frozen=True)
class EP(PhaseRule):
    nudging: str = "centred"

    nudgings = ("positive", "negative", "centred", "random")

    def phases(self, numbers, epoch, key):
        beta = numbers["beta"]
        if self.nudging == "centred":
            return (Phase("nudge", 0.5 / beta, beta), Phase("nudge", -0.5 / beta, -beta))
        if self.nudging == "negative":
            beta = -beta
        elif self.nudging == "random":
            beta = jnp.where(jax.random.bernoulli(key), beta, -beta)
        return (Phase("nudge", 1.0 / beta, beta), Phase("free", -1.0 / beta))
