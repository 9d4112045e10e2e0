"""What a relaxation from the feed-forward state can skip, because it is known to be zero.

At the feed-forward state all errors but the output's are zero, and with synchronous updates an
error travels one layer a step: a state at distance d from the output first moves at step d (counted
from 1), or one step later where the output itself must move first. Until then its layer need not
be computed, and predictions from states that have not moved are the feed-forward states themselves.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pcbench.networks.network import INPUT, Network

# Each window is a loop of its own in the compiled program, so their number is bounded. More
# windows skip a little more work: the best case is half of it, four windows reach 3/8.
WINDOWS = 4


class Window(NamedTuple):
    steps: int
    free: tuple[bool, ...]  # per factor: may move in this window
    known: tuple[int, ...]  # factors whose prediction is still the feed-forward state


def windows(network: Network, steps: int, output_free: bool = False) -> Iterator[Window]:
    """Split `steps` into windows of growing sets of free states."""
    distances = [d + output_free for d in network.distances]
    hidden = sorted({d for d in distances if d > 0})
    last = hidden[-1] if hidden else 1
    count = min(WINDOWS, last)
    # window w ends when the error arrives at distance ends[w]; the last one takes the rest
    ends = [round(last * (w + 1) / count) for w in range(count)]
    done = 0
    for w, end in enumerate(ends):
        length = (steps if w == count - 1 else min(end, steps)) - done
        if length <= 0:
            return
        free = tuple(0 < d <= end for d in distances)
        known = tuple(
            k
            for k, factor in enumerate(network.factors)
            if (factor.length is None or not free[k])
            and all(s == INPUT or not free[s] for s in factor.sources)
        )
        yield Window(length, free, known)
        done += length
