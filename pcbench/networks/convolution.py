"""Convolution and pooling of images (B, H, W, C).

On CPU a convolution is a matrix product of patches and kernel: XLA's own convolution is forty
times slower there inside a `scan` than outside it (one training step of VGG-5, batch 32: 10,956 ms
against 239 ms; as a product 155 ms, wherever it stands). Both forms are plain operations, so that
`vmap`, forward and reverse derivatives of any order go through them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pcbench.networks.activations import IDENTITY, Activation
from pcbench.networks.layers import declare
from pcbench.networks.products import operands, product


def as_product() -> bool:
    """Whether convolutions are matrix products here."""
    return jax.default_backend() == "cpu"


def convolve(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
    """Cross-correlation with a kernel (k, k, C, O) under zero padding.

    (B, H, W, C) → (B, H', W', O) with H' and W' as `convolved_side` has them.
    """
    if as_product():
        size, _, _, features = kernel.shape
        return product(patches(x, size, stride, padding), kernel.reshape(-1, features))
    x, kernel = promoted(*operands(x, kernel))
    sides = ((padding, padding), (padding, padding))
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), sides, dimension_numbers=layout
    )


def convolve_transposed(
    y: Array, kernel: Array, sides: tuple[int, int], stride: int = 1, padding: int = 0
) -> Array:
    """The transpose of `convolve` as a linear map of images with these sides: ⟨K x, y⟩ = ⟨x, Kᵀ y⟩.

    (B, H', W', O) → (B, H, W, C) with (H, W) = sides, under a kernel (k, k, C, O).
    """
    y, kernel = promoted(*operands(y, kernel))
    x = jnp.zeros((y.shape[0], *sides, kernel.shape[2]), y.dtype)
    return jax.vjp(lambda x: convolve(x, kernel, stride, padding), x)[1](y)[0]


def promoted(*arrays: Array) -> list[Array]:
    """Of one type, as a product makes them, and a convolution does not."""
    return [a.astype(jnp.result_type(*arrays)) for a in arrays]


def convolved_side(side: int, size: int, stride: int, padding: int) -> int:
    """Places at which a kernel of that size reads a side of an image."""
    return (side + 2 * padding - size) // stride + 1


def patches(x: Array, size: int, stride: int = 1, padding: int = 0) -> Array:
    """What the kernel sees at each place: (B, H, W, C) → (B, H', W', size²·C), by row, column and
    channel.

    Shifted slices: their transpose is a sum of padded slices, which XLA fuses into one loop. (A
    chain of in-place updates is the faster way forward, and thirty times slower back.)
    """
    height, width = (convolved_side(side, size, stride, padding) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    shifted = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return shifted[0] if size == 1 else jnp.concatenate(shifted, -1)


def max_pool(x: Array) -> Array:
    """Maxima of 2×2 squares: (B, H, W, C) → (B, H//2, W//2, C); an odd last row or column is left
    out. The derivative at a tie is the mean over the units that tie."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


class Convolution(nn.Module):
    """pool(σ(W * source + b)), for square kernels; without `pool`, σ(W * source + b).

    Pooling follows the activation, as published. Where σ is monotone the two commute, which makes
    the prediction σ of a pre-activation; so `pre` pools.
    source: (B, H, W, C); returns (B, H', W', features).
    """

    features: int
    role: str
    size: int = 3
    stride: int = 1
    padding: int = 0
    pool: bool = False
    activation: Activation = IDENTITY
    bias: bool = True

    @nn.compact
    def affine(self, source: Array) -> Array:
        """W * source + b."""
        a = self.convolved("W", source, self.size, self.stride, self.padding, self.role)
        if self.bias:
            fan_in = self.size**2 * source.shape[-1]
            a = a + self.param("b", declare(self.role, "bias", fan_in), (self.features,))
        return a

    def convolved(self, name: str, source: Array, size: int, stride: int, padding: int, role: str):
        """The source, convolved with the kernel of that name."""
        channels = source.shape[-1]
        shape = (size, size, channels, self.features)
        kernel = self.param(name, declare(role, "weight", size**2 * channels), shape)
        return convolve(source, kernel, stride, padding)

    def pre(self, source: Array) -> Array:
        """The pre-activation a = pool(W * source + b)."""
        a = self.affine(source)
        return max_pool(a) if self.pool else a

    def __call__(self, source: Array) -> Array:
        prediction = self.activation(self.affine(source))
        return max_pool(prediction) if self.pool else prediction


class Join(Convolution):
    """σ(W * source + b + skip): the second convolution of a residual block.

    `skip`, the block's input, passes as it is, or through a 1×1 convolution W_skip with stride
    `skip_stride` where that is not None (a change of shape).
    """

    skip_stride: int | None = None

    @nn.compact
    def pre(self, source: Array, skip: Array) -> Array:
        """The pre-activation a = W * source + b + skip."""
        if self.skip_stride is not None:
            skip = self.convolved("W_skip", skip, 1, self.skip_stride, 0, "hidden")
        return self.affine(source) + skip

    def __call__(self, source: Array, skip: Array) -> Array:
        return self.activation(self.pre(source, skip))


class TransposedConvolution(nn.Module):
    """σ(Kᵀ source + b), where K is the convolution that takes images of `shape` (H, W, C) to those
    of the source.

    source: (B, H', W', O), or flattened; returns (B, H, W, C), flattened where `flat`. An output
    sums, on average over places, (size / stride)² · O inputs.
    """

    shape: tuple[int, int, int]
    role: str
    size: int = 3
    stride: int = 1
    padding: int = 0
    activation: Activation = IDENTITY
    bias: bool = True
    flat: bool = False

    @nn.compact
    def pre(self, source: Array) -> Array:
        """The pre-activation a = Kᵀ source + b."""
        *sides, features = self.shape
        places = (convolved_side(n, self.size, self.stride, self.padding) for n in sides)
        source = source.reshape(source.shape[0], *places, -1)
        channels = source.shape[-1]
        fan_in = max(1, round((self.size / self.stride) ** 2 * channels))
        shape = (self.size, self.size, features, channels)
        taps = (self.size**2 * channels, self.size**2 * features)
        kernel = self.param("W", declare(self.role, "weight", fan_in, taps=taps), shape)
        a = convolve_transposed(source, kernel, tuple(sides), self.stride, self.padding)
        if self.bias:
            a = a + self.param("b", declare(self.role, "bias", fan_in, taps=taps), (features,))
        return a.reshape(a.shape[0], -1) if self.flat else a

    def __call__(self, source: Array) -> Array:
        return self.activation(self.pre(source))
