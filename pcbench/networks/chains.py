"""Chains of dense layers: `mlp`, `linear`, `resmlp`; and the empty one, `patterns`.

Builders take the composed `model` group, the input's shape and the number of outputs.
"""

from collections.abc import Mapping
from itertools import groupby

from pcbench.networks.activations import ACTIVATIONS, IDENTITY, Activation
from pcbench.networks.layers import Dense
from pcbench.networks.network import INPUT, Factor, Network

# Runs of at least this many identical layers become a stack. On two CPU cores a stack of 2 to 4
# layers costs up to a tenth more time than single layers (the batched product), while program
# size grows with each single layer.
STACK_FROM = 5


def mlp(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    return _chain(model, ACTIVATIONS[model["activation"]], model["states"], input_shape, outputs)


def linear(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    return _chain(model, IDENTITY, "post", input_shape, outputs)


def resmlp(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    activation = ACTIVATIONS[model["activation"]]
    return _chain(model, activation, model["states"], input_shape, outputs, skips=True)


def patterns(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """No factors, for a rule that stores patterns instead of learning weights."""
    return Network((), tuple(input_shape))


def _chain(
    model: Mapping,
    activation: Activation,
    placement: str,
    input_shape: tuple[int, ...],
    outputs: int,
    skips: bool = False,
) -> Network:
    """`post`: h = σ(W h_prev + b), linear at the output; `pre`: z = W σ(z_prev) + b, no σ on x.

    Skips join equal widths, in the hidden layers after the first.
    """
    depth = model["depth"]
    widths = model.get("widths") or [model["width"]] * (depth - 1)
    layers = []
    for k, features in enumerate([*widths, outputs]):
        output = k == depth - 1
        skip = skips and 0 < k < depth - 1
        layers.append(
            Dense(
                features,
                role="output"
                if output
                else "input"
                if k == 0
                else "residual"
                if skip
                else "hidden",
                activation=activation if placement == "post" and not output else IDENTITY,
                source_activation=activation if placement == "pre" and k > 0 else IDENTITY,
                bias=model["bias"],
                skip=skip,
            )
        )
    factors: list[Factor] = []
    fan_in = [None, *widths]  # layers that differ in it alone are not identical
    for (layer, _), run in groupby(zip(layers, fan_in, strict=True)):
        count = len(list(run))
        stacked = count >= STACK_FROM
        for _ in range(1 if stacked else count):
            source = len(factors) - 1 if factors else INPUT
            factors.append(Factor(layer, (source,), count if stacked else None))
    return Network(tuple(factors), tuple(input_shape))
