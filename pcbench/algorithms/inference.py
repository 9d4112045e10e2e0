"""What rules that relax states on the `pc` energy can do with a trained network: infer and recall.

One relaxation serves both. The states start as they do in learning (from zeros where that keeps
them from batch to batch); of the output the known
elements are held, the others move with the hidden states:

    h ← h - γ ∂F/∂h   for all hidden states and the unknown elements of h_L
"""

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import Hyper, Trained
from pcbench.energies.energy import layer_energies, per_factor
from pcbench.relaxation.relax import relax
from pcbench.relaxation.updaters import gradient_updater


class Inference:
    """Of rules with `network`, `loss`, `updater`, `start`, `steps`, `eval_steps` (0: `steps`)."""

    infers = True

    def reconstruct(self, trained: Trained, x: Array, y: Array, hyper: Hyper, key) -> Array:
        """Of a network with an input, its prediction. Else the output that follows from the latent
        states inferred of y: (B, C)."""
        network, weights = self.network, trained.weights
        if not network.generative:
            return self.predict(weights, x, hyper)
        latent = self.settle(weights, x, y, True, hyper, key)[0]
        mean = network.factors[0].apply(weights[0], x)
        return network.forward(weights, x, (latent - mean,))[-1]

    def recall(self, trained: Trained, x: Array, y: Array, known: Array, hyper: Hyper, key):
        """y with its unknown elements filled in: (B, C); known: booleans (B, C)."""
        return self.settle(trained.weights, x, y, known, hyper, key)[-1]

    def sample(self, trained: Trained, count: int, hyper: Hyper, key: Array) -> Array:
        """Outputs of a generative network with a prior, drawn layer by layer from the Gaussians
        that its energy stands for, of variances 1/π_l: (count, C)."""
        network, precisions = self.network, self._precisions_of(hyper)
        like = network.state_shapes(count)
        x = jnp.zeros((count, *network.input_shape), jax.tree.leaves(trained.weights)[0].dtype)
        deviations = []
        for k, shape in enumerate(like):
            own = jax.random.fold_in(key, k)
            noise = jax.random.normal(own, shape.shape, x.dtype)
            precision = 1.0 if precisions is None else jnp.asarray(precisions[k])
            deviations.append(noise / jnp.sqrt(jnp.expand_dims(precision, (-1, -2))))
        return network.forward(trained.weights, x, tuple(deviations))[-1]

    def settle(
        self, weights, x: Array, y: Array, known: Array | bool, hyper: Hyper, key: Array = None
    ) -> tuple:
        """All states after relaxation, the last ones of which start at y."""
        network, numbers = self.network, hyper["algorithm"]
        hidden = network.forward(weights, x)[:-1]
        if self.start != "feedforward":
            hidden = jax.tree.map(jnp.zeros_like, hidden)
        precisions = self._precisions_of(hyper)
        held = known is True
        free = False if held else ~known

        def energies(states):
            return layer_energies(
                "pc",
                network,
                network.predict(weights, x, states),
                states,
                output_loss=self.loss if held else None,
                precisions=precisions,
            )

        return relax(
            energies,
            (*hidden, y),
            steps=self.eval_steps or self.steps,
            updater=gradient_updater(self.updater, numbers["step_size"], numbers["momentum"]),
            free_mask=(*(True for _ in hidden), free),
            noise=self.noise(numbers),
            key=key,
        ).states

    def _precisions_of(self, hyper: Hyper) -> tuple | None:
        precisions = hyper["algorithm"].get("precisions")
        return None if precisions is None else per_factor(self.network, precisions)
