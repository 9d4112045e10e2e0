"""Optimisers of the weights: update directions without a learning rate, from traced numbers.

The update is -lr · s(step) · lr_multiplier · direction; `training/learner.py` puts it together.
`family` tells a parameterisation how the direction scales with the gradient: `sgd` (linearly) or
`adam` (not at all).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax
from jax import Array


class Optimizer(NamedTuple):
    family: str
    direction: Callable[[Mapping[str, Array]], optax.GradientTransformation]


sgd = Optimizer("sgd", lambda hyper: optax.add_decayed_weights(hyper["weight_decay"]))
momentum = Optimizer(
    "sgd",
    lambda hyper: optax.chain(
        optax.add_decayed_weights(hyper["weight_decay"]), optax.trace(decay=hyper["momentum"])
    ),
)
adam = Optimizer(
    "adam",
    lambda hyper: optax.scale_by_adam(b1=hyper["b1"], b2=hyper["b2"], eps=hyper["eps"]),
)
adamw = Optimizer(
    "adam",
    lambda hyper: optax.chain(
        adam.direction(hyper), optax.add_decayed_weights(hyper["weight_decay"])
    ),
)
