"""Relaxation, gradients, alignment against closed forms of deep linear networks, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import as_batch, build, chain, hyper, network, relative, weights

from pcbench.algorithms.bp import BP
from pcbench.algorithms.pc import PC
from pcbench.energies.linear import downstream, equilibrium, forward, output_change
from pcbench.metrics.alignment import cosine, first_order_change


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def golden(name):
    """The two networks whose numbers are exact rationals."""
    if name == "G1":
        matrices = [jnp.array([[1.0]]), jnp.array([[1.0], [1.0]])]
        return matrices, jnp.array([1.0]), jnp.array([0.0, 1.0])
    matrices = [[[1, 0], [1, 1]], [[1, 1], [0, 1]], [[1, 0], [1, 1]]]
    return [jnp.array(m, float) for m in matrices], jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])


def random_case(depth=4, seed=0, width=5, inputs=3, outputs=2):
    generator = np.random.default_rng(seed)
    sizes = [inputs, *[width] * (depth - 1), outputs]
    matrices = [
        jnp.array(generator.normal(size=(o, i)) / np.sqrt(i)) for i, o in itertools.pairwise(sizes)
    ]
    return matrices, jnp.array(generator.normal(size=inputs)), jnp.array(generator.normal(size=2))


def relaxed_rule(net, steps=4000):
    return build(PC, net, steps=steps)


def gradients(matrices, x, y, rule, numbers=None):
    net, params = chain(*matrices)
    numbers = numbers or hyper(step_size=0.2, momentum=0.7)
    gradient, _, info = rule(net).gradient(params, (), as_batch(x, y), numbers, None, measure=True)
    return [-g["W"].T for g in gradient], info


def test_golden_network_one():
    """1-1-2: z₁ = 2/3, r = (-2/3, 1/3), F* = 1/3, L₀ = 1/2, TA 2/√5 and 7/√50."""
    matrices, x, y = golden("G1")
    solution = equilibrium(matrices, x, y)
    np.testing.assert_allclose(solution.rescaling, [[2, 1], [1, 2]], atol=1e-12)
    np.testing.assert_allclose(solution.states[0], [2 / 3], atol=1e-12)
    np.testing.assert_allclose(solution.errors[1], [-2 / 3, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(solution.energy, 1 / 3, atol=1e-12)
    updates, info = gradients(matrices, x, y, relaxed_rule)
    np.testing.assert_allclose(info.energy_initial, 1 / 2, atol=1e-12)
    np.testing.assert_allclose(info.energy_relaxed, 1 / 3, atol=1e-12)
    np.testing.assert_allclose(updates[0], [[-1 / 3]], atol=1e-12)  # ε₁ xᵀ
    np.testing.assert_allclose(updates[1], [[-4 / 9], [2 / 9]], atol=1e-12)  # r z₁ᵀ
    error = y - forward(matrices, x)[-1]
    for rule, change, alignment in (
        ("bp", (-2, -1), 2 / 5**0.5),
        ("pc", (-7 / 9, -1 / 9), 7 / 50**0.5),
    ):
        np.testing.assert_allclose(output_change(matrices, x, y, rule), change, atol=1e-12)
        np.testing.assert_allclose(cosine(jnp.array(change), error), alignment, atol=1e-12)


def test_golden_network_one_learns_along_the_published_trajectory():
    """Five steps with learning rate .2, the outputs to the six digits of the reference."""
    expected = {
        "bp": [(0.64, 0.8), (0.514550, 0.761203), (0.444572, 0.763172), (0.396466, 0.782187)],
        "pc": [(0.850370, 0.974815), (0.729988, 0.956266), (0.631821, 0.943595),
               (0.550645, 0.935886)],
    }  # fmt: skip
    for rule, make in (("bp", lambda net: build(BP, net)), ("pc", relaxed_rule)):
        matrices, x, y = golden("G1")
        for target in expected[rule]:
            updates, _ = gradients(matrices, x, y, make)
            matrices = [m + 0.2 * u for m, u in zip(matrices, updates, strict=True)]
            np.testing.assert_allclose(forward(matrices, x)[-1], target, atol=6e-7)


def test_golden_network_two():
    """2-2-2-2: z = (½, ½), F* = ½, L₀ = 4, M_BP e = (-28, -38), M_PC r = (-9/4, -2)."""
    matrices, x, y = golden("G2")
    solution = equilibrium(matrices, x, y)
    np.testing.assert_allclose(solution.rescaling, [[4, 4], [4, 8]], atol=1e-12)
    np.testing.assert_allclose(solution.states[0], [0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(solution.states[1], [0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(output_change(matrices, x, y, "bp"), (-28, -38), atol=1e-12)
    np.testing.assert_allclose(output_change(matrices, x, y, "pc"), (-9 / 4, -2), atol=1e-12)
    error = y - forward(matrices, x)[-1]
    for rule, alignment in (("bp", 0.988715504), ("pc", 0.998274373)):
        measured = cosine(output_change(matrices, x, y, rule), error)
        np.testing.assert_allclose(measured, alignment, atol=5e-10)
    _, info = gradients(matrices, x, y, relaxed_rule)
    np.testing.assert_allclose([info.energy_initial, info.energy_relaxed], [4, 0.5], atol=1e-12)


@pytest.mark.parametrize("depth", [2, 4, 5])
def test_relaxation_reaches_the_closed_form(depth):
    """Relaxed weight updates ε_l z_{l-1}ᵀ and energies match to 1e-10; the residual vanishes."""
    matrices, x, y = random_case(depth)
    solution = equilibrium(matrices, x, y)
    np.testing.assert_allclose(solution.states[-1], y, atol=1e-12)
    updates, info = gradients(matrices, x, y, relaxed_rule)
    sources = [x, *solution.states[:-1]]
    for update, error, source in zip(updates, solution.errors, sources, strict=True):
        np.testing.assert_allclose(update, jnp.outer(error, source), atol=1e-10)
    np.testing.assert_allclose(info.energy_relaxed, solution.energy, rtol=1e-10)
    assert float(info.residual) < 1e-10


def test_relaxation_reaches_the_closed_form_in_a_stack_and_from_zeros():
    """Six equal layers are one stack; the minimum does not depend on the start."""
    net = network("linear", inputs=5, outputs=5, width=5, depth=8, bias=False)
    assert [f.length for f in net.factors] == [None, 6, None]
    params = weights(net)
    matrices = [params[0]["W"].T, *[w.T for w in params[1]["W"]], params[2]["W"].T]
    x, y = jnp.linspace(-1, 1, 5), jnp.linspace(1, 0, 5)
    solution = equilibrium(matrices, x, y)
    for start in ("feedforward", "zeros"):
        rule = build(PC, net, steps=6000, start=start)
        gradient, _, info = rule.gradient(
            params, (), as_batch(x, y), hyper(0.2, 0.7), None, measure=True
        )
        np.testing.assert_allclose(info.energy_relaxed, solution.energy, rtol=1e-10)
        for n in range(6):
            expected = -jnp.outer(solution.states[n], solution.errors[n + 1])
            np.testing.assert_allclose(gradient[1]["W"][n], expected, atol=1e-10)


def test_weight_gradient_is_the_gradient_of_the_equilibrated_energy():
    """Envelope theorem: -ε_l z_{l-1}ᵀ = ∂F*/∂W_l, by automatic differentiation through S⁻¹."""
    matrices, x, y = random_case(depth=5, seed=3)

    def energy(ws):
        return equilibrium(ws, x, y).energy

    updates, _ = gradients(matrices, x, y, relaxed_rule)
    assert relative(updates, [-g for g in jax.grad(energy)(matrices)]) < 1e-10


@pytest.mark.parametrize("rule", ["bp", "pc"])
def test_first_order_alignment_matches_the_closed_form(rule):
    """jvp of the network along the rule's own gradient equals the closed-form output change."""
    matrices, x, y = random_case(depth=4, seed=5)
    net, params = chain(*matrices)
    make = relaxed_rule if rule == "pc" else lambda n: build(BP, n)
    gradient, *_ = make(net).gradient(params, (), as_batch(x, y), hyper(0.2, 0.7), None)
    descent = jax.tree.map(jnp.negative, gradient)
    change = first_order_change(lambda p: net.forward(p, x[None])[-1], params, descent)
    np.testing.assert_allclose(change[0], output_change(matrices, x, y, rule), atol=1e-10)


def test_downstream_maps_multiply_to_the_whole_network():
    matrices, x, _ = random_case(depth=4)
    maps = downstream(matrices)
    np.testing.assert_allclose(maps[0] @ matrices[0] @ x, forward(matrices, x)[-1], atol=1e-12)
