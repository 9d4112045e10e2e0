"""Contrastive Hebbian learning (Movellan 1991; "contrastive learning" in Scellier et al. 2023).

    Δθ = -∂/∂θ [F(θ, h^clamped) - F(θ, h^free)]

The clamped phase holds the output at the target and starts from the free state. It is the exact
gradient of F(h^clamped) - F(h^free), and the limit of β·EP(β) for β → ∞ under squared error. On the
`pc` energy the free term vanishes and CHL is predictive coding.
"""

from dataclasses import dataclass

from pcbench.algorithms.phases import Phase, PhaseRule


@dataclass(frozen=True)
class CHL(PhaseRule):
    def phases(self, numbers, epoch, key):
        return (Phase("clamp", 1.0), Phase("free", -1.0))
