"""Parameterisations: how weights are drawn, scaled in the forward pass, and given a learning rate.

A parameterisation is a table over the declared parameters (role, weight or bias, fan-in). The
forward multiplier is folded into the weights once per training step (`scale`), so layers, energies
and algorithms see effective weights only and relaxation pays nothing for it. The gradient with
respect to the drawn parameters is the gradient of the effective weights times the same multiplier.

`sp`: weights and biases U(±1/√n), n the fan-in (k²·C_in of a convolution, and of a transposed one
too, whatever its stride); multiplier 1, at the output 1/γ₀; one learning rate. `xavier`: the same
with weights U(±√(6/(n + m))), m the fan-out; `xavier_normal`: normal ones of the same variance.

`ntp`, `mup`, `depth_mup`: weights N(0, 1), biases 0, and the rest from one table. γ = γ₀ (`mup`:
Yang & Hu 2021, arXiv 2011.14522) or γ₀/√N (`ntp`), N the fan-in of the output layer. A residual
branch is scaled by B = L^-α (`ntp`, `depth_mup`) or by 1 (`mup`: widths only), where L and B also
enter the learning rates of what is inside the branch:

| role                            | multiplier | lr, Adam  | lr, SGD    | size of ∂ŷ/∂parameter |
|---------------------------------|------------|-----------|------------|-----------------------|
| input, hidden                   | 1/√n       | γ/√n      | γ²N        | 1/(γN√n)              |
| embedding, biases of these      | 1          | γ         | γ²N        | 1/(γN)                |
| output; its bias with n = 1     | 1/(γn)     | γ         | γ²n        | 1/(γn)                |
| residual: as hidden, but        | × B        | ÷ LB      | ÷ LB²      | × B                   |
| attention (queries, keys)       | × d^-¼     |           |            | × d^-¼                |
| hidden, attention in a branch   |            | ÷ LB      | ÷ LB²      | × B                   |

- Residual MLPs and convolutional networks: α = ½, L the layers along the skips, the first and the
  last included (Depth-μP: Bordelon et al. 2023, arXiv 2309.16620; for predictive coding Innocenti
  et al. 2025, arXiv 2505.13124). The hidden layers of a network with skips count as in a branch.
- Transformers: α = 1, L the number of blocks (CompleteP: Dey et al. 2025, arXiv 2505.01618). With
  the layer's own 1/√d, d features of a head, d^-¼ makes logits q·k/d; not under `ntp`.
- Every layer's learning moves the output by the same order, and features by γ₀ times that, at any
  width and depth. (A single rate for Adam, η/√(NL) as in published code, would stop the learning of
  the first and the last layer in wide networks.) There are no gains for activations.
- Adam's ε is relative to the size of the gradient: the last column. Weight decay is divided by the
  learning-rate multiplier: a weight shrinks by lr·decay a step, whatever its role.
- `scale_lr=False`: the last three columns are 1 everywhere, as μPC was published.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcbench.networks.layers import Declared
from pcbench.networks.network import Network

Number = Array | float


class Numbers(NamedTuple):
    """A parameter's row; in `tabulate` each entry is a tree over all parameters."""

    multiplier: Any = 1.0  # of the forward pass
    adam: Any = 1.0  # of the learning rate, where the update does not scale with the gradient
    sgd: Any = 1.0  # of the learning rate, where it does
    epsilon: Any = 1.0  # of Adam's ε

    def lr(self, family: str) -> Any:
        return {"adam": self.adam, "sgd": self.sgd}[family]


class Place(NamedTuple):
    """What a row depends on beside its parameter: the network around it."""

    width: int  # N: fan-in of the output layer
    length: int  # L: layers along the skips, or a transformer's blocks; 1 without skips
    exponent: float  # α: a residual branch is scaled by L^-α
    head: int  # d: features of an attention head; 1 without attention


class Parameterisation(Protocol):
    """Nothing here reads a parameter's value or an input: declarations are enough."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Independent variates of the initial distribution, before their scale."""

    def initial_scale(self, declared: Declared) -> float: ...
    def numbers(self, declared: Declared, place: Place, gamma0: Number) -> Numbers: ...


@dataclass(frozen=True)
class Standard:
    """The default of PyTorch and Equinox."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -1, 1)

    def initial_scale(self, declared: Declared) -> float:
        return (declared.taps[0] if declared.taps else declared.fan_in) ** -0.5

    def numbers(self, declared: Declared, place: Place, gamma0: Number) -> Numbers:
        return Numbers(1.0 / gamma0) if declared.role == "output" else Numbers()


@dataclass(frozen=True)
class Xavier(Standard):
    """Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward networks."""

    def initial_scale(self, declared: Declared) -> float:
        if declared.kind == "bias":
            return super().initial_scale(declared)
        return (6 / sum(declared.fans)) ** 0.5


@dataclass(frozen=True)
class XavierNormal(Xavier):
    """The same variances."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.normal(key, shape, jnp.float32) * 3**-0.5


