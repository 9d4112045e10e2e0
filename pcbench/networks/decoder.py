"""Generative networks: from latent states down to the data. They have no input.

The latent states are inferred by relaxation with the output held at the data. Nothing predicts them
(prior `none`), or their energy is that of a Gaussian of unit variance with mean zero (`standard`)
or with a learned mean (`learned`).
"""

from collections.abc import Mapping

from pcbench.networks.activations import ACTIVATIONS, IDENTITY
from pcbench.networks.layers import Dense, Latent
from pcbench.networks.network import INPUT, Factor, Network


def decoder(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """A chain of `depth` dense layers below `latent` states."""
    depth, placement = model["depth"], model["states"]
    activation = ACTIVATIONS[model["activation"]]
    widths = model["widths"] or [model["width"]] * (depth - 1)
    factors = [latent_states(model["latent"], model["prior"])]
    for k, features in enumerate([*widths, outputs]):
        output = k == depth - 1
        layer = Dense(
            features,
            role="output" if output else "hidden",
            activation=activation if placement == "post" and not output else IDENTITY,
            source_activation=activation if placement == "pre" else IDENTITY,
            bias=model["bias"],
        )
        factors.append(Factor(layer, (k,)))
    return Network(tuple(factors), (1,))


def latent_states(features: int, prior: str) -> Factor:
    module = Latent(features, learned=prior == "learned")
    return Factor(module, (INPUT,), precision=0.0 if prior == "none" else 1.0)
