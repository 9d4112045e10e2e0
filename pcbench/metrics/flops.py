"""Floating-point operations of a program, counted from its jaxpr, loop lengths included.

XLA's own cost analysis counts a loop's body once, whatever its length. Here a product counts
2·M·N·K, a convolution 2 per multiply-add, any other arithmetic one operation per output element,
data movement nothing; four times as much where the numbers are complex. What the compiler removes
does not count: operations whose result nobody uses, and equal operations on equal inputs.
"""

from collections.abc import Callable
from math import nan, prod
from typing import Any

import jax
import jax.numpy as jnp

FREE = {
    "broadcast_in_dim", "reshape", "transpose", "slice", "dynamic_slice", "dynamic_update_slice",
    "concatenate", "gather", "scatter", "squeeze", "convert_element_type", "copy", "copy_p", "iota",
    "pad", "rev", "stop_gradient", "bitcast_convert_type", "split", "random_wrap", "random_unwrap",
    "random_bits", "random_fold_in", "random_seed", "random_split", "threefry2x32", "expand_dims",
}  # fmt: skip


def count(function: Callable, *args: Any) -> float:
    """Operations of `function(*args)`, whose arguments may be abstract; NaN where a loop is as
    long as its data make it."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> float:
    total, seen, canonical = 0.0, {}, {}

    def identity(atom):
        if hasattr(atom, "val"):
            return ("literal", str(atom.aval), str(atom.val))
        return canonical.get(atom, atom)

    for eqn in _live(jaxpr):
        inner = _inner(eqn)
        if inner is None:  # value numbering: the same operation on the same values is one
            key = (eqn.primitive.name, str(eqn.params), tuple(map(identity, eqn.invars)))
            if key in seen and not eqn.effects:
                for var, first in zip(eqn.outvars, seen[key], strict=True):
                    canonical[var] = first
                continue
            seen[key] = tuple(eqn.outvars)
            total += _operations(eqn)
        else:
            total += sum(times * _count(body) for times, body in inner)
    return total


def _live(jaxpr) -> list:
    """The equations that an output or an effect depends on, in order."""
    needed, kept = {v for v in jaxpr.outvars if not hasattr(v, "val")}, []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not needed.isdisjoint(eqn.outvars):
            needed.update(v for v in eqn.invars if not hasattr(v, "val"))
            kept.append(eqn)
    return kept[::-1]


def _inner(eqn) -> list[tuple[int, Any]] | None:
    """(repetitions, body) of the programs inside an equation; None for a plain operation."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return [(params["length"], params["jaxpr"].jaxpr)]
    if name == "while":
        return [(nan, params["body_jaxpr"].jaxpr)]
    if name == "cond":  # its costliest branch
        branches = [branch.jaxpr for branch in params["branches"]]
        return [(1, max(branches, key=_count))]
    bodies = [
        getattr(p, "jaxpr", p) for p in params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr")
    ]
    return [(1, body) for body in bodies[:1]] or None


def _operations(eqn) -> float:
    is_complex = any(
        jnp.issubdtype(v.aval.dtype, jnp.complexfloating)
        for v in eqn.outvars
        if hasattr(v.aval, "dtype")
    )
    return (4.0 if is_complex else 1.0) * _real_operations(eqn)


def _real_operations(eqn) -> float:
    name = eqn.primitive.name
    size = sum(prod(v.aval.shape) for v in eqn.outvars if hasattr(v.aval, "shape"))
    if name == "dot_general":
        (contract, _), _ = eqn.params["dimension_numbers"]
        lhs = eqn.invars[0].aval.shape
        return 2.0 * size * prod(lhs[d] for d in contract)
    if name == "conv_general_dilated":
        kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
        return 2.0 * size * prod(kernel) / kernel[spec[0]]
    if name.startswith(("reduce_", "argmax", "argmin", "cum")):
        return float(sum(prod(v.aval.shape) for v in eqn.invars if hasattr(v.aval, "shape")))
    return 0.0 if name in FREE else float(size)
