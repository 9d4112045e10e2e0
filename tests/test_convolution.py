"""Convolution as a matrix product, pooling, and the layers made of them."""

from functools import partial
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pcbench.networks import convolution
from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.convolution import Convolution, Join, convolve, max_pool
from pcbench.networks.layers import Declared
from pcbench.networks.products import BFLOAT16

CASES = [(3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (1, 2, 0), (2, 1, 0)]  # size, stride, padding


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def arrays(size=3, seed=0, channels=3, features=4):
    """Images with odd and even sides, a kernel, and a direction for each."""
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = ((2, 7, 6, channels), (size, size, channels, features)) * 2
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


def reference(x, kernel, stride, padding):
    sides = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), sides, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def close(a, b):
    """To rounding: sums of at most a few thousand products of order one, in another order."""
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize("size,stride,padding", CASES)
def test_a_product_of_patches_is_the_convolution_and_so_are_its_derivatives(size, stride, padding):
    """Values, forward and reverse derivatives, and second derivatives, to 1e-12 in float64."""
    x, kernel, dx, dk = arrays(size)

    @partial(jax.jit, static_argnums=0)
    def derivatives(f):
        apply = lambda x, k: f(x, k, stride, padding)  # noqa: E731
        reverse = jax.grad(lambda x, k: jnp.sum(jnp.sin(apply(x, k))), (0, 1))
        forward = jax.jvp(apply, (x, kernel), (dx, dk))
        second = jax.grad(lambda x: jnp.sum(reverse(x, kernel)[1] ** 2))(x)
        return forward, jax.jvp(reverse, (x, kernel), (dx, dk)), second

    jax.tree.map(close, derivatives(convolve), derivatives(reference))


@pytest.mark.parametrize("size,stride,padding", CASES)
def test_accelerators_compute_the_same(size, stride, padding):
    x, kernel, *_ = arrays(size)
    expected = convolve(x, kernel, stride, padding)
    with patch.object(convolution, "as_product", lambda: False):
        program = jax.jit(lambda: convolve(x, kernel, stride, padding))
        assert "convolution" in program.lower().as_text()
        close(program(), expected)


def test_members_with_kernels_of_their_own_compute_what_each_computes_alone():
    x, *_ = arrays()
    kernels = jnp.stack([arrays(seed=n)[1] for n in range(3)])
    packed = jax.vmap(lambda k: convolve(x, k, 1, 1))(kernels)
    for one, kernel in zip(packed, kernels, strict=True):
        close(one, convolve(x, kernel, 1, 1))


@pytest.mark.parametrize("as_product", [True, False])
def test_bfloat16_rounds_image_and_kernel_and_keeps_the_sums(as_product):
    """The product of rounded operands; 1e-5: its sums in float32."""
    x, kernel = (a.astype(jnp.float32) for a in arrays()[:2])
    rounded = [a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel)]
    expected = reference(*rounded, 1, 1)
    with (
        jax.default_matmul_precision(BFLOAT16),
        patch.object(convolution, "as_product", lambda: as_product),
    ):
        ours = convolve(x, kernel, 1, 1)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert jnp.abs(ours - reference(x, kernel, 1, 1)).max() > 1e-3


@pytest.mark.parametrize("height,width", [(4, 6), (5, 7), (2, 3)])
def test_max_pool_takes_maxima_of_squares_and_leaves_out_an_odd_edge(height, width):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    expected = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(max_pool(x), expected)


def test_the_derivative_at_a_tie_is_shared_equally():
    x = jnp.array([[2.0, 2.0], [1.0, 2.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool(x).sum())(x)[0, ..., 0]
    np.testing.assert_allclose(gradient, jnp.array([[1, 1], [0, 1]]) / 3)


def layer(name, **options):
    """A pooling layer with that activation, its drawn parameters, an input."""
    module = Convolution(4, "hidden", padding=1, pool=True, activation=ACTIVATIONS[name], **options)
    x, kernel, *_ = arrays()
    return module, {"params": {"W": kernel, "b": jnp.linspace(-1, 1, 4)}}, x


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"softmax"}))
def test_pooling_commutes_with_monotone_activations_only(name):
    """A potential G makes σ = (∇G)⁻¹ monotone: then pooling before and after it agree."""
    module, variables, x = layer(name)
    a = convolve(x, variables["params"]["W"], 1, 1) + variables["params"]["b"]
    prediction = module.apply(variables, x)
    pre = module.apply(variables, x, method="pre")
    close(prediction, max_pool(module.activation(a)))  # as published
    close(pre, max_pool(a))
    gap = float(jnp.abs(prediction - module.activation(pre)).max())
    assert gap == 0 if module.activation.potential else gap > 1e-3


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_declare_role_kind_and_the_inputs_that_a_unit_sums(bias):
    module = Convolution(4, "hidden", size=3, bias=bias)
    declared = jax.eval_shape(module.init, jax.random.key(0), arrays()[0])["params"]
    leaves = jax.tree.leaves(declared, is_leaf=lambda d: isinstance(d, Declared))
    kinds = ["weight", "bias"] if bias else ["weight"]
    assert [(d.role, d.kind, d.fan_in) for d in leaves] == [("hidden", k, 27) for k in kinds]


def test_a_join_adds_the_skip_before_the_activation():
    """σ(W * h + b + skip); with a stride the skip goes through a 1×1 convolution of its own."""
    x, kernel, *_ = arrays(channels=4)
    params = {"W": kernel, "b": jnp.linspace(-1, 1, 4)}
    module = Join(4, "residual", padding=1, activation=ACTIVATIONS["tanh"])
    skip = arrays(seed=1, channels=4)[0]
    a = convolve(x, kernel, 1, 1) + params["b"] + skip
    close(module.apply({"params": params}, x, skip), jnp.tanh(a))
    close(module.apply({"params": params}, x, skip, method="pre"), a)

    module = Join(4, "residual", padding=1, activation=ACTIVATIONS["tanh"], skip_stride=2)
    small = arrays(seed=2, channels=4)[0][:, :4, :3]
    passage = arrays(1, seed=3, channels=4)[1]
    declared = jax.eval_shape(module.init, jax.random.key(0), small, skip)["params"]
    assert (declared["W_skip"].role, declared["W_skip"].fan_in) == ("hidden", 4)
    a = convolve(small, kernel, 1, 1) + params["b"] + skip[:, ::2, ::2] @ passage[0, 0]
    close(module.apply({"params": params | {"W_skip": passage}}, small, skip), jnp.tanh(a))
