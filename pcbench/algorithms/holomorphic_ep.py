"""Holomorphic equilibrium propagation (Laborieux & Zenke 2022, arXiv 2209.00530).

The nudged equilibrium h^β is an analytic function of a complex β, so that Cauchy's formula gives
the derivative at 0 from a circle of finite radius r: with β_t = r e^{2πit/N}

    Δθ = -Re (1/N) Σ_t (1/β_t) ∂/∂θ F(θ, h^{β_t})

with an error that falls geometrically in N, while one-sided and centred EP are N = 1 (with the free
phase subtracted) and N = 2. Phases t and N - t are conjugate: only half of them are computed.
The states are complex, so energies use no absolute value and activations are analytic.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Unsupported
from pcbench.algorithms.phases import Phase, PhaseRule, Problem
from pcbench.energies.energy import squared_error, total
from pcbench.relaxation.updaters import MIRROR

ANALYTIC = ("identity", "tanh", "sigmoid")


@dataclass(frozen=True)
class HolomorphicEP(PhaseRule):
    points: int = 4  # N, even

    energies = ("hopfield",)

    def __post_init__(self):
        super().__post_init__()
        if self.points % 2:
            raise Unsupported(f"points={self.points}: an even number, such as 4.")
        if self.loss is not squared_error or self.updater != MIRROR:
            raise Unsupported("holomorphic EP takes task.loss=squared_error and updater=mirror.")
        for factor in self.network.factors:
            if factor.activation.name not in ANALYTIC:
                raise Unsupported(
                    f"model.activation={factor.activation.name} is not analytic, as complex "
                    f"states need: choose {' or '.join(ANALYTIC)}."
                )

    def phases(self, numbers, epoch, key):
        """The real pair of the circle, which describes the rule to the log."""
        beta = numbers["beta"]
        return (Phase("nudge", 0.5 / beta, beta), Phase("nudge", -0.5 / beta, -beta))

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        numbers = hyper["algorithm"]
        start = self._recalled(weights, memory, batch)
        free = self._free(weights, batch.x, start, numbers, self.free_steps)
        half = self.points // 2 + 1  # t = 0 … N/2; those between stand for their conjugates, too
        circle = np.exp(2j * np.pi * np.arange(half) / self.points)
        shares = np.where(np.isin(np.arange(half), (0, self.points // 2)), 1, 2) / self.points
        weights_c, x_c, free_c = jax.tree.map(_complex, (weights, batch.x, free))
        problem = Problem(self, weights_c, batch._replace(x=x_c), numbers, None)
        betas = numbers["beta"] * jnp.asarray(circle, x_c.dtype)

        def gradient_at(beta):
            phase = Phase("nudge", 1.0, beta)
            states, _ = problem.relax(phase, free_c)
            energy = lambda w: total(problem.energies(phase, w, potentials=False)(states))  # noqa: E731
            return jax.grad(energy, holomorphic=True)(weights_c)

        scale = jnp.asarray(shares) / betas / batch.x.shape[0]
        gradient = jax.tree.map(
            lambda g: jnp.real(jnp.tensordot(scale.astype(g.dtype), g, 1)),
            jax.vmap(gradient_at)(betas),
        )
        info = None
        if measure:
            real = Problem(self, weights, batch, numbers, None)
            phase = self.phases(numbers, batch.epoch, key)[0]
            info = real.info(phase, free, *real.relax(phase, free, trace=True))
        return gradient, self._remembered(memory, batch, free), info

    @property
    def layer_updates_per_step(self) -> int:
        return (self.free_steps + (self.points // 2 + 1) * self.steps) * self.network.layers


def _complex(value):
    return value.astype(jnp.result_type(value.dtype, jnp.complex64))
