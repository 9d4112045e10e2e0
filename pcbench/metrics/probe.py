"""What every run reports about its learning rule, measured on one fixed batch.

Costs one measured step, the reference gradient and three passes of the probe batch each time. Of a
generative network it costs the step and one reconstruction: there is no input to predict from, so
that what compares predictions or their gradient is undefined.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, State, Trained
from pcbench.metrics.alignment import first_order_change, target_alignment, tree_cosine, tree_sine
from pcbench.metrics.layers import layer_norms, prospective_index, root_mean_square

PER_LAYER = ("update_norm", "state_rms", "state_change", "prospective_index")


def probe(
    algorithm: Algorithm, state: State, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Any]:
    """Scalars; the PER_LAYER measurements, (L,) each; `energy_trace` (steps + 1, L). NaN where
    undefined."""
    learner, network = algorithm.learner, algorithm.network
    weights = learner.weights(state.params, hyper)
    gradient, info, moved = algorithm.observe(state, batch, hyper, key)
    learned = learner.weights(moved.params, hyper)
    if network.generative:
        compared = _of_reconstructions(algorithm, weights, state, batch, hyper, key)
    else:
        compared = _of_predictions(algorithm, weights, state, batch, hyper, gradient, info, learned)
    return compared | {
        "energy_initial": info.energy_initial,
        "energy_relaxed": info.energy_relaxed,
        "output_energy_ratio": info.output_energy_ratio,
        "inference_residual": info.residual,
        "update_norm": layer_norms(network, jax.tree.map(jnp.subtract, learned, weights)),
        "energy_trace": info.energy,
    }


def _of_predictions(algorithm, weights, state, batch, hyper, gradient, info, learned) -> dict:
    learner, network = algorithm.learner, algorithm.network
    reference = algorithm.reference_gradient(weights, batch, hyper)

    def outputs(params):
        return algorithm.predict(learner.weights(params, hyper), batch.x, hyper)

    free = algorithm.states(weights, batch.x, hyper)
    after = algorithm.states(learned, batch.x, hyper)
    losses, descent_of_loss = jax.vjp(lambda o: algorithm.loss(o, batch.target), free[-1])
    # y - ŷ under squared error, y - softmax(ŷ) under cross-entropy
    error = -descent_of_loss(jnp.ones_like(losses))[0]
    descent = jax.tree.map(jnp.negative, learner.weights(gradient, hyper))
    change = jax.tree.map(jnp.subtract, after, free)
    index = jnp.full(network.layers, jnp.nan)
    if info.states:
        index = prospective_index(network, free, info.states, after)
    return {
        "train_loss": jnp.mean(losses),
        "target_alignment": target_alignment(
            first_order_change(outputs, state.params, descent), error
        ),
        "target_alignment_finite": target_alignment(change[-1], error),
        "gradient_cosine": tree_cosine(gradient, reference),
        "gradient_error": tree_sine(gradient, reference),
        "state_rms": root_mean_square(network, free),
        "state_change": root_mean_square(network, change),
        "prospective_index": index,
    }


def _of_reconstructions(algorithm, weights, state, batch, hyper, key) -> dict:
    trained = Trained(weights, state.memory)
    made = algorithm.reconstruct(trained, batch.x, batch.target, hyper, key)
    nan, nans = jnp.full((), jnp.nan), jnp.full(algorithm.network.layers, jnp.nan)
    compare = ("target_alignment", "target_alignment_finite", "gradient_cosine", "gradient_error")
    return {
        "train_loss": jnp.mean(algorithm.loss(made, batch.target)),
        **dict.fromkeys(compare, nan),
        **dict.fromkeys(("state_rms", "state_change", "prospective_index"), nans),
    }
