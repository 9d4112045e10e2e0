"""What online rules of source separation share: one pass over a stream of mixtures x.

For each of them the output y relaxes from zero under a force F, inside the domain of the sources,
with the step η_j = max(η / (j+1), η_min); then the weights learn,

    y ← Π(y + η_j F(y, Wx))       until it moves by less than `tolerance` of its length
    W ← W + α_t (y - Wx) xᵀ       α_t = α / (1 + t/τ), or α / (1 + log(2 + t/τ))

and the rule updates what F depends on. Of t samples seen before; the domain is the rule's belief.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, State, Trained, Unsupported, flat
from pcbench.separation.domains import DOMAINS


class Separator(NamedTuple):
    weights: Array  # (n, m)
    statistics: Any  # of the outputs, the rule's own


@dataclass(frozen=True)
class OnlineSeparation(Algorithm):
    steps: int  # of a relaxation at most
    domain: str = "antisparse"
    decay: str = "inverse"  # of the learning rate: inverse | logarithmic
    initial_weight: float = 1.0
    initial_noise: float = 0.01

    learns_by_gradient = False
    abilities = frozenset({"separate"})

    def __post_init__(self):
        if self.network.factors:
            raise Unsupported("it has one matrix of its own: set model=patterns.")

    def statistics(self) -> Any:
        """At the start."""
        raise NotImplementedError

    def force(self, y: Array, feedforward: Array, statistics: Any, numbers: dict) -> Array:
        """On the output y (n,), whose feed-forward value is Wx."""
        raise NotImplementedError

    def learn(self, y: Array, statistics: Any, numbers: dict) -> Any:
        """The statistics after one more output."""
        raise NotImplementedError

    def init(self, key: Array) -> State:
        return State((), (), self.memory(key), jnp.zeros((), jnp.int32))

    def memory(self, key: Array) -> Separator:
        shape, dtype = (self.sizes.outputs, prod(self.network.input_shape)), jnp.result_type(float)
        noise = self.initial_noise * jax.random.normal(key, shape, dtype)
        return Separator(
            self.initial_weight * jnp.eye(*shape, dtype=dtype) + noise, self.statistics()
        )

    def step(self, state: State, batch: Batch, hyper: Hyper, key: Array) -> State:
        """All samples of the batch, one after the other."""
        numbers = hyper["algorithm"]

        def one(carry, x):
            own, seen = carry
            feedforward = small_product(own.weights, x)
            y = self.relax(feedforward, own.statistics, numbers)
            rate = self._rate(seen, numbers)
            weights = own.weights + rate * (y - feedforward)[:, None] * x
            return (Separator(weights, self.learn(y, own.statistics, numbers)), seen + 1), None

        (memory, seen), _ = jax.lax.scan(one, (state.memory, state.step), flat(batch.x))
        return state._replace(memory=memory, step=seen)

    def relax(self, feedforward: Array, statistics: Any, numbers: dict) -> Array:
        project, zero = DOMAINS[self.domain], jnp.zeros((), feedforward.dtype)

        def going(carry):
            j, y, before, _ = carry
            change = jnp.sum((y - before) ** 2)
            moved = change >= numbers["tolerance"] ** 2 * jnp.sum(y**2)
            return (j < self.steps) & (moved | (j == 0))

        def move(carry):
            j, y, _, threshold = carry
            size = jnp.maximum(numbers["step_size"] / (j + 1), numbers["step_size_min"])
            moved = y + size * self.force(y, feedforward, statistics, numbers)
            return j + 1, *_ordered(project(moved, threshold, numbers["threshold_rate"]), y)

        start = jnp.zeros_like(feedforward)
        return jax.lax.while_loop(going, move, (jnp.int32(0), start, start, zero))[1]

    def _rate(self, seen: Array, numbers: dict) -> Array:
        time = seen / numbers["rate_time"]
        falls = 1 + time if self.decay == "inverse" else 1 + jnp.log(2 + time)
        return numbers["rate"] / falls

    def separate(self, trained: Trained, x: Array) -> Array:
        """The feed-forward outputs (B, n) for mixtures (B, m)."""
        return flat(x) @ trained.memory.weights.T

    @property
    def layer_updates_per_step(self) -> None:
        return None

    @property
    def weight_updates_per_step(self) -> int:
        return self.sizes.batch


def _ordered(projected: tuple[Array, Array], before: Array) -> tuple[Array, Array, Array]:
    y, threshold = projected
    return y, before, threshold


def small_product(matrix: Array, vector: Array) -> Array:
    """Of a few numbers a loop computes this faster as a sum than as a matrix product."""
    return jnp.sum(matrix * vector, -1)
