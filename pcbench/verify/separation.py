"""Online source separation against direct evaluations. The computations are meant for float64."""

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Batch, Sizes
from pcbench.algorithms.corinfomax import CorInfoMax
from pcbench.algorithms.pem import PEM, Moments
from pcbench.networks.chains import patterns
from pcbench.separation.domains import DOMAINS
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import ROUNDING, build, jit, relative

PEM_PAPER = "Bozkurt et al. 2026, arXiv 2605.19965"
CORINFOMAX = "Bozkurt, Ateş & Erdogan 2023, arXiv 2210.04222"

SOURCES, MIXTURES, SAMPLES = 3, 5, 40
NUMBERS = {
    "prediction_weight": 20.0, "lateral_weight": 3.0, "forgetting": 0.9, "variance_floor": 1e-4,
    "step_size": 0.08, "step_size_min": 1e-3, "tolerance": 1e-9, "threshold_rate": 0.2,
    "rate": 0.05, "rate_time": 20.0,
}  # fmt: skip


def rule(kind, **choices):
    network = patterns({}, (MIXTURES,), SOURCES)
    return build(kind, network, sizes=Sizes(SAMPLES, SAMPLES, SOURCES), steps=60, **choices)


def stream(made, x):
    """(state at the start, state after the stream)."""
    numbers = {"algorithm": {k: jnp.asarray(v) for k, v in NUMBERS.items()}}
    start = made.init(jax.random.key(0))
    batch = Batch(
        jnp.asarray(x), jnp.zeros((SAMPLES, SOURCES)), jnp.arange(SAMPLES), jnp.asarray(0)
    )
    return start, jit(lambda s, b: made.step(s, b, numbers, None))(start, batch)


def mixtures(seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(MIXTURES, SOURCES))
    return generator.uniform(-1, 1, size=(SAMPLES, SOURCES)) @ mixing.T


def projection(domain):
    """As a function of numpy's, for the direct evaluation."""
    return lambda y, threshold: [
        np.asarray(part) for part in DOMAINS[domain](y, threshold, NUMBERS["threshold_rate"])
    ]


def directly(x, weights, domain, lateral, decay):
    """The published loop, element by element: (W, μ, C) after the samples."""
    n, project = NUMBERS, projection(domain)
    mean, covariance = np.zeros(SOURCES), 0.2 * np.eye(SOURCES)
    for t, sample in enumerate(x):
        feedforward, y, threshold = weights @ sample, np.zeros(SOURCES), 0.0
        spread = np.diag(covariance) + n["variance_floor"]
        for j in range(60):
            pull = np.zeros(SOURCES)
            for i in range(SOURCES):
                pull[i] = -(y[i] - mean[i]) / spread[i]
                for k in set(range(SOURCES)) - {i}:
                    share = 1 / (spread[i] * spread[k])
                    share = share if lateral == "normalised" else n["lateral_weight"]
                    pull[i] += share * covariance[i, k] * (y[k] - mean[k])
            gradient = n["prediction_weight"] * (y - feedforward) + pull
            before, size = y, max(n["step_size"] / (j + 1), n["step_size_min"])
            y, threshold = project(y - size * gradient, threshold)
            if np.linalg.norm(y - before) < n["tolerance"] * np.linalg.norm(y):
                break
        time = t / n["rate_time"]
        rate = n["rate"] / (1 + time if decay == "inverse" else 1 + np.log(2 + time))
        weights = weights + rate * np.outer(y - feedforward, sample)
        mean = n["forgetting"] * mean + (1 - n["forgetting"]) * y
        outer = np.outer(y - mean, y - mean)
        covariance = n["forgetting"] * covariance + (1 - n["forgetting"]) * outer
    return weights, mean, covariance


@check(
    source=PEM_PAPER,
    algorithms=["pem"],
    kind="identity",
    cases=[
        ("antisparse", "normalised", "inverse"),
        ("nonnegative_antisparse", "plain", "inverse"),
        ("sparse", "normalised", "inverse"),
        ("nonnegative_sparse", "plain", "logarithmic"),
        ("simplex", "normalised", "logarithmic"),
    ],
)
def a_stream_learns_as_in_the_published_loop(domain, lateral, decay) -> Measured:
    """After a stream of mixtures weights, mean and covariance are those of the published loop,
    written out element by element."""
    made = rule(PEM, domain=domain, lateral=lateral, decay=decay)
    x = mixtures()
    start, end = stream(made, x)
    expected = directly(x, np.asarray(start.memory.weights), domain, lateral, decay)
    ours = (end.memory.weights, *end.memory.statistics)
    return Measured(relative(ours, expected), ROUNDING)


@check(source=PEM_PAPER, algorithms=["pem"], kind="slope")
def the_force_is_the_gradient_of_the_log_determinant_to_first_order() -> Measured:
    """Without a prediction error the force is -∂(½ log det C)/∂y·(1-λ)⁻¹ = C⁻¹ȳ up to the square
    of C's off-diagonal part."""
    made, generator = rule(PEM), np.random.default_rng(1)
    y, spread = generator.normal(size=SOURCES), generator.uniform(0.5, 1, size=SOURCES)
    part = generator.normal(size=(SOURCES, SOURCES))
    off = (part + part.T) * (1 - np.eye(SOURCES))
    numbers = NUMBERS | {"variance_floor": 0.0}
    sizes, errors = np.array([1e-3, 2e-3, 4e-3, 8e-3]), []
    for size in sizes:
        covariance = np.diag(spread) + size * off
        moments = Moments(jnp.zeros(SOURCES), jnp.asarray(covariance))
        force = made.force(jnp.asarray(y), jnp.asarray(y), moments, numbers)
        errors.append(np.linalg.norm(force - np.linalg.solve(covariance, y)))
    return order(sizes, errors, 2)


@check(source=CORINFOMAX, algorithms=["corinfomax"], kind="identity")
def lateral_weights_are_the_inverse_of_the_running_correlation() -> Measured:
    """B R = 1 for R ← λR + (1-λ)yyᵀ, which starts at the inverse of the first B."""
    made, generator = rule(CorInfoMax), np.random.default_rng(2)
    inverse, keep = made.statistics(), NUMBERS["forgetting"]
    correlation = np.linalg.inv(np.asarray(inverse))
    for y in generator.uniform(-1, 1, size=(30, SOURCES)):
        inverse = made.learn(jnp.asarray(y), inverse, NUMBERS)
        correlation = keep * correlation + (1 - keep) * np.outer(y, y)
    return Measured(relative(inverse, np.linalg.inv(correlation)), 1e3 * ROUNDING)
