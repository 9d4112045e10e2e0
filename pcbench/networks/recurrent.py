"""A many-to-one recurrent network (Elman 1990): it reads a sequence, its last state is read out.

    h_t = σ(W_h h_{t-1} + W_x x_t + b),   h_0 = 0,   ŷ = W_o h_T + b_o

Steps of time are the layers of one stack with shared weights, so that a state is predicted at every
step. An input (T, …) is a sequence of T steps: an image one of its rows, from the top.
"""

from collections.abc import Mapping

import flax.linen as nn
from jax import Array

from pcbench.networks.activations import ACTIVATIONS, Activation
from pcbench.networks.layers import Dense, declare
from pcbench.networks.network import INPUT, Factor, Network
from pcbench.networks.products import product


def rnn(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """Raises ValueError for examples that are no sequences."""
    if len(input_shape) < 2:
        raise ValueError(
            "it takes sequences (steps, …), or images, row by row; the examples of the dataset "
            f"have the shape {tuple(input_shape)}."
        )
    cell = Cell(model["width"], ACTIVATIONS[model["activation"]], model["bias"])
    factors = (
        Factor(cell, (INPUT,), input_shape[0], recurrent=True),
        Factor(Dense(outputs, "output", bias=model["bias"]), (0,)),
    )
    return Network(factors, tuple(input_shape))


class Cell(nn.Module):
    """σ(W_h h + W_x x + b): (B, features) and (B, inputs) → (B, features)."""

    features: int
    activation: Activation
    bias: bool = True

    @nn.compact
    def pre(self, previous: Array, step: Array) -> Array:
        a = 0.0
        for name, source, role in (("W_h", previous, "hidden"), ("W_x", step, "input")):
            fan_in = source.shape[-1]
            a = a + product(
                source, self.param(name, declare(role, "weight", fan_in), (fan_in, self.features))
            )
        if self.bias:
            a = a + self.param("b", declare("hidden", "bias", self.features), (self.features,))
        return a

    def __call__(self, previous: Array, step: Array) -> Array:
        return self.activation(self.pre(previous, step))
