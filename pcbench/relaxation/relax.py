"""Relaxation of states down an energy: the one primitive that all energy-based rules share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pcbench.energies.energy import per_layer, total

Energies = Callable[[Any], tuple]  # states → energies per factor, (B,) or (n, B) each


class Relaxed(NamedTuple):
    """Where a relaxation ended, and what continuing it needs."""

    states: Any
    updater_state: Any  # of the optax updater, and the step size's discount
    trace: Array | None  # (steps, L): mean energy per layer before each step; None unless asked


class _UpdaterState(NamedTuple):
    optax: Any
    scale: Array  # of the step size, lowered by the discount
    energy: Array  # of the batch, at the previous step


def relax(
    energies: Energies,
    start: Any,
    *,
    steps: int,
    updater: optax.GradientTransformation,
    free_mask: Any = None,
    discount: Array | None = None,
    noise: Array | None = None,
    key: Array | None = None,
    updater_state: _UpdaterState | None = None,
    trace: bool = False,
) -> Relaxed:
    """`steps` synchronous updates of the free states along -∂F/∂h.

    start: any pytree of states. free_mask: the same structure with True (free), False (clamped:
    costs nothing) or a boolean array (clamped where False); None: all free. discount: factor on the
    step size after each step at which the batch's energy did not fall (Song et al. 2024). noise:
    standard deviation of Gaussian noise added to the gradient at every step (Langevin dynamics
    at temperature τ and step size γ: √(2τ/γ)); needs a `key`. updater_state: of an earlier call
    on the same states, to continue it, also with other masks.

    The energy is summed over the batch: step sizes are per sample.
    """
    leaves, structure = jax.tree.flatten(start)
    masks = [True] * len(leaves) if free_mask is None else structure.flatten_up_to(free_mask)
    free = [k for k, mask in enumerate(masks) if mask is not False]
    if updater_state is None:
        infinity = jnp.full((), jnp.inf, leaves[0].real.dtype)
        updater_state = _UpdaterState(
            updater.init(tuple(leaves)), jnp.ones_like(infinity), infinity
        )

    def objective(moving: list[Array]) -> tuple[Array, tuple]:
        values = list(leaves)
        for k, value in zip(free, moving, strict=True):
            values[k] = value
        parts = energies(structure.unflatten(values))
        return total(parts), parts

    def step(carry, step_key):
        moving, state = carry
        (energy, parts), moving_gradients = jax.value_and_grad(objective, has_aux=True)(moving)
        # clamped leaves have zero gradients, so their updater state stays as it is at zero
        gradients = [jnp.zeros_like(leaf) for leaf in leaves]
        for n, k in enumerate(free):
            g = moving_gradients[n]
            if noise is not None:
                g = g + noise * jax.random.normal(jax.random.fold_in(step_key, k), g.shape, g.dtype)
            gradients[k] = g if masks[k] is True else jnp.where(masks[k], g, 0)
        updates, optax_state = updater.update(tuple(gradients), state.optax, tuple(leaves))
        scale = state.scale
        if discount is not None:
            updates = [scale * u for u in updates]
            scale = jnp.where(energy < state.energy, scale, scale * discount)
        moved = [
            value + (updates[k] if masks[k] is True else jnp.where(masks[k], updates[k], 0))
            for value, k in zip(moving, free, strict=True)
        ]
        state = _UpdaterState(optax_state, scale, energy if discount is not None else state.energy)
        return (moved, state), per_layer(parts) if trace else None

    keys = None if noise is None else jax.random.split(key, steps)
    carry = ([leaves[k] for k in free], updater_state)
    (moving, updater_state), energy_trace = jax.lax.scan(step, carry, keys, length=steps)
    for k, value in zip(free, moving, strict=True):
        leaves[k] = value
    return Relaxed(structure.unflatten(leaves), updater_state, energy_trace)
