"""What learning does in each layer: sizes of states and updates, prospective index."""

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.metrics.alignment import cosine
from pcbench.networks.network import Network


def prospective_index(network: Network, free: tuple, clamped: tuple, learned: tuple) -> Array:
    """Per layer, cos(x_l(W', free) - x_l(W, free), x_l(W, clamped) - x_l(W, free)): (L,).

    Song et al. 2024, Nature Neuroscience 27:348: does the update W → W' of the weights move the
    free states to where relaxation with the output clamped had put them? free, clamped, learned:
    the states of a batch under W, relaxed under W with the target, and under W'. Mean over samples;
    NaN for a layer that did not move. At the output it is the target alignment.
    """
    columns = []
    for factor, *states in zip(network.factors, free, clamped, learned, strict=True):
        if factor.length is None:
            states = [h[None] for h in states]
        start, goal, now = (h.reshape(*h.shape[:2], -1) for h in states)  # (layers, B, features)
        columns.append(jnp.nanmean(cosine(now - start, goal - start), -1))
    return jnp.concatenate(columns)


def root_mean_square(network: Network, states: tuple) -> Array:
    """Per layer, over its units and samples: (L,)."""
    columns = [
        jnp.sqrt(jnp.mean(h.reshape(factor.length or 1, -1) ** 2, -1))
        for factor, h in zip(network.factors, states, strict=True)
    ]
    return jnp.concatenate(columns)


def layer_norms(network: Network, tree: tuple) -> Array:
    """Euclidean norm of each layer's part of a tree shaped like the weights (an update): (L,).
    Layers that share their weights have the same one."""
    columns = []
    for factor, own in zip(network.factors, tree, strict=True):
        squares = [
            jnp.sum(jnp.reshape(leaf, (factor.length or 1, -1)) ** 2, -1)
            for leaf in jax.tree.leaves(factor.unrolled(own))
        ]
        columns.append(jnp.sqrt(sum(squares, jnp.zeros(factor.length or 1))))
    return jnp.concatenate(columns)
