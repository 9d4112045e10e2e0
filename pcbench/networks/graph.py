"""Graphs of any topology: Salvatori et al. 2022, arXiv 2201.13180.

Every node is predicted from the nodes that have an edge to it,

    μ_i = Σ_j θ_ji f(v_j) + b_i        (f: the activation of hidden nodes; the identity of others)

Nodes form groups: 0 is the input, then hidden groups, the last one the output. A factor predicts a
group from the groups that have edges to it; factor 0 predicts the input.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.networks.activations import ACTIVATIONS, IDENTITY, Activation
from pcbench.networks.layers import declare
from pcbench.networks.network import Factor, Network
from pcbench.networks.products import product


@dataclass(frozen=True)
class Edges:
    """The edges from one group to another one, or to itself: without self-loops."""

    source: int
    target: int
    shape: tuple[int, int]  # nodes of the source, of the target
    density: float
    role: str
    activation: Activation  # of the source

    @cached_property
    def mask(self) -> np.ndarray | None:
        """True where there is an edge, as `shape`; None where there are all. Drawn by numpy from
        the groups' places: the same in every run."""
        within = self.source == self.target
        if self.density == 1 and not within:
            return None
        mask = np.random.default_rng((self.source, self.target)).random(self.shape) < self.density
        if within:
            np.fill_diagonal(mask, False)
        return mask

    @property
    def count(self) -> int:
        return prod(self.shape) if self.mask is None else int(self.mask.sum())


class Nodes(nn.Module):
    """The prediction of a group of nodes: (B, …) of each source → (B, features), or (features,)
    where no edge leads to it."""

    features: int
    edges: tuple[Edges, ...]  # one entry per source
    role: str  # of the bias
    fan_in: int  # edges to a node, on average
    bias: bool

    @nn.compact
    def __call__(self, *sources: Array) -> Array:
        value = jnp.zeros(self.features)
        if self.bias:
            value = self.param("b", declare(self.role, "bias", self.fan_in), (self.features,))
        for edges, source in zip(self.edges, sources, strict=True):
            declared = declare(edges.role, "weight", self.fan_in, edges)
            weight = self.param(f"W_{edges.source}", declared, edges.shape)
            if edges.mask is not None:
                weight = jnp.where(edges.mask, weight, 0)
            value = value + product(edges.activation(source.reshape(len(source), -1)), weight)
        return value


@dataclass(frozen=True)
class Graph(Network):
    """Factors whose sources may be any groups. States: (input, hidden …, output)."""

    @cached_property
    def acyclic(self) -> bool:
        """Whether there are no cycles but those through the input, which is known."""
        return all(s < k for k, f in enumerate(self.factors) if k for s in f.sources)

    @cached_property
    def _declared(self):
        sizes = [jax.ShapeDtypeStruct((1, f.module.features), jnp.float32) for f in self.factors]
        return tuple(
            jax.eval_shape(
                lambda *s, module=factor.module: module.init(jax.random.key(0), *s),
                *(sizes[s] for s in factor.sources),
            ).get("params", {})
            for factor in self.factors
        )

    def forward(self, params: tuple, x: Array) -> tuple:
        """One sweep from the input to the output, every group at its prediction; states that are
        not reached yet count as 0. Where the graph is acyclic, the feed-forward pass."""
        states = [x, *(jnp.zeros((len(x), f.module.features), x.dtype) for f in self.factors[1:])]
        for k, factor in enumerate(self.factors[1:], 1):
            value = factor.apply(params[k], *self.sources(k, x, states))
            states[k] = jnp.broadcast_to(value, states[k].shape)
        return tuple(states)

    def predict(self, params, x, states, known=None) -> tuple:
        predictions = super().predict(params, x, states, known)
        sizes = (factor.module.features for factor in self.factors)
        return tuple(
            jnp.broadcast_to(p, (len(x), n)) for p, n in zip(predictions, sizes, strict=True)
        )


def graph(model: Mapping, input_shape: tuple[int, ...], outputs: int) -> Graph:
    """`model`: the composed group. Raises ValueError where it has fewer hidden nodes than regions.

    All topologies have width · (depth - 1) hidden nodes.
    """
    groups = [prod(input_shape), *hidden_groups(model), outputs]
    incoming: list[list[int]] = [[] for _ in groups]
    for source, target in joined(model["topology"], len(groups)):
        incoming[target].append(source)
    density = model["density"] if model["topology"] == "sparse" else 1.0
    activation, last = ACTIVATIONS[model["activation"]], len(groups) - 1
    factors = []
    for target, sources in enumerate(incoming):
        edges = tuple(
            Edges(
                source,
                target,
                (groups[source], groups[target]),
                density,
                _role(source, target, last),
                activation if 0 < source < last else IDENTITY,
            )
            for source in sorted(sources)
        )
        # the bias of nodes without edges starts as small as if all others led to them
        count = sum(e.count for e in edges) / groups[target] or sum(groups)
        role = edges[0].role if edges else "output"
        module = Nodes(groups[target], edges, role, max(1, round(count)), model["bias"])
        factors.append(Factor(module, tuple(e.source for e in edges)))
    return Graph(tuple(factors), tuple(input_shape))


def hidden_groups(model: Mapping) -> list[int]:
    """Layers, regions, or one group of all hidden nodes."""
    layers = model["depth"] - 1
    nodes, topology = model["width"] * layers, model["topology"]
    if topology in ("layered", "cyclic"):
        return [model["width"]] * layers
    if topology == "regions":
        if model["regions"] > nodes:
            raise ValueError(f"{nodes} hidden nodes do not fill {model['regions']} regions.")
        return [len(part) for part in np.array_split(np.arange(nodes), model["regions"])]
    return [nodes] if nodes else []


def joined(topology: str, groups: int) -> Iterator[tuple[int, int]]:
    """(source, target) of the groups with edges from one to the other."""
    if topology in ("full", "sparse"):
        yield from ((s, t) for s in range(groups) for t in range(groups))
        return
    chain = list(pairwise(range(groups)))
    yield from chain
    if topology == "cyclic":
        yield 1, 0
    if topology == "regions":
        yield from ((above, below) for below, above in chain)
        yield from ((k, k) for k in range(1, groups - 1))


def _role(source: int, target: int, last: int) -> str:
    """Input and output nodes are few and read from many, whichever way."""
    if target in (0, last):
        return "output"
    return "hidden" if source else "input"
