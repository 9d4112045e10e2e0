"""Updaters of the states, all of them optax transformations of the energy's gradient.

A state's *target domain* belongs to its activation: `projected` keeps a state inside it, `mirror`
puts it there.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax
from jax import Array

from pcbench.networks.activations import Activation

# Updaters that are no optax optimiser; everything else is one, by its name there.
PROJECTED, MIRROR = "projected", "mirror"


def gradient_updater(name: str, step_size: Array, momentum: Array) -> optax.GradientTransformation:
    """`sgd` with heavy-ball momentum (its trace is always carried, so that momentum 0 and any other
    number are one program); any other optax optimiser with its own defaults."""
    if name == "sgd":
        return optax.chain(optax.trace(decay=momentum), optax.scale(-step_size))
    return getattr(optax, name)(step_size)


def projected_updater(
    activations: Sequence[Activation], step_size: Array
) -> optax.GradientTransformation:
    """h ← clip(h - γ ∂F/∂h) to the values that σ can take (Scellier & Bengio 2017)."""

    def update(gradients, state, values):
        moved = [
            jnp.clip(h - step_size * g, *sigma.interior)
            for h, g, sigma in zip(values, gradients, activations, strict=True)
        ]
        return [new - h for new, h in zip(moved, values, strict=True)], state

    return optax.GradientTransformation(lambda values: (), update)


def mirror_updater(links: Sequence[Callable[[Array], Array]]) -> optax.GradientTransformation:
    """h ← σ(-∂(F - G)/∂h): the gradient must be that of the energy without its potentials G.

    On the Hopfield energy the fixed-point iteration of Ernoult et al. 2019 and Laborieux et al.
    2021; stationary points are those of F. `links`: σ per state.
    """

    def update(gradients, state, values):
        return [link(-g) - h for h, g, link in zip(values, gradients, links, strict=True)], state

    return optax.GradientTransformation(lambda values: (), update)
