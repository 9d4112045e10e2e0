"""A small transformer: as an encoder for classification Dosovitskiy et al. 2020, arXiv 2010.11929.

Tokens are the square patches of an image or the elements of a sequence (n, d). A linear embedding
with learned positions, identical pre-norm blocks in one stack, the mean over tokens, a linear
output. Each layer predicts one state, the stream (B, tokens, width) that leaves it:

    u = h + Attention(norm(h)),   h' = u + W₂ σ(W₁ norm(u) + b₁) + b₂

A causal one, of sequences, predicts at each token: no token sees those after it, and each has an
output of its own (Radford et al. 2018).

The norm is per token, so samples stay independent; it has no gain and no offset, which the weights
and biases behind it would absorb.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pcbench.networks.activations import ACTIVATIONS, Activation
from pcbench.networks.layers import declare
from pcbench.networks.network import INPUT, Factor, Network
from pcbench.networks.products import product

MLP_RATIO = 4  # hidden units of a block's MLP, as a multiple of the width: the customary one
EPSILON = 1e-5  # added to the variance


def transformer(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Network:
    """`model`: the composed group; input_shape: (H, W, C) or (tokens, features).

    Raises ValueError where these do not fit each other.
    """
    _check(model, input_shape, outputs)
    width, bias, norm = model["width"], model["bias"], model["norm"]
    causal = model.get("causal", False)
    patch = model["patch"] if len(input_shape) == 3 else None
    factors = [Factor(Embedding(width, patch, bias), (INPUT,))]
    blocks = model["depth"] - 2
    if blocks:
        block = Block(width, model["heads"], norm, ACTIVATIONS[model["activation"]], bias, causal)
        factors.append(Factor(block, (0,), blocks))
    features = outputs // input_shape[0] if causal else outputs
    factors.append(Factor(Readout(features, norm, bias, causal), (len(factors) - 1,)))
    return Network(tuple(factors), tuple(input_shape))


def normalised(h: Array, norm: str) -> Array:
    """`layer`: each token with mean 0 and variance 1 over its features; `none`: h itself."""
    if norm == "none":
        return h
    centred = h - jnp.mean(h, -1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + EPSILON)


def attention(queries: Array, keys: Array, values: Array, causal: bool = False) -> Array:
    """softmax(QKᵀ/√d)V, all arrays (…, tokens, d); `causal`: no token sees those after it."""
    scores = product(queries, keys.swapaxes(-1, -2)) * queries.shape[-1] ** -0.5
    if causal:
        earlier = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(earlier, scores, -jnp.inf)
    return product(jax.nn.softmax(scores), values)


def to_patches(x: Array, patch: int) -> Array:
    """(B, H, W, C) → (B, tokens, patch²·C), row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch**2 * channels)


class _Layer(nn.Module):
    """A layer whose prediction is no activation of a linear map: for the `pc` energy only."""

    def affine(self, name: str, source: Array, features: int, role: str) -> Array:
        """source W + b, features last."""
        fan_in = source.shape[-1]
        weight = self.param(f"W_{name}", declare(role, "weight", fan_in), (fan_in, features))
        a = product(source, weight)
        if self.bias:
            a = a + self.param(f"b_{name}", declare(role, "bias", fan_in), (features,))
        return a


class Embedding(_Layer):
    """Tokens of x, embedded, plus a learned vector for each position: (B, tokens, width)."""

    width: int
    patch: int | None  # None: the input is a sequence of tokens
    bias: bool = True

    @nn.compact
    def __call__(self, source: Array) -> Array:
        tokens = source if self.patch is None else to_patches(source, self.patch)
        count = tokens.shape[1]
        # a table is a matrix that multiplies the one-hot code of a position
        positions = self.param(
            "positions", declare("embedding", "weight", count), (count, self.width)
        )
        return self.affine("x", tokens, self.width, "input") + positions


class Block(_Layer):
    """One pre-norm block: (B, tokens, width) → the same."""

    width: int
    heads: int
    norm: str
    nonlinearity: Activation
    bias: bool = True
    causal: bool = False

    @nn.compact
    def __call__(self, source: Array) -> Array:
        batch, tokens, _ = source.shape

        def by_head(a: Array) -> Array:
            return a.reshape(batch, tokens, self.heads, -1).swapaxes(1, 2)

        inputs = normalised(source, self.norm)
        roles = {"q": "attention", "k": "attention", "v": "hidden"}
        q, k, v = (by_head(self.affine(n, inputs, self.width, r)) for n, r in roles.items())
        mixed = attention(q, k, v, self.causal).swapaxes(1, 2).reshape(source.shape)
        stream = source + self.affine("o", mixed, self.width, "residual")
        inputs = normalised(stream, self.norm)
        hidden = self.nonlinearity(self.affine("1", inputs, MLP_RATIO * self.width, "hidden"))
        return stream + self.affine("2", hidden, self.width, "residual")


class Readout(_Layer):
    """A linear map of the normalised stream's mean over tokens, (B, features); `causal`: of each of
    its tokens, (B, tokens · features)."""

    features: int
    norm: str
    bias: bool = True
    causal: bool = False

    @nn.compact
    def __call__(self, source: Array) -> Array:
        stream = normalised(source, self.norm)
        if not self.causal:
            stream = jnp.mean(stream, 1)
        return self.affine("x", stream, self.features, "output").reshape(len(source), -1)


def _check(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> None:
    width, heads, depth = model["width"], model["heads"], model["depth"]
    if len(input_shape) not in (2, 3):
        raise ValueError(
            "it takes images (height, width, channels) or sequences (tokens, features); the "
            f"examples of the dataset have the shape {tuple(input_shape)}."
        )
    if model.get("causal") and (len(input_shape) == 3 or outputs % input_shape[0]):
        raise ValueError(
            "model.causal=true is for sequences with an output at each token, such as "
            "task=language_modelling task.positions=all."
        )
    if len(input_shape) == 3 and any(side % model["patch"] for side in input_shape[:2]):
        allowed = [p for p in range(1, min(input_shape[:2]) + 1)
                   if not input_shape[0] % p and not input_shape[1] % p]  # fmt: skip
        raise ValueError(
            f"model.patch={model['patch']} does not divide images of {input_shape[0]}×"
            f"{input_shape[1]} pixels; allowed: {', '.join(map(str, allowed))}."
        )
    if width % heads:
        raise ValueError(f"model.width={width} is no multiple of model.heads={heads}.")
    if depth < 2:
        raise ValueError(
            f"model.depth={depth}: a transformer has at least an embedding and an output (2)."
        )