@dataclass(frozen=True)
class Scaled:
    """The table above."""

    lazy: bool = False  # γ = γ₀/√N
    depth: bool = True  # residual branches are scaled
    scale_lr: bool = True

    def sample(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.normal(key, shape, jnp.float32)

    def initial_scale(self, declared: Declared) -> float:
        return 1.0 if declared.kind == "weight" else 0.0

    def numbers(self, declared: Declared, place: Place, gamma0: Number) -> Numbers:
        row = self._numbers(declared, place, gamma0)
        return row if self.scale_lr else Numbers(row.multiplier)

    def _numbers(self, declared: Declared, place: Place, gamma0: Number) -> Numbers:
        role, width = declared.role, place.width
        # a bias is a weight from a constant unit, an embedding one from a one-hot code
        alone = declared.kind == "bias" or role == "embedding"
        n = 1 if alone else declared.fan_in
        gamma = gamma0 * width**-0.5 if self.lazy else gamma0
        if role == "output":
            return Numbers(1 / (gamma * n), gamma, gamma**2 * n, 1 / (gamma * n))
        multiplier = n**-0.5
        adam, sgd, size = gamma * n**-0.5, gamma**2 * width, n**-0.5 / (gamma * width)
        if self.depth and role in ("residual", "hidden", "attention"):
            branch = place.length**-place.exponent
            if role == "residual":
                multiplier *= branch
            adam, sgd = adam / (place.length * branch), sgd / (place.length * branch**2)
            size = branch * size
        if role == "attention" and not self.lazy:
            multiplier, size = multiplier * place.head**-0.25, size * place.head**-0.25
        return Numbers(multiplier, adam, sgd, size)


sp = Standard
xavier = Xavier
xavier_normal = XavierNormal
ntp = partial(Scaled, lazy=True)
mup = partial(Scaled, depth=False)
depth_mup = Scaled


def place(network: Network) -> Place:
    """Of all parameters of a network."""
    roles = [{d.role for d in _leaves(declared)} for declared in network.declared]
    lengths = [factor.length or 1 for factor in network.factors]
    width = next((d.fan_in for d in _leaves(network.declared[-1:]) if d.kind == "weight"), 1)
    blocks = sum(n for n, own in zip(lengths, roles, strict=True) if "attention" in own)
    if blocks:
        module = next(f.module for f, own in zip(network.factors, roles, strict=True)
                      if "attention" in own)  # fmt: skip
        return Place(width, blocks, 1.0, module.width // module.heads)
    along = network.distances[0] + lengths[0] if set().union(*roles) & {"residual"} else 1
    return Place(width, along, 0.5, 1)


def tabulate(parameterisation: Parameterisation, network: Network, gamma0: Number) -> Numbers:
    """All rows: `Numbers` whose entries are trees over the parameters."""
    around = place(network)
    rows = _map(lambda d: parameterisation.numbers(d, around, gamma0), network.declared)
    is_row = lambda node: isinstance(node, Numbers)  # noqa: E731
    return Numbers(
        *(
            jax.tree.map(lambda row, k=k: row[k], rows, is_leaf=is_row)
            for k in range(len(Numbers()))
        )
    )


def initialise(parameterisation: Parameterisation, key: Array, declared: tuple) -> tuple:
    """Draw all parameters, from one long vector: each draw of its own costs 0.15 s to compile.

    Drawn in float32 whatever the precision, so that runs which differ in it start alike.
    """
    sizes = jax.tree.leaves(_map(lambda d: prod(d.value.shape), declared))
    variates = parameterisation.sample(key, (sum(sizes),)).astype(jnp.result_type(float))
    parts = iter(jnp.split(variates, np.cumsum(sizes)[:-1]))

    def one(d: Declared) -> Array:
        value = parameterisation.initial_scale(d) * next(parts).reshape(d.value.shape)
        if d.edges is None or d.edges.mask is None:
            return value
        return jnp.where(d.edges.mask, value, 0)

    return _map(one, declared)


def scale(factors: Any, tree: Any) -> Any:
    """Parameters (or a change of them) times their factors; a factor 1.0 costs nothing."""
    one = lambda m, p: p if isinstance(m, float) and m == 1.0 else m * p  # noqa: E731
    return jax.tree.map(one, factors, tree)


def _is_declared(node) -> bool:
    return isinstance(node, Declared)


_map: Callable = partial(jax.tree.map, is_leaf=_is_declared)
_leaves: Callable = partial(jax.tree.leaves, is_leaf=_is_declared)
