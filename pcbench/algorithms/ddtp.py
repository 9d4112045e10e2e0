"""Direct difference target propagation, linear (DDTP-linear; Meulemans et al. 2020, arXiv
2006.14331), on any network: the feedback leads from the output to every hidden state.

    t_l = h_l + Q_l (t_L - h_L)
    ω descends Σ_l ‖Q_l (h̃_L - h_L) - ξ‖²/σ² + λ‖Q‖²

with h̃_L the output when state l alone is corrupted by ξ ~ N(0, σ²): the difference reconstruction
loss. For small σ its optimum at one sample is Q_l = Jᵀ(JJᵀ + λI)⁻¹, J = ∂h_L/∂h_l, which
`feedback: gauss_newton` (the paper's oracle GNT) computes for every sample instead of learning it:

    t_l = h_l + Jᵀ(JJᵀ + λI)⁻¹ (t_L - h_L)

What else: `target_propagation.py`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.target_propagation import TargetPropagation, declared_direct, project
from pcbench.networks.network import Network


@dataclass(frozen=True)
class DDTP(TargetPropagation):
    feedback: str = "learned"

    @property
    def declared(self):
        return declared_direct(self.network) if self.feedback == "learned" else ()

    @property
    def learns_feedback(self):
        return self.feedback == "learned" and super().learns_feedback

    def targets(self, feedback, weights, x, states, output_target, numbers):
        if self.feedback == "gauss_newton":
            damping = numbers["feedback_weight_decay"]
            return gauss_newton_targets(self.network, weights, x, states, output_target, damping)
        change = output_target - states[-1]
        hidden = zip(feedback, states, strict=False)  # no Q at the output
        return (*(h + project(q, change, h) for q, h in hidden), output_target)

    def corrupted(self, x, states):
        return states[:-1]

    def reconstruction_loss(self, feedback, weights, x, states, noise, sigma):
        total = jnp.zeros(())
        for k, (q, xi) in enumerate(zip(feedback, noise, strict=True)):

            def squares(q, xi, offset, k=k):
                """‖Q(h̃_L - h_L) - ξ‖² over the batch, `offset` being ξ in the state's shape."""
                offsets = (*(None for _ in range(k)), offset)
                corrupted = self.network.forward(weights, x, offsets)[-1]
                return jnp.sum((project(q, corrupted - states[-1], xi) - xi) ** 2)

            if self.network.factors[k].length is None:
                total += squares(q, xi, xi)
            else:  # one layer of the stack at a time

                def layer(inputs, xi=xi):
                    q, j, own = inputs
                    return squares(q, own, jnp.zeros_like(xi).at[j].set(own))

                total += jnp.sum(jax.lax.map(layer, (q, jnp.arange(len(xi)), xi)))
        return total / (sigma**2 * x.shape[0])


def gauss_newton_targets(
    network: Network, weights, x: Array, states: tuple, output_target: Array, damping
) -> tuple:
    """t_l = h_l + Jᵀ(JJᵀ + λI)⁻¹ (t_L - h_L) for each sample, J = ∂h_L/∂h_l; t_L at the output."""
    hidden, output = states[:-1], states[-1]
    _, pull_back = jax.vjp(
        lambda offsets: network.forward(weights, x, offsets)[-1],
        jax.tree.map(jnp.zeros_like, hidden),
    )
    units = output.shape[-1]
    rows = jnp.broadcast_to(jnp.eye(units, dtype=output.dtype)[:, None], (units, *output.shape))
    (jacobians,) = jax.vmap(pull_back)(rows)  # per state (C, B, …), of a stack (C, n, B, …)

    def target(h, jacobian, stacked):
        if stacked:
            return jax.vmap(lambda h, j: target(h, j, False), (0, 1))(h, jacobian)
        j = jnp.moveaxis(jacobian, 0, 1).reshape(h.shape[0], units, -1)
        gram = j @ j.mT + damping * jnp.eye(units, dtype=j.dtype)
        solved = _solve(gram, output_target - output)
        return h + (j.mT @ solved[..., None]).reshape(h.shape)

    stacks = (factor.length is not None for factor in network.factors)
    return (*map(target, hidden, jacobians, stacks), output_target)


def _solve(a: Array, b: Array) -> Array:
    """a⁻¹b of symmetric positive definite matrices: (B, C, C), (B, C) → (B, C). By Gauss–Jordan
    elimination, since LAPACK's batched decompositions block threads of XLA's pool on CPU, and two
    at once on two cores wait for each other for ever (jax 0.10.1)."""

    def eliminate(m, k):
        row = m[:, k] / m[:, k, k, None]
        return (m - m[:, :, k, None] * row[:, None]).at[:, k].set(row), None

    m = jnp.concatenate([a, b[..., None]], -1)
    return jax.lax.scan(eliminate, m, jnp.arange(a.shape[-1]))[0][..., -1]
