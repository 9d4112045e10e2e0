"""Schedules: in which order one relaxation step updates the layers.

A schedule is a list of *colours*, each the set of states that are updated at once; one step goes
through all of them. States that enter a common term of the energy differ in colour (but under
`sync`, which has one), so that within a colour the order does not matter.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pcbench.networks.network import INPUT, Network

Mask = bool | np.ndarray  # of one state; of a stack an array with an entry per layer


def sync(network: Network) -> list[tuple[Mask, ...]] | None:
    return None  # everything at once


def even_odd(network: Network) -> list[tuple[Mask, ...]]:
    """Two colours in a chain, the output's first, so that what happens there is seen at once; as
    many as the coupling graph needs where there are skips (greedily, from the output down)."""
    layers, coupled = _layers(network), _couplings(network)
    colour: dict[tuple, int] = {}
    for layer in reversed(layers):
        taken = {colour[other] for other in coupled[layer] if other in colour}
        colour[layer] = min(set(range(len(layers))) - taken)
    return [_mask(network, lambda l, c=c: colour[l] == c) for c in range(max(colour.values()) + 1)]


def backward(network: Network) -> list[tuple[Mask, ...]]:
    """One layer after the other, from the output to the input."""
    layers = _layers(network)[::-1]
    return [_mask(network, lambda l, layer=layer: l == layer) for layer in layers]


def forward(network: Network) -> list[tuple[Mask, ...]]:
    """One layer after the other, from the input to the output."""
    return backward(network)[::-1]


SCHEDULES: dict[str, Callable[[Network], Any]] = {
    "sync": sync,
    "even_odd": even_odd,
    "backward": backward,
    "forward": forward,
}


def _layers(network: Network) -> list[tuple[int, int]]:
    """(factor, place in its stack) of every layer, input to output."""
    return [(k, n) for k, factor in enumerate(network.factors) for n in range(factor.length or 1)]


def _couplings(network: Network) -> dict[tuple, set[tuple]]:
    """The layers whose states enter a common term: a layer, its sources, and these in turn."""
    coupled: dict[tuple, set[tuple]] = {layer: set() for layer in _layers(network)}
    for k, factor in enumerate(network.factors):
        for n in range(factor.length or 1):
            if n:
                sources = [(k, n - 1)]
            else:
                sources = [
                    (s, (network.factors[s].length or 1) - 1) for s in factor.sources if s != INPUT
                ]
            term = {(k, n), *sources}
            for layer in term:
                coupled[layer] |= term - {layer}
    return coupled


def _mask(network: Network, chosen: Callable[[tuple], bool]) -> tuple[Mask, ...]:
    masks = []
    for k, factor in enumerate(network.factors):
        places = [chosen((k, n)) for n in range(factor.length or 1)]
        masks.append(np.array(places) if any(places) and not all(places) else places[0])
    return tuple(masks)
