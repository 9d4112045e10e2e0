"""Fixed-weight difference target propagation (FW-DTP; Shibuya et al. 2023, arXiv 2212.10352).

    t_{l-1} = h_{l-1} + g_l(t_l) - g_l(h_l),   g_l(t) = σ(tB_l),   B_l drawn once and never changed

The difference correction alone makes fixed random feedback work: its Jacobian, σ'(h_l B_l) B_l,
changes with the states. What else: `target_propagation.py`.
"""

from dataclasses import dataclass

from pcbench.algorithms.target_propagation import Layerwise


@dataclass(frozen=True)
class FWDTP(Layerwise):
    biased = False
