"""Updaters of the states: optax optimisers by name, with traced step size and momentum."""

import optax
from jax import Array


def gradient_updater(name: str, step_size: Array, momentum: Array) -> optax.GradientTransformation:
    """`sgd` with heavy-ball momentum (its trace is always carried, so that momentum 0 and any other
    number are one program); any other optax optimiser with its own defaults."""
    if name == "sgd":
        return optax.chain(optax.trace(decay=momentum), optax.scale(-step_size))
    return getattr(optax, name)(step_size)
