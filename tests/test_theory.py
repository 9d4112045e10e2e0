"""Equilibria of linear networks, the curvature of the energy, and metrics per layer, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, build, hyper, network, relative, weights

from pcbench.algorithms.pc import PC
from pcbench.energies import linear
from pcbench.energies.curvature import activity_hessian, spectrum
from pcbench.energies.energy import per_factor, prediction_energy, squared_error, total
from pcbench.energies.equilibrium import (
    equilibrium_energy,
    equilibrium_gradient,
    equilibrium_states,
    largest_rescaling,
    mean_rescaling,
    rescaling,
)
from pcbench.metrics.alignment import target_alignment
from pcbench.metrics.layers import layer_norms, prospective_index
from pcbench.networks.parameterisations import depth_mup, initialise, mup, ntp, sp, tabulate
from pcbench.networks.parameterisations import scale as scaled

PARAMETERISATIONS = {"sp": sp, "ntp": ntp, "mup": mup, "depth_mup": depth_mup}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def chain(kind, depth, seed=0, parameterisation="depth_mup", gamma0=1.3, bias=False, **model):
    """A linear network, with skips if `kind` is resmlp, and its effective weights."""
    net = network(kind, activation="identity", states="pre", depth=depth, bias=bias, **model)
    table = PARAMETERISATIONS[parameterisation]()
    params = initialise(table, jax.random.key(seed), net.declared)
    if bias:
        params = jax.tree.map(lambda p: p + 0.1, params)
    return net, scaled(tabulate(table, net, gamma0).multiplier, params)


def energy_of(net, params, x, y, precisions=None):
    split = None if precisions is None else per_factor(net, jnp.asarray(precisions))

    def energy(hidden):
        states = (*hidden, y)
        predictions = net.predict(params, x, states)
        return total(prediction_energy(net, predictions, states, squared_error, split))

    return energy


def dense_minimum(net, params, x, y, precisions=None):
    """(energy per sample, hidden states) at the minimum, by a dense solve."""
    energy = energy_of(net, params, x, y, precisions)
    start = net.forward(params, x)[:-1]
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    gradient = jax.grad(lambda v: energy(unravel(v)))
    hessian = jax.hessian(lambda v: energy(unravel(v)))(flat)
    hidden = unravel(flat - jnp.linalg.solve(hessian, gradient(flat)))
    return energy(hidden) / len(x), hidden


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
@pytest.mark.parametrize("kind,depth", [("mlp", 2), ("mlp", 5), ("resmlp", 5), ("resmlp", 9)])
@pytest.mark.parametrize("output_precision", [None, 320.0])
def test_closed_forms_agree_with_a_dense_solve(parameterisation, kind, depth, output_precision):
    """F*, z* (by sensitivities and by Thomas' algorithm) and ∂F*/∂W, with and without skips, with
    an output precision; 1e-12 relative, the rounding of a solve of condition up to 1e4 apart."""
    net, params = chain(kind, depth, parameterisation=parameterisation)
    data = batch(net)
    precisions = None
    if output_precision:
        precisions = jnp.linspace(0.5, 2.0, depth).at[-1].set(output_precision)
    energy, hidden = dense_minimum(net, params, data.x, data.target, precisions)
    arguments = (net, params, data.x, data.target, precisions)
    assert relative(equilibrium_energy(*arguments), energy) < 1e-12
    assert relative(equilibrium_states(*arguments)[:-1], hidden) < 1e-12
    matrices = linear.matrices(net, params)
    layers = [h for k, f in enumerate(net.factors[:-1])
              for h in (hidden[k] if f.length else [hidden[k]])]  # fmt: skip
    thomas = linear.relaxed_states(matrices, data.x, data.target, precisions)
    assert relative(thomas, layers) < 1e-12
    alone = linear.equilibrium(matrices, data.x[0], data.target[0], precisions)
    assert relative(rescaling(net, params, None, precisions), alone.rescaling) < 1e-12
    assert relative(list(alone.states[:-1]), [h[0] for h in layers]) < 1e-12

    def relaxed(w):  # envelope theorem: the states held fixed
        return energy_of(net, w, data.x, data.target, precisions)(hidden) / len(data.x)

    assert relative(equilibrium_gradient(*arguments), jax.grad(relaxed)(params)) < 1e-11


def test_biases_are_part_of_the_closed_form():
    net, params = chain("resmlp", 9, bias=True)
    data = batch(net)
    energy, hidden = dense_minimum(net, params, data.x, data.target)
    assert relative(equilibrium_energy(net, params, data.x, data.target), energy) < 1e-12
    found = equilibrium_states(net, params, data.x, data.target)
    assert relative(found[:-1], hidden) < 1e-12


def test_predictive_coding_learns_the_gradient_of_the_equilibrated_energy():
    net, params = chain("resmlp", 8)
    data = batch(net)
    gradient, *_ = build(PC, net, steps=4000).gradient(
        params, (), data, hyper(0.15, 0.8), None, measure=True
    )
    assert relative(gradient, equilibrium_gradient(net, params, data.x, data.target)) < 1e-9


def test_matrices_hold_what_the_layers_compute():
    net, params = chain("resmlp", 9)
    data = batch(net)
    states = net.forward(params, data.x)
    output = linear.forward(linear.matrices(net, params), data.x.T)[-1]
    np.testing.assert_allclose(output.T, states[-1], atol=1e-13)


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
@pytest.mark.parametrize("kind", ["mlp", "resmlp"])
def test_the_closed_hessian_is_that_of_the_energy(parameterisation, kind):
    """Every block, the output's too, under every parameterisation: a multiplier in the energy and
    another one in the closed form would show."""
    net, params = chain(kind, 4, parameterisation=parameterisation)
    data = batch(net, size=1)
    start = net.forward(params, data.x)[:-1]
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    energy = energy_of(net, params, data.x, data.target, [1.0, 2.0, 0.5, 3.0])
    dense = jax.hessian(lambda v: energy(unravel(v)))(flat)
    diagonal, above = linear.activity_hessian(linear.matrices(net, params), [1.0, 2.0, 0.5, 3.0])
    blocks = [[jnp.zeros((8, 8))] * 3 for _ in range(3)]
    for l in range(3):
        blocks[l][l] = diagonal[l]
        if l < 2:
            blocks[l][l + 1], blocks[l + 1][l] = above[l], above[l].T
    np.testing.assert_allclose(dense, jnp.block(blocks), atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "resmlp"])
@pytest.mark.parametrize("relaxed", [False, True])
def test_lanczos_finds_the_extreme_eigenvalues_of_a_nonlinear_network(kind, relaxed):
    """Against the dense Hessian, at the forward pass and away from it, where second derivatives of
    the layers enter."""
    net = network(kind, activation="tanh", states="pre", depth=4, width=10)
    params, data = weights(net), batch(net, size=2)
    states = net.forward(params, data.x)
    if relaxed:
        states = jax.tree.map(lambda h: h + 0.3 * jnp.sin(3 * h), states)
    states = (*states[:-1], data.target)
    operator, hidden = activity_hessian(net, params, states, data.x)
    flat, unravel = jax.flatten_util.ravel_pytree(hidden)
    energy = energy_of(net, params, data.x, data.target)
    values = jnp.linalg.eigvalsh(jax.hessian(lambda v: energy(unravel(v)))(flat))
    exact = spectrum(operator, hidden, jax.random.key(0), steps=1000)
    np.testing.assert_allclose([exact.smallest, exact.largest], values[jnp.array([0, -1])],
                               rtol=1e-10)  # fmt: skip
    np.testing.assert_allclose(exact.condition, values[-1] / values[0], rtol=1e-9)
    early = spectrum(operator, hidden, jax.random.key(0), steps=25)
    assert abs(early.largest - values[-1]) <= early.errors[1] + 1e-12
    assert early.smallest >= values[0] - 1e-12 and early.largest <= values[-1] + 1e-12


def test_lanczos_goes_on_after_an_invariant_subspace():
    """An operator with two distinct eigenvalues exhausts its Krylov space after two steps."""
    diagonal = jnp.array([1.0, 1.0, 4.0, 4.0, 4.0, 1.0])
    found = spectrum(lambda v: diagonal * v, diagonal, jax.random.key(0), steps=6)
    np.testing.assert_allclose([found.smallest, found.largest], [1, 4], rtol=1e-12)


def test_rescaling_of_a_nonlinear_network_is_made_from_its_jacobians():
    """S = I + Σ P_l P_lᵀ with P_l = ∂ŷ/∂h_l at the forward pass, by hand for two hidden layers."""
    net = network("mlp", activation="tanh", states="pre", depth=3, bias=False)
    params, x = weights(net), batch(net, size=1).x
    z1, z2, _ = net.forward(params, x)
    last = params[2]["W"].T * (1 - jnp.tanh(z2) ** 2)
    first = last @ (params[1]["W"].T * (1 - jnp.tanh(z1) ** 2))
    expected = jnp.eye(4) + last @ last.T + first @ first.T
    found = rescaling(net, params, x[0])
    np.testing.assert_allclose(found, expected, atol=1e-13)
    np.testing.assert_allclose(mean_rescaling(found), jnp.trace(expected) / 4, atol=1e-13)
    np.testing.assert_allclose(largest_rescaling(found), jnp.linalg.norm(expected, 2), atol=1e-12)


def excess(width, depth, seeds, gamma0=1.0, outputs=10, skips=True):
    """s - 1 per seed."""
    kind = "resmlp" if skips else "mlp"
    model = {"width": width, "depth": depth, "bias": False, "states": "pre"}
    net = network(kind, inputs=4, outputs=outputs, activation="identity", **model)
    table = depth_mup()

    @jax.jit
    def one(seed):
        params = initialise(table, jax.random.key(seed), net.declared)
        effective = scaled(tabulate(table, net, gamma0).multiplier, params)
        return mean_rescaling(rescaling(net, effective)) - 1

    return jax.lax.map(one, jnp.arange(seeds))


@pytest.mark.parametrize("depth", [4, 32])
@pytest.mark.parametrize("gamma0", [1.0, 0.5])
def test_predictive_coding_approaches_backpropagation_in_wide_residual_networks(depth, gamma0):
    """(s - 1)γ₀²N/L = (1 + 1/L)^(L-1) - 1 within 5 %: each layer's map multiplies the expected
    square of a sensitivity by 1 + 1/L, and that of the output is 1/(γ₀²N)."""
    with jax.enable_x64(False):
        found = np.mean(excess(64, depth, 200, gamma0)) * gamma0**2 * 64 / depth
    assert abs(found / ((1 + 1 / depth) ** (depth - 1) - 1) - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("depth", [4, 32])
def test_the_rescaling_falls_with_the_width(depth):
    """log(s - 1) against log N over N = 128 … 2048: slope -1 ± .05, the value within 5 %."""
    widths = np.array([128, 256, 512, 1024, 2048])
    with jax.enable_x64(False):
        found = np.array([np.mean(excess(n, depth, 2 if depth * n > 2**14 else 8)) for n in widths])
    slope = np.polyfit(np.log(widths), np.log(found), 1)[0]
    assert abs(slope + 1) < 0.05
    expected = (1 + 1 / depth) ** (depth - 1) - 1
    np.testing.assert_allclose(found * widths / depth, expected, rtol=0.05)


def test_without_skips_each_layer_adds_the_same():
    """(s - 1)γ₀²N = L - 1 within 5 %, without skips."""
    with jax.enable_x64(False):
        found = np.mean(excess(64, 8, 400, skips=False)) * 64
    assert abs(found / 7 - 1) < 0.05


def test_prospective_index_compares_where_states_go_with_where_they_were_put():
    """1 where learning moves a layer to its relaxed state, NaN where it does not move; at the
    output the target alignment."""
    net = network("resmlp", states="pre", depth=8)
    data = batch(net)
    free = net.forward(weights(net), data.x)
    after = net.forward(weights(net, 1), data.x)
    clamped = (*jax.tree.map(lambda h: h + 1.0, free[:-1]), data.target)
    found = prospective_index(net, free, clamped, after)
    assert found.shape == (8,)
    expected = target_alignment(after[-1] - free[-1], data.target - free[-1])
    np.testing.assert_allclose(found[-1], expected, atol=1e-12)
    hits = prospective_index(net, free, clamped, clamped)
    np.testing.assert_allclose(hits, 1.0, atol=1e-12)
    still = prospective_index(net, free, clamped, (free[0], *after[1:]))
    assert jnp.isnan(still[0]) and jnp.isfinite(still[1:]).all()


def test_layer_norms_split_the_norm_of_a_tree():
    net = network("resmlp", states="pre", depth=8)
    params = weights(net)
    found = layer_norms(net, params)
    assert found.shape == (8,)
    own = jnp.sqrt(sum(jnp.sum(p[2] ** 2) for p in params[1].values()))  # third of the stack
    np.testing.assert_allclose(found[3], own, rtol=1e-12)
    whole = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))
    np.testing.assert_allclose(jnp.linalg.norm(found), whole, rtol=1e-12)
