"""Predictive coding: its energy, its sign, its nudged forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import as_batch, batch, build, chain, hyper, learner, network, relative, weights

from pcbench.algorithms.base import loss_gradient
from pcbench.algorithms.bp import BP
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import LOSSES
from pcbench.energies.linear import equilibrium, forward


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def gradient(rule, data, numbers, seed=0, **options):
    return rule.gradient(weights(rule.network, seed), (), data, numbers, None, **options)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("kind", ["mlp", "resmlp", "linear"])
def test_at_the_feedforward_state_the_energy_is_the_loss(loss, kind):
    net = network(kind)
    rule = build(PC, net, loss, steps=5)
    data = batch(net)
    _, _, info = gradient(rule, data, hyper(), measure=True)
    value, _ = loss_gradient(rule, weights(net), data)
    np.testing.assert_allclose(info.energy_initial, value, rtol=1e-14)
    np.testing.assert_allclose(info.energy[0, :-1], 0, atol=1e-28)
    assert (np.diff(info.energy.sum(1)) < 0).all()  # relaxation lowers the energy


def test_without_relaxation_only_the_output_layer_learns_and_as_in_backpropagation():
    net = network()
    data = batch(net)
    ours, *_ = gradient(build(PC, net, steps=0), data, hyper())
    reference, *_ = gradient(build(BP, net), data, hyper())
    assert relative(ours[-1], reference[-1]) < 1e-14
    assert all(float(jnp.abs(g["W"]).max()) == 0 for g in ours[:-1])


@pytest.mark.parametrize("nudging", ["positive", "negative"])
def test_nudged_gradients_approach_their_limit_with_slope_one(nudging):
    """Holding the output a little nearer the target gives backpropagation of S⁻¹(y - ŷ), not of
    y - ŷ, plus O(β): in a linear network A_lᵀS⁻¹e h_{l-1}ᵀ, from either side."""
    generator = np.random.default_rng(0)
    matrices = [jnp.array(generator.normal(size=s) / 2) for s in ((5, 3), (5, 5), (2, 5))]
    x, y = jnp.array(generator.normal(size=3)), jnp.array([0.0, 1.0])
    errors = equilibrium(matrices, x, y).errors
    sources = [x, *forward(matrices, x)[:-1]]
    limit = [-jnp.outer(e, h).T for e, h in zip(errors, sources, strict=True)]
    net, params = chain(*matrices)
    rule = build(PC, net, steps=3000, nudging=nudging)
    gaps = []
    for beta in (1e-2, 1e-3, 1e-4):
        numbers = hyper(0.2, 0.7, beta=beta, beta_increment=0.0)
        measured, *_ = rule.gradient(params, (), as_batch(x, y), numbers, None)
        gaps.append(relative([g["W"] for g in measured], limit))
    np.testing.assert_allclose(np.diff(np.log10(gaps)), -1, atol=0.05)


def test_positive_nudging_with_beta_one_is_clamping():
    net = network()
    data = batch(net)
    clamped, *_ = gradient(build(PC, net, steps=6), data, hyper())
    numbers = hyper(beta=1.0, beta_increment=0.0)
    nudged, *_ = gradient(build(PC, net, steps=6, nudging="positive"), data, numbers)
    assert relative(nudged, clamped) < 1e-14


def test_beta_over_the_epochs_is_the_published_one():
    """|β| grows by the increment to at most 1; a `negative` nudging that reaches 1 becomes β = +1,
    a centred one keeps its sign: the listed one, or alternating from +1."""
    net = network()
    numbers = hyper(beta=0.9, beta_increment=0.05)

    def betas(nudging, **extra):
        rule = build(PC, net, steps=1, nudging=nudging)
        return [float(rule.beta(numbers | extra, jnp.asarray(e))) for e in range(4)]

    numbers = numbers["algorithm"]
    np.testing.assert_allclose(betas("positive"), [0.9, 0.95, 1, 1])
    np.testing.assert_allclose(betas("negative"), [-0.9, -0.95, 1, 1])
    np.testing.assert_allclose(betas("centred"), [0.9, -0.95, 1, -1])
    signs = jnp.array([-1.0, -1.0, 1.0, -1.0])
    np.testing.assert_allclose(betas("centred", beta_signs=signs), [-0.9, -0.95, 1, -1])


@pytest.mark.parametrize("rule,choices", [(BP, {}), (PC, {"steps": 8})])
def test_a_step_lowers_the_loss(rule, choices):
    net = network()
    data = batch(net)
    algorithm = build(rule, net, **choices)
    state = algorithm.init(jax.random.key(0))
    before, _ = loss_gradient(algorithm, state.params, data)
    state = algorithm.step(state, data, hyper(lr=0.05), None)
    after, _ = loss_gradient(algorithm, state.params, data)
    assert float(after) < float(before) and int(state.step) == 1


def test_the_output_multiplier_is_part_of_the_gradient():
    """With γ₀ = 2 the network's output is halved; a finite difference in the drawn parameters
    agrees with the update."""
    net = network()
    data = batch(net)
    params, _ = (made := learner(net)).init(jax.random.key(0))
    numbers = hyper(gamma0=2.0, lr=1.0)

    def loss(p):
        outputs = net.forward(made.weights(p, numbers), data.x)[-1]
        return LOSSES["squared_error"](outputs, data.target).mean()

    halved = net.forward(made.weights(params, numbers), data.x)[-1]
    np.testing.assert_allclose(halved, net.forward(params, data.x)[-1] / 2, atol=1e-12)
    state = build(BP, net).init(jax.random.key(0))
    moved = build(BP, net).step(state, data, numbers, None).params
    update = jax.tree.map(lambda a, b: a - b, state.params, moved)
    assert relative(update, jax.grad(loss)(params)) < 1e-12
