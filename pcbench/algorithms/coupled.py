"""Coupled learning (Stern et al. 2021, arXiv 2011.03098; in the forms of Scellier et al. 2023).

The output is *held* a little nearer the target, at o^±β = o ∓ β ∂C/∂o with o the free output:

    positive   Δθ = -(1/β)  ∂/∂θ [F(θ, h | o^+β) - F(θ, h^free)]
    negative   Δθ = -(1/β)  ∂/∂θ [F(θ, h^free) - F(θ, h | o^-β)]
    centred    Δθ = -(1/2β) ∂/∂θ [F(θ, h | o^+β) - F(θ, h | o^-β)]

β → 0 gives the gradient with the output error multiplied by S = [(H⁻¹)_oo]⁻¹, H = ∂²F/∂h².
"""

from dataclasses import dataclass

from pcbench.algorithms.phases import Phase, PhaseRule


@dataclass(frozen=True)
class CoupledLearning(PhaseRule):
    nudging: str = "centred"

    def phases(self, numbers, epoch, key):
        beta = numbers["beta"]
        if self.nudging == "centred":
            return (Phase("shift", 0.5 / beta, beta), Phase("shift", -0.5 / beta, -beta))
        if self.nudging == "negative":
            beta = -beta
        return (Phase("shift", 1.0 / beta, beta), Phase("free", -1.0 / beta))
