"""Blind source separation: vectors are to be found of which only linear mixtures are seen.

Every seed mixes its own samples by its own matrix, A ~ N(0, 1), and adds noise to each mixture, by
`snr` decibels below it. A rule sees each mixture once (`train.epochs=1`) and is tested on the same
ones. Order, sign and scale of what it finds are free: outputs are matched to sources by the
assignment with the largest correlations, then scaled to the least error. Scores in decibels:

- sinr            10 log₁₀ Σ‖s‖² / Σ‖s - y‖², over all sources
- component_sinr  the same of each source, mean over sources
- duplicates      outputs that are the nearest of two sources or more, by which a matching that is
                  no assignment would count them twice
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.tasks.task import Task


@dataclass(frozen=True)
class SourceSeparation(Task):
    mixtures: int = 10

    evaluates = "train"
    needs = ("separate",)

    def __post_init__(self):
        if self.loss != "squared_error":
            raise ValueError(
                "there is no target to have another loss: set task.loss=squared_error."
            )
        if self.data.labelled:
            raise ValueError("it needs sources to mix: set dataset=sources.")
        if self.data.held_out:
            raise ValueError(
                "a stream is separated as it comes: set train.validation_fraction=0 "
                "train.selection=final."
            )

    @property
    def outputs(self) -> int:
        return self.data.targets

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.mixtures,)

    def given(self, x, y, hyper, key):
        """The mixtures (N, m) of the sources y (N, n)."""
        mixing, noise = jax.random.split(key)
        clean = y @ jax.random.normal(mixing, (self.mixtures, y.shape[1]), y.dtype).T
        ratio = 10 ** (-hyper["task"]["snr"] / 10)
        deviation = jnp.sqrt(ratio * jnp.mean(clean**2, 0))
        return clean + deviation * jax.random.normal(noise, clean.shape, clean.dtype), y

    def pair(self, x, y):
        return x, y.astype(x.dtype)

    def evaluate(self, algorithm, trained, batch, hyper, key):
        return {"outputs": algorithm.separate(trained, batch.x), "sources": batch.target}

    def score(self, found, images, y):
        each = [_scores(*pair) for pair in zip(found["outputs"], found["sources"], strict=True)]
        return {name: np.array([s[name] for s in each]) for name in each[0]}


def _scores(outputs: np.ndarray, sources: np.ndarray) -> dict[str, float]:
    y, s = outputs.astype(np.float64), sources.astype(np.float64)
    if not np.isfinite(y).all():
        return {"sinr": np.nan, "component_sinr": np.nan, "duplicates": np.nan}
    likeness = np.abs(np.nan_to_num(np.corrcoef(s.T, y.T)[: s.shape[1], s.shape[1] :]))
    y = y[:, assignment(likeness)]
    scale = np.sum(y * s, 0) / np.maximum(np.sum(y * y, 0), np.finfo(float).tiny)
    power, error = np.sum(s**2, 0), np.sum((s - scale * y) ** 2, 0)
    nearest = np.argmax(likeness, 1)
    return {
        "sinr": 10 * np.log10(power.sum() / error.sum()),
        "component_sinr": np.mean(10 * np.log10(power / error)),
        "duplicates": float(len(nearest) - len(set(nearest.tolist()))),
    }


def assignment(likeness: np.ndarray) -> np.ndarray:
    """Of each row its column, all different, such that the sum is the largest."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(-likeness)[1]
