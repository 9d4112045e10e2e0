"""What makes the best match stand out, in universal Hopfield networks (Millidge et al. 2022, arXiv
2202.04557): functions of scores (B, N) and of a strength () give the patterns' weights (B, N).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def log(scores: Array, strength: Array) -> Array:
    """Of positive scores. Scores below one get negative weights."""
    return jnp.log(scores)


def softmax(scores: Array, strength: Array) -> Array:
    """exp(βs) / Σ exp(βs), β the strength."""
    return jax.nn.softmax(strength * scores, -1)


def largest(scores: Array, strength: Array) -> Array:
    """1 for the first one with the largest score, 0 for the others."""
    return jax.nn.one_hot(jnp.argmax(scores, -1), scores.shape[-1], dtype=scores.dtype)


def power(exponent: float) -> Callable[[Array, Array], Array]:
    return lambda scores, strength: scores**exponent


POWERS = {
    "sqrt": power(0.5),  # of scores that are not negative
    "identity": power(1),
    "square": power(2),
    "cube": power(3),
    "quartic": power(4),
    "polynomial": power(10),
}
CONVEX = {"softmax": softmax, "max": largest}  # weights that have the sum 1 already

SEPARATIONS: dict[str, Callable[[Array, Array], Array]] = {"log": log, **POWERS, **CONVEX}


def separate(
    name: str, scores: Array, stored: Array, strength: Array, normalise: bool = False
) -> Array:
    """The weights (B, N) of the patterns that are stored, booleans (N,); 0 of the others.

    `normalise` divides them by their sum. The scores are not: under softmax the strength would
    multiply something else for every cue.
    """
    normalise = normalise and name not in CONVEX
    if normalise and name in POWERS:
        # Ratios alone count: relative to the largest score, tenth powers stay within float32.
        most = jnp.max(jnp.abs(scores), -1, keepdims=True, where=stored, initial=0)
        scores = scores / jnp.where(most == 0, 1, most)
    weights = SEPARATIONS[name](jnp.where(stored, scores, -jnp.inf), strength)
    weights = jnp.where(stored, weights, 0)
    if normalise:
        total = jnp.sum(weights, -1, keepdims=True)
        weights = weights / jnp.where(total == 0, 1, total)
    return weights
