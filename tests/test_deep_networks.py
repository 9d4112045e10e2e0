"""VGG, ResNet, transformer, recurrent: shapes, sizes, derivatives, and what relaxation makes of
skips."""

from functools import cache
from itertools import product
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import batch, build, hyper, jit, weights

from pcbench.algorithms.base import loss_gradient
from pcbench.algorithms.bp import BP
from pcbench.algorithms.pc import PC
from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.energies.energy import per_layer, prediction_energy, squared_error, total
from pcbench.networks.layers import Declared
from pcbench.networks.network import Network
from pcbench.networks.recurrent import rnn
from pcbench.networks.resnet import resnet18
from pcbench.networks.transformer import attention, to_patches, transformer
from pcbench.networks.vgg import vgg5, vgg7, vgg9
from pcbench.relaxation.relax import relax
from pcbench.relaxation.updaters import gradient_updater
from pcbench.sweeps.expand import single
from pcbench.training.assembly import assemble

IMAGES = {"activation": "tanh", "states": "post", "bias": True}
TOKENS = {"width": 8, "depth": 5, "heads": 2, "patch": 2, "norm": "layer", "activation": "tanh"}
SMALL = {  # builder, model, input shape
    "vgg5": (vgg5, IMAGES | {"channels": 3}, (16, 17, 2)),
    "vgg7": (vgg7, IMAGES | {"channels": 2}, (32, 32, 1)),
    "vgg9": (vgg9, IMAGES | {"channels": 2, "bias": False}, (16, 16, 1)),
    "resnet18": (resnet18, IMAGES | {"channels": 2}, (6, 5, 2)),
    "transformer": (transformer, TOKENS | {"bias": True}, (6, 4, 2)),
    "rnn": (rnn, {"width": 8, "activation": "tanh", "bias": True}, (6, 3)),
    "transformer of sequences": (transformer, TOKENS | {"bias": False, "norm": "none"}, (5, 3)),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@cache
def small(name, **model) -> Network:
    builder, settings, shape = SMALL[name]
    return builder(settings | model, shape, 4)


def run(net: Network, params, x):
    """The feed-forward states. Compiled whole, like all else here: op by op takes minutes."""
    return jit(net.forward)(params, x)


@cache
def facts(shape, classes=10) -> Facts:
    return Facts(shape, samples=1000, held_out=0, classes=classes, targets=1)


def full(model: str, dataset_shape=(32, 32, 3), classes=10) -> Network:
    """The network of the YAML, at its published size."""
    config = single([f"model={model}", "algorithm=bp"])
    return assemble(config, facts(dataset_shape, classes), 100)[0].network


def parameters(net: Network) -> int:
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(net.declared))


def shapes(net: Network) -> list[tuple[int, ...]]:
    return [state.shape[1:] for state in net.state_shapes(1)]


@pytest.mark.parametrize(
    "model,shape,classes,expected",
    [
        ("vgg5", (32, 32, 3), 10, 3_859_210),  # published
        ("vgg7", (32, 32, 3), 100, 4_627_684),  # published
        # below: sums of k²·C_in·C_out + C_out over the layers, by hand
        ("vgg5", (56, 56, 3), 200, 3_838_720 + 4_609 * 200),
        ("vgg7", (56, 56, 3), 200, 4_576_384 + 8_193 * 200),
        ("vgg9", (32, 32, 3), 10, 7_028_746),
        ("resnet18", (32, 32, 3), 10, 11_168_266),
        ("transformer", (32, 32, 3), 10, 49 * 64 + 64 * 64 + 4 * 49_728 + 650),
    ],
)
def test_parameter_counts(model, shape, classes, expected):
    assert parameters(full(model, shape, classes)) == expected


def test_states_have_the_published_shapes():
    """One state per block, after its pooling; Tiny ImageNet is cropped to 56 pixels."""
    assert shapes(full("vgg5")) == [(16, 16, 128), (8, 8, 256), (4, 4, 512), (2, 2, 512), (10,)]
    assert shapes(full("vgg7", classes=100)) == [
        (16, 16, 128), (16, 16, 128), (8, 8, 256), (6, 6, 256), (3, 3, 512), (1, 1, 512), (100,),
    ]  # fmt: skip
    assert shapes(full("vgg5", (56, 56, 3), 200))[-2:] == [(3, 3, 512), (200,)]
    assert shapes(full("vgg7", (56, 56, 3), 200))[-2:] == [(4, 4, 512), (200,)]
    assert shapes(full("vgg9"))[-2:] == [(2, 2, 512), (10,)]


def test_resnet_states_and_sources():
    """17 convolutions and the output; the second one of a block also reads the block's input."""
    net = full("resnet18")
    assert net.layers == len(net.factors) == 18
    stages = [((32, 32, 64), 5), ((16, 16, 128), 4), ((8, 8, 256), 4), ((4, 4, 512), 4)]
    assert shapes(net) == [shape for shape, n in stages for _ in range(n)] + [(10,)]
    joins = {k: f.sources for k, f in enumerate(net.factors) if len(f.sources) == 2}
    assert joins == {k: (k - 1, k - 2) for k in range(2, 17, 2)}
    # an error reaches a block's input past its first convolution
    assert net.distances == (9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 0)
    strided = {k for k, f in enumerate(net.factors) if getattr(f.module, "stride", 1) == 2}
    assert strided == {5, 9, 13}
    assert {k for k in joins if net.factors[k].module.skip_stride} == {6, 10, 14}


