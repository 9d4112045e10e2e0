"""The relaxation primitive: masks, windows, step sizes, noise, discount."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import batch, build, hyper, network, weights

from pcbench.algorithms.pc import PC
from pcbench.config.schema import OPTIMISERS
from pcbench.energies.energy import per_factor, prediction_energy, squared_error
from pcbench.relaxation.frontier import windows
from pcbench.relaxation.relax import relax
from pcbench.relaxation.updaters import gradient_updater


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def problem(net, given=None, **options):
    """(energies of the hidden states, their feed-forward start), of `given` weights and batch."""
    params, data = given or (weights(net), batch(net))
    forward = net.forward(params, data.x)

    def energies(hidden):
        states = (*hidden, data.target)
        predictions = net.predict(params, data.x, states)
        return prediction_energy(net, predictions, states, squared_error, **options)

    return energies, forward[:-1]


UPDATER = optax.chain(optax.trace(decay=0.5), optax.scale(-0.1))


def bowl(h):
    return (0.5 * jnp.sum(h**2, -1),)


def test_one_step_is_gradient_descent():
    energies, start = problem(network())
    gradient = jax.grad(lambda h: sum(e.sum() for e in energies(h)))(start)
    moved = relax(energies, start, steps=1, updater=gradient_updater("sgd", 0.1, 0.0)).states
    for before, after, g in zip(start, moved, gradient, strict=True):
        np.testing.assert_allclose(after, before - 0.1 * g, atol=1e-14)


@pytest.mark.parametrize("kind,depth", [("mlp", 5), ("resmlp", 9), ("mlp", 2)])
@pytest.mark.parametrize("steps", [1, 3, 12])
@pytest.mark.parametrize("updater", OPTIMISERS)
def test_skipping_what_is_zero_changes_no_state(kind, depth, steps, updater):
    """The windows of the frontier give the weight gradient of a plain relaxation.

    Linear, and of few binary digits: so errors that are zero are zero in floating point as well,
    whatever the compiler makes of the sums. Adam and its like magnify any other number.
    """
    states = "pre" if kind == "resmlp" else "post"
    net = network(kind, depth=depth, states=states, activation="identity")
    coarse = lambda t: jax.tree.map(lambda a: jnp.round(16 * a) / 16, t)  # noqa: E731
    params, data = coarse(weights(net)), batch(net)._replace(x=coarse(batch(net).x))
    energies, start = problem(net, (params, data))
    make = gradient_updater(updater, 0.1, 0.6)
    plain = relax(energies, start, steps=steps, updater=make).states

    def energy(w):
        states = (*plain, data.target)
        parts = prediction_energy(net, net.predict(w, data.x, states), states, squared_error)
        return sum(p.sum() for p in parts) / len(data.x)

    expected = jax.grad(energy)(params)
    rule = build(PC, net, steps=steps, updater=updater)
    gradient, *_ = rule.gradient(params, (), data, hyper(0.1, 0.6), None)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4, 7, 40])
@pytest.mark.parametrize("steps", [0, 1, 3, 39, 100])
def test_windows_cover_all_steps_and_free_a_state_before_an_error_arrives(depth, steps):
    net = network("mlp", width=3, depth=depth, widths=[3 + k % 2 for k in range(depth - 1)])
    done = 0
    for window in windows(net, steps):
        for step in range(done, done + window.steps):
            for distance, free in zip(net.distances, window.free, strict=True):
                assert free or distance == 0 or distance > step + 1
        done += window.steps
    assert done == steps


TWO_STACKS = {"widths": [8] * 7 + [5] * 9, "depth": 17}


@pytest.mark.parametrize(
    "kind,model", [("resmlp", {"depth": 9}), ("resmlp", {"depth": 45}), ("mlp", TWO_STACKS)]
)
@pytest.mark.parametrize("steps", [0, 1, 3, 20, 44, 70])
@pytest.mark.parametrize("output_free", [False, True])
def test_windows_compute_every_layer_of_a_stack_before_an_error_arrives(
    kind, model, steps, output_free
):
    """Layer n of a stack of N at distance d is at distance d + N - 1 - n; what is not computed lies
    further away than the error, and so does what a known prediction is made from."""
    net = network(kind, **model)
    done = 0
    for window in windows(net, steps, output_free):
        end = done + window.steps
        for k, factor in enumerate(net.factors):
            length = factor.length or 1
            distances = [net.distances[k] + output_free + length - 1 - n for n in range(length)]
            for n, distance in enumerate(distances):
                moves = window.free[k] and n >= window.first[k]
                assert moves or distance == 0 or distance > end
            assert 0 <= window.first[k] < length
            if k in window.known and window.first[k]:
                assert distances[window.first[k] - 1] > end
        done = end
    assert done == steps


LOWERED = {"step_discount": 0.5, "step_size": 0.9}
FAST = [(9, 1, {}), (45, 5, {}), (None, 50, LOWERED)]  # of all combinations
SLICED = [
    pytest.param(*network, steps, numbers, id=f"{depth or 'stacks'}-{steps}-{len(numbers)}",
                 marks=() if (depth, steps, numbers) in FAST else pytest.mark.slow)
    for depth, network in (
        (9, ("resmlp", {"depth": 9})), (45, ("resmlp", {"depth": 45})), (None, ("mlp", TWO_STACKS))
    )
    for steps in (1, 5, 50)
    for numbers in ({}, LOWERED)
]  # fmt: skip


@pytest.mark.parametrize("kind,model,steps,numbers", SLICED)
def test_slices_of_a_stack_relax_as_the_whole(kind, model, steps, numbers):
    """States, energies at every step and gradient, with precisions and with the step size lowered
    on the way, against a relaxation of all layers at once."""
    net = network(kind, states="pre", **model)
    precisions = jnp.linspace(0.5, 1.5, net.layers)
    energies, start = problem(net, precisions=per_factor(net, precisions))
    values = {"step_size": 0.1, "momentum": 0.6, "precisions": precisions} | numbers
    plain = relax(
        energies,
        start,
        steps=steps,
        updater=gradient_updater("sgd", values["step_size"], values["momentum"]),
        discount=values.get("step_discount"),
        trace=True,
    )
    rule = build(PC, net, steps=steps)
    gradient, _, info = rule.gradient(
        weights(net), (), batch(net), hyper(**values), None, measure=True
    )
    np.testing.assert_allclose(info.energy[:-1], plain.trace, atol=1e-13)
    params, data = weights(net), batch(net)
    states = (*plain.states, data.target)

    def energy(w):
        predictions = net.predict(w, data.x, states)
        parts = prediction_energy(
            net, predictions, states, squared_error, per_factor(net, precisions)
        )
        return sum(p.sum() for p in parts) / len(data.x)

    expected = jax.grad(energy)(params)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-13)


def test_the_program_of_a_stack_does_not_grow_with_its_depth():
    """Equal sizes at equally many windows, deeper stacks included that no error crosses."""

    def size(depth, steps):
        net = network("resmlp", states="pre", depth=depth)
        rule, data = build(PC, net, steps=steps), batch(net)
        state = jax.eval_shape(rule.init, jax.random.key(0))
        step = jax.jit(lambda s: rule.step(s, data, hyper(), None))
        return len(step.lower(state).as_text().splitlines())

    assert size(100, 100) == size(200, 200)
    assert size(100, 20) == size(200, 20)


def test_layers_beyond_the_reach_of_the_error_learn_nothing():
    """After T steps the error has crossed T layers: with T = 1 only the last two layers learn."""
    net = network(depth=5)
    rule = build(PC, net, steps=1)
    gradient, *_ = rule.gradient(weights(net), (), batch(net), hyper(), None)
    sizes = [float(jnp.abs(g["W"]).max()) for g in gradient]
    assert sizes[:3] == [0, 0, 0] and min(sizes[3:]) > 0


def test_clamped_states_and_values_do_not_move():
    energies, start = problem(network())
    half = jnp.broadcast_to(jnp.arange(8) < 4, start[1].shape)
    moved = relax(energies, start, steps=7, updater=UPDATER, free_mask=(False, half, True)).states
    assert (moved[0] == start[0]).all()
    assert (moved[1][:, 4:] == start[1][:, 4:]).all()
    assert (moved[1][:, :4] != start[1][:, :4]).any() and (moved[2] != start[2]).any()


def test_step_size_is_per_sample():
    """A sample relaxes the same alone as in a batch."""
    net = network()
    params, data = weights(net), batch(net)
    rule = build(PC, net, steps=6)
    whole, *_ = rule.gradient(params, (), data, hyper(), None)
    singles = [
        rule.gradient(params, (), data._replace(x=data.x[n : n + 1], target=data.target[n : n + 1]),
                      hyper(), None)[0]
        for n in range(5)
    ]  # fmt: skip
    mean = jax.tree.map(lambda *g: sum(g) / 5, *singles)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_a_relaxation_can_be_continued():
    energies, start = problem(network())
    whole = relax(energies, start, steps=9, updater=UPDATER, trace=True)
    first = relax(energies, start, steps=4, updater=UPDATER, trace=True)
    second = relax(energies, first.states, steps=5, updater=UPDATER, trace=True,
                   updater_state=first.updater_state)  # fmt: skip
    for a, b in zip(whole.states, second.states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)
    np.testing.assert_allclose(whole.trace, jnp.concatenate([first.trace, second.trace]))
    assert whole.trace.shape == (9, 4)


def test_discount_lowers_the_step_size_when_the_energy_does_not_fall():
    """On ½h² a step size of 2 swaps the sign and keeps the energy; halved, it lands on 0."""
    start = jnp.ones((1, 1))
    moved = relax(bowl, start, steps=3, updater=optax.sgd(2.0), discount=jnp.asarray(0.5))
    # energies before the steps: ½, ½, ½; halved after the second and after the third
    np.testing.assert_allclose(moved.states, 0.0, atol=1e-15)
    assert float(moved.updater_state.scale) == 0.25
    kept = relax(bowl, start, steps=3, updater=optax.sgd(2.0))
    np.testing.assert_allclose(kept.states, -1.0)


def test_langevin_noise_samples_the_gibbs_distribution():
    """On ½h² at temperature τ the stationary variance is τ/(1-γ/2); within four standard errors."""
    tau, gamma = 0.7, 0.2
    start = jnp.zeros((20000, 1))
    moved = relax(
        bowl,
        start,
        steps=60,
        updater=optax.sgd(gamma),
        noise=jnp.sqrt(2 * tau / gamma),
        key=jax.random.key(0),
    ).states
    expected = tau / (1 - gamma / 2)
    assert abs(float(jnp.var(moved)) - expected) < 4 * expected * (2 / 20000) ** 0.5


def test_precisions_weigh_the_layers():
    """A huge output precision turns the relaxed output prediction into the target."""
    net = network("linear", depth=3, bias=False)
    params, data = weights(net), batch(net)
    precisions = jnp.array([1.0, 1.0, 1e6])
    rule = build(PC, net, steps=20000)
    numbers = hyper(1e-7, 0.99, precisions=precisions)
    _, _, info = rule.gradient(params, (), data, numbers, None, measure=True)
    # the weighted output energy goes to zero like 1/precision; the hidden layers take the error
    assert float(info.energy[-1][-1]) < 1e-3 * float(info.energy[-1].sum())
