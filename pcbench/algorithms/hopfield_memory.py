"""Universal Hopfield networks (Millidge, Salvatori, Song, Lukasiewicz & Bogacz 2022, arXiv
2202.04557): memories that store patterns as they are and retrieve them in one shot.

    z = P sep(sim(M, q))

The similarities of a cue q to the stored keys M are separated, so that the best match stands out,
and weigh the stored values P. Special cases, without normalisation:

    classical Hopfield (Hopfield 1982)            sign(Mᵀ M q)            dot, identity
    modern Hopfield (Ramsauer et al. 2020)        Mᵀ softmax(β M q)       dot, softmax: attention
    nearest neighbour                                                     any, max

There is nothing to learn by: no weights, no gradient. A sample's pattern is at its own place, as it
was last seen; what was never seen has no part in retrieval. A run keeps no patterns: they are its
training set, which the config names.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, State, Trained, Unsupported, flat
from pcbench.memories.separation import separate
from pcbench.memories.similarity import SIMILARITIES


class Patterns(NamedTuple):
    keys: Array  # (N, D): inputs, flattened
    values: Array  # (N, C): targets
    stored: Array  # (N,): booleans


@dataclass(frozen=True)
class HopfieldMemory(Algorithm):
    similarity: str = "manhattan"
    separation: str = "max"
    normalise: bool = True
    eval_steps: int = 1

    learns_by_gradient = False
    abilities = frozenset({"recall", "associate"})  # what `predict` is given holds no patterns

    def __post_init__(self):
        if self.network.factors:
            raise Unsupported("it stores patterns and has no use for weights: set model=patterns.")
        if self.separation == "log" and self.normalise:
            raise Unsupported(
                "logarithms of scores below 1 are negative, so that divided by their sum the worst "
                "match would weigh most: set algorithm.normalise=false with separation=log."
            )

    def init(self, key: Array) -> State:
        return State((), (), self.memory(key), jnp.zeros((), jnp.int32))

    def memory(self, key: Array) -> Patterns:
        samples, dtype = self.sizes.samples, jnp.result_type(float)
        return Patterns(
            jnp.zeros((samples, prod(self.network.input_shape)), dtype),
            jnp.zeros((samples, self.sizes.outputs), dtype),
            jnp.zeros(samples, bool),
        )

    def step(self, state: State, batch: Batch, hyper: Hyper, key: Array) -> State:
        """Store the batch."""
        seen = Patterns(flat(batch.x), batch.target, True)
        memory = jax.tree.map(lambda own, new: own.at[batch.index].set(new), state.memory, seen)
        return state._replace(memory=memory, step=state.step + 1)

    def recall(
        self, trained: Trained, x: Array, y: Array, known: Array, hyper: Hyper, key: Array
    ) -> Array:
        """y (B, C) with its unknown elements filled in from the stored values that it resembles,
        `eval_steps` times (0: once); known: booleans (B, C), or of a shape that broadcasts."""
        memory = trained.memory

        def once(_, cue):
            found = retrieve(self, memory.values, memory, cue, hyper)
            return jnp.where(known, y, found)

        return jax.lax.fori_loop(0, max(1, self.eval_steps), once, y)

    def associate(self, trained: Trained, x: Array, hyper: Hyper) -> Array:
        """Values (B, C) for inputs (B, …), by their similarity to the stored inputs."""
        return retrieve(self, trained.memory.keys, trained.memory, flat(x), hyper)

    @property
    def weight_updates_per_step(self) -> int:
        return 0


def retrieve(rule, keys: Array, memory: Patterns, cues: Array, hyper: Hyper) -> Array:
    """Values (B, C) for cues (B, D), by their similarity to keys (N, D), as the rule has it."""
    scores = SIMILARITIES[rule.similarity](cues, keys)
    strength = hyper["algorithm"]["separation_strength"]
    weights = separate(rule.separation, scores, memory.stored, strength, rule.normalise)
    return weights @ memory.values