@pytest.mark.parametrize("name", SMALL)
def test_forward_states_equal_their_predictions(name):
    net = small(name)
    params, x = weights(net), batch(net).x
    forward = run(net, params, x)
    predictions = jit(net.predict)(params, x, forward)
    for state, prediction in zip(forward, predictions, strict=True):
        np.testing.assert_allclose(prediction, state, atol=1e-12)
    assert forward[-1].shape == (5, 4)


@pytest.mark.parametrize("name", SMALL)
def test_samples_do_not_know_of_each_other(name):
    net = small(name)
    params, x = weights(net), batch(net).x
    alone = [run(net, params, x[n : n + 1])[-1] for n in range(2)]
    np.testing.assert_allclose(run(net, params, x)[-1][:2], jnp.concatenate(alone), atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_backpropagation_is_the_slope_of_the_loss(name):
    """Central differences along a random direction. Their error is O(ε²) = 1e-10 and rounding adds
    1e-16/ε = 1e-11, in units of the loss; max-pooling has no kink within ε of a generic point."""
    net = small(name)
    params, data = weights(net), batch(net)
    rule = build(BP, net)
    epsilon, rng = 1e-5, np.random.default_rng(3)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    size = optax.tree.norm(direction)
    direction = jax.tree.map(lambda d: d / size, direction)
    evaluate = jit(lambda params: loss_gradient(rule, params, data))

    def loss(amount):
        return evaluate(jax.tree.map(lambda p, d: p + amount * d, params, direction))[0]

    slope = optax.tree.vdot(evaluate(params)[1], direction)
    numeric = (loss(epsilon) - loss(-epsilon)) / (2 * epsilon)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-9)
    assert abs(slope) > 1e-4


def plain_gradient(net: Network, params, data, steps: int, step_size: float, momentum: float):
    """The weight gradient of predictive coding without anything skipped in the relaxation."""
    forward = net.forward(params, data.x)

    def energies(w, hidden):
        states = (*hidden, data.target)
        predictions = net.predict(w, data.x, states)
        return prediction_energy(net, predictions, states, squared_error)

    updater = gradient_updater("sgd", step_size, momentum)
    relaxed = relax(lambda h: energies(params, h), forward[:-1], steps=steps, updater=updater)
    mean = lambda w: total(energies(w, relaxed.states)) / len(data.x)  # noqa: E731
    return jax.grad(mean)(params)


# vgg7 and vgg9 are chains as vgg5 is.
NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow if name in ("vgg7", "vgg9") else ()) for name in SMALL
]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("steps", [pytest.param(2, marks=pytest.mark.slow), 11])
def test_skipping_what_is_zero_changes_no_gradient(name, steps):
    """The windows of the frontier, whose distances go through skips and stacks, against a plain
    relaxation: before the error has reached every layer, and after."""
    net = small(name)
    params, data = weights(net), batch(net)
    rule = build(PC, net, steps=steps)
    numbers = hyper(0.1, 0.6)
    gradient = jit(lambda w: rule.gradient(w, (), data, numbers, None)[0])(params)
    expected = jit(lambda w: plain_gradient(net, w, data, steps, 0.1, 0.6))(params)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    reached = [max(float(jnp.abs(g).max()) for g in jax.tree.leaves(p)) > 0 for p in gradient]
    # a stack's distance is that of its last layer, which learns first
    assert reached == [d <= steps for d in net.distances]


@pytest.mark.parametrize("name", NETWORKS)
def test_relaxation_lowers_the_energy(name):
    net = small(name)
    rule = build(PC, net, steps=12)
    numbers = hyper(0.05)
    data = batch(net)
    measured = jit(lambda w: rule.gradient(w, (), data, numbers, None, measure=True)[2])
    info = measured(weights(net))
    energy = info.energy.sum(-1)
    assert (jnp.diff(energy) < 0).all() and info.energy.shape == (13, net.layers)


def test_per_layer_energies_list_every_layer():
    net = small("transformer")
    params, x = weights(net), batch(net).x
    states = run(net, params, x)
    predictions = jit(net.predict)(params, x, states)
    zero = prediction_energy(net, predictions, states, squared_error)
    assert per_layer(zero).shape == (net.layers,) == (5,)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_declares_its_role_and_fan_in(name):
    """Weights (…, fan-in, features) declare the product of their axes but the last; the table of
    positions the number of positions."""
    net = small(name)
    roles = set()
    for factor, entry in zip(net.factors, net.declared, strict=True):
        for d in jax.tree.leaves(entry, is_leaf=lambda d: isinstance(d, Declared)):
            stacked = factor.length and not factor.recurrent
            shape = d.value.shape[1:] if stacked else d.value.shape
            assert d.kind == ("weight" if len(shape) > 1 else "bias")
            if d.kind == "weight":
                assert d.fan_in == prod(shape[:-1])
            roles.add(d.role)
    known = {"input", "hidden", "output"}
    extra = {"resnet18": {"residual"}}.get(name, set())
    if "transformer" in name:
        extra = {"attention", "residual", "embedding"}
    assert roles == known | extra


