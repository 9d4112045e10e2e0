"""The sets that sources lie in, and a step of projected descent onto each of them.

    antisparse               |s_i| ≤ 1
    nonnegative_antisparse   0 ≤ s_i ≤ 1
    sparse                   Σ|s_i| ≤ 1
    nonnegative_sparse       s_i ≥ 0, Σ s_i ≤ 1
    simplex                  s_i ≥ 0, Σ s_i = 1

A box is projected onto at once. The others have a dual variable, the threshold λ, that ascends with
the constraint's violation at every step: λ ← λ + c·(Σ|s_i| - 1), not below 0 for an inequality.
"""

import jax.numpy as jnp
from jax import Array

BOUND = 5.0  # of nonnegative sparse states while λ is still small: any source is below 1


def antisparse(y: Array, threshold: Array, rate: Array) -> tuple[Array, Array]:
    return jnp.clip(y, -1, 1), threshold


def nonnegative_antisparse(y: Array, threshold: Array, rate: Array) -> tuple[Array, Array]:
    return jnp.clip(y, 0, 1), threshold


def sparse(y: Array, threshold: Array, rate: Array) -> tuple[Array, Array]:
    y = jnp.sign(y) * jnp.maximum(jnp.abs(y) - threshold, 0)
    return y, jnp.maximum(threshold + rate * (jnp.sum(jnp.abs(y)) - 1), 0)


def nonnegative_sparse(y: Array, threshold: Array, rate: Array) -> tuple[Array, Array]:
    y = jnp.clip(y - threshold, 0, BOUND)
    return y, jnp.maximum(threshold + rate * (jnp.sum(y) - 1), 0)


def simplex(y: Array, threshold: Array, rate: Array) -> tuple[Array, Array]:
    y = jnp.maximum(y - threshold, 0)
    return y, threshold + rate * (jnp.sum(y) - 1)


# (y (n,), λ (), c ()) → (y in the domain, or on its way there; λ)
DOMAINS = {
    "antisparse": antisparse,
    "nonnegative_antisparse": nonnegative_antisparse,
    "sparse": sparse,
    "nonnegative_sparse": nonnegative_sparse,
    "simplex": simplex,
}
