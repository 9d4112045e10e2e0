"""The table of parameterisations: draws, multipliers, learning rates, decay, ε, what they give."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import batch, hyper, network, relative

from pcbench.algorithms.base import Batch, Unsupported
from pcbench.config import ConfigError
from pcbench.data import Facts
from pcbench.energies.energy import squared_error
from pcbench.networks import parameterisations
from pcbench.networks.layers import Declared
from pcbench.networks.parameterisations import (
    Numbers,
    depth_mup,
    initialise,
    mup,
    place,
    sp,
    tabulate,
    xavier,
    xavier_normal,
)
from pcbench.networks.resnet import resnet18
from pcbench.networks.transformer import transformer
from pcbench.networks.vgg import vgg5
from pcbench.sweeps.expand import single
from pcbench.training import optimizers
from pcbench.training.assembly import assemble
from pcbench.training.learner import Learner

SIX = Facts((6,), samples=64, held_out=0, classes=4, targets=1)
NAMES = ("sp", "xavier", "xavier_normal", "ntp", "mup", "depth_mup")
IMAGES = {"channels": 4, "activation": "relu", "states": "post", "bias": True}
TOKENS = {"width": 8, "depth": 5, "heads": 2, "patch": 2, "norm": "layer", "activation": "tanh"}
OPTIMIZERS = {"weight_decay": 0.0, "momentum": 0.9, "b1": 0.9, "b2": 0.999, "eps": 1e-8}


def residual(width=8, depth=9, inputs=6, bias=False, **model):
    return network("resmlp", inputs, width=width, depth=depth, bias=bias, states="pre", **model)


def learner_of(net, name, optimizer="sgd", **choices) -> Learner:
    table = getattr(parameterisations, name)(**choices)
    return Learner(net, table, getattr(optimizers, optimizer), optax.constant_schedule(1.0))


def numbers(gamma0=1.0, lr=0.1, **changes) -> dict:
    found = hyper(lr=lr, gamma0=gamma0)
    found["optimizer"] |= {k: jnp.float32(v) for k, v in (OPTIMIZERS | changes).items()}
    return found


def row(name, role, kind="weight", fan_in=64, **around) -> Numbers:
    around = {"width": 100, "length": 25, "exponent": 0.5, "head": 16} | around
    declared = Declared(None, role, kind, fan_in)
    table = getattr(parameterisations, name)()
    return table.numbers(declared, parameterisations.Place(**around), 2.0)


@pytest.mark.parametrize(
    "name,role,expected",
    [
        ("sp", "input", 1), ("sp", "hidden", 1), ("sp", "residual", 1), ("sp", "output", 1 / 2),
        ("ntp", "input", 1 / 8), ("ntp", "hidden", 1 / 8), ("ntp", "residual", 1 / (8 * 5)),
        ("ntp", "output", 1 / (8 * 2)),
        ("mup", "input", 1 / 8), ("mup", "hidden", 1 / 8), ("mup", "residual", 1 / 8),
        ("mup", "output", 1 / (64 * 2)),
        ("depth_mup", "input", 1 / 8), ("depth_mup", "residual", 1 / (8 * 5)),
        ("depth_mup", "output", 1 / (64 * 2)), ("depth_mup", "embedding", 1),
        ("depth_mup", "attention", 1 / (8 * 2)),
    ],
)  # fmt: skip
def test_forward_multipliers_are_the_published_ones(name, role, expected):
    """n = 64, γ₀ = 2, L = 25: 1/√n, in residual branches 1/√(nL), at the output 1/(γ₀√n) or
    1/(γ₀n); attention with heads of 16."""
    width = 64 if role == "output" else 100
    np.testing.assert_allclose(row(name, role, width=width).multiplier, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "name,role,adam,sgd",
    [
        ("sp", "hidden", 1, 1), ("sp", "output", 1, 1),
        ("ntp", "input", 2 / 80, 4), ("ntp", "output", 2 / 8, 4),
        ("mup", "input", 2 / 8, 4 * 100), ("mup", "hidden", 2 / 8, 4 * 100),
        ("mup", "output", 2, 4 * 64),
        ("depth_mup", "residual", 2 / (8 * 5), 4 * 100), ("depth_mup", "input", 2 / 8, 4 * 100),
    ],
)  # fmt: skip
def test_learning_rates_are_the_published_ones(name, role, adam, sgd):
    """SGD γ₀²N in μP and γ₀² in NTP; Adam 1/√n, in residual branches 1/√(nL)."""
    width = 64 if role == "output" else 100
    found = row(name, role, width=width)
    np.testing.assert_allclose([found.adam, found.sgd], [adam, sgd], rtol=1e-12)


def test_a_transformer_scales_its_branches_by_the_number_of_blocks():
    """CompleteP: branch 1/L, Adam's learning rates do not depend on the depth, SGD's grow as L."""
    around = {"length": 6, "exponent": 1.0}
    one, six = (
        [row("depth_mup", role, **(around | {"length": n})) for role in ("hidden", "residual")]
        for n in (1, 6)
    )
    np.testing.assert_allclose(six[1].multiplier, one[1].multiplier / 6)
    np.testing.assert_allclose([r.adam for r in six], [r.adam for r in one])
    np.testing.assert_allclose([r.sgd for r in six], [6 * r.sgd for r in one])


@pytest.mark.parametrize(
    "net,expected",
    [
        (network("mlp", depth=7, width=12), (12, 1, 0.5, 1)),
        (residual(depth=7, width=12), (12, 7, 0.5, 1)),
        (residual(depth=3, width=12), (12, 3, 0.5, 1)),
        (vgg5(IMAGES, (16, 16, 3), 4), (16, 1, 0.5, 1)),  # 4·4 channels at one place
        (resnet18(IMAGES, (8, 8, 3), 4), (32, 10, 0.5, 1)),  # stem, 8 blocks, output
        (transformer(TOKENS | {"bias": True}, (4, 4, 1), 4), (8, 3, 1.0, 4)),
    ],
)
def test_the_network_tells_the_table_its_width_and_its_length(net, expected):
    """(N, L, α, d): L counts all weight layers of a residual MLP, the blocks of a transformer."""
    assert place(net) == expected


def test_the_fan_in_of_a_convolution_is_its_patch():
    """k²·C_in: 3·3·3 in the first layer."""
    found = tabulate(mup(), vgg5(IMAGES, (16, 16, 3), 4), 1.0).multiplier
    np.testing.assert_allclose(found[0]["W"], 27**-0.5)
    np.testing.assert_allclose(found[1]["W"], (9 * 4) ** -0.5)
    assert found[0]["b"] == 1.0


# --- what goes wrong in published code


@pytest.mark.parametrize("name", ["ntp", "mup", "depth_mup"])
def test_weights_are_drawn_with_variance_one_and_scaled_once(name):
    """Drawn variance 1, effective variance multiplier²: no 1/√fan_in is left in the draw. Within
    four standard errors √(2/size). Biases start at zero."""
    net = residual(width=60, inputs=50, bias=True)
    made = learner_of(net, name)
    params, _ = made.init(jax.random.key(0))
    effective = made.weights(params, numbers())
    for drawn, own, fan_in in zip(params, effective, (50, 60, 60), strict=True):
        size = drawn["W"].size
        assert abs(np.mean(np.square(drawn["W"])) - 1) < 4 * (2 / size) ** 0.5
        assert (drawn["b"] == 0).all()
        ratio = float(np.mean(np.square(own["W"])) / np.mean(np.square(drawn["W"])))
        powers = {1 / fan_in, 1 / (9 * fan_in), 1 / fan_in**2}
        assert min(abs(ratio / p - 1) for p in powers) < 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["mlp", "resmlp"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_weight_decay_reaches_every_layer_at_one_rate(name, kind, optimizer):
    """With zero gradients all drawn parameters shrink by 1 - lr·decay, stacks included, whatever
    their learning rate and γ₀."""
    net = network(kind, depth=9, states="pre")
    made = learner_of(net, name, optimizer)
    params, state = made.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1, params)
    zero = jax.tree.map(jnp.zeros_like, params)
    moved, _ = made.update(params, state, zero, 0, numbers(0.7, weight_decay=0.5))
    expected = jax.tree.map(lambda p: 0.95 * p, params)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)


ALGORITHMS = sorted(p.stem for p in Path("conf/algorithm").glob("*.yaml"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_rule_learns_and_predicts_under_the_parameterisation(algorithm):
    """γ₀ reaches every rule: predictions of a feed-forward rule are divided by it, and its steps
    depend on it and on the multipliers."""
    overrides = [f"algorithm={algorithm}", "model=mlp", "optimizer=sgd", "model.width=8"]
    try:
        rules = {
            name: assemble(
                single([*overrides, f"parameterisation={name}", *extra(algorithm)]), SIX, 9
            )[0]
            for name in ("sp", "mup")
        }
    except (Unsupported, ConfigError) as error:
        pytest.skip(str(error))
    rule, config = rules["mup"], single([*overrides, *extra(algorithm)])
    values = config.kind("dynamic")
    own = {p.split(".")[1]: jnp.float32(v) for p, v in values.items()
           if p.startswith("algorithm.") and v is not None}  # fmt: skip
    data = batch(rule.network, size=8)

    def after(gamma0, chosen=rule):
        found = numbers(gamma0) | {"algorithm": own}
        state = chosen.init(jax.random.key(0))
        weights = chosen.learner.weights(state.params, found)
        outputs = chosen.predict(weights, data.x, found)
        moved = chosen.step(state, data, found, jax.random.key(1)).params
        return outputs, jax.tree.map(lambda a, b: a - b, moved, state.params)

    (one, change), (two, other) = after(1.0), after(2.0)
    if not getattr(rule, "recurrent", False):
        np.testing.assert_allclose(two, one / 2, rtol=1e-4, atol=1e-6)
    assert relative(change, other) > 1e-3
    assert relative(change, after(1.0, rules["sp"])[1]) > 1e-3


def extra(algorithm: str) -> list[str]:
    """What a rule needs of the rest of the config."""
    return ["model.activation=tanh"] if "tp" in algorithm or algorithm == "ldrl" else []


@pytest.mark.parametrize("name", NAMES)
def test_the_table_needs_declarations_only(name):
    """No input and no parameter values: its numbers are numbers before any data are there."""
    table = getattr(parameterisations, name)()
    found = tabulate(table, residual(bias=True), 1.5)
    assert all(isinstance(leaf, float) for leaf in jax.tree.leaves(found))


def test_one_learning_rate_for_all_is_the_published_unscaled_adam():
    """scale_lr=False: the same step as optax.adam on the drawn parameters."""
    net = residual()
    made = learner_of(net, "depth_mup", "adam", scale_lr=False)
    params, state = made.init(jax.random.key(0))
    values, data = numbers(1.0, lr=0.1), batch(net)

    def loss(p):
        return jnp.mean(
            squared_error(net.forward(made.weights(p, values), data.x)[-1], data.target)
        )

    gradient = jax.grad(loss)(params)
    updates, _ = optax.adam(0.1).update(gradient, optax.adam(0.1).init(params), params)

    def of_weights(w):
        return jnp.mean(squared_error(net.forward(w, data.x)[-1], data.target))

    effective = jax.grad(of_weights)(made.weights(params, values))
    moved, _ = made.update(params, state, effective, 0, values)
    assert relative(jax.tree.map(lambda a, b: a - b, moved, params), updates) < 1e-5
    assert tabulate(depth_mup(scale_lr=False), net, 1.0).multiplier == tabulate(
        depth_mup(), net, 1.0
    ).multiplier  # fmt: skip


def test_unscaled_learning_rates_are_part_of_the_identity_and_scaled_ones_are_not():
    """The leaf came later than some results: its default leaves their identity as it was."""
    chosen = ["parameterisation=depth_mup", "model=resmlp"]
    assert "parameterisation.scale_lr" not in single(chosen).identity
    assert (
        "parameterisation.scale_lr" in single([*chosen, "parameterisation.scale_lr=false"]).identity
    )
    with pytest.raises(ConfigError, match="scale_lr"):
        single(["parameterisation=sp", "parameterisation.scale_lr=false"])


def test_standard_numbers_are_all_one_but_the_output_s():
    """The factors are the float 1.0, which costs and rounds nothing."""
    found = tabulate(sp(), residual(bias=True), 1.0)
    assert set(jax.tree.leaves(found)) == {1.0}
    assert tabulate(sp(), residual(), 2.0).multiplier[-1]["W"] == 0.5


@pytest.mark.parametrize("net", [residual(64, 5, bias=True), vgg5(IMAGES, (16, 16, 3), 4)])
def test_xavier_weights_are_those_of_jax(net):
    """Of dense layers and of convolutions: U(±√(6/(fan_in + fan_out))), as jax.nn.initializers
    counts fans; biases as `sp` draws them."""
    key, bound = jax.random.key(0), jax.nn.initializers.glorot_uniform()
    drawn = initialise(xavier(), key, net.declared)
    standard = initialise(sp(), key, net.declared)
    for layer, plain in zip(drawn, standard, strict=True):
        for name, weight in layer.items():
            if name == "b":
                np.testing.assert_array_equal(weight, plain[name])
                continue
            single_layer = weight.shape[-4:] if weight.ndim > 3 else weight.shape[-2:]
            largest = jnp.max(jnp.abs(bound(key, single_layer)))
            assert jnp.max(jnp.abs(weight)) == pytest.approx(float(largest), rel=0.05)


def test_normal_xavier_weights_have_the_variance_of_uniform_ones():
    net = residual(256, 5)
    for layer in initialise(xavier_normal(), jax.random.key(0), net.declared)[1:-1]:
        fans, weight = sum(layer["W"].shape[-2:]), layer["W"]
        assert float(jnp.var(weight)) == pytest.approx(2 / fans, rel=0.05)
        fourth = jnp.mean(weight**4) / jnp.var(weight) ** 2  # 3 of a normal, 1.8 of a uniform
        assert float(fourth) == pytest.approx(3, rel=0.1)


# --- what the scaling is for


def first_step(net, name, optimizer, gamma0=1.0, seed=0, lr=1e-3):
    """Change of the output (to first order, per layer group) by one update along a fixed cotangent
    of the output: {group: (B, C)}."""
    made, values = learner_of(net, name, optimizer), numbers(gamma0, lr=lr)
    params, state = made.init(jax.random.key(seed))
    data = batch(net, size=16)
    outputs = lambda p: net.forward(made.weights(p, values), data.x)[-1]  # noqa: E731
    cotangent = jax.random.normal(jax.random.key(9), data.target.shape) / len(data.x)
    effective = jax.grad(lambda w: jnp.vdot(net.forward(w, data.x)[-1], cotangent))(
        made.weights(params, values)
    )
    moved, _ = made.update(params, state, effective, 0, values)
    change = jax.tree.map(lambda a, b: a - b, moved, params)
    found = {}
    for k in range(len(params)):
        only = tuple(c if n == k else jax.tree.map(jnp.zeros_like, c) for n, c in enumerate(change))
        found[k] = jax.jvp(outputs, (params,), (only,))[1]
    return found


def size(change) -> float:
    return float(jnp.sqrt(jnp.mean(change**2)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["mup", "depth_mup"])
def test_every_layer_keeps_its_share_of_learning_in_wide_networks(name, optimizer):
    """μP: the input layer, the hidden ones and the output each move the output by as much at width
    1024 as at 32 (within a factor of 1.6, the noise of narrow networks included). A single rate of
    1/√N for Adam would slow the first and the last layer by √32."""
    wide, narrow = (
        [np.mean([size(c[k]) for c in changes]) for k in range(3)]
        for changes in (
            [first_step(residual(width, 7, activation="relu"), name, optimizer, seed=s)
             for s in range(4)]
            for width in (1024, 32)
        )
    )  # fmt: skip
    ratios = np.array(wide) / np.array(narrow)
    assert (ratios > 1 / 1.6).all() and (ratios < 1.6).all(), ratios


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_layer_keeps_its_share_of_learning_in_deep_networks(optimizer):
    """Depth-μP: at 128 layers the input layer, the stack as a whole and the output move the output
    by as much as at 16 (within a factor of 1.6; L - 2 of L layers are in the stack)."""
    deep, shallow = (
        [np.mean([size(c[k]) for c in changes]) for k in range(3)]
        for changes in (
            [first_step(residual(64, depth, activation="relu"), "depth_mup", optimizer, seed=s)
             for s in range(4)]
            for depth in (128, 16)
        )
    )  # fmt: skip
    ratios = np.array(deep) / np.array(shallow)
    assert (ratios > 1 / 1.6).all() and (ratios < 1.6).all(), ratios


def test_standard_learning_depends_on_width_and_depth():
    """What the others cure: under `sp` with Adam the stack moves the output more in wide networks
    and in deep ones, by more than a factor of three."""
    base = size(first_step(residual(64, 8), "sp", "adam")[1])
    assert size(first_step(residual(1024, 8), "sp", "adam")[1]) > 3 * base
    assert size(first_step(residual(64, 64), "sp", "adam")[1]) > 3 * base


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["ntp", "mup", "depth_mup"])
def test_richness_moves_features_and_not_the_output(name, optimizer):
    """To first order an update along a given output error changes the output by the same amount at
    any γ₀ (1e-3: ε and float32), in every layer, biases included."""
    net = residual(32, 9, bias=True)
    one, two = (first_step(net, name, optimizer, gamma0, lr=1.0) for gamma0 in (1.0, 0.1))
    for k in one:
        assert relative(two[k], one[k]) < 1e-3


@pytest.mark.parametrize("name", ["mup", "depth_mup"])
def test_epsilon_is_relative_to_the_gradient(name):
    """With a huge ε Adam's step is gradient/ε: it loses as much at width 512 and depth 32 as at
    width 32 and depth 8, in every layer (within a factor of two)."""

    def loss_of_speed(width, depth):
        net = residual(width, depth)
        data = batch(net, size=16)
        norms = []
        for eps in (1e-12, 1.0):
            made, values = learner_of(net, name, "adam"), numbers(eps=eps)
            params, state = made.init(jax.random.key(0))
            effective = jax.grad(lambda w: jnp.mean(net.forward(w, data.x)[-1]))(
                made.weights(params, values)
            )
            moved, _ = made.update(params, state, effective, 0, values)
            change = jax.tree.map(lambda a, b: a - b, moved, params)
            norms.append([float(optax.tree.norm(own)) for own in change])
        return np.array(norms[1]) / np.array(norms[0])

    depth = 32 if name == "depth_mup" else 8
    ratio = loss_of_speed(512, depth) / loss_of_speed(32, 8)
    assert (ratio > 0.5).all() and (ratio < 2).all(), ratio


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "net",
    [
        network("mlp", depth=4),
        residual(bias=True),
        vgg5(IMAGES, (16, 16, 3), 4),
        resnet18(IMAGES, (8, 8, 3), 4),
        transformer(TOKENS | {"bias": True}, (4, 4, 1), 4),
    ],
    ids=["mlp", "resmlp", "vgg5", "resnet18", "transformer"],
)
def test_every_network_has_finite_states_under_every_parameterisation(net, name):
    made, values = learner_of(net, name), numbers()
    params, _ = made.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, *net.input_shape))
    states = net.forward(made.weights(params, values), x)
    assert all(jnp.isfinite(h).all() for h in states)


def test_activations_keep_their_size_in_deep_residual_networks():
    """Linear, depth_mup: the mean square grows by (1 + 1/L) a layer, to e at any depth; under sp
    (variance 1/(3n)) by (4/3) a layer."""
    for depth in (8, 64):
        net = residual(256, depth, inputs=64, activation="identity")
        made = learner_of(net, "depth_mup")
        params, _ = made.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (32, 64))
        states = net.forward(made.weights(params, numbers()), x)
        growth = float(jnp.mean(states[1][-1] ** 2) / jnp.mean(states[0] ** 2))
        assert abs(growth / (1 + 1 / depth) ** (depth - 2) - 1) < 0.15


def test_energies_and_their_steps_do_not_depend_on_the_batch():
    """The gradient that reaches the optimiser is a mean over the batch, whatever the table: a batch
    of copies gives the step of one sample."""
    net = residual()
    rule, _ = assemble(
        single(["model=resmlp", "parameterisation=depth_mup", "model.depth=9", "model.width=8"]),
        SIX,
        9,
    )
    values = numbers() | {"algorithm": hyper()["algorithm"]}
    one = batch(net, size=1)
    many = Batch(*(jnp.repeat(a, 7, 0) for a in one[:3]), one.epoch)
    params, _ = rule.learner.init(jax.random.key(0))
    effective = rule.learner.weights(params, values)
    single_, many_ = (rule.gradient(effective, (), b, values, None)[0] for b in (one, many))
    assert relative(many_, single_) < 1e-5
