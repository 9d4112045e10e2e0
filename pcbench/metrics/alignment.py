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
    dot, aa, bb = (
        sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True))
        for p, q in ((a, b), (a, a), (b, b))
    )
    norms = jnp.sqrt(aa) * jnp.sqrt(bb)
    return jnp.where(norms > 0, dot / jnp.where(norms > 0, norms, 1), jnp.nan)


def target_alignment(change: Array, error: Array) -> Array:
    """Mean over samples of cos(change of the output, error): (B, C), (B, C) → ()."""
    return jnp.nanmean(cosine(change, error))


def first_order_change(outputs, params, update) -> Array:
    """The output's change to first order in a parameter update: J·update, (B, C), exactly."""
    return jax.jvp(outputs, (params,), (update,))[1]
