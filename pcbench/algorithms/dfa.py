"""Direct feedback alignment (Nøkland 2016, arXiv 1609.01596), on any network.

Every hidden state hears of the output's error through a fixed random matrix instead of the weights
above it:

    δ_l = e B_l,   e = ∂loss/∂h_L         (backpropagation: δ_l = e ∂h_L/∂h_l)
    ĝ_l = mean_B δ_l · ∂f_l(θ_l, h_{l-1})/∂θ_l

It is direct difference target propagation with feedback that does not learn: h_l - t_l = η δ_l.
"""

from dataclasses import dataclass

from pcbench.algorithms.base import GradientAlgorithm, Info
from pcbench.algorithms.target_propagation import (
    declared_direct,
    local_gradient,
    output_error,
    project,
)
from pcbench.networks.parameterisations import Standard, initialise


@dataclass(frozen=True)
class DFA(GradientAlgorithm):
    def memory(self, key):
        return initialise(Standard(), key, declared_direct(self.network))

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        states = self.network.forward(weights, batch.x)
        error = output_error(self, states, batch)
        hidden = zip(memory, states, strict=False)  # no B at the output
        targets = (*(h - project(b, error, h) for b, h in hidden), states[-1] - error)
        gradient = local_gradient(self.network, weights, batch.x, states, targets, 1.0)
        return gradient, memory, Info.undefined() if measure else None
