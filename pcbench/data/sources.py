"""Sources to be separated, vectors that fill a known domain: Bozkurt et al. 2026, arXiv 2605.19965.

- antisparse, nonnegative_antisparse: uniform components, dependent by a t copula of four degrees of
  freedom whose correlation is the same for all pairs
- sparse, nonnegative_sparse, simplex: uniform vectors, projected onto the ℓ₁ ball (its negative
  elements then set to zero) or onto the simplex
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcbench.data.dataset import DataError, Source, Split
from pcbench.data.generated import SEED

FREEDOM = 4  # of the copula
UNIFORM = {"sparse": 4.0, "nonnegative_sparse": 2.0, "simplex": 4.0}  # half width before projection


def sources(config: Mapping[str, Any]) -> Source:
    """x and y are the sources, (N, n). Keys: `domain`, `correlation`, `sources` (n), `samples`,
    `test_samples`. Raises DataError for a correlation in a domain that has none."""
    domain, correlation, count = (config[k] for k in ("domain", "correlation", "sources"))
    if domain in UNIFORM and correlation:
        raise DataError(
            f"dataset.correlation={correlation} is for antisparse sources; set "
            f"dataset.correlation=0 with dataset.domain={domain}"
        )

    def sample(stream: int, size: int) -> Split:
        rng = np.random.default_rng([SEED, stream])
        if domain in UNIFORM:
            x = _projected(domain, rng.uniform(-1, 1, (size, count)) * UNIFORM[domain])
        else:
            x = copula(rng, size, count, correlation)
            x = 2 * x - 1 if domain == "antisparse" else x
        x = x.astype(np.float32)
        return Split(x, x)

    return Source(
        classes=None, train=sample(1, config["samples"]), test=sample(2, config["test_samples"])
    )


def copula(rng: np.random.Generator, size: int, count: int, correlation: float) -> np.ndarray:
    """(size, count) uniform on [0, 1], coupled by Student's t with equal correlations."""
    from scipy.special import stdtr

    shared, own = rng.standard_normal((size, 1)), rng.standard_normal((size, count))
    normal = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return stdtr(FREEDOM, normal / np.sqrt(rng.chisquare(FREEDOM, (size, 1)) / FREEDOM))


def _projected(domain: str, x: np.ndarray) -> np.ndarray:
    if domain == "simplex":
        return onto_simplex(x)
    outside = np.sum(np.abs(x), 1) > 1
    x[outside] = np.sign(x[outside]) * onto_simplex(np.abs(x[outside]))
    return np.maximum(x, 0) if domain == "nonnegative_sparse" else x


def onto_simplex(x: np.ndarray) -> np.ndarray:
    """The nearest points with nonnegative elements of sum 1, to the rows of x (Duchi et al. 2008,
    Efficient Projections onto the ℓ₁-Ball)."""
    descending = -np.sort(-x, 1)
    excess = np.cumsum(descending, 1) - 1
    ranks = np.arange(1, x.shape[1] + 1)
    kept = np.sum(descending * ranks > excess, 1)
    threshold = excess[np.arange(len(x)), kept - 1] / kept
    return np.maximum(x - threshold[:, None], 0)