def test_a_block_without_its_branch_passes_its_input_on():
    """ResNet: σ(skip) where the branch is zero; transformer: the stream itself."""
    net = small("resnet18")
    params, x = weights(net), batch(net).x
    branch = {name: jnp.zeros_like(p) for name, p in params[2].items()}
    states = run(net, (*params[:2], branch, *params[3:]), x)
    np.testing.assert_allclose(states[2], jnp.tanh(states[0]), atol=1e-14)
    net = small("transformer")
    params, x = weights(net), batch(net).x
    onto_stream = {
        name: p if name[-1] in "qkv1" else jnp.zeros_like(p) for name, p in params[1].items()
    }
    states = run(net, (params[0], onto_stream, params[2]), x)
    np.testing.assert_allclose(states[1][-1], states[0], atol=1e-14)


def test_the_program_of_a_transformer_does_not_grow_with_its_depth():
    def size(depth):
        net = small("transformer", depth=depth)
        rule, data = build(PC, net, steps=20), batch(net)
        step = jax.jit(lambda s: rule.step(s, data, hyper(), None))
        state = jax.eval_shape(rule.init, jax.random.key(0))
        return len(step.lower(state).as_text().splitlines())

    assert size(42) == size(82)


def test_a_transformer_without_positions_does_not_see_the_order_of_its_tokens():
    net = small("transformer of sequences")
    params, x = weights(net), batch(net).x
    order = jnp.array([3, 0, 4, 1, 2])
    assert jnp.abs(run(net, params, x[:, order])[-1] - run(net, params, x)[-1]).max() > 1e-3
    nowhere = params[0] | {"positions": jnp.zeros_like(params[0]["positions"])}
    params = (nowhere, *params[1:])
    np.testing.assert_allclose(
        run(net, params, x[:, order])[-1], run(net, params, x)[-1], atol=1e-12
    )


@pytest.mark.parametrize("causal", [False, True])
def test_attention_averages_the_values(causal):
    """Row by row: weights exp(q·k/√d), normalised over the tokens that are seen."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 4))
    mixed = attention(q, k, v, causal)
    for n in range(5):
        seen = n + 1 if causal else 5
        scores = jnp.einsum("bd,btd->bt", q[:, n], k[:, :seen]) / 2
        w = jnp.exp(scores) / jnp.exp(scores).sum(-1, keepdims=True)
        np.testing.assert_allclose(
            mixed[:, n], jnp.einsum("bt,btd->bd", w, v[:, :seen]), atol=1e-12
        )


def test_patches_are_squares_of_the_image_row_by_row():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    tokens = to_patches(x, 2)
    assert tokens.shape == (2, 6, 12)
    np.testing.assert_array_equal(tokens[1, 4], x[1, 2:4, 2:4].reshape(-1))


def test_an_image_and_its_patches_as_a_sequence_are_one_input():
    image, sequence = small("transformer"), transformer(TOKENS | {"bias": True}, (6, 8), 4)
    x, params = batch(image).x, weights(image)
    np.testing.assert_allclose(
        run(image, params, x)[-1], run(sequence, params, to_patches(x, 2))[-1], atol=1e-12
    )


@pytest.mark.parametrize(
    "overrides,shape,message",
    [
        (["model=vgg5"], (8, 8, 1), "at least 16×16 pixels; those of the dataset have 8×8"),
        (["model=vgg7"], (28, 28, 1), "at least 32×32"),
        (["model=vgg9"], (2,), "it takes images"),
        (["model=resnet18"], (64,), "it takes images"),
        (["model=resnet18", "model.states=pre"], (32, 32, 3), "model.states=post"),
        (["model=transformer"], (2,), "images .* or sequences"),
        (["model=transformer"], (10, 8, 1), "allowed: 1, 2"),
        (["model=transformer", "model.width=30"], (8, 8, 1), "no multiple of model.heads=4"),
        (["model=transformer", "model.depth=1"], (8, 8, 1), "model.depth=1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(overrides, shape, message):
    with pytest.raises(ConfigError, match=message):
        assemble(single([*overrides, "algorithm=bp"]), facts(shape), 100)


@pytest.mark.parametrize(
    "model,dataset",
    [("vgg5", "cifar10"), *product(["vgg5", "vgg7"], ["cifar100", "tiny_imagenet"])],
)
def test_published_settings_compose_and_build(model, dataset):
    for rule in ("bp_se", "bp_ce", "pc_se", "pc_ce", "pn", "nn", "cn", "ipc"):
        config = single([f"preset=pcx/{model}_{dataset}_{rule}"])
        side = 56 if dataset == "tiny_imagenet" else 32
        algorithm, _ = assemble(config, facts((side, side, 3)), 100)
        assert algorithm.network.layers == int(model[-1])
