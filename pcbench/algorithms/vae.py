"""The variational autoencoder (Kingma & Welling 2013, arXiv 1312.6114): the baseline that amortises
what predictive coding infers.

The network is a decoder g with the prior p(z) = N(b, I) and outputs y ~ N(g(z), σ² I). An encoder
of the rule's own, which mirrors the decoder, reads y and gives the mean m and log s² of
q(z|y) = N(m, s²). Both descend the negative evidence lower bound, with one reparameterised sample
z = m + s ε of each example, ε ~ N(0, I):

    -ELBO = KL(q ‖ p) + E_q[ ‖y - g(z)‖² / 2σ² + ½ C log 2πσ² ]
    KL    = ½ Σ_j ( (m_j - b_j)² + s_j² - 1 - log s_j² )

The hidden layers are deterministic; predictive coding has Gaussian ones.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import (
    Algorithm,
    Batch,
    Hyper,
    Info,
    OwnWeights,
    State,
    Trained,
    Unsupported,
)
from pcbench.energies.energy import per_layer, squared_error
from pcbench.networks.activations import IDENTITY
from pcbench.networks.layers import Dense
from pcbench.networks.network import Factor, Network


@dataclass(frozen=True)
class VAE(Algorithm):
    infers = True
    generative = True

    def __post_init__(self):
        if not self.network.has_prior:
            raise Unsupported(
                "a variational autoencoder needs a prior of its latent states: set "
                "model.prior=standard or learned."
            )
        if any(type(factor.module) is not Dense for factor in self.network.factors[1:]):
            raise Unsupported(
                "the encoder mirrors a decoder of dense layers, and this one has others: choose "
                "model=decoder."
            )
        if self.loss is not squared_error:
            raise Unsupported("its outputs are Gaussian: choose task.loss=squared_error.")

    @cached_property
    def encoder(self):
        """The learner of the encoder's weights."""
        return replace(self.learner, network=mirrored_encoder(self.network))

    def memory(self, key):
        return OwnWeights(*self.encoder.init(key))

    def own_weights(self, memory):
        return {"encoder": memory.params}

    # --- learning

    def step(self, state, batch, hyper, key):
        return self._step(state, batch, hyper, key)[-1]

    def observe(self, state, batch, hyper, key):
        """The gradient is the decoder's. Energies: of the latent states the KL divergence, of the
        output its expected term."""
        return self._step(state, batch, hyper, key, measure=True)

    def _step(self, state: State, batch: Batch, hyper: Hyper, key: Array, measure=False):
        decoder = self.learner.weights(state.params, hyper)
        encoder = self.encoder.weights(state.memory.params, hyper)
        latent = self.network.state_shapes(len(batch.target))[0]
        noise = jax.random.normal(key, latent.shape, batch.target.dtype)

        def objective(decoder, encoder):
            divergence, error = self.bound(decoder, encoder, batch.target, noise, hyper)
            return jnp.mean(divergence + error), (divergence, error)

        gradients, parts = jax.grad(objective, (0, 1), has_aux=True)(decoder, encoder)
        params, optimizer = self.learner.update(
            state.params, state.optimizer, gradients[0], state.step, hyper
        )
        memory = OwnWeights(*self.encoder.update(*state.memory, gradients[1], state.step, hyper))
        info = self._info(*parts) if measure else None
        return gradients[0], info, State(params, optimizer, memory, state.step + 1)

    def bound(self, decoder, encoder, y: Array, noise: Array, hyper: Hyper) -> tuple[Array, Array]:
        """The two terms of -ELBO of y (B, C), the expectation at ε = noise (B, latent): (B,)
        each."""
        variance = hyper["algorithm"]["output_variance"]
        mean, log_variance = self.encode(encoder, y)
        output = self.decode(decoder, mean + jnp.exp(log_variance / 2) * noise)
        divergence = kl_divergence(mean - self._prior_mean(decoder, y), log_variance)
        constant = y.shape[-1] / 2 * jnp.log(2 * jnp.pi * variance)
        return divergence, self.loss(output, y) / variance + constant

    def encode(self, encoder, y: Array) -> tuple[Array, Array]:
        """Mean and log variance of q(z|y), (B, latent) each."""
        code = self.encoder.network.forward(encoder, y)[-1]
        mean, log_variance = jnp.split(code, 2, -1)
        return mean, log_variance

    def decode(self, decoder, latent: Array) -> Array:
        """g(z): (B, C)."""
        x = self.network.given(latent)
        return self.network.forward(decoder, x, (latent - self._prior_mean(decoder, latent),))[-1]

    def _prior_mean(self, decoder, like: Array) -> Array:
        return self.network.factors[0].apply(decoder[0], self.network.given(like))

    def _info(self, divergence: Array, error: Array) -> Info:
        hidden = [jnp.zeros_like(error)] * (self.network.layers - 2)
        energy = per_layer((divergence, *hidden, error))[None]
        return Info(energy, jnp.full((), jnp.nan))

    # --- what it can be asked for

    def reconstruct(self, trained: Trained, x, y, hyper: Hyper, key) -> Array:
        """The output of the mean of q(z|y): (B, C)."""
        encoder = self.encoder.weights(trained.memory.params, hyper)
        return self.decode(trained.weights, self.encode(encoder, y)[0])

    def sample(self, trained: Trained, count: int, hyper: Hyper, key: Array) -> Array:
        """`count` outputs of the model, its noise included: (count, C)."""
        latent, output = jax.random.split(key)
        like = self.network.state_shapes(count)
        dtype = jax.tree.leaves(trained.weights)[0].dtype
        z = jax.random.normal(latent, like[0].shape, dtype)
        y = self.decode(trained.weights, z + self._prior_mean(trained.weights, z))
        deviation = jnp.sqrt(hyper["algorithm"]["output_variance"])
        return y + deviation * jax.random.normal(output, y.shape, dtype)


def kl_divergence(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, variance) ‖ N(0, I)) of diagonal Gaussians: (B, D) → (B,)."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, -1)


def mirrored_encoder(network: Network) -> Network:
    """From the output through the decoder's hidden layers in reverse order to twice the latent
    states: means and log variances."""
    latent, *layers, output = (factor.module for factor in network.factors)
    factors: list[Factor] = []
    for layer in reversed(layers):
        hidden = Dense(
            layer.features,
            role="hidden" if factors else "input",
            activation=_either(layer.activation, layer.source_activation),
            bias=layer.bias,
        )
        factors.append(Factor(hidden, (len(factors) - 1,)))
    code = Dense(2 * latent.features, role="output", bias=output.bias)
    factors.append(Factor(code, (len(factors) - 1,)))
    return Network(tuple(factors), (output.features,))


def _either(activation, source_activation):
    """Layers of `post` states have the one, layers of `pre` states the other."""
    return source_activation if activation is IDENTITY else activation
