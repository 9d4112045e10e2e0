"""The equilibrated energy of a network, without relaxing and without a matrix per layer.

What the output makes of an error at layer l, P_l = ∂ŷ/∂ε_l, is one reverse pass per output through
the forward pass with errors injected. With precisions π_l and the identity for the output itself,

    S = I/π_L + Σ_{l<L} P_l P_lᵀ/π_l,    F* = ½ (y - ŷ)ᵀ S⁻¹ (y - ŷ),    ε_l = P_lᵀ S⁻¹ (y - ŷ)/π_l

In linear networks (skips and biases included) F* is the energy at its minimum over the states, and
its gradient what predictive coding learns with (Innocenti et al. 2024, arXiv 2408.11979); S is the
same for every input. In others S holds to first order around the forward pass of one input. S → I
means that predictive coding becomes backpropagation; costs are O(C·L·N²) for C outputs.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.energies.energy import per_factor
from pcbench.networks.network import Network

Precisions = Sequence | Array | None  # one per layer, input to output; None: all 1


def sensitivities(network: Network, weights: tuple, x: Array | None = None) -> tuple:
    """P_l of every hidden factor at one input x (…), by default zero: (C, …), of a stack (n, C, …)
    with the layer's features last."""
    x = jnp.zeros(network.input_shape, jax.tree.leaves(weights)[0].dtype) if x is None else x
    shapes = network.state_shapes(1)[:-1]
    offsets = jax.tree.map(lambda s: jnp.zeros(s.shape, x.dtype), shapes)
    jacobians = jax.jacrev(lambda o: network.forward(weights, x[None], o)[-1][0])(offsets)
    return tuple(
        j[:, 0] if factor.length is None else jnp.swapaxes(j[:, :, 0], 0, 1)
        for factor, j in zip(network.factors, jacobians, strict=False)
    )


def rescaling(
    network: Network, weights: tuple, x: Array | None = None, precisions: Precisions = None
) -> Array:
    """S: (C, C). Of a linear network for every x, else at the given one."""
    found = sensitivities(network, weights, x)
    *hidden, output = _entries(network, precisions)
    outputs = network.state_shapes(1)[-1].shape[-1]
    total = jnp.eye(outputs, dtype=jax.tree.leaves(weights)[0].dtype) / output
    for factor, p, precision in zip(network.factors, found, hidden, strict=False):
        stack = p[None] if factor.length is None else p
        flat = stack.reshape(len(stack), outputs, -1)
        each = jnp.broadcast_to(1 / jnp.asarray(precision), len(stack))
        total = total + jnp.einsum("nci,ndi,n->cd", flat, flat, each)
    return total


def mean_rescaling(rescaling: Array) -> Array:
    """s = tr(S)/C. Of a residual linear network of L layers drawn under `depth_mup`,
    s - 1 ≈ L((1 + 1/L)^(L-1) - 1)/(γ₀²N) in expectation."""
    return jnp.trace(rescaling) / len(rescaling)


def largest_rescaling(rescaling: Array) -> Array:
    """‖S‖₂: above the mean where there are several outputs, of which deep layers favour some."""
    return jnp.linalg.eigvalsh(rescaling)[-1]


def equilibrium_energy(
    network: Network, weights: tuple, x: Array, y: Array, precisions: Precisions = None
) -> Array:
    """F* of a linear network, mean over the batch: x (B, …), y (B, C). `jax.grad` of it gives the
    weight gradient of predictive coding at equilibrium."""
    error = y - network.forward(weights, x)[-1]
    top = jnp.linalg.solve(rescaling(network, weights, None, precisions), error.T)
    return 0.5 * jnp.mean(jnp.sum(error * top.T, -1))


equilibrium_gradient = jax.grad(equilibrium_energy, argnums=1)


def equilibrium_states(
    network: Network, weights: tuple, x: Array, y: Array, precisions: Precisions = None
) -> tuple:
    """The states of a linear network at the minimum, the output's at y: x (B, …), y (B, C)."""
    error = y - network.forward(weights, x)[-1]
    top = jnp.linalg.solve(rescaling(network, weights, None, precisions), error.T).T  # (B, C)
    found = sensitivities(network, weights)
    entries = _entries(network, precisions)
    offsets = []
    for factor, p, precision in zip(network.factors, found, entries, strict=False):
        back = partial(jnp.tensordot, top, axes=1)
        if factor.length is None:
            offsets.append(back(p) / precision)
        else:
            scale = jnp.reshape(precision, (-1, *(1,) * (p.ndim - 1)))
            offsets.append(jax.vmap(back)(p) / scale)
    return (*network.forward(weights, x, tuple(offsets))[:-1], y)


def _entries(network: Network, precisions: Precisions) -> tuple:
    if precisions is None:
        return (1.0,) * len(network.factors)
    return per_factor(network, jnp.asarray(precisions))
