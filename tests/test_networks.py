"""Networks, activations and parameterisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, network, weights

from pcbench.config.schema import ACTIVATIONS as NAMES
from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.layers import Declared
from pcbench.networks.parameterisations import initialise, sp

KINDS = ("mlp", "linear", "resmlp")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("states", ["post", "pre"])
@pytest.mark.parametrize("depth", [1, 2, 4, 9])
def test_forward_states_equal_their_predictions(kind, states, depth):
    """After a feed-forward pass every prediction, computed all at once, equals its state."""
    net = network(kind, states=states, depth=depth)
    params, x = weights(net), batch(net).x
    forward = net.forward(params, x)
    for state, prediction in zip(forward, net.predict(params, x, forward), strict=True):
        np.testing.assert_allclose(prediction, state, atol=1e-6)
    assert net.layers == depth and forward[-1].shape == (5, 4)


def test_a_stack_computes_what_single_layers_compute():
    """Depth 9 is input, a stack of 7, output; unrolled by hand it gives the same states."""
    net = network("resmlp", states="pre", depth=9)
    assert [f.length for f in net.factors] == [None, 7, None]
    params, x = weights(net), batch(net).x
    h = x @ params[0]["W"] + params[0]["b"]
    for n in range(7):
        h = h + jnp.tanh(h) @ params[1]["W"][n] + params[1]["b"][n]
        np.testing.assert_allclose(net.forward(params, x)[1][n], h, atol=1e-5)


def test_post_and_pre_place_the_activation_as_they_say():
    """post: h = σ(W h_prev), linear output; pre: z = W σ(z_prev), x taken as it is."""
    x = batch(network()).x
    for states in ("post", "pre"):
        net = network(states=states, depth=2)
        (first, second) = params = weights(net)
        a = x @ first["W"] + first["b"]
        hidden = jnp.tanh(a) if states == "post" else a
        source = hidden if states == "post" else jnp.tanh(hidden)
        forward = net.forward(params, x)
        np.testing.assert_allclose(forward[0], hidden, atol=1e-6)
        np.testing.assert_allclose(forward[1], source @ second["W"] + second["b"], atol=1e-6)


def test_distances_count_layers_to_the_output():
    assert network(depth=4).distances == (3, 2, 1, 0)
    assert network(depth=9).distances == (8, 1, 0)  # a stack's nearest layer is next to the output


def test_every_parameter_declares_role_kind_and_fan_in():
    declared = network("resmlp", states="pre", depth=3).declared
    leaves = jax.tree.leaves(declared, is_leaf=lambda d: isinstance(d, Declared))
    assert [(d.role, d.kind, d.fan_in) for d in leaves] == [
        (role, kind, fan_in)
        for role, fan_in in (("input", 6), ("residual", 8), ("output", 8))
        for kind in ("weight", "bias")
    ]


def test_standard_parameterisation_draws_uniformly_within_one_over_root_fan_in():
    """Bounds exact; variance 1/(3 fan_in) within four standard errors."""
    net = network(inputs=400, width=300, depth=2)
    params = initialise(sp(), jax.random.key(0), net.declared)
    w = np.asarray(params[0]["W"])
    assert np.abs(w).max() <= 400**-0.5
    standard_error = (4 / 45) ** 0.5 / 400 / w.size**0.5  # of the mean square of U(-1, 1)/√400
    assert abs((w**2).mean() - 1 / (3 * 400)) < 4 * standard_error
    assert np.abs(params[0]["b"]).max() <= 400**-0.5


@pytest.mark.parametrize("name", [n for n, a in ACTIVATIONS.items() if a.conjugate])
def test_potentials_are_conjugate(name):
    """∇G* = σ; where σ is smooth and inside its domain ∇G(σ(a)) = a; G(h)+G*(a) ≥ ⟨h,a⟩ with
    equality exactly at h = σ(a)."""
    activation = ACTIVATIONS[name]
    with jax.enable_x64(True):
        a = jnp.array([[0.3, 0.7, 0.1], [-0.4, 0.9, 0.2], [0.6, -0.8, 0.45]])
        np.testing.assert_allclose(
            jax.grad(lambda a: activation.conjugate(a).sum())(a), activation(a), atol=1e-12
        )
        gap = activation.potential(activation(a)) + activation.conjugate(a)
        np.testing.assert_allclose(gap, (activation(a) * a).sum(-1), atol=1e-12)
        other = activation(a[::-1])
        gap = activation.potential(other) + activation.conjugate(a) - (other * a).sum(-1)
        assert (gap >= -1e-12).all()
        if name in ("identity", "sigmoid", "tanh", "leaky_relu"):
            gradient = jax.grad(lambda h: activation.potential(h).sum())(activation(a))
            np.testing.assert_allclose(gradient, a, atol=1e-12)


def test_config_vocabulary_names_the_activations_that_exist():
    """softmax couples the units of a layer: it has potentials, but is no hidden activation."""
    assert set(NAMES) == set(ACTIVATIONS) - {"softmax"}
