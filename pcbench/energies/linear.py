"""Closed forms of predictive coding in deep linear networks, from their matrices.

Notation: h_l = W_l h_{l-1} for l = 1..L, weights as (fan_out, fan_in) matrices (with their forward
multiplier, and with the identity added where a layer has a skip), A_l = W_L…W_{l+1} (A_L = I),
e = y - ŷ, precisions π_l. With the input and the output held, the energy ½Σπ_l‖z_l - W_l z_{l-1}‖²
has one minimum over the hidden states (Innocenti et al. 2024, arXiv 2408.11979; Millidge et al.
2022, arXiv 2207.12316; with e = 0 it is the forward pass):

    S = Σ_l A_l A_lᵀ/π_l,  r = S⁻¹e,  ε_l = A_lᵀ r/π_l,  z_l = W_l z_{l-1} + ε_l,  F* = ½ eᵀ S⁻¹ e

For whole networks, nonlinear ones included, see `energies/equilibrium.py`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from pcbench.networks.activations import IDENTITY
from pcbench.networks.layers import Dense
from pcbench.networks.network import Network


class Equilibrium(NamedTuple):
    """Of one sample. States and errors per layer 1..L; z_L = y."""

    rescaling: Array  # S: (L outputs, L outputs)
    states: tuple[Array, ...]
    errors: tuple[Array, ...]
    energy: Array  # F*


def is_linear_chain(network: Network) -> bool:
    """Whether the closed forms hold: each layer linear in the previous one, without biases."""
    return all(
        factor.sources == (k - 1,)
        and isinstance(layer := factor.module, Dense)
        and layer.activation is layer.source_activation is IDENTITY
        and not layer.bias
        for k, factor in enumerate(network.factors)
    )


def matrices(network: Network, weights: tuple) -> list[Array]:
    """W_1..W_L of a linear chain without biases, from its effective weights; skips are in them.

    The layers' own code makes them, so that they cannot differ from what the energy computes.
    """
    found: list[Array] = []
    for k, factor in enumerate(network.factors):
        if factor.sources != (k - 1,):
            raise ValueError("a chain is needed: every layer with the previous one as its source.")
        for n in range(factor.length or 1):
            own = weights[k] if factor.length is None else _layer(weights[k], n)
            size = found[-1].shape[0] if found else math.prod(network.input_shape)
            units = jnp.eye(size, dtype=jax.tree.leaves(own)[0].dtype)
            if not found:
                units = units.reshape(size, *network.input_shape)
            found.append(factor.apply(own, units).T)
    return found


def _layer(weights, n: int):
    return jax.tree.map(lambda w: w[n], weights)


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


def equilibrium(
    weights: Sequence[Array], x: Array, y: Array, precisions: Sequence | None = None
) -> Equilibrium:
    """The relaxed states for one sample: x (D,), y (C,)."""
    precisions = [1.0] * len(weights) if precisions is None else precisions
    maps = downstream(weights)
    rescaling = sum(a @ a.T / p for a, p in zip(maps, precisions, strict=True))
    error = y - forward(weights, x)[-1]
    top = jnp.linalg.solve(rescaling, error)
    errors = tuple(a.T @ top / p for a, p in zip(maps, precisions, strict=True))
    states, z = [], x
    for weight, layer_error in zip(weights, errors, strict=True):
        z = weight @ z + layer_error
        states.append(z)
    return Equilibrium(rescaling, tuple(states), errors, 0.5 * error @ top)


def activity_hessian(
    weights: Sequence[Array], precisions: Sequence | None = None
) -> tuple[list[Array], list[Array]]:
    """∂²F/∂z² over the hidden states z_1..z_{L-1}, block tridiagonal: (diagonal, above it).

    H_{l,l} = π_l I + π_{l+1} W_{l+1}ᵀW_{l+1},  H_{l,l+1} = -π_{l+1} W_{l+1}ᵀ.
    """
    precisions = [1.0] * len(weights) if precisions is None else precisions
    diagonal = [
        p * jnp.eye(w.shape[0], dtype=w.dtype) + q * (v.T @ v)
        for w, v, p, q in zip(weights, weights[1:], precisions, precisions[1:], strict=False)
    ]
    above = [-q * v.T for v, q in zip(weights[1:-1], precisions[1:-1], strict=True)]
    return diagonal, above


def solve_block_tridiagonal(
    diagonal: Sequence[Array], above: Sequence[Array], right: Sequence[Array]
) -> list[Array]:
    """x with Hx = right, for a symmetric positive definite H: Thomas' algorithm, O(L N³).

    diagonal: (N_l, N_l) each; above: H_{l,l+1}, (N_l, N_{l+1}) each; right: (N_l, …) each.
    """
    factors, reduced = [], []
    for l, (block, b) in enumerate(zip(diagonal, right, strict=True)):
        if l:
            block = block - above[l - 1].T @ cho_solve(factors[-1], above[l - 1])
            b = b - above[l - 1].T @ cho_solve(factors[-1], reduced[-1])
        factors.append(cho_factor(block))
        reduced.append(b)
    x = [cho_solve(factors[-1], reduced[-1])]
    for l in reversed(range(len(above))):
        x.append(cho_solve(factors[l], reduced[l] - above[l] @ x[-1]))
    return x[::-1]


def relaxed_states(
    weights: Sequence[Array], x: Array, y: Array, precisions: Sequence | None = None
) -> list[Array]:
    """z_1..z_{L-1} of a batch, (B, N_l) each, where ∂F/∂z = 0: x (B, D), y (B, C), L > 1."""
    precisions = [1.0] * len(weights) if precisions is None else precisions
    right = [jnp.zeros((w.shape[0], len(x)), w.dtype) for w in weights[:-1]]
    right[0] = right[0] + precisions[0] * weights[0] @ x.T
    right[-1] = right[-1] + precisions[-1] * weights[-1].T @ y.T
    return [z.T for z in solve_block_tridiagonal(*activity_hessian(weights, precisions), right)]


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
