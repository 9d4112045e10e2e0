"""ResNet-18 in the form for small images: He et al. 2015, arXiv 1512.03385, without normalisation.

A 3×3 stem (no max-pooling), four stages of two basic blocks with strides 1, 2, 2, 2, the mean over
all places, a linear output. Every convolution predicts a state of its own; the second one of a
block has two sources, h = σ(W * h_prev + b + skip), with the block's input as `skip`, through a 1×1
convolution where the shape changes. Batch normalisation would couple the samples of a batch.
"""

from collections.abc import Mapping

from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.convolution import Convolution, Join
from pcbench.networks.layers import Dense
from pcbench.networks.network import INPUT, Factor, Network
from pcbench.networks.vgg import check_images

STRIDES = (1, 2, 2, 2)  # of the stages; each stage has twice the channels of the one before
BLOCKS = 2  # per stage


def resnet18(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """`model`: the composed group; input_shape: (H, W, C). Raises ValueError for other inputs."""
    check_images(model, input_shape, 1)
    common = {
        "padding": 1, "bias": model["bias"], "activation": ACTIVATIONS[model["activation"]],
    }  # fmt: skip
    channels = model["channels"]
    factors = [Factor(Convolution(channels, role="input", **common), (INPUT,))]
    for stage, first_stride in enumerate(STRIDES):
        features = channels * 2**stage
        for block in range(BLOCKS):
            entry = len(factors) - 1
            changes = block == 0 and stage > 0
            stride = first_stride if block == 0 else 1
            inner = Convolution(features, role="hidden", stride=stride, **common)
            outer = Join(
                features, role="residual", skip_stride=stride if changes else None, **common
            )
            factors += [Factor(inner, (entry,)), Factor(outer, (entry + 1, entry))]
    output = Dense(outputs, role="output", bias=model["bias"], average=True)
    factors.append(Factor(output, (len(factors) - 1,)))
    return Network(tuple(factors), input_shape)
