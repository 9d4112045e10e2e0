"""A network is a tuple of factors; each predicts one state from its sources.

Parameters and states are tuples with one entry per factor. The entry of a *stack* (n identical
factors in a row) carries a leading axis n: its layers are computed at once by one `vmap`, and the
compiled program does not grow with n. A recurrent stack shares its weights: they have no such axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pcbench.networks.activations import IDENTITY, Activation
from pcbench.networks.layers import Declared, Latent

INPUT = -1  # the source index that means the network's input


@dataclass(frozen=True)
class Factor:
    """`module` predicts this factor's state from the states of `sources` (indices; INPUT: x).

    A stack has `length` n: its first layer reads `sources`, each other one its predecessor. The
    layers of a `recurrent` stack are steps of time with the same weights: the t-th reads its
    predecessor (the first one zeros) and step t of its source (B, n, …).
    `precision` is a constant of the network, 0 for a state that nothing predicts.
    """

    module: nn.Module
    sources: tuple[int, ...]
    length: int | None = None
    precision: float = 1.0
    recurrent: bool = False

    def apply(self, params, *sources: Array) -> Array:
        """The prediction σ(a)."""
        return self.module.apply({"params": params}, *sources)

    def pre(self, params, *sources: Array) -> Array:
        """The pre-activation a; only of modules with a monotone `activation`."""
        return self.module.apply({"params": params}, *sources, method="pre")

    def unrolled(self, params):
        """The parameters of each layer of a stack, (n, …). Its transpose sums over the layers of a
        recurrent one."""
        if not self.recurrent:
            return params
        return jax.tree.map(lambda p: jnp.broadcast_to(p, (self.length, *p.shape)), params)

    @property
    def activation(self) -> Activation:
        return self.module.activation

    @property
    def separable(self) -> bool:
        """Whether the prediction is σ(a) with a = `pre` affine in the sources."""
        module = self.module
        return (
            hasattr(module, "pre")
            and not getattr(module, "skip", False)
            and getattr(module, "source_activation", IDENTITY) is IDENTITY
        )


@dataclass(frozen=True)
class Network:
    """Factors in topological order; the last one is the output."""

    factors: tuple[Factor, ...]
    input_shape: tuple[int, ...] = field(default=())

    @property
    def generative(self) -> bool:
        """Whether it has no input: its first states are latent, to be inferred from the output."""
        return bool(self.factors) and isinstance(self.factors[0].module, Latent)

    @property
    def has_prior(self) -> bool:
        """Whether it is generative and says how its latent states are distributed."""
        return self.generative and self.factors[0].precision > 0

    @property
    def causal(self) -> bool:
        """Whether it has an output for each element of a sequence, from those up to it."""
        return bool(self.factors) and getattr(self.factors[-1].module, "causal", False)

    def given(self, x: Array) -> Array:
        """What the network reads where the data have the input x (B, …): zeros, if it has none."""
        return jnp.zeros((len(x), *self.input_shape), x.dtype) if self.generative else x

    @cached_property
    def declared(self) -> tuple:
        """The tree of `Declared` parameters (abstract values), stacks with their leading axis."""
        return self._declared

    @cached_property
    def _declared(self):
        values, declared = {INPUT: jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32)}, []
        for k, factor in enumerate(self.factors):
            sources = [values[s] for s in factor.sources]
            if factor.recurrent:
                sources = jax.eval_shape(lambda s, f=factor: _first_step(f, s), *sources)
            values[k], variables = jax.eval_shape(
                lambda *s, module=factor.module: module.init_with_output(jax.random.key(0), *s),
                *sources,
            )
            params = variables.get("params", {})
            if factor.length is not None and not factor.recurrent:
                stacked = lambda a, n=factor.length: jax.ShapeDtypeStruct((n, *a.shape), a.dtype)  # noqa: E731
                params = jax.tree.map(stacked, params)
            declared.append(params)
        return tuple(declared)

    @property
    def layers(self) -> int:
        """Weight layers, those inside stacks counted singly."""
        return sum(f.length or 1 for f in self.factors)

    def sources(self, k: int, x: Array, states: tuple) -> list[Array]:
        """What factor k reads: (B, …) each; of a stack, its last state."""
        values = []
        for s in self.factors[k].sources:
            if s == INPUT:
                values.append(x)
            else:
                values.append(states[s] if self.factors[s].length is None else states[s][-1])
        return values

    def stack_inputs(self, k: int, x: Array, states: tuple) -> tuple[Array, ...]:
        """What the layers of the stack k read: (n, B, …) each."""
        first, *steps = _unrolled_source(self.factors[k], *self.sources(k, x, states))
        return jnp.concatenate([first[None], states[k][:-1]]), *steps

    def forward(self, params: tuple, x: Array, offsets: tuple | None = None) -> tuple:
        """Feed-forward pass: every state equals its prediction. x: (B, …).

        `offsets`: added to the states of the first factors as they are computed (the others get
        none), in the shape of those states.
        """
        states: tuple = ()
        for k, factor in enumerate(self.factors):
            sources = self.sources(k, x, states)
            offset = None if offsets is None or k >= len(offsets) else offsets[k]
            if factor.length is None:
                h = factor.apply(params[k], *sources)
                states += (h if offset is None else h + offset,)
            else:

                def layer(h, inputs, factor=factor):
                    p, added, *step = inputs
                    h = factor.apply(p, h, *step)
                    h = h if added is None else h + added
                    return h, h

                first, *steps = _unrolled_source(factor, *sources)
                inputs = (factor.unrolled(params[k]), offset, *steps)
                states += (jax.lax.scan(layer, first, inputs)[1],)
        return states

    def predict(
        self, params: tuple, x: Array, states: tuple, known: Mapping[int, Array] | None = None
    ) -> tuple:
        """Every factor's prediction from the *stated* sources, all layers at once.

        `known` holds predictions that need no computing: those whose sources have not moved; of a
        stack, those of its first layers, whose parameters may then be left out.
        """
        return self._each(Factor.apply, params, x, states, known or {})

    def preactivations(
        self, params: tuple, x: Array, states: tuple, known: Mapping[int, Array] | None = None
    ) -> tuple:
        """As `predict`, before the activations."""
        return self._each(Factor.pre, params, x, states, known or {})

    def _each(self, function, params: tuple, x: Array, states: tuple, known: Mapping) -> tuple:
        predictions: tuple = ()
        for k, factor in enumerate(self.factors):
            ready = known.get(k)
            if ready is not None and len(ready) == (factor.length or len(ready)):
                predictions += (ready,)
                continue
            sources = self.sources(k, x, states)
            if factor.length is None:
                predictions += (function(factor, params[k], *sources),)
                continue
            layers, own = jax.vmap(partial(function, factor)), factor.unrolled(params[k])
            if ready is None:
                predictions += (layers(own, *self.stack_inputs(k, x, states)),)
            else:
                count = factor.length - len(ready)
                _, *steps = _unrolled_source(factor, *sources)
                own, *steps = jax.tree.map(lambda p, n=count: p[-n:], (own, *steps))
                rest = layers(own, states[k][-count - 1 : -1], *steps)
                predictions += (jnp.concatenate([ready, rest]),)
        return predictions

    def state_shapes(self, batch: int) -> tuple:
        """Abstract states for `batch` samples."""
        values = jax.tree.map(lambda d: d.value, self.declared, is_leaf=_is_declared)
        x = jax.ShapeDtypeStruct((batch, *self.input_shape), jnp.float32)
        return jax.eval_shape(self.forward, values, x)

    def without(self, first: tuple[int, ...]) -> "Network":
        """The network without the first so many layers of each stack."""
        return replace(
            self,
            factors=tuple(
                replace(factor, length=factor.length - n) if n else factor
                for factor, n in zip(self.factors, first, strict=True)
            ),
        )

    @cached_property
    def distances(self) -> tuple[int, ...]:
        """Per state, the steps until an error at the output can reach it (output: 0).

        One factor a step; of a stack, the distance of its last layer.
        """
        distance: dict[int, int] = {len(self.factors) - 1: 0}
        for k in reversed(range(len(self.factors))):
            entry = distance[k] + (self.factors[k].length or 1)
            for s in self.factors[k].sources:
                distance[s] = min(distance.get(s, entry), entry)
        return tuple(distance[k] for k in range(len(self.factors)))


def _unrolled_source(factor: Factor, source: Array) -> tuple[Array, ...]:
    """What the first layer of a stack follows upon, (B, …), and of a recurrent one the steps of
    time, (n, B, features): the last n, where the first layers are left out."""
    if not factor.recurrent:
        return (source,)
    steps = jnp.moveaxis(source.reshape(*source.shape[:2], -1), 1, 0)[-factor.length :]
    return jnp.zeros((source.shape[0], factor.module.features), source.dtype), steps


def _first_step(factor: Factor, source: Array) -> tuple[Array, Array]:
    """What the first layer of a recurrent stack reads."""
    first, steps = _unrolled_source(factor, source)
    return first, steps[0]


def _is_declared(node) -> bool:
    return isinstance(node, Declared)
