"""Target propagation: its feedback, what it refuses. `pcbench verify` has its identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, build, hyper, network, relative, weights

from pcbench.algorithms.base import loss_gradient
from pcbench.algorithms.ddtp import DDTP
from pcbench.algorithms.dfa import DFA
from pcbench.algorithms.dtp import DTP
from pcbench.algorithms.fw_dtp import FWDTP
from pcbench.algorithms.ldrl import LDRL
from pcbench.algorithms.target_propagation import Feedback, normal_like
from pcbench.algorithms.tp import TP
from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.layers import Dense
from pcbench.networks.network import INPUT, Factor, Network

LEARNED = {
    "tp": (TP, {"feedback_steps": 2}),
    "dtp": (DTP, {"feedback_steps": 2}),
    "drl": (DTP, {"feedback_steps": 2, "feedback_loss": "drl"}),
    "ldrl": (LDRL, {"feedback_steps": 2}),
    "ddtp": (DDTP, {"feedback_steps": 2}),
}
FIXED = {
    "gauss_newton": (DDTP, {"feedback": "gauss_newton"}),
    "fw_dtp": (FWDTP, {}),
    "dfa": (DFA, {}),
}
RULES = LEARNED | FIXED
LAYERWISE = ("tp", "dtp", "drl", "ldrl", "fw_dtp")
NUMBERS = {
    "target_step": 0.1,
    "feedback_lr": 0.01,
    "feedback_noise": 0.1,
    "feedback_weight_decay": 1e-3,
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("depth,loss", [(7, "squared_error"), (3, "cross_entropy"), (1, None)])
def test_the_output_layer_learns_as_in_backpropagation(name, depth, loss):
    """The hidden layers do not; in a network of one layer nothing else is left."""
    rule, choices = RULES[name]
    net = network(depth=depth)
    data, algorithm = batch(net), build(rule, net, loss or "squared_error", **choices)
    state = algorithm.init(jax.random.key(0))
    ours, *_ = jax.jit(algorithm.observe)(state, data, hyper(**NUMBERS), jax.random.key(1))
    _, expected = loss_gradient(algorithm, state.params, data)
    assert relative(ours[-1], expected[-1]) < 1e-12
    assert depth == 1 or relative(ours[:-1], expected[:-1]) > 0.1


@pytest.mark.parametrize("name", LEARNED)
def test_feedback_learns_and_the_forward_weights_take_no_part_in_it(name):
    """With no learning rate for the feedback its weights stay, and the gradient is that of a rule
    whose feedback is fixed; with one, the reconstruction loss falls and every layer takes part."""
    rule, choices = LEARNED[name]
    net = network(depth=7)
    learning = build(rule, net, **choices)
    fixed = build(rule, net, **choices | {"feedback_steps": 0})
    params, memory, data = weights(net), learning.memory(jax.random.key(0)), batch(net)
    learn, key = jax.jit(learning.gradient), jax.random.key(1)

    still = hyper(**NUMBERS | {"feedback_lr": 0.0})
    gradient, after, _ = learn(params, memory, data, still, key)
    assert relative(after.weights, memory.weights) == 0
    frozen = jax.jit(fixed.gradient)(params, Feedback(memory.weights, ()), data, still, None)[0]
    assert relative(gradient, frozen) < 1e-12

    for n in range(60):
        memory = learn(params, memory, data, hyper(**NUMBERS), jax.random.fold_in(key, n))[1]
    for before, now in zip(after.weights, memory.weights, strict=True):
        for b, a in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True):
            assert jnp.all(jnp.any(jnp.abs(a - b) > 1e-3, -1))
    states = net.forward(params, data.x)
    noise = normal_like(key, learning.corrupted(data.x, states), 0.1)
    loss = jax.jit(learning.reconstruction_loss)
    before, now = (loss(m.weights, params, data.x, states, noise, 0.1) for m in (after, memory))
    assert now < before


def test_noise_has_the_asked_for_spread_in_every_part():
    tree = (jnp.zeros((300, 40)), None, (jnp.zeros((100, 100)),))
    for part in jax.tree.leaves(normal_like(jax.random.key(0), tree, 0.3)):
        tolerance = 5 / np.sqrt(part.size)  # five standard errors of a mean of unit variates
        np.testing.assert_allclose(part.mean() / 0.3, 0, atol=tolerance)
        np.testing.assert_allclose(part.std() / 0.3, 1, atol=tolerance)


@pytest.mark.parametrize("name", RULES)
def test_steps_lower_the_loss_alone_and_in_a_pack(name):
    rule, choices = RULES[name]
    net = network(width=16)
    algorithm, data = build(rule, net, **choices), batch(net)
    # without the difference correction, targets must be far to outweigh errors of reconstruction
    numbers = hyper(lr=0.02, **NUMBERS | ({"target_step": 1.0} if name == "tp" else {}))

    @jax.jit
    @jax.vmap
    def train(key):
        state = algorithm.init(key)
        step = lambda s, n: (algorithm.step(s, data, numbers, jax.random.fold_in(key, n)), None)  # noqa: E731
        return state, jax.lax.scan(step, state, jnp.arange(100))[0]

    before, after = train(jax.random.split(jax.random.key(0), 2))
    loss = jax.vmap(lambda s: loss_gradient(algorithm, s.params, data)[0])
    assert (loss(after) < 0.7 * loss(before)).all()


@pytest.mark.parametrize("name", ["ddtp", "gauss_newton", "dfa"])
def test_direct_feedback_serves_networks_of_any_shape(name):
    """Skips, a stack of them, and states with more than one axis."""
    rule, choices = RULES[name]
    resmlp = network("resmlp", depth=8)
    grid = Network((Factor(Grid(), (INPUT,)), Factor(Dense(4, "output"), (0,))), (6,))
    for net in (resmlp, grid):
        algorithm, data = build(rule, net, **choices), batch(net)
        state = algorithm.init(jax.random.key(0))
        numbers = hyper(**NUMBERS)
        gradient, *_ = jax.jit(algorithm.observe)(state, data, numbers, jax.random.key(1))
        assert all(float(jnp.abs(g["W"]).max()) > 0 for g in gradient)


class Grid(Dense):
    """A dense layer whose states are 2 × 3."""

    features: int = 6
    role: str = "input"

    def __call__(self, source):
        return self.pre(source).reshape(-1, 2, 3)


@pytest.mark.parametrize("name", LAYERWISE)
def test_layerwise_feedback_refuses_what_is_no_chain_of_dense_layers(name):
    rule, choices = RULES[name]
    dense = Dense(8, "hidden")
    branch = Network((Factor(dense, (INPUT,)), Factor(dense, (INPUT,))), (8,))
    grid = Network((Factor(Grid(), (INPUT,)), Factor(dense, (0,))), (8,))
    mixed = [Dense(8, "hidden", ACTIVATIONS[a]) for a in ("tanh", "relu", "identity")]
    mixed = Network(tuple(Factor(layer, (k - 1,)) for k, layer in enumerate(mixed)), (8,))
    for net, reason in (
        (network("resmlp"), "factor 1 has a skip"),
        (branch, "factor 1 reads other"),
        (grid, "factor 0 is a Grid"),
        (mixed, "several activations"),
    ):
        with pytest.raises(ValueError, match=reason):
            build(rule, net, **choices)
