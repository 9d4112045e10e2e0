"""Incremental predictive coding (Salvatori et al. 2024, arXiv 2212.00720).

As predictive coding, but the weights do not wait for the states: at every relaxation step both
move along the gradients of the same energy at the same point (an incremental EM):

    repeat T times:  h ← h - γ ∂F/∂h,   θ ← θ - α ∂F/∂θ

`warmup` steps come before the first weight update, and a weight update comes every `interval`
steps (1: at every one). With T = T' + 1 and T' of warm-up it is predictive coding with T' steps.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from pcbench.algorithms.base import Algorithm, Info, State
from pcbench.algorithms.inference import Inference
from pcbench.energies.energy import per_factor, per_layer, prediction_energy, total
from pcbench.relaxation.updaters import gradient_updater


@dataclass(frozen=True)
class IPC(Inference, Algorithm):
    steps: int
    warmup: int = 0
    interval: int = 1
    updater: str = "sgd"
    start: str = "feedforward"
    schedule: str = "sync"
    energy: str = "pc"
    eval_steps: int = 0

    def step(self, state, batch, hyper, key):
        return self._relax(state, batch, hyper)[-1]

    def observe(self, state, batch, hyper, key):
        """The gradient is the mean of those that the weights moved along."""
        return self._relax(state, batch, hyper, measure=True)

    def _relax(self, state, batch, hyper, measure=False):
        numbers = hyper["algorithm"]
        precisions = numbers.get("precisions")
        if precisions is not None:
            precisions = per_factor(self.network, precisions)
        updater = gradient_updater(self.updater, numbers["step_size"], numbers["momentum"])
        initial = self.learner.weights(state.params, hyper)
        hidden = self.network.forward(initial, batch.x)[:-1]
        if self.start == "zeros":
            hidden = jax.tree.map(jnp.zeros_like, hidden)

        def energies(hidden, weights):
            states = (*hidden, batch.target)
            predictions = self.network.predict(weights, batch.x, states)
            return prediction_energy(self.network, predictions, states, self.loss, precisions)

        def step(carry, learns):
            """States and weights move at once, from the same energy."""
            hidden, updater_state, params, optimizer, done, summed = carry
            weights = self.learner.weights(params, hyper)
            wanted = (0, 1) if learns else (0,)
            gradients, parts = jax.grad(_with_parts(energies), wanted, has_aux=True)(
                hidden, weights
            )
            changes, updater_state = updater.update(gradients[0], updater_state, hidden)
            hidden = optax.apply_updates(hidden, changes)
            if learns:
                mean = jax.tree.map(lambda g: g / batch.x.shape[0], gradients[1])
                clock = state.step + done / self.weight_updates_per_step
                params, optimizer = self.learner.update(params, optimizer, mean, clock, hyper)
                done = done + 1
                summed = jax.tree.map(jnp.add, summed, mean) if measure else None
            trace = per_layer(parts) if measure else None
            return (hidden, updater_state, params, optimizer, done, summed), trace

        def block(carry, _):
            """`interval` steps, of which the last one moves the weights."""
            traces = []
            for n in range(self.interval):
                carry, trace = step(carry, n == self.interval - 1)
                traces.append(trace)
            return carry, jnp.stack(traces) if measure else None

        zero = jax.tree.map(jnp.zeros_like, initial) if measure else None
        done = jnp.zeros((), jnp.int32)
        carry = (hidden, updater.init(hidden), state.params, state.optimizer, done, zero)
        first = jax.lax.scan(lambda c, _: step(c, False), carry, length=self.warmup)
        carry, trace = jax.lax.scan(block, first[0], length=self.weight_updates_per_step)
        relaxed, _, params, optimizer, _, summed = carry
        moved = State(params, optimizer, (), state.step + 1)
        if not measure:
            return None, None, moved
        weights = self.learner.weights(params, hyper)
        last = per_layer(energies(relaxed, weights))[None]
        trace = jnp.concatenate([first[1], trace.reshape(-1, trace.shape[-1]), last])
        gradient = jax.tree.map(lambda g: g / self.weight_updates_per_step, summed)
        residual = self._residual(energies, hidden, relaxed, weights)
        return gradient, Info(trace, residual, (*relaxed, batch.target)), moved

    def _residual(self, energies, start, relaxed, weights):
        """Both forces under the final weights: what is left for the states to do."""
        if not start:
            return jnp.full((), jnp.nan)
        force = lambda h: optax.tree.norm(jax.grad(lambda v: total(energies(v, weights)))(h))  # noqa: E731
        return force(relaxed) / force(start)

    @property
    def layer_updates_per_step(self):
        return self._steps * (self.network.layers - 1)

    @property
    def weight_updates_per_step(self):
        return max(1, (self.steps - self.warmup) // self.interval)

    @property
    def _steps(self):
        return self.warmup + self.weight_updates_per_step * self.interval


def _with_parts(energies):
    def summed(*args):
        parts = energies(*args)
        return total(parts), parts

    return summed
