"""Graphs: which nodes are joined, what is refused, what can be asked. The identities are in
`pcbench verify`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import batch, build, hyper, jit, network, relative, weights

from pcbench.algorithms.base import Trained, Unsupported
from pcbench.algorithms.graph_pc import GraphPC
from pcbench.config import ConfigError
from pcbench.data.dataset import Facts
from pcbench.networks.layers import Declared
from pcbench.networks.parameterisations import mup, tabulate
from pcbench.sweeps.expand import single
from pcbench.training.assembly import assemble

TOPOLOGIES = ["layered", "cyclic", "regions", "full", "sparse"]
SETTINGS = {"width": 6, "depth": 3, "regions": 3, "density": 0.3}


def graph(topology, **model):
    return network("graph", topology=topology, **(SETTINGS | model))


def edges(net):
    """Edges between nodes, and how many there could be, without self-loops."""
    nodes = sum(factor.module.features for factor in net.factors)
    return sum(e.count for f in net.factors for e in f.module.edges), nodes * (nodes - 1)


# --- which nodes are joined


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_has_the_same_nodes(topology):
    sizes = [factor.module.features for factor in graph(topology).factors]
    assert (sizes[0], sum(sizes[1:-1]), sizes[-1]) == (6, 12, 4)


def test_edges_are_those_of_the_topology():
    for topology, expected in {
        "layered": 6 * 6 + 6 * 6 + 6 * 4,
        "cyclic": 6 * 6 + 6 * 6 + 6 * 4 + 6 * 6,
        "regions": 2 * (6 * 4 + 4 * 4 + 4 * 4 + 4 * 4) + 3 * 4 * 3,
        "full": 22 * 21,
    }.items():
        assert edges(graph(topology))[0] == expected, topology
    count, all_of_them = edges(graph("sparse", width=50))
    deviation = np.sqrt(0.3 * 0.7 / all_of_them)  # of the share of independent draws
    assert abs(count / all_of_them - 0.3) < 4 * deviation


def test_a_node_has_no_edge_to_itself():
    for topology in ("regions", "full", "sparse"):
        for k, factor in enumerate(graph(topology).factors):
            for own in factor.module.edges:
                assert own.source != k or not own.mask.diagonal().any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_fan_in_is_the_number_of_edges_to_a_node(topology):
    net = graph(topology)
    for factor, declared in zip(net.factors, net.declared, strict=True):
        leaves = jax.tree.leaves(declared, is_leaf=lambda d: isinstance(d, Declared))
        mean = sum(e.count for e in factor.module.edges) / factor.module.features
        assert all(d.kind == "bias" or abs(d.fan_in - mean) <= 0.5 for d in leaves)


def test_layers_are_scaled_as_those_of_an_mlp():
    chain, net = network(depth=3, width=6), graph("layered")
    expected, found = tabulate(mup(), chain, 1.3), tabulate(mup(), net, 1.3)
    for ours, theirs in zip(found, expected, strict=True):
        for k, row in enumerate(theirs):
            assert ours[k + 1] == {f"W_{k}": row["W"], "b": row["b"]}


def test_more_regions_than_hidden_nodes_are_an_error():
    with pytest.raises(ValueError, match="12 hidden nodes"):
        graph("regions", regions=13)


# --- what is refused


def test_other_rules_refuse_a_graph_before_anything_is_compiled():
    with pytest.raises(ConfigError, match="algorithm=graph_pc"):
        assemble(single(["algorithm=pc", "model=graph"]), Facts((6,), 100, 0, 4, 1), 9)


@pytest.mark.parametrize("loss,start", [("cross_entropy", "zeros"), ("squared_error", "previous")])
def test_what_makes_no_sense_on_a_graph_is_unsupported(loss, start):
    with pytest.raises(Unsupported):
        build(GraphPC, graph("cyclic"), loss, steps=2, start=start)


# --- what can be asked


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_known_inputs_stay_and_the_others_move(topology, float64):
    """A completion keeps what is known; of an input that is all known nothing changes."""
    net = graph(topology)
    rule, data = build(GraphPC, net, steps=2, eval_steps=5), batch(net)
    trained, known = Trained(weights(net), ()), np.arange(6) < 3
    known = np.tile(known, (len(data.x), 1))

    @jit
    def completed(known):
        return rule.complete(trained, data.x, known, hyper(), jax.random.key(0))

    found = completed(known)
    np.testing.assert_array_equal(found[known], data.x[known])
    assert (np.abs(found - data.x)[~known] > 0).all()
    np.testing.assert_array_equal(completed(np.ones_like(known)), data.x)


def test_what_is_hidden_from_a_completion_has_no_influence(float64):
    net = graph("cyclic")
    rule, data = build(GraphPC, net, steps=2, eval_steps=5), batch(net)
    trained, known = Trained(weights(net), ()), np.tile(np.arange(6) < 3, (len(data.x), 1))

    @jit
    def completed(x):
        return rule.complete(trained, x, known, hyper(), jax.random.key(0))

    np.testing.assert_array_equal(completed(data.x), completed(jnp.where(known, data.x, 7.0)))


def test_an_input_that_only_its_bias_predicts_is_completed_by_it(float64):
    """Of a layered graph whose first weights are 0, unknown inputs are independent of all others:
    they relax to their bias, known ones or the output notwithstanding."""
    net = graph("layered")
    rule, data = build(GraphPC, net, steps=2, eval_steps=400), batch(net)
    params = list(weights(net))
    params[1] = params[1] | {"W_0": jnp.zeros((6, 6))}
    trained = Trained(tuple(params), ())
    made = jit(lambda y: rule.generate(trained, y, hyper(), jax.random.key(0)))(data.target)
    assert relative(made, jnp.broadcast_to(params[0]["b"], made.shape)) < 1e-12


@pytest.mark.parametrize("topology", ["regions", "sparse"])
def test_a_vmapped_pack_of_graphs_equals_single_steps(topology):
    """The contract of a rule, on a graph with masks and cycles."""
    net = graph(topology)
    rule, data = build(GraphPC, net, steps=3, eval_steps=3), batch(net)
    states = [rule.init(jax.random.key(seed)) for seed in range(2)]
    step = jit(lambda s: rule.step(s, data, hyper(), jax.random.key(0)).params)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    packed = jit(jax.vmap(lambda s: rule.step(s, data, hyper(), jax.random.key(0)).params))(stacked)
    singles = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(step, states))
    assert relative(packed, singles) < 1e-5


def test_learning_lowers_the_energy_and_the_loss():
    """Of a graph with cycles, whose prediction is relaxed."""
    net = graph("regions")
    rule, data = build(GraphPC, net, steps=20, eval_steps=100), batch(net)
    numbers, state = hyper(lr=0.05), rule.init(jax.random.key(0))
    step = jit(lambda s: rule.observe(s, data, numbers, jax.random.key(0))[1:])
    loss = jit(lambda s: jnp.mean(rule.loss(rule.predict(s.params, data.x, numbers), data.target)))
    before, energies = loss(state), []
    for _ in range(50):
        info, state = step(state)
        energies.append(float(info.energy_relaxed))
    assert energies[-1] < energies[0] and loss(state) < before
