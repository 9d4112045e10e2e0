"""Relaxation of states down an energy: the one primitive that all energy-based rules share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    optax: tuple  # one per colour
    scale: Array  # of the step size, lowered by the discount
    energy: Array  # of the batch, at the previous step


def relax(
    energies: Energies,
    start: Any,
    *,
    steps: int,
    updater: optax.GradientTransformation,
    free_mask: Any = None,
    colours: Sequence[Any] | None = None,
    drive: Energies | None = None,
    discount: Array | None = None,
    noise: Array | None = None,
    key: Array | None = None,
    updater_state: _UpdaterState | None = None,
    trace: bool = False,
) -> Relaxed:
    """`steps` updates of the free states along -∂F/∂h.

    start: any pytree of states. free_mask: the same structure with True (free), False (clamped:
    costs nothing) or a boolean array (clamped where False; its axes are the state's first ones);
    None: all free. colours: such masks, updated one after the other within a step
    (`relaxation/schedules.py`); None: all at once. drive: what is differentiated, where that is
    not `energies` itself (mirror descent leaves the potentials out). discount: factor on the step
    size after each step at which the batch's energy did not fall (Song et al. 2024). noise:
    standard deviation of Gaussian noise added to the gradient at every step (Langevin dynamics
    at temperature τ and step size γ: √(2τ/γ)); needs a `key`. updater_state: of an earlier call
    on the same states, to continue it, also with other masks.

    The energy is summed over the batch: step sizes are per sample. States may be complex, where
    the energy is holomorphic.
    """
    leaves, structure = jax.tree.flatten(start)
    masks = [True] * len(leaves) if free_mask is None else structure.flatten_up_to(free_mask)
    groups = [masks]
    if colours is not None:
        groups = [
            [_both(a, b) for a, b in zip(masks, structure.flatten_up_to(colour), strict=True)]
            for colour in colours
        ]
        groups = [group for group in groups if any(mask is not False for mask in group)]
    holomorphic = any(jnp.iscomplexobj(leaf) for leaf in leaves)
    if updater_state is None:
        infinity = jnp.full((), jnp.inf, leaves[0].real.dtype)
        initial = updater.init(tuple(leaves))
        updater_state = _UpdaterState((initial,) * len(groups), jnp.ones_like(infinity), infinity)
    measured = trace or discount is not None

    def update(values: list, group: list, optax_state, scale, step_key):
        """Move one colour: (new values, updater state, energies before)."""
        free = [k for k, mask in enumerate(group) if mask is not False]

        def objective(moving: list[Array]) -> tuple[Array, tuple]:
            states = list(values)
            for k, value in zip(free, moving, strict=True):
                states[k] = value
            states = structure.unflatten(states)
            parts = energies(states) if drive is None or measured else None
            return total(parts if drive is None else drive(states)), parts

        moving = [values[k] for k in free]
        found, parts = jax.grad(objective, has_aux=True, holomorphic=holomorphic)(moving)
        # clamped leaves have zero gradients, so their updater state stays as it is at zero
        gradients = [jnp.zeros_like(leaf) for leaf in leaves]
        for g, k in zip(found, free, strict=True):
            if noise is not None:
                g = g + noise * jax.random.normal(jax.random.fold_in(step_key, k), g.shape, g.dtype)
            gradients[k] = _where(group[k], g)
        updates, optax_state = updater.update(tuple(gradients), optax_state, tuple(values))
        values = list(values)
        for k in free:
            change = updates[k] if discount is None else scale * updates[k]
            values[k] = values[k] + _where(group[k], change)
        return values, optax_state, parts

    # only what moves is carried through the loop
    free = [k for k in range(len(leaves)) if any(group[k] is not False for group in groups)]

    def step(carry, step_key):
        moving, state = carry
        values, optax_states, scale = list(leaves), [], state.scale
        for k, value in zip(free, moving, strict=True):
            values[k] = value
        before = None
        for n, group in enumerate(groups):
            own_key = step_key
            if n and noise is not None:
                own_key = jax.random.fold_in(step_key, len(leaves) + n)
            values, optax_state, parts = update(values, group, state.optax[n], scale, own_key)
            optax_states.append(optax_state)
            before = parts if n == 0 else before
        energy = state.energy
        if discount is not None:
            now = total(before)
            scale, energy = jnp.where(now < energy, scale, scale * discount), now
        state = _UpdaterState(tuple(optax_states), scale, energy)
        return ([values[k] for k in free], state), per_layer(before) if trace else None

    keys = None if noise is None else jax.random.split(key, steps)
    carry = ([leaves[k] for k in free], updater_state)
    (moving, updater_state), energy_trace = jax.lax.scan(step, carry, keys, length=steps)
    for k, value in zip(free, moving, strict=True):
        leaves[k] = value
    return Relaxed(structure.unflatten(leaves), updater_state, energy_trace)


def _both(a, b):
    """Conjunction of two masks: True, False or a boolean array each."""
    if isinstance(a, bool | np.bool_):
        return b if a else False
    if isinstance(b, bool | np.bool_):
        return a if b else False
    return _expanded(a, max(a.ndim, b.ndim)) & _expanded(b, max(a.ndim, b.ndim))


def _expanded(mask, ndim: int):
    return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))


def _where(mask, value: Array) -> Array:
    """`value` where the mask is True, else 0."""
    if mask is True:
        return value
    return jnp.where(_expanded(jnp.asarray(mask), value.ndim), value, 0)
