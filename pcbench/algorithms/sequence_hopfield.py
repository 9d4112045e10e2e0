"""Asymmetric Hopfield networks, memories of sequences, as universal Hopfield networks: each element
of a sequence is the key of the next one.

    x̂_{t+1} = Σ_s x_{s+1} sep(x_s · x_t)

    asymmetric Hopfield (Sompolinsky & Kanter 1986)            identity: W = Σ_s x_{s+1} x_sᵀ
    polynomial and softmax forms (Chaudhry et al. 2023, arXiv  square, cube …; softmax
    2306.04532; Tang, Barron & Bogacz 2023, arXiv 2305.11982)
"""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Batch, Hyper, State, Trained
from pcbench.algorithms.hopfield_memory import HopfieldMemory, Patterns, retrieve


@dataclass(frozen=True)
class SequenceHopfield(HopfieldMemory):
    similarity: str = "dot"
    separation: str = "identity"
    normalise: bool = False

    abilities = frozenset({"follow"})

    def memory(self, key: Array) -> Patterns:
        length, *element = self.network.input_shape
        shape, dtype = (self.sizes.samples, length - 1), jnp.result_type(float)
        elements = jnp.zeros((*shape, prod(element)), dtype)
        return Patterns(elements, elements, jnp.zeros(shape, bool))

    def step(self, state: State, batch: Batch, hyper: Hyper, key: Array) -> State:
        """Store the sequences of the batch."""
        x = batch.x.reshape(*batch.x.shape[:2], -1)
        seen = Patterns(x[:, :-1], x[:, 1:], True)
        memory = jax.tree.map(lambda own, new: own.at[batch.index].set(new), state.memory, seen)
        return state._replace(memory=memory, step=state.step + 1)

    def follow(self, trained: Trained, x: Array, carried, hyper: Hyper):
        pairs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), trained.memory)
        return retrieve(self, pairs.keys, pairs, x, hyper), carried
