"""The outcome of a check."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Measured(NamedTuple):
    """An error and what it may be: the check holds where measured ≤ bound."""

    measured: float
    bound: float


def order(values: Sequence[float], errors: Sequence[float], expected: float, tolerance=0.05):
    """How far the order of convergence is from the expected one.

    The order is the slope of log error against log value, by least squares; the tolerance allows
    for the next order in the expansion of the error.
    """
    slope = np.polyfit(np.log(values), np.log(errors), 1)[0]
    return Measured(abs(float(slope) - expected), tolerance)


def worst(measured: Sequence[Measured]) -> Measured:
    """Of several measurements, the one nearest to or furthest above its bound."""
    return max(measured, key=lambda m: m.measured / m.bound)
