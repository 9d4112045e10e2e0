"""Language modelling: characters are predicted from their context; scored by perplexity.

- causal: the next character, from those before it; with `positions=all`, that after each character
  of the window, by a network which sees none of those after it
- masked: the character in the centre of the window, from those on both sides

The network reads the window one-hot, (length, characters), zeros in the place of the masked one;
its first layer is the embedding. Perplexity is exp(-mean ln p) of the characters that are
predicted: of a uniform guess the size of the vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.energies.energy import cross_entropy
from pcbench.tasks.task import Task


@dataclass(frozen=True)
class LanguageModelling(Task):
    context: str = "causal"
    positions: str = "one"

    higher_is_better = False

    def __post_init__(self):
        if not self.data.text:
            raise ValueError("examples are to be windows of a text: set dataset=tiny_shakespeare.")
        if self.loss != "cross_entropy":
            raise ValueError("what is predicted are probabilities: set task.loss=cross_entropy.")
        if self.context == "masked" and self.positions == "all":
            raise ValueError("one character of a window is masked: set task.positions=one.")

    @property
    def per_element(self) -> bool:
        return self.positions == "all"

    @property
    def chance(self) -> float:
        return float(self.data.classes)

    @property
    def outputs(self) -> int:
        return self.data.classes * (self.data.shape[0] if self.per_element else 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (*self.data.shape, self.data.classes)

    @property
    def output_energy(self):
        """The cross-entropy, summed over the positions that are predicted."""
        return self._cross_entropy if self.per_element else cross_entropy

    def pair(self, x, y):
        codes = self._one_hot(x.astype(jnp.int32))
        if self.context == "masked":
            centre = self.data.shape[0] // 2
            return codes.at[:, centre].set(0), codes[:, centre]
        following = self._one_hot(y)
        if not self.per_element:
            return codes, following
        following = jnp.concatenate([codes[:, 1:], following[:, None]], 1)
        return codes, following.reshape(len(x), -1)

    def evaluate(self, algorithm, trained, batch, hyper, key):
        logits = self._by_position(algorithm.predict(trained.weights, batch.x, hyper))
        targets = self._by_position(batch.target)
        right = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        return {
            "cross_entropies": jnp.mean(cross_entropy(logits, targets), -1),
            "accuracies": jnp.mean(right, -1, dtype=logits.dtype),
        }

    def score(self, found, images, y):
        means = np.mean(found["cross_entropies"], -1, dtype=float)
        return {"perplexity": np.exp(means), "accuracy": np.mean(found["accuracies"], -1)}

    def _one_hot(self, places):
        return jax.nn.one_hot(places, self.data.classes, dtype=jnp.result_type(float))

    def _by_position(self, outputs):
        """(B, outputs) → (B, positions, characters)."""
        return outputs.reshape(len(outputs), -1, self.data.classes)

    def _cross_entropy(self, prediction, target):
        return jnp.sum(cross_entropy(*map(self._by_position, (prediction, target))), -1)
