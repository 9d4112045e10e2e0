"""Transposed convolutions, and the decoders and autoencoders that are made of them."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import as_batch, build, hyper, jit, relative, weights

from pcbench.algorithms.bp import BP
from pcbench.algorithms.ipc import IPC
from pcbench.algorithms.pc import PC
from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.networks.conv_autoencoder import conv_autoencoder, conv_decoder
from pcbench.networks.convolution import TransposedConvolution, convolve, convolve_transposed
from pcbench.networks.layers import Declared
from pcbench.networks.parameterisations import Place, depth_mup, sp, xavier
from pcbench.sweeps.expand import single
from pcbench.training.assembly import assemble

MODEL = {
    "maps": [4, 3], "kernel": 3, "activation": "tanh", "states": "post", "bias": True,
    "prior": "none",
}  # fmt: skip
SHAPE = (7, 6, 2)  # odd and even sides


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("size,stride,padding", [(3, 1, 1), (3, 2, 1), (4, 2, 1), (7, 2, 3)])
def test_it_is_the_adjoint_of_the_convolution(size, stride, padding):
    """⟨K x, y⟩ = ⟨x, Kᵀ y⟩, to rounding. Derivatives: K x by y, and along K the value."""
    x, kernel = normal(0, 2, 7, 6, 3), normal(1, size, size, 3, 4)
    forward = jit(lambda x, k: convolve(x, k, stride, padding))(x, kernel)
    y = normal(2, *forward.shape)
    product = float(jnp.vdot(forward, y))

    def paired(y, k):
        return jnp.vdot(x, convolve_transposed(y, k, x.shape[1:3], stride, padding))

    value, (by_y, by_kernel) = jit(jax.value_and_grad(paired, (0, 1)))(y, kernel)
    assert abs(float(value) / product - 1) < 1e-12
    np.testing.assert_allclose(by_y, forward, rtol=0, atol=1e-12)
    assert abs(float(jnp.vdot(kernel, by_kernel)) / product - 1) < 1e-12


@pytest.mark.parametrize("size", [3, 4, 5, 7])
def test_an_output_sums_as_many_inputs_as_are_declared(size):
    """Away from the edges, on average over places: with all weights and inputs 1, the output."""
    layer = TransposedConvolution((40, 40, 2), "hidden", size, 2, (size - 1) // 2, bias=False)
    source = jnp.ones((1, 20, 20, 3))
    declared = jax.eval_shape(layer.init, jax.random.key(0), source)["params"]["W"]
    ones = {"params": {"W": jnp.ones(declared.value.shape)}}
    inner = layer.apply(ones, source)[:, 8:-8, 8:-8]
    assert (declared.role, declared.kind) == ("hidden", "weight")
    assert abs(declared.fan_in - float(inner.mean())) <= 0.5  # it is a whole number


def test_the_standard_weights_count_every_tap():
    """As Equinox draws them, at which PCX's autoencoders start: U(±1/√(k²·C_in)), stride or not."""
    layer = TransposedConvolution((8, 8, 2), "hidden", 4, 2, 1)
    declared = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 4, 4, 3)))["params"]
    for one in declared.values():
        assert sp().initial_scale(one) == (4 * 4 * 3) ** -0.5
    assert xavier().initial_scale(declared["W"]) == (6 / (16 * 3 + 16 * 2)) ** 0.5
    assert depth_mup().numbers(declared["W"], Place(10, 1, 0.5, 1), 1.0).multiplier == 12**-0.5


@pytest.mark.parametrize("builder", [conv_decoder, conv_autoencoder])
def test_images_go_from_latent_ones_to_the_output(builder):
    net = builder(MODEL, SHAPE, prod(SHAPE))
    shapes = [state.shape[1:] for state in net.state_shapes(1)]
    hidden = {conv_decoder: [(2 * 2 * 4,)], conv_autoencoder: [(4, 3, 3), (2, 2, 4)]}[builder]
    assert shapes == [*hidden, (4, 3, 3), (7 * 6 * 2,)]
    leaves = jax.tree.leaves(net.declared, is_leaf=lambda d: isinstance(d, Declared))
    assert {d.role for d in leaves[:-2]} == {conv_decoder: {"hidden"},
        conv_autoencoder: {"input", "hidden"}}[builder]  # fmt: skip
    assert {d.role for d in leaves[-2:]} == {"output"}


