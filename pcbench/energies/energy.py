"""Energies of the layer states: per-sample sums of layer-local terms.

The energy of a network is F(θ, h) = Σ_l e_l(h_l, μ_l), where μ_l is layer l's prediction. Each e_l
is a number per sample; a stack's has a leading axis n. The output term compares the output's
prediction with the output state, which in supervised learning is held at a target.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.networks.network import Network

Loss = Callable[[Array, Array], Array]  # (prediction, target), each (B, C) → (B,)


def squared_error(prediction: Array, target: Array) -> Array:
    """½‖y - ŷ‖² per sample: (B, C), (B, C) → (B,)."""
    return 0.5 * jnp.sum((target - prediction) ** 2, -1)


def cross_entropy(prediction: Array, target: Array) -> Array:
    """-Σ y log softmax(ŷ) per sample; `prediction` holds logits."""
    return -jnp.sum(target * jax.nn.log_softmax(prediction), -1)


LOSSES: dict[str, Loss] = {"squared_error": squared_error, "cross_entropy": cross_entropy}


def prediction_energy(
    network: Network,
    predictions: tuple,
    states: tuple,
    loss: Loss,
    precisions: Sequence | None = None,
) -> tuple:
    """The `pc` energy: ½π_l‖h_l - μ_l‖² in hidden layers, π_L·loss(μ_L, h_L) at the output.

    Returns one entry per factor: (B,), of a stack (n, B). `precisions`: one entry per factor, a
    scalar, of a stack (n,); None: all 1.
    """
    energies = []
    for k, factor in enumerate(network.factors):
        if k == len(network.factors) - 1:
            energy = loss(predictions[k], states[k])
        else:
            first_feature = 1 if factor.length is None else 2
            features = tuple(range(first_feature, states[k].ndim))
            energy = 0.5 * jnp.sum((states[k] - predictions[k]) ** 2, features)
        if precisions is not None:
            energy = precisions[k][..., None] * energy
        energies.append(energy)
    return tuple(energies)


def per_factor(network: Network, values: Array) -> tuple:
    """Split one value per layer, (L,), into one entry per factor: () or, of a stack, (n,)."""
    entries, start = [], 0
    for factor in network.factors:
        if factor.length is None:
            entries.append(values[start])
        else:
            entries.append(values[start : start + factor.length])
        start += factor.length or 1
    return tuple(entries)


def per_layer(energies: tuple) -> Array:
    """Energies per factor → batch means per layer, input to output: (L,)."""
    return jnp.concatenate([jnp.atleast_1d(jnp.mean(e, -1)) for e in energies])


def total(energies: tuple) -> Array:
    """The energy summed over layers *and* batch: its gradient with respect to a sample's states
    does not depend on the batch size."""
    return sum(jnp.sum(e) for e in energies)
