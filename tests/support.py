"""Small networks and rules for the tests of the numerics: those of `pcbench verify`."""

from pcbench.verify.problems import (
    as_batch,
    batch,
    build,
    chain,
    hyper,
    jit,
    learner,
    network,
    relative,
    weights,
)

__all__ = [
    "as_batch",
    "batch",
    "build",
    "chain",
    "hyper",
    "jit",
    "learner",
    "network",
    "relative",
    "weights",
]
