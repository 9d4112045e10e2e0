"""What every run reports about its learning rule, measured on one fixed batch.

Costs one measured step, the reference gradient and three passes of the probe batch each time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, State
from pcbench.metrics.alignment import first_order_change, target_alignment, tree_cosine


def probe(
    algorithm: Algorithm, state: State, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Any]:
    """Scalars, and `energy_trace` (steps + 1, L); NaN where undefined."""
    learner = algorithm.learner
    weights = learner.weights(state.params, hyper)
    gradient, info, moved = algorithm.observe(state, batch, hyper, key)
    reference = algorithm.reference_gradient(weights, batch, hyper)

    def outputs(params):
        return algorithm.predict(learner.weights(params, hyper), batch.x, hyper)

    before = outputs(state.params)
    losses, descent_of_loss = jax.vjp(lambda o: algorithm.loss(o, batch.target), before)
    # y - ŷ under squared error, y - softmax(ŷ) under cross-entropy
    error = -descent_of_loss(jnp.ones_like(losses))[0]
    descent = jax.tree.map(jnp.negative, learner.weights(gradient, hyper))
    after = outputs(moved.params)
    return {
        "train_loss": jnp.mean(losses),
        "energy_initial": info.energy_initial,
        "energy_relaxed": info.energy_relaxed,
        "inference_residual": info.residual,
        "target_alignment": target_alignment(
            first_order_change(outputs, state.params, descent), error
        ),
        "target_alignment_finite": target_alignment(after - before, error),
        "gradient_cosine": tree_cosine(gradient, reference),
        "energy_trace": info.energy,
    }
