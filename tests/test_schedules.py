"""Schedules of the relaxation: their colours, and that all of them find the same states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, build, hyper, network, relative, weights

from pcbench.algorithms.base import Sizes, Unsupported
from pcbench.algorithms.chl import CHL
from pcbench.algorithms.ep import EP
from pcbench.algorithms.holomorphic_ep import HolomorphicEP
from pcbench.algorithms.pc import PC
from pcbench.networks.network import INPUT, Factor, Network
from pcbench.relaxation.schedules import SCHEDULES

RECURRENT = {"energy": "hopfield", "updater": "mirror", "start": "zeros"}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def layers(net, masks):
    """One boolean per layer, stacks unrolled."""
    flat = []
    for factor, mask in zip(net.factors, masks, strict=True):
        flat += list(np.broadcast_to(mask, factor.length or 1))
    return flat


def skipping(depth=5) -> Network:
    """A chain in which every second factor also reads the one two below."""
    module = network(depth=2).factors[0].module
    sources = [(INPUT,), *((k - 1, k - 2) if k % 2 == 0 else (k - 1,) for k in range(1, depth))]
    return Network(tuple(Factor(module, s) for s in sources), (8,))


@pytest.mark.parametrize("name", ["even_odd", "backward", "forward"])
@pytest.mark.parametrize("net", [network(depth=4), network(depth=9), skipping()])
def test_every_layer_has_one_colour_and_no_term_has_one_twice(name, net):
    colours = np.array([layers(net, colour) for colour in SCHEDULES[name](net)])
    assert (colours.sum(0) == 1).all()
    terms = []
    start = np.cumsum([0, *((f.length or 1) for f in net.factors)])
    for k, factor in enumerate(net.factors):
        sources = [start[s + 1] - 1 for s in factor.sources if s != INPUT]
        terms.append([start[k], *sources])
        terms += [[start[k] + n, start[k] + n - 1] for n in range(1, factor.length or 1)]
    colour_of = colours.argmax(0)
    for term in terms:
        assert all(colour_of[a] != colour_of[b] for a, b in itertools.combinations(term, 2))


def test_a_chain_has_two_colours_and_the_output_is_first():
    first, second = SCHEDULES["even_odd"](network(depth=9))
    assert layers(network(depth=9), first) == [True, False] * 4 + [True]
    assert layers(network(depth=9), second) == [False, True] * 4 + [False]
    assert len(SCHEDULES["even_odd"](skipping())) == 3


@pytest.mark.parametrize("schedule", ["sync", "even_odd", "backward", "forward"])
@pytest.mark.parametrize("depth", [3, 8])
def test_all_schedules_find_the_same_equilibrium(schedule, depth):
    """Depth 8 holds a stack: its layers take turns inside it."""
    net = network(depth=depth, activation="sigmoid")
    params, data = weights(net), batch(net)
    rule = build(EP, net, steps=80, free_steps=300, schedule=schedule, **RECURRENT)
    plain = build(EP, net, steps=80, free_steps=300, schedule="sync", **RECURRENT)
    numbers = hyper(beta=0.1)
    ours, *_ = rule.gradient(params, (), data, numbers, None)
    theirs, *_ = plain.gradient(params, (), data, numbers, None)
    assert relative(ours, theirs) < 1e-9


def test_a_backward_sweep_is_one_layer_after_the_other():
    """After one sweep from the output down every layer has seen the nudge, under sync only one."""
    net = network(depth=4, activation="sigmoid")
    params, data = weights(net), batch(net)
    moved = {}
    for schedule in ("sync", "backward"):
        options = {"energy": "fenchel_young", "updater": "mirror", "nudging": "positive"}
        rule = build(EP, net, steps=1, schedule=schedule, **options)
        gradient, *_ = rule.gradient(params, (), data, hyper(beta=0.1), None)
        moved[schedule] = [float(jnp.abs(g["W"]).max()) > 1e-12 for g in gradient]
    assert moved == {"sync": [False, False, False, True], "backward": [True] * 4}


@pytest.mark.parametrize("updater", ["mirror", "projected", "sgd"])
def test_updaters_agree_on_the_equilibrium(updater):
    """sigmoid's potential is smooth inside (0, 1): all of them solve h = σ(-∂(F-G))."""
    net = network(depth=3, activation="sigmoid")
    params, data = weights(net), batch(net)
    options = RECURRENT | {"updater": updater, "start": "feedforward"}
    rule = build(EP, net, steps=3000, free_steps=3000, **options)
    exact = build(EP, net, steps=200, free_steps=200, **RECURRENT)
    numbers = hyper(0.1, beta=0.1)
    ours, *_ = rule.gradient(params, (), data, numbers, None)
    theirs, *_ = exact.gradient(params, (), data, numbers, None)
    assert relative(ours, theirs) < 1e-8


