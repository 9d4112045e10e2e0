"""What a relaxation from the feed-forward state can skip, because it is known to be zero.

At the feed-forward state all errors but the output's are zero, and with synchronous updates an
error travels one layer a step: a state at distance d from the output first moves at step d (counted
from 1), or one step later where the output itself must move first. Until then its layer need not
be computed, and predictions from states that have not moved are the feed-forward states themselves.

Of a stack only the last layers are computed, those that an error can have reached: a slice of its
weights and states, whose bounds are static, so that each window is a smaller product.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pcbench.networks.network import INPUT, Network

# Each window is a loop of its own in the compiled program, so their number is bounded. More
# windows skip a little more work: the best case is half of it, four windows reach 3/8, six 5/12.
WINDOWS = 4
# Beyond this distance only stacks lie, of which a window has one body however many their layers.
FAR, FAR_WINDOWS = 16, 6


class Window(NamedTuple):
    steps: int
    free: tuple[bool, ...]  # per factor: may move in this window
    first: tuple[int, ...]  # per factor: the layers of a stack from here on are computed, else 0
    known: tuple[int, ...]  # factors whose (first computed) prediction is the feed-forward state


def windows(network: Network, steps: int, output_free: bool = False) -> Iterator[Window]:
    """Split `steps` into windows of growing sets of free states."""
    nearest = [d + output_free for d in network.distances]
    lengths = [factor.length or 1 for factor in network.factors]
    # the distance of a stack's first layer
    farthest = [d + n - 1 for d, n in zip(nearest, lengths, strict=True)]
    last = max(1, *farthest)
    stacks = any(factor.length for factor in network.factors)
    if stacks and steps:
        last = min(last, steps)  # what no error reaches is never computed
    count = min(FAR_WINDOWS if last >= FAR else WINDOWS, last)
    # window w ends when the error arrives at distance ends[w]; the last one takes the rest
    ends = [round(last * (w + 1) / count) for w in range(count)]
    done = 0
    for w, end in enumerate(ends):
        length = (steps if w == count - 1 else min(end, steps)) - done
        if length <= 0:
            return
        free = tuple(0 < d <= end for d in nearest)
        # of a stack at rest the last layer stays, as others may read it
        first = tuple(min(max(f - end, 0), n - 1) for f, n in zip(farthest, lengths, strict=True))
        known = tuple(
            k
            for k, factor in enumerate(network.factors)
            if first[k] or all(s == INPUT or not free[s] for s in factor.sources)
        )
        yield Window(length, free, first, known)
        done += length


def remaining(network: Network, first: tuple[int, ...]) -> np.ndarray:
    """Which of a network's layers, counted from the input, a window computes."""
    kept, start = [], 0
    for factor, n in zip(network.factors, first, strict=True):
        length = factor.length or 1
        kept += range(start + n, start + length)
        start += length
    return np.array(kept)
