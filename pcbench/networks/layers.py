"""Layers as flax modules. Each parameter is declared with its role and fan-in.

A layer holds no initialiser and no multiplier: both belong to the parameterisation, which reads the
declarations (`networks/parameterisations.py`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array

from pcbench.networks.activations import IDENTITY, Activation
from pcbench.networks.products import product


class Declared(struct.PyTreeNode, nn.meta.AxisMetadata):
    """A parameter with what a parameterisation must know of it.

    ``role``: input | hidden | attention (queries and keys) | residual (its product is added to what
    passes by it) | embedding (a table, read by position) | output; ``kind``: weight | bias;
    ``edges``: None, or what has a `mask`, False at weights that do not exist (they are drawn as 0);
    ``taps``: None, or the fan-in and fan-out of a transposed kernel as Equinox counts them, every
    tap of it, though with a stride only some of them meet at one output.
    """

    value: Array
    role: str = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False)
    fan_in: int = struct.field(pytree_node=False)
    edges: Any = struct.field(pytree_node=False, default=None)
    taps: tuple[int, int] | None = struct.field(pytree_node=False, default=None)

    @property
    def fans(self) -> tuple[int, int]:
        """(fan-in, fan-out) as libraries count them, of a weight."""
        if self.taps:
            return self.taps
        *_, sources, features = self.value.shape  # after the positions of a kernel
        return self.fan_in, self.fan_in // sources * features

    def unbox(self):
        return self.value

    def replace_boxed(self, value):
        return self.replace(value=value)

    def add_axis(self, index, params):
        return self

    def remove_axis(self, index, params):
        return self


def declare(role: str, kind: str, fan_in: int, edges: Any = None, taps=None) -> Callable:
    """An initialiser that only declares: zeros, to be drawn by the parameterisation."""
    return lambda key, shape, dtype=jnp.float32: Declared(
        jnp.zeros(shape, dtype), role, kind, fan_in, edges, taps
    )


class Dense(nn.Module):
    """σ(W φ(source) + b), plus the source itself where `skip`.

    `post` states have σ = the activation and φ = identity, `pre` states the other way round.
    source: (B, …, C), flattened to (B, fan_in), or its mean over all positions (B, C) where
    `average`; returns (B, features).
    """

    features: int
    role: str
    activation: Activation = IDENTITY
    source_activation: Activation = IDENTITY
    bias: bool = True
    skip: bool = False
    average: bool = False

    @nn.compact
    def pre(self, source: Array) -> Array:
        """The pre-activation a = W φ(source) + b."""
        if self.average:
            source = jnp.mean(source, tuple(range(1, source.ndim - 1)))
        source = self.source_activation(source.reshape(source.shape[0], -1))
        fan_in = source.shape[-1]
        weight = self.param("W", declare(self.role, "weight", fan_in), (fan_in, self.features))
        a = product(source, weight)
        if self.bias:
            a = a + self.param("b", declare(self.role, "bias", fan_in), (self.features,))
        return a

    def __call__(self, source: Array) -> Array:
        prediction = self.activation(self.pre(source))
        return prediction + source if self.skip else prediction


class Latent(nn.Module):
    """States without an input: predicted by zeros, or by a learned mean where `learned`.

    source: (B, …), of which only B is read; returns (B, features).
    """

    features: int
    learned: bool = False

    @nn.compact
    def __call__(self, source: Array) -> Array:
        mean = jnp.zeros(self.features, source.dtype)
        if self.learned:
            mean = self.param("b", declare("input", "bias", 1), (self.features,))
        return jnp.broadcast_to(mean, (source.shape[0], self.features))
