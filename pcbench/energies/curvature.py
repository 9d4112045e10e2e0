"""The Hessian of the energy over the states, as a linear operator, and its extreme eigenvalues.

Its condition number is what a relaxation by gradient descent has to fight: the slowest of the
directions needs about as many steps as it is large (Innocenti et al. 2025, arXiv 2505.13124).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from pcbench.energies.energy import Loss, per_factor, prediction_energy, squared_error, total
from pcbench.networks.network import Network

Operator = Callable[[Any], Any]  # a tangent of the hidden states → the Hessian's product with it


class Spectrum(NamedTuple):
    """Extreme eigenvalues. `errors`: each lies within so much of an eigenvalue."""

    smallest: Array
    largest: Array
    errors: Array  # (2,): of the smallest and of the largest

    @property
    def condition(self) -> Array:
        """largest / smallest; meaningful once the smallest is positive and well above its error."""
        return self.largest / self.smallest


def activity_hessian(
    network: Network,
    weights: tuple,
    states: tuple,
    x: Array,
    loss: Loss = squared_error,
    precisions: Array | None = None,
) -> tuple[Operator, tuple]:
    """(v ↦ ∂²F/∂h² v, the hidden states) of the `pc` energy with x and the output state held.

    states: all of them, (B, …) each. The Hessian has one block per sample, so that of a batch has
    the eigenvalues of all samples; take one sample at a time (`jax.vmap`) to tell them apart.
    """
    *hidden, target = states
    if precisions is not None:
        precisions = per_factor(network, precisions)

    def energy(h):
        every = (*h, target)
        predictions = network.predict(weights, x, every)
        return total(prediction_energy(network, predictions, every, loss, precisions))

    return jax.linearize(jax.grad(energy), tuple(hidden))[1], tuple(hidden)


def spectrum(operator: Operator, like: Any, key: Array, steps: int = 100) -> Spectrum:
    """Extreme eigenvalues of a symmetric operator on pytrees shaped like `like`, by Lanczos.

    With full reorthogonalisation; exact after as many steps as there are dimensions. The largest
    eigenvalue converges within tens of steps, the smallest of an ill-conditioned operator in about
    √condition: see `errors`.
    """
    flat, unravel = ravel_pytree(like)
    dimension, steps = flat.size, min(steps, flat.size)
    tiny = 100 * jnp.finfo(flat.dtype).eps

    def orthogonal(v, basis):
        for _ in range(2):  # twice is enough
            v = v - basis.T @ (basis @ v)
        return v

    def step(carry, inputs):
        basis, v, scale = carry
        k, step_key = inputs
        basis = basis.at[k].set(v)
        w = ravel_pytree(operator(unravel(v)))[0]
        diagonal = v @ w
        w = orthogonal(w, basis)
        off = jnp.linalg.norm(w)
        scale = jnp.maximum(scale, jnp.abs(diagonal) + off)
        # an invariant subspace is exhausted: go on in a new direction, uncoupled
        fresh = orthogonal(jax.random.normal(step_key, w.shape, w.dtype), basis)
        ended = off <= tiny * scale
        following = jnp.where(ended, fresh, w)
        following = following / jnp.maximum(jnp.linalg.norm(following), jnp.finfo(w.dtype).tiny)
        return (basis, following, scale), (diagonal, jnp.where(ended, 0, off))

    first, later = jax.random.split(key)
    v = jax.random.normal(first, flat.shape, flat.dtype)
    carry = (
        jnp.zeros((steps, dimension), flat.dtype),
        v / jnp.linalg.norm(v),
        jnp.zeros_like(v[0]),
    )
    inputs = (jnp.arange(steps), jax.random.split(later, steps))
    _, (diagonal, off) = jax.lax.scan(step, carry, inputs)
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    values, vectors = jnp.linalg.eigh(tridiagonal)
    errors = jnp.abs(off[-1] * vectors[-1, jnp.array([0, -1])])
    return Spectrum(values[0], values[-1], errors)
