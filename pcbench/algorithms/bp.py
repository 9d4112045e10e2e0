"""Backpropagation (Rumelhart, Hinton & Williams 1986): the gradient of the mean loss.

Δθ = -∂/∂θ mean_B loss(ŷ(θ, x), y)
"""

from dataclasses import dataclass

from pcbench.algorithms.base import GradientAlgorithm, Info, loss_gradient


@dataclass(frozen=True)
class BP(GradientAlgorithm):
    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        _, gradient = loss_gradient(self, weights, batch)
        return gradient, memory, Info.undefined() if measure else None
