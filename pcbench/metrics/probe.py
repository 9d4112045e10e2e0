"""What every run reports about its learning rule, measured on one fixed batch.

Costs one relaxation, one real update and four gradients of the probe batch each time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Batch, GradientAlgorithm, Hyper, State, loss_gradient
from pcbench.metrics.alignment import first_order_change, target_alignment, tree_cosine


def probe(
    algorithm: GradientAlgorithm, state: State, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Any]:
    """Scalars, and `energy_trace` (steps + 1, L); NaN where undefined."""
    learner = algorithm.learner
    weights = learner.weights(state.params, hyper)
    gradient, _, info = algorithm.gradient(weights, state.memory, batch, hyper, key, measure=True)
    loss, reference = loss_gradient(algorithm, weights, batch)

    def outputs(params):
        return algorithm.predict(learner.weights(params, hyper), batch.x)

    before = outputs(state.params)
    # y - ŷ under squared error, y - softmax(ŷ) under cross-entropy
    error = -jax.grad(lambda o: jnp.sum(algorithm.loss(o, batch.target)))(before)
    descent = jax.tree.map(jnp.negative, learner.weights(gradient, hyper))
    after = outputs(algorithm.step(state, batch, hyper, key).params)
    return {
        "train_loss": loss,
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
