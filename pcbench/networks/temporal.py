"""One step of time of temporal predictive coding: Tang, Barron & Bogacz 2023, arXiv 2305.11982.

The network predicts the present from the first state of the step before:

    depth 1    x_t = W f(x_{t-1})
    depth 2    z_t = W_r f(z_{t-1}),   x_t = W_o f(z_t)
    deeper     further layers between z_t and x_t
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.layers import Dense
from pcbench.networks.network import Factor, Network


@dataclass(frozen=True)
class Temporal(Network):
    """Its input is its own first state, a step earlier; its output an element of the sequence."""

    length: int = 0  # of the sequences


def temporal(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Temporal:
    """input_shape: (length, …) of a sequence; `outputs` is not read."""
    length, *element = input_shape
    depth, activation = model["depth"], ACTIVATIONS[model["activation"]]
    widths = [*[model["width"]] * (depth - 1), prod(element)]
    factors = (
        Factor(
            Dense(
                features,
                role="output" if k == depth - 1 else "hidden",
                source_activation=activation,
                bias=False,
            ),
            (k - 1,),
        )
        for k, features in enumerate(widths)
    )
    return Temporal(tuple(factors), (widths[0],), length)
