"""Predictive coding: its sign, its nudged forms. Its identities are in `pcbench verify`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, build, hyper, learner, network, relative, weights

from pcbench.algorithms.base import loss_gradient
from pcbench.algorithms.bp import BP
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import LOSSES


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("kind", ["mlp", "resmlp", "linear"])
def test_relaxation_lowers_the_energy(loss, kind):
    net = network(kind)
    rule = build(PC, net, loss, steps=5)
    _, _, info = rule.gradient(weights(net), (), batch(net), hyper(), None, measure=True)
    assert (np.diff(info.energy.sum(1)) < 0).all()


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
