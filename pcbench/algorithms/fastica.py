"""Independent component analysis by scikit-learn's FastICA (Hyvärinen 1999): the baseline that
takes sources to be independent. It sees all samples at once, as one batch."""

from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.algorithms.base import Algorithm, Batch, Hyper, State, Trained, Unsupported, flat


@dataclass(frozen=True)
class FastICA(Algorithm):
    steps: int  # iterations at most
    contrast: str = "cube"  # cube | logcosh | exp

    learns_by_gradient = False
    abilities = frozenset({"separate"})

    def __post_init__(self):
        if self.network.factors:
            raise Unsupported("it has one matrix of its own: set model=patterns.")
        if self.sizes.batch != self.sizes.samples:
            raise Unsupported(
                f"it takes all {self.sizes.samples} samples at once: set "
                f"train.batch_size={self.sizes.samples}."
            )

    def init(self, key: Array) -> State:
        return State((), (), self.memory(key), jnp.zeros((), jnp.int32))

    def memory(self, key: Array) -> Array:
        """The unmixing matrix (n, m)."""
        shape = (self.sizes.outputs, prod(self.network.input_shape))
        return jnp.zeros(shape, jnp.result_type(float))

    def step(self, state: State, batch: Batch, hyper: Hyper, key: Array) -> State:
        like = jax.ShapeDtypeStruct(state.memory.shape, jnp.float32)  # as callbacks give it
        seed = jax.random.bits(key)
        found = jax.pure_callback(self._fit, like, flat(batch.x), seed, vmap_method="sequential")
        return state._replace(memory=found.astype(state.memory.dtype), step=state.step + 1)

    def _fit(self, x, seed) -> np.ndarray:
        import warnings

        from sklearn.decomposition import FastICA as Fit
        from sklearn.exceptions import ConvergenceWarning

        fit = Fit(
            self.sizes.outputs,
            fun=self.contrast,
            max_iter=self.steps,
            whiten="unit-variance",
            random_state=int(seed),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return fit.fit(np.asarray(x, np.float64)).components_.astype(np.float32)

    def separate(self, trained: Trained, x: Array) -> Array:
        """Outputs (B, n) for mixtures (B, m), not centred."""
        return flat(x) @ trained.memory.T
