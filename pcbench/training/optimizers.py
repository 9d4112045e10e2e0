"""Optimisers of the weights: update directions without a learning rate, from traced numbers.

The update is -lr · s(step) · lr_multiplier · direction; `training/learner.py` puts it together.
`family` tells a parameterisation how the direction scales with the gradient: `sgd` (linearly) or
`adam` (not at all).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax import Array


class Optimizer(NamedTuple):
    """`direction` takes the numbers of the group; of these, weight_decay comes as one per parameter
    (a parameterisation has its say)."""

    family: str
    direction: Callable[[Mapping[str, Array]], optax.GradientTransformation]


def decayed(weight_decay: Any) -> optax.GradientTransformation:
    """Adds decay · weight; `weight_decay` is a tree like the parameters."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda g, p, decay: g + decay * p, updates, params, weight_decay
        )
    )


sgd = Optimizer("sgd", lambda hyper: decayed(hyper["weight_decay"]))
momentum = Optimizer(
    "sgd",
    lambda hyper: optax.chain(decayed(hyper["weight_decay"]), optax.trace(decay=hyper["momentum"])),
)
adam = Optimizer(
    "adam",
    lambda hyper: optax.scale_by_adam(b1=hyper["b1"], b2=hyper["b2"], eps=hyper["eps"]),
)
adamw = Optimizer(
    "adam",
    lambda hyper: optax.chain(adam.direction(hyper), decayed(hyper["weight_decay"])),
)
