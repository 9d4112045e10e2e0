"""Matrix products under the precision that the surrounding `jax.default_matmul_precision` names.

XLA's CPU backend ignores the request for bfloat16 products (it computes them in float32), so the
rounding of states and weights is written out; that of cotangents is left to the accelerator, whose
own rounding makes this one a no-op.
"""

import jax
from jax import Array

BFLOAT16 = "BF16_BF16_F32"  # operands rounded to bfloat16, sums in float32


def product(a: Array, b: Array) -> Array:
    """a @ b."""
    a, b = operands(a, b)
    return a @ b


def operands(a: Array, b: Array) -> tuple[Array, Array]:
    """What a product of a and b, whichever it is, multiplies."""
    if jax.config.jax_default_matmul_precision == BFLOAT16:
        return _round(a), _round(b)
    return a, b


def _bfloat16(x: Array) -> Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


@jax.custom_jvp
def _round(x: Array) -> Array:
    return _bfloat16(x)


@_round.defjvp
def _(primals, tangents):  # straight through: rounding has no useful derivative
    return _bfloat16(primals[0]), tangents[0]
