"""Learning-rate schedules: dimensionless functions of the step, multiplied by the traced lr."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array


def constant(optimizer: Mapping, total_steps: int) -> Callable[[Array], Array]:
    return lambda step: jnp.ones((), jnp.result_type(float))


def warmup_cosine(optimizer: Mapping, total_steps: int) -> Callable[[Array], Array]:
    """1 → peak over the warm-up, then a cosine to `end` (PCX, arXiv 2407.01163). As optax's
    `warmup_cosine_decay_schedule`, which computes in float32 also where float64 is asked for."""
    warmup = max(1, round(optimizer["warmup"] * total_steps))
    peak, end = optimizer["peak"], optimizer["end"]

    def schedule(step: Array) -> Array:
        step = jnp.asarray(step, jnp.result_type(float))
        rise = 1 + (peak - 1) * step / warmup
        share = jnp.clip((step - warmup) / max(1, total_steps - warmup), 0, 1)
        fall = end + (peak - end) * (1 + jnp.cos(jnp.pi * share)) / 2
        return jnp.where(step < warmup, rise, fall)

    return schedule


SCHEDULES = {"constant": constant, "warmup_cosine": warmup_cosine}