@pytest.mark.parametrize("activation", ["hard_sigmoid", "relu", "hard_tanh"])
def test_projection_keeps_states_where_the_activation_can_put_them(activation):
    """Where σ clips, projected descent and mirror descent still share their fixed points."""
    net = network(depth=3, activation=activation)
    params, data = weights(net), batch(net)
    options = {"steps": 1500, "free_steps": 1500, "nudging": "positive"}
    numbers = hyper(0.2, beta=0.1)
    found = [
        build(EP, net, **options, **(RECURRENT | {"updater": u})).gradient(
            params, (), data, numbers, None
        )[0]
        for u in ("projected", "mirror")
    ]
    assert relative(*found) < 1e-8


def test_persistent_states_belong_to_samples_and_previous_ones_to_places():
    net = network(depth=3, activation="sigmoid")
    data = batch(net)
    rows = jnp.array([7, 2, 9, 0, 4])
    data = data._replace(index=rows)
    options = RECURRENT | {"steps": 3, "free_steps": 4}
    for start, size in (("persistent", 12), ("previous", 5)):
        rule = build(EP, net, **(options | {"start": start}), sizes=Sizes(12, 5))
        state = rule.init(jax.random.key(0))
        assert state.memory[0].shape == (size, 8)
        moved = rule.step(state, data, hyper(beta=0.1), jax.random.key(0))
        kept = moved.memory[0][rows] if start == "persistent" else moved.memory[0]
        assert (jnp.abs(kept).max(-1) > 0).all()
        if start == "persistent":
            others = np.setdiff1d(np.arange(12), rows)
            assert (moved.memory[0][others] == 0).all()
        # a second visit starts where the first one ended: the states are nearer the equilibrium
        again = rule.step(moved._replace(params=state.params), data, hyper(beta=0.1), None)
        exact = build(EP, net, **(options | {"free_steps": 400}))
        target = exact._free(state.params, data.x, exact._start(state.params, data.x), {}, 400)[0]
        second = again.memory[0][rows] if start == "persistent" else again.memory[0]
        assert jnp.abs(second - target).max() < 0.5 * jnp.abs(kept - target).max()


@pytest.mark.parametrize(
    "rule,kind,options,reason",
    [
        (CHL, {"activation": "gelu"}, RECURRENT, "monotone activation"),
        (EP, {"kind": "resmlp"}, RECURRENT, "with a skip"),
        (EP, {"states": "pre"}, RECURRENT, "states=pre"),
        (PC, {}, {"energy": "hopfield"}, "energy=pc"),
        (EP, {}, {"energy": "pc", "updater": "mirror"}, "potentials"),
        (EP, {}, {"energy": "pc", "start": "persistent"}, "forward pass"),
        (EP, {}, RECURRENT | {"nudging": "none"}, "nudging"),
        (HolomorphicEP, {"activation": "hard_sigmoid"}, RECURRENT, "analytic"),
        (HolomorphicEP, {}, RECURRENT | {"points": 3}, "even number"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_reason(rule, kind, options, reason):
    with pytest.raises(Unsupported, match=reason):
        build(rule, network(**kind), steps=1, **options)
