"""The learner: how parameters are drawn, scaled and updated, whatever the rule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax import Array

from pcbench.networks.network import Network
from pcbench.networks.parameterisations import (
    Numbers,
    Parameterisation,
    initialise,
    scale,
    tabulate,
)
from pcbench.training.optimizers import Optimizer


@dataclass(frozen=True)
class Learner:
    network: Network
    parameterisation: Parameterisation
    optimizer: Optimizer
    schedule: Callable[[Array], Array]

    def init(self, key: Array) -> tuple[Any, Any]:
        """(drawn parameters, optimiser state)."""
        params = initialise(self.parameterisation, key, self.network.declared)
        # the shape of an optimiser's state depends on no number: any will do
        direction = self.optimizer.direction(_Anything())
        return params, direction.init(params)

    def weights(self, params: Any, hyper: dict) -> Any:
        """Effective weights, or their change for a change of the parameters."""
        return scale(self._table(hyper).multiplier, params)

    def update(self, params, optimizer, gradient, step: Array, hyper: dict) -> tuple[Any, Any]:
        """One optimiser step along the gradient with respect to the *effective* weights."""
        table, numbers = self._table(hyper), dict(hyper["optimizer"])
        lr = table.lr(self.optimizer.family)
        gradient = scale(table.multiplier, gradient)  # chain rule of a diagonal scaling
        if self.optimizer.family == "adam":  # one ε for gradients of one size
            gradient = scale(jax.tree.map(lambda size: 1 / size, table.epsilon), gradient)
        if "weight_decay" in numbers:
            decay = numbers["weight_decay"]
            numbers["weight_decay"] = jax.tree.map(lambda m: decay / m, lr)
        direction, optimizer = self.optimizer.direction(numbers).update(gradient, optimizer, params)
        rate = numbers["lr"] * self.schedule(step)
        updates = jax.tree.map(lambda m, d: -(m * rate) * d, lr, direction)
        return optax.apply_updates(params, updates), optimizer

    def _table(self, hyper: dict) -> Numbers:
        return tabulate(self.parameterisation, self.network, hyper["parameterisation"]["gamma0"])


class _Anything(dict):
    def __missing__(self, key):
        return 0.0
