"""Activations σ with their potentials: ∇G = σ⁻¹ on the interior, ∇G* = σ.

The Hopfield and Fenchel–Young energies need the pair (G, G*); an activation without one serves the
`pc` energy only. Constraints that belong to G (h ≥ 0 for relu) are enforced by the update, never
evaluated here. G and G* are sums over the features (last axis): (…, D) → (…).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

Array = jax.Array


@dataclass(frozen=True)
class Activation:
    """σ, its potential G and the conjugate G*; `interior` bounds the values of σ."""

    name: str
    fn: Callable[[Array], Array]
    potential: Callable[[Array], Array] | None = None
    conjugate: Callable[[Array], Array] | None = None
    interior: tuple[float, float] = (-jnp.inf, jnp.inf)

    def __call__(self, a: Array) -> Array:
        return self.fn(a)


def _sum(elementwise):
    return lambda h: jnp.sum(elementwise(h), -1)


def _half_square(h):
    return 0.5 * h * h


def _hard_sigmoid(a):
    return jnp.clip(a, 0.0, 1.0)


def _hard_tanh(a):
    return jnp.clip(a, -1.0, 1.0)


def _log_cosh(a):
    return jnp.logaddexp(a, -a) - jnp.log(2.0)


LEAK = 0.01  # slope of leaky_relu below zero, the customary one

ACTIVATIONS = {
    a.name: a
    for a in (
        Activation("identity", lambda a: a, _sum(_half_square), _sum(_half_square)),
        Activation(
            "relu",
            jax.nn.relu,
            _sum(_half_square),
            _sum(lambda a: 0.5 * jax.nn.relu(a) ** 2),
            (0.0, jnp.inf),
        ),
        Activation(
            "leaky_relu",
            lambda a: jax.nn.leaky_relu(a, LEAK),
            _sum(lambda h: 0.5 * h * jnp.where(h >= 0, h, h / LEAK)),
            _sum(lambda a: 0.5 * a * jax.nn.leaky_relu(a, LEAK)),
        ),
        Activation(
            "hard_sigmoid",
            _hard_sigmoid,
            _sum(_half_square),
            _sum(lambda a: a * _hard_sigmoid(a) - _half_square(_hard_sigmoid(a))),
            (0.0, 1.0),
        ),
        Activation(
            "hard_tanh",
            _hard_tanh,
            _sum(_half_square),
            _sum(lambda a: a * _hard_tanh(a) - _half_square(_hard_tanh(a))),
            (-1.0, 1.0),
        ),
        Activation(
            "sigmoid",
            jax.nn.sigmoid,
            _sum(lambda h: xlogy(h, h) + xlogy(1 - h, 1 - h)),
            _sum(jax.nn.softplus),
            (0.0, 1.0),
        ),
        Activation(
            "tanh",
            jnp.tanh,
            _sum(lambda h: 0.5 * (xlogy(1 + h, 1 + h) + xlogy(1 - h, 1 - h))),
            _sum(_log_cosh),
            (-1.0, 1.0),
        ),
        Activation(
            "softmax",
            jax.nn.softmax,
            _sum(lambda h: xlogy(h, h)),
            lambda a: jax.nn.logsumexp(a, -1),
            (0.0, 1.0),
        ),
        Activation("gelu", jax.nn.gelu),
        Activation("silu", jax.nn.silu),
    )
}
IDENTITY = ACTIVATIONS["identity"]
