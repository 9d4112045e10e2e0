"""Parameterisations: how weights are drawn, scaled in the forward pass, and given a learning rate.

A parameterisation is a table over the declared parameters (role, weight or bias, fan-in). The
forward multiplier is folded into the weights once per training step (`scale`), so layers, energies
and algorithms see effective weights only and relaxation pays nothing for it. The gradient with
respect to the drawn parameters is the gradient of the effective weights times the same multiplier.
"""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.networks.layers import Declared


class Parameterisation(Protocol):
    """Numbers per declared parameter; `family` is the optimiser's: sgd | adam."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Independent variates of the initial distribution, before their scale."""

    def initial_scale(self, declared: Declared) -> float: ...
    def multiplier(self, declared: Declared, gamma0) -> Array | float: ...
    def lr_multiplier(self, declared: Declared, family: str) -> float: ...


@dataclass(frozen=True)
class Standard:
    """`sp`: U(±1/√fan_in) for weights and biases (the default of PyTorch and Equinox); forward
    multiplier 1, at the output 1/γ₀; one learning rate everywhere."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -1, 1)

    def initial_scale(self, declared: Declared) -> float:
        return declared.fan_in**-0.5

    def multiplier(self, declared: Declared, gamma0):
        return 1.0 / gamma0 if declared.role == "output" else 1.0

    def lr_multiplier(self, declared: Declared, family: str) -> float:
        return 1.0


sp = Standard


_map = partial(jax.tree.map, is_leaf=lambda node: isinstance(node, Declared))


def initialise(parameterisation: Parameterisation, key: Array, declared: tuple) -> tuple:
    """Draw all parameters, from one long vector: each draw of its own costs 0.15 s to compile.

    Drawn in float32 whatever the precision, so that runs which differ in it start alike.
    """
    sizes = jax.tree.leaves(_map(lambda d: prod(d.value.shape), declared))
    variates = parameterisation.sample(key, (sum(sizes),)).astype(jnp.result_type(float))
    parts = iter(jnp.split(variates, np.cumsum(sizes)[:-1]))

    def one(d: Declared) -> Array:
        return parameterisation.initial_scale(d) * next(parts).reshape(d.value.shape)

    return _map(one, declared)


def scale(parameterisation: Parameterisation, params: tuple, declared: tuple, gamma0) -> tuple:
    """Drawn parameters (or a change of them) → effective weights."""

    def one(d: Declared, p: Array) -> Array:
        multiplier = parameterisation.multiplier(d, gamma0)
        return p if isinstance(multiplier, float) and multiplier == 1.0 else multiplier * p

    return _map(one, declared, params)


def lr_multipliers(parameterisation: Parameterisation, declared: tuple, family: str) -> tuple:
    return _map(lambda d: parameterisation.lr_multiplier(d, family), declared)
