"""Learning-rate schedules: dimensionless functions of the step, multiplied by the traced lr."""

from collections.abc import Callable, Mapping

import optax
from jax import Array


def constant(optimizer: Mapping, total_steps: int) -> Callable[[Array], Array]:
    return optax.constant_schedule(1.0)


def warmup_cosine(optimizer: Mapping, total_steps: int) -> Callable[[Array], Array]:
    """1 → peak over the warm-up, then a cosine to `end` (PCX, arXiv 2407.01163)."""
    return optax.warmup_cosine_decay_schedule(
        init_value=1.0,
        peak_value=optimizer["peak"],
        warmup_steps=max(1, round(optimizer["warmup"] * total_steps)),
        decay_steps=max(2, total_steps),
        end_value=optimizer["end"],
    )


SCHEDULES = {"constant": constant, "warmup_cosine": warmup_cosine}