def test_the_published_shapes_of_cifar():
    config = single(["model=conv_decoder", "algorithm=pc", "task=generation"])
    facts = Facts((32, 32, 3), samples=1000, held_out=0, classes=10, targets=1)
    net = assemble(config, facts, 10)[0].network
    shapes = [state.shape[1:] for state in net.state_shapes(1)]
    assert shapes == [(8 * 4 * 4,), (8, 8, 8), (16, 16, 5), (32 * 32 * 3,)]


def test_backpropagation_is_the_slope_of_the_loss():
    """Central differences along a random direction: 1e-9 is their error."""
    net = conv_autoencoder(MODEL, SHAPE, prod(SHAPE))
    x = normal(3, 4, *SHAPE)
    data, params = as_batch(x.reshape(4, -1), x.reshape(4, -1))._replace(x=x), weights(net)
    gradient = jit(build(BP, net).gradient)(params, (), data, hyper(), None)[0]
    direction = jax.tree.map(lambda p: normal(4, *p.shape), params)

    @jit
    def loss(amount):
        moved = jax.tree.map(lambda p, d: p + amount * d, params, direction)
        return jnp.mean(0.5 * jnp.sum((net.forward(moved, x)[-1] - data.target) ** 2, -1))

    numeric = float(loss(1e-5) - loss(-1e-5)) / 2e-5
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    assert abs(float(slope) / numeric - 1) < 1e-8


@pytest.mark.parametrize("builder", [conv_decoder, conv_autoencoder])
def test_predictive_coding_relaxes_and_learns_by_its_energy(builder):
    """The energy falls at every step, and with one step, plain and incremental, learning is along
    its slope."""
    net = builder(MODEL, SHAPE, prod(SHAPE))
    x = normal(3, 4, *SHAPE)
    given = jnp.zeros((4, 1)) if net.generative else x
    data = as_batch(np.zeros((4, 1)), x.reshape(4, -1))._replace(x=given)
    params, numbers = weights(net), hyper(0.05)
    rule = build(PC, net, steps=12, start="zeros")
    gradient, _, info = jit(lambda *a: rule.gradient(*a, measure=True))(
        params, (), data, numbers, None
    )
    assert (jnp.diff(info.energy.sum(-1)) < 0).all() and info.energy.shape == (13, net.layers)
    direction = jax.tree.map(lambda p: normal(5, *p.shape), params)

    @jit
    def energy(amount):
        moved = jax.tree.map(lambda p, d: p + amount * d, params, direction)
        predictions = net.predict(moved, data.x, info.states)
        parts = zip(net.factors, predictions, info.states, strict=True)
        return sum(
            factor.precision * jnp.sum((h - p.reshape(h.shape)) ** 2) / 8 for factor, p, h in parts
        )

    numeric = float(energy(1e-5) - energy(-1e-5)) / 2e-5
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    assert abs(float(slope) / numeric - 1) < 1e-7
    plain = build(PC, net, steps=1, start="zeros")
    incremental = build(IPC, net, steps=2, warmup=1, start="zeros")
    state = plain.init(jax.random.key(0))
    expected, found = (
        jit(rule.step)(state, data, numbers, jax.random.key(1)).params
        for rule in (plain, incremental)
    )
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize(
    ("overrides", "shape", "message"),
    [
        (["task=classification"], (28, 28, 1), "set task=generation or task=completion"),
        (["task=generation"], (64,), "it takes images"),
        (["task=generation", "task.condition=label"], (28, 28, 1), "it takes images"),
        (["task=generation", "model.maps=[8,8,8,8,8]"], (28, 28, 1), "at least 32×32"),
        (["task=generation", "model.states=pre"], (28, 28, 1), "model.states=post"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(overrides, shape, message):
    facts = Facts(shape, samples=1000, held_out=0, classes=10, targets=1)
    with pytest.raises(ConfigError, match=message):
        assemble(single(["model=conv_autoencoder", "algorithm=bp", *overrides]), facts, 10)
