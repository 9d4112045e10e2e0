"""VGG: 3×3 convolutions in a chain, some followed by 2×2 pooling, and one linear output layer.

Builders take the composed `model` group, the input's shape (H, W, C) and the number of outputs.
They raise ValueError where these do not fit each other.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.convolution import Convolution
from pcbench.networks.layers import Dense
from pcbench.networks.network import Factor, Network


class Row(NamedTuple):
    channels: int  # as a multiple of the first layer's
    padding: int
    pool: bool


# PCX (Pinchetti et al. 2024, arXiv 2407.01163), from the code that made its tables; 128 channels in
# the first layer. The appendix is said to pad VGG-5's last convolution with 0.
VGG5 = (Row(1, 1, True), Row(2, 1, True), Row(4, 1, True), Row(4, 1, True))
VGG7 = (
    Row(1, 1, True), Row(1, 1, False), Row(2, 1, True),
    Row(2, 0, False), Row(4, 1, True), Row(4, 0, False),
)  # fmt: skip
# The same authors' later code (DeepPCNs); 64 channels in the first layer. The definition behind the
# VGG-9 of PCX's Table 1 is not published.
VGG9 = (
    Row(1, 1, True), Row(2, 1, False), Row(2, 1, True), Row(4, 1, False),
    Row(4, 1, True), Row(8, 1, False), Row(8, 1, True), Row(8, 1, False),
)  # fmt: skip


def vgg5(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    return _vgg(VGG5, model, input_shape, outputs)


def vgg7(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    return _vgg(VGG7, model, input_shape, outputs)


def vgg9(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    return _vgg(VGG9, model, input_shape, outputs)


def _vgg(
    rows: tuple[Row, ...], model: Mapping, input_shape: tuple[int, ...], outputs: int
) -> Network:
    check_images(model, input_shape, _smallest(rows))
    activation, bias = ACTIVATIONS[model["activation"]], model["bias"]
    layers = [
        Convolution(
            model["channels"] * row.channels,
            role="hidden" if k else "input",
            padding=row.padding,
            pool=row.pool,
            activation=activation,
            bias=bias,
        )
        for k, row in enumerate(rows)
    ]
    layers.append(Dense(outputs, role="output", bias=bias))
    return Network(tuple(Factor(layer, (k - 1,)) for k, layer in enumerate(layers)), input_shape)


def _smallest(rows: tuple[Row, ...]) -> int:
    """The smallest side of an image of which one pixel is left."""
    side = 1
    for row in reversed(rows):
        side = (2 * side if row.pool else side) + 2 - 2 * row.padding
    return side


def check_images(model: Mapping, input_shape: tuple[int, ...], smallest: int) -> None:
    """Raises ValueError where a convolutional network cannot be had."""
    if len(input_shape) != 3:
        raise ValueError(
            "it takes images (height, width, channels); the examples of the dataset have the shape "
            f"{tuple(input_shape)}."
        )
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"it takes images of at least {smallest}×{smallest} pixels; those of the dataset have "
            f"{input_shape[0]}×{input_shape[1]}."
        )
    if model["states"] != "post":
        raise ValueError(
            f"model.states={model['states']}: the published networks hold post states, and pre "
            "would put the pooling between two of them; set model.states=post."
        )
