"""Associative memories in a feature space (Salvatori et al. 2024, arXiv 2402.10814): similarities
are those of embeddings, which an encoder φ learns by contrast (SimCLR: Chen et al. 2020, arXiv
2002.05709).

    z = P sep(sim(φ(M), φ(q)))

Of two views of each image (shifted, a block missing, noisy), 2B in all, with z = φ(view)/‖φ(view)‖
and j the other view of i's image, φ descends

    L_i = -log exp(⟨z_i, z_j⟩/τ) / Σ_{k≠i} exp(⟨z_i, z_k⟩/τ)

The network is an encoder and a decoder in a row: φ is the state of its narrowest hidden layer, and
the layers above learn the target from the embedding, by the gradient of the loss, which ends there.
What is retrieved is a stored value, or what the decoder makes of a stored embedding: alike, not
identical, and no value needs to be stored.
"""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
from jax import Array

from pcbench.algorithms.base import GradientAlgorithm, Hyper, Info, Trained, Unsupported, flat
from pcbench.algorithms.hopfield_memory import Patterns, retrieve
from pcbench.memories.corruption import block, noise, shift
from pcbench.memories.similarity import unit


@dataclass(frozen=True)
class FeatureMemory(GradientAlgorithm):
    similarity: str = "cosine"
    separation: str = "max"
    normalise: bool = True
    retrieves: str = "value"

    def __post_init__(self):
        if len(self.network.input_shape) != 3:
            raise Unsupported("its views are of images; choose a dataset of images.")
        if not any(f.length is None for f in self.network.factors[:-1]):
            raise Unsupported(
                "it needs a hidden layer to embed in, which is not in a stack: set "
                "model.widths such as [512, 256, 64, 256, 512] and model.depth."
            )

    @property
    def place(self) -> int:
        """Of the embedding: the first of the narrowest hidden layers."""
        hidden = self.network.state_shapes(1)[:-1]
        sizes = {
            k: prod(state.shape)
            for k, (state, factor) in enumerate(zip(hidden, self.network.factors, strict=False))
            if factor.length is None
        }
        return min(sizes, key=sizes.get)

    @property
    def abilities(self):
        """Decoded, an embedding gives its own image, never another one."""
        own = super().abilities
        return own if self.retrieves == "value" else own - {"associate"}

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        numbers = hyper["algorithm"]
        views = [self.view(k, batch.x, numbers) for k in jax.random.split(key)]

        def objective(w):
            embeddings = self.embed(w, jnp.concatenate(views))
            contrast = contrastive_loss(embeddings, numbers["contrast_temperature"])
            encoder, decoder = w[: self.place + 1], w[self.place + 1 :]
            decoded = self.predict((*jax.lax.stop_gradient(encoder), *decoder), batch.x, hyper)
            return contrast + jnp.mean(self.loss(decoded, batch.target))

        gradient = jax.grad(objective)(weights)
        return gradient, memory, Info.undefined() if measure else None

    def view(self, key: Array, images: Array, numbers: dict[str, Array]) -> Array:
        changes = (shift, "view_shift"), (block, "view_block"), (noise, "view_noise")
        for n, (change, level) in enumerate(changes):
            images, _ = change(jax.random.fold_in(key, n), images, numbers[level])
        return images

    def embed(self, weights, x: Array) -> Array:
        """φ(x): (B, D)."""
        return flat(self.network.forward(weights, x)[self.place])

    def decode(self, weights, x: Array, codes: Array) -> Array:
        """Outputs (B, C) for embeddings (B, D), whatever the inputs x (B, …) are."""
        own = self.network.forward(weights, x)[self.place]
        offsets = (*(None,) * self.place, codes.reshape(own.shape) - own)
        return self.network.forward(weights, x, offsets)[-1]

    def store(self, weights, x: Array, y: Array) -> Patterns:
        keys = self.embed(weights, x)
        return Patterns(keys, y if self.retrieves == "value" else keys, jnp.ones(len(x), bool))

    def recall(self, trained: Trained, x: Array, y: Array, known: Array, hyper: Hyper, key):
        """y (B, C), of which x (B, …) are the images, with its unknown elements filled in."""
        return jnp.where(known, y, self.associate(trained, x, hyper))

    def associate(self, trained: Trained, x: Array, hyper: Hyper) -> Array:
        cues = self.embed(trained.weights, x)
        found = retrieve(self, trained.memory.keys, trained.memory, cues, hyper)
        return found if self.retrieves == "value" else self.decode(trained.weights, x, found)


def contrastive_loss(embeddings: Array, temperature: Array) -> Array:
    """Mean of -log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ), with s the cosines of embeddings (2B, D) and
    j = i ± B the other view of i."""
    z = unit(embeddings)
    count = len(z)
    scores = z @ z.T / temperature
    others = ~jnp.eye(count, dtype=bool)
    total = jax.nn.logsumexp(scores, axis=-1, where=others)
    return jnp.mean(total - jnp.diagonal(jnp.roll(scores, count // 2, axis=1)))
