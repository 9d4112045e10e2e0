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


ENERGIES = ("pc", "hopfield", "fenchel_young")


def layer_energies(
    kind: str,
    network: Network,
    outputs: tuple,
    states: tuple,
    *,
    output_loss: Loss | None = None,
    precisions: Sequence | None = None,
    potentials: bool = True,
) -> tuple:
    """One entry per factor, (B,) or of a stack (n, B):

    - `pc`             ½π‖h - μ‖²                 (`outputs`: the predictions μ = σ(a))
    - `hopfield`       G(h) - ⟨h, a⟩              (`outputs`: the pre-activations a)
    - `fenchel_young`  G(h) + G*(a) - ⟨h, a⟩ ≥ 0, zero exactly at h = σ(a)

    (Scellier et al. 2023; Høier & Zach 2020.) output_loss: the output's term is the loss of its
    prediction (`pc` with the output state held at a target). precisions: one entry per factor, a
    scalar, of a stack (n,); None: all 1. `potentials=False` leaves G out, as mirror descent needs.
    """
    energies = []
    for k, factor in enumerate(network.factors):
        h, value = states[k], outputs[k]
        if output_loss is not None and k == len(network.factors) - 1:
            energy = output_loss(value, h)
        else:
            leading = h.shape[: 1 if factor.length is None else 2]
            h, value = h.reshape(*leading, -1), value.reshape(*leading, -1)
            if kind == "pc":
                energy = 0.5 * jnp.sum((h - value) ** 2, -1)
            else:
                energy = -jnp.sum(h * value, -1)
                if potentials:
                    energy = energy + factor.activation.potential(h)
                if kind == "fenchel_young":
                    energy = energy + factor.activation.conjugate(value)
        if factor.precision != 1:
            energy = factor.precision * energy
        if precisions is not None:
            energy = precisions[k][..., None] * energy
        energies.append(energy)
    return tuple(energies)


def prediction_energy(
    network: Network,
    predictions: tuple,
    states: tuple,
    loss: Loss,
    precisions: Sequence | None = None,
) -> tuple:
    """The `pc` energy with the output state held: ½π_l‖h_l - μ_l‖² in hidden layers,
    π_L·loss(μ_L, h_L) at the output."""
    return layer_energies(
        "pc", network, predictions, states, output_loss=loss, precisions=precisions
    )


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
