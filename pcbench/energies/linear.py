"""Closed forms of predictive coding in deep linear networks.

Notation: h_l = W_l h_{l-1} for l = 1..L, weights as (fan_out, fan_in) matrices, A_l = W_L…W_{l+1}
(A_L = I), e = y - ŷ. With the input and the output held, the energy ½Σ‖z_l - W_l z_{l-1}‖² has one
minimum over the hidden states (Innocenti et al. 2024, arXiv 2408.11979; Millidge et al. 2022,
arXiv 2207.12316; with e = 0 it is the forward pass):

    S = Σ_l A_l A_lᵀ,  r = S⁻¹e,  ε_l = A_lᵀ r,  z_l = W_l z_{l-1} + ε_l,  F* = ½ eᵀ S⁻¹ e
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Equilibrium(NamedTuple):
    """Of one sample. States and errors per layer 1..L; z_L = y."""

    rescaling: Array  # S: (L outputs, L outputs)
    states: tuple[Array, ...]
    errors: tuple[Array, ...]
    energy: Array  # F*


def downstream(weights: Sequence[Array]) -> list[Array]:
    """A_l = W_L…W_{l+1} for l = 1..L: what the output makes of layer l."""
    maps = [jnp.eye(weights[-1].shape[0], dtype=weights[-1].dtype)]
    for weight in reversed(weights[1:]):
        maps.append(maps[-1] @ weight)
    return maps[::-1]


def forward(weights: Sequence[Array], x: Array) -> list[Array]:
    """h_1..h_L."""
    states = [x]
    for weight in weights:
        states.append(weight @ states[-1])
    return states[1:]


def equilibrium(weights: Sequence[Array], x: Array, y: Array) -> Equilibrium:
    """The relaxed states for one sample: x (D,), y (C,)."""
    maps = downstream(weights)
    rescaling = sum(a @ a.T for a in maps)
    error = y - forward(weights, x)[-1]
    top = jnp.linalg.solve(rescaling, error)
    errors = tuple(a.T @ top for a in maps)
    states, z = [], x
    for weight, layer_error in zip(weights, errors, strict=True):
        z = weight @ z + layer_error
        states.append(z)
    return Equilibrium(rescaling, tuple(states), errors, 0.5 * error @ top)


def output_change(weights: Sequence[Array], x: Array, y: Array, rule: str) -> Array:
    """First-order change of the output per unit of learning rate, for one sample.

    `bp`: Σ_l ‖h_{l-1}‖² A_lA_lᵀ e; `pc` at equilibrium: Σ_l (h_{l-1}·z_{l-1}) A_lA_lᵀ S⁻¹e. Its
    cosine with e is the target alignment (Oliviers et al., arXiv 2605.11911).
    """
    before = [x, *forward(weights, x)[:-1]]
    error = y - forward(weights, x)[-1]
    if rule == "bp":
        presynaptic, direction = before, error
    elif rule == "pc":
        relaxed = equilibrium(weights, x, y)
        presynaptic, direction = [x, *relaxed.states[:-1]], relaxed.errors[-1]
    else:
        raise ValueError(f"rule {rule!r}: bp or pc")
    maps = downstream(weights)
    return sum(
        (h @ z) * (a @ (a.T @ direction)) for h, z, a in zip(before, presynaptic, maps, strict=True)
    )
