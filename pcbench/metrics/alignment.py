"""Target alignment: does an update move the output towards its target?

Song et al. 2024, Nature Neuroscience 27:348; Oliviers et al., arXiv 2605.11911: the cosine between
the change of the output and the output error, the loss's direction of descent (y - ŷ under squared
error, y - softmax(ŷ) under cross-entropy), per sample, averaged over samples.
Undefined (NaN) for a sample whose error or output change is zero.
"""

import jax
import jax.numpy as jnp
from jax import Array


def cosine(a: Array, b: Array, axis=-1) -> Array:
    """Cosine along `axis`; NaN where either has no length."""
    norms = jnp.linalg.norm(a, axis=axis) * jnp.linalg.norm(b, axis=axis)
    return jnp.where(norms > 0, jnp.sum(a * b, axis) / jnp.where(norms > 0, norms, 1), jnp.nan)


def tree_cosine(a, b) -> Array:
    """Cosine of two pytrees of the same structure, each as one long vector."""
    norms = jnp.sqrt(_dot(a, a)) * jnp.sqrt(_dot(b, b))
    return jnp.where(norms > 0, _dot(a, b) / jnp.where(norms > 0, norms, 1), jnp.nan)


def tree_sine(a, b) -> Array:
    """Sine of their angle: how far the nearest multiple of a is from b, relative to b's length.

    By the difference itself: 1 - cosine² has no digits left below the root of the precision."""
    along = _dot(a, b) / jnp.where((aa := _dot(a, a)) > 0, aa, jnp.nan)
    rest = [y - along * x for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return jnp.sqrt(_dot(rest, rest)) / jnp.sqrt(_dot(b, b))


def _dot(a, b) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.sum(x * y) for x, y in pairs)


def target_alignment(change: Array, error: Array) -> Array:
    """Mean over samples of cos(change of the output, error): (B, C), (B, C) → ()."""
    return jnp.nanmean(cosine(change, error))


def first_order_change(outputs, params, update) -> Array:
    """The output's change to first order in a parameter update: J·update, (B, C), exactly."""
    return jax.jvp(outputs, (params,), (update,))[1]
