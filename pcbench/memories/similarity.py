"""How alike cues and stored patterns are, in universal Hopfield networks (Millidge et al. 2022,
arXiv 2202.04557).

Functions of cues (B, C) and patterns (N, C) give scores (B, N), the higher the more alike. Of a
distance d that is 1/(d + ε): a pattern that equals the cue scores highest.

`normalised_dot` and the divergences take a pattern as a distribution over its elements: they are
meant for patterns without negative elements, and the divergences are NaN of others.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

GUARD = 1e-12  # ε: far below the distance of two patterns that differ
UNIFORM = 1e-3  # share of the uniform distribution that keeps logarithms of missing elements finite


def dot(cues: Array, patterns: Array) -> Array:
    return cues @ patterns.T


def normalised_dot(cues: Array, patterns: Array) -> Array:
    """Of vectors divided by their sums."""
    return shares(cues) @ shares(patterns).T


def cosine(cues: Array, patterns: Array) -> Array:
    """Every vector is divided by its own norm; a zero one scores 0."""
    return unit(cues) @ unit(patterns).T


def euclidean(cues: Array, patterns: Array) -> Array:
    """Σ(q - m)², of which products leave rounding errors that may be negative."""
    squares = jnp.sum(cues**2, -1)[:, None] + jnp.sum(patterns**2, -1)
    return jnp.maximum(squares - 2 * cues @ patterns.T, 0)


def manhattan(cues: Array, patterns: Array) -> Array:
    """Σ|q - m|, pattern by pattern: all at once would be (B, N, C) numbers."""
    return jax.lax.map(lambda m: jnp.sum(jnp.abs(cues - m), -1), patterns).T


def kl(cues: Array, patterns: Array) -> Array:
    """KL(m‖q) = Σ m log m/q."""
    return reverse_kl(patterns, cues).T


def reverse_kl(cues: Array, patterns: Array) -> Array:
    """KL(q‖m) = Σ q log q/m."""
    q, m = distribution(cues), distribution(patterns)
    return jnp.maximum(jnp.sum(q * jnp.log(q), -1)[:, None] - q @ jnp.log(m).T, 0)


def jensen_shannon(cues: Array, patterns: Array) -> Array:
    """½KL(q‖a) + ½KL(m‖a) with a = (q + m)/2: symmetric, at most log 2. Pattern by pattern."""
    q = distribution(cues)

    def divergence(m):
        log = jnp.log((q + m) / 2)
        return 0.5 * jnp.sum(q * (jnp.log(q) - log) + m * (jnp.log(m) - log), -1)

    return jnp.maximum(jax.lax.map(divergence, distribution(patterns)).T, 0)


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "euclidean": euclidean,
    "manhattan": manhattan,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def inverse(distance: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda cues, patterns: 1 / (distance(cues, patterns) + GUARD)


SIMILARITIES: dict[str, Callable[[Array, Array], Array]] = {
    "dot": dot,
    "normalised_dot": normalised_dot,
    "cosine": cosine,
    **{name: inverse(distance) for name, distance in DISTANCES.items()},
}


def shares(vectors: Array) -> Array:
    """Divided by their sums; a sum of zero counts as one."""
    total = jnp.sum(vectors, -1, keepdims=True)
    return vectors / jnp.where(total == 0, 1, total)


def unit(vectors: Array) -> Array:
    """Divided by their norms."""
    length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.where(length == 0, 1, length)


def distribution(vectors: Array) -> Array:
    """Positive, of sum 1, the same for any scale of a vector."""
    return (1 - UNIFORM) * shares(vectors) + UNIFORM / vectors.shape[-1]
