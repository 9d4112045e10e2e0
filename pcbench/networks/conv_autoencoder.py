"""Convolutional decoders and autoencoders, as in table 2 of PCX: Pinchetti et al. 2024, arXiv
2407.01163.

Every layer halves or doubles the sides of its images, by a stride of two. `maps` lists the feature
maps from the latent images to the largest hidden ones, so that there are as many transposed
convolutions; the encoder of the autoencoder mirrors them. Layers of the decoder are the transposes
of the convolutions in shape, not in weights. The output is the image, flattened.
"""

from collections.abc import Mapping
from math import prod

from pcbench.networks.activations import ACTIVATIONS, IDENTITY
from pcbench.networks.convolution import Convolution, TransposedConvolution, convolved_side
from pcbench.networks.decoder import latent_states
from pcbench.networks.network import Factor, Network
from pcbench.networks.vgg import check_images


def conv_decoder(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """Latent images, which are inferred, and the transposed convolutions below them."""
    shapes = _shapes(model, input_shape, outputs)
    factors = [latent_states(prod(shapes[0]), model["prior"])]
    factors += [Factor(layer, (k,)) for k, layer in enumerate(_decoding(model, shapes))]
    return Network(tuple(factors), (1,))


def conv_autoencoder(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """As many convolutions as transposed ones, the latent images between them."""
    shapes = _shapes(model, input_shape, outputs)
    layers = [
        Convolution(
            features,
            role="hidden" if k else "input",
            activation=ACTIVATIONS[model["activation"]],
            bias=model["bias"],
            **_geometry(model),
        )
        for k, (*_, features) in enumerate(shapes[-2::-1])
    ]
    layers += _decoding(model, shapes)
    return Network(tuple(Factor(layer, (k - 1,)) for k, layer in enumerate(layers)), input_shape)


def _decoding(model: Mapping, shapes: list) -> list[TransposedConvolution]:
    last = len(shapes) - 1
    return [
        TransposedConvolution(
            shape,
            role="output" if k == last else "hidden",
            activation=IDENTITY if k == last else ACTIVATIONS[model["activation"]],
            bias=model["bias"],
            flat=k == last,
            **_geometry(model),
        )
        for k, shape in enumerate(shapes[1:], start=1)
    ]


def _geometry(model: Mapping) -> dict[str, int]:
    """The padding with which a stride of two halves even sides."""
    return {"size": model["kernel"], "stride": 2, "padding": (model["kernel"] - 1) // 2}


def _shapes(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> list:
    """(H, W, C) of all layers of the decoder, from the latent images to the output."""
    check_images(model, input_shape, 2 ** len(model["maps"]))
    if outputs != prod(input_shape):
        raise ValueError("its output is the image itself: set task=generation or task=completion.")
    shapes = [tuple(input_shape)]
    for features in reversed(model["maps"]):
        *sides, _ = shapes[0]
        smaller = (convolved_side(n, **_geometry(model)) for n in sides)
        shapes.insert(0, (*smaller, features))
    return shapes
