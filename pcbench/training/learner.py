"""The learner: how parameters are drawn, scaled and updated, whatever the rule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax import Array

from pcbench.networks.network import Network
from pcbench.networks.parameterisations import Parameterisation, initialise, lr_multipliers, scale
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
        gamma0 = hyper["parameterisation"]["gamma0"]
        return scale(self.parameterisation, params, self.network.declared, gamma0)

    def update(self, params, optimizer, gradient, step: Array, hyper: dict) -> tuple[Any, Any]:
        """One optimiser step along the gradient with respect to the *effective* weights."""
        numbers = hyper["optimizer"]
        gradient = self.weights(gradient, hyper)  # chain rule of a diagonal scaling
        direction, optimizer = self.optimizer.direction(numbers).update(gradient, optimizer, params)
        rate = numbers["lr"] * self.schedule(step)
        multipliers = lr_multipliers(
            self.parameterisation, self.network.declared, self.optimizer.family
        )
        updates = jax.tree.map(lambda m, d: -(m * rate) * d, multipliers, direction)
        return optax.apply_updates(params, updates), optimizer


class _Anything(dict):
    def __missing__(self, key):
        return 0.0
