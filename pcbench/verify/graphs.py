"""Identities of predictive coding on graphs: its equations, its edges, its kin on layers."""

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Batch
from pcbench.algorithms.graph_pc import GraphPC
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import total
from pcbench.networks.network import Network
from pcbench.training.optimizers import adamw
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured
from pcbench.verify.problems import (
    ROUNDING,
    along,
    arrays,
    batch,
    build,
    compiled,
    compiled_forward,
    compiled_with_info,
    difference,
    directional,
    hyper,
    jit,
    largest,
    network,
    norm,
    relative,
    weights,
)

GRAPHS = "Salvatori et al. 2022, arXiv 2201.13180"
TOPOLOGIES = [("layered",), ("cyclic",), ("regions",), ("full",), ("sparse",)]


def _problem(topology: str) -> tuple[Network, tuple, Batch]:
    """A graph of 6 input, 15 hidden and 4 output nodes; its weights; a batch of five."""
    net = network("graph", topology=topology, width=5, regions=2, density=0.3)
    return net, weights(net), batch(net)


# --- its kin


@check(source=GRAPHS, algorithms=["graph_pc", "pc"], kind="identity")
def a_layered_graph_is_a_multilayer_perceptron() -> Measured:
    """Without errors of the input it predicts, and learns after any T, what PC does in an mlp of
    `pre` states with the same weights."""
    chain, net = network(states="pre"), network("graph", topology="layered")
    params, data, numbers = weights(chain), batch(chain), hyper(0.1, 0.3)
    mapped = ({"b": np.ones(6)}, *({f"W_{k}": p["W"], "b": p["b"]} for k, p in enumerate(params)))
    rule = build(GraphPC, net, steps=12, input_error=False)
    unused, *found = compiled(rule)(mapped, data, numbers)
    found = [{"W": own[f"W_{k}"], "b": own["b"]} for k, own in enumerate(found)]
    expected = list(compiled(build(PC, chain, steps=12))(params, data, numbers))
    outputs = relative(
        compiled_forward(net)(mapped, data.x)[-1], compiled_forward(chain)(params, data.x)[-1]
    )
    return Measured(max(relative(found, expected), outputs, largest(unused)), ROUNDING)


@check(source=GRAPHS, algorithms=["graph_pc", "pc"], kind="identity",
       cases=[("mlp", 4), ("resmlp", 8)])  # fmt: skip
def on_layers_it_is_predictive_coding(kind, depth) -> Measured:
    """In a chain, skips and a stack included, the gradient is PC's after any T."""
    net = network(kind, depth=depth)
    params, data, numbers = weights(net), batch(net), hyper(0.1, 0.3)
    found = compiled(build(GraphPC, net, steps=10))(params, data, numbers)
    expected = compiled(build(PC, net, steps=10))(params, data, numbers)
    return Measured(relative(found, expected), ROUNDING)


# --- its equations


@check(source=GRAPHS, algorithms=["graph_pc"], kind="identity",
       cases=[(t, e) for (t,) in TOPOLOGIES for e in (True, False)])  # fmt: skip
def nodes_and_edges_follow_the_published_equations(topology, input_error) -> Measured:
    """With one matrix θ of all nodes: v_i ← v_i - γ(ε_i - f'(v_i) Σ_k θ_ik ε_k) of hidden nodes, T
    times, then the gradient of θ_ij is -f(v_i) ε_j where there is an edge, and that of b_j -ε_j."""
    net, params, data = _problem(topology)
    rule, numbers = build(GraphPC, net, steps=7, input_error=input_error), hyper(0.1)
    theta, mask, bias, places = _matrix(net, params)
    hidden = slice(places[1], places[-2])
    forward = compiled_forward(net)(params, data.x)[1:-1]
    v = np.concatenate([data.x, *forward, data.target], 1)

    def f(v):
        squashed = v.copy()
        squashed[:, hidden] = np.tanh(v[:, hidden])
        return squashed

    def errors(v):
        found = v - f(v) @ theta - bias
        if not input_error:
            found[:, : places[1]] = 0
        return found

    for _ in range(7):
        e = errors(v)
        change = e - (1 - f(v) ** 2) * (e @ theta.T)
        v[:, hidden] -= 0.1 * change[:, hidden]
    e = errors(v)
    found = _matrix(net, compiled(rule)(params, data, numbers))
    expected = [-np.where(mask, f(v).T @ e, 0) / len(v), -e.mean(0)]
    return Measured(relative([found[0], found[2]], expected), ROUNDING)


def _matrix(net: Network, tree: tuple) -> tuple:
    """(θ (N, N), where it has edges, b (N,), the groups' bounds) from a tree like the weights."""
    places = np.cumsum([0, *(factor.module.features for factor in net.factors)])
    theta, bias = np.zeros((places[-1], places[-1])), np.zeros(places[-1])
    mask = np.zeros_like(theta, bool)
    for k, factor in enumerate(net.factors):
        columns = slice(places[k], places[k + 1])
        bias[columns] = tree[k]["b"]
        for edges in factor.module.edges:
            rows = slice(places[edges.source], places[edges.source + 1])
            theta[rows, columns] = tree[k][f"W_{edges.source}"]
            mask[rows, columns] = True if edges.mask is None else edges.mask
    return theta, mask, bias, places


@check(source=GRAPHS, algorithms=["graph_pc"], kind="identity", cases=TOPOLOGIES)
def weights_descend_the_energy_of_the_relaxed_nodes(topology) -> Measured:
    """⟨gradient, d⟩ is the derivative of the mean of E along d, the nodes held, by finite
    differences."""
    net, params, data = _problem(topology)
    rule, numbers = build(GraphPC, net, steps=7), hyper()
    found, info = compiled_with_info(rule)(params, data, numbers)
    value = jit(lambda w: total(rule.energies(w, info.states)) / len(data.x))
    slope, direction = directional(value, params)
    return Measured(abs(along(found, direction) / slope - 1), 1e-9)


@check(source=GRAPHS, algorithms=["graph_pc"], kind="bound", cases=TOPOLOGIES)
def relaxation_lowers_the_energy_of_a_graph(topology) -> Measured:
    """E falls at every step of a small size, loops or not. Measured: its largest rise."""
    net, params, data = _problem(topology)
    _, info = compiled_with_info(build(GraphPC, net, steps=40))(params, data, hyper(0.05))
    return Measured(max(0.0, float(np.diff(info.energy.sum(1)).max())), 0)


@check(source=GRAPHS, algorithms=["graph_pc"], kind="limit", cases=TOPOLOGIES)
def a_prediction_is_an_equilibrium(topology) -> Measured:
    """With the input held, hidden and output nodes end where no force is left; without cycles but
    those through the input, and without its errors, at the feed-forward pass. Measured: the force
    over that at zero states."""
    net, params, data = _problem(topology)
    choices = {"steps": 1, "eval_steps": 3000, "input_error": not net.acyclic}
    rule, numbers = build(GraphPC, net, **choices), hyper(0.1, 0.5)

    @jit
    def force(states):
        energy = lambda h: total(rule.energies(params, (data.x, *h)))  # noqa: E731
        return jax.grad(energy)(list(states[1:]))

    states = jit(lambda w: rule.states(w, data.x, numbers))(params)
    zeros = jax.tree.map(jnp.zeros_like, states)
    return Measured(norm(force(states)) / norm(force(zeros)), 1e-9)


# --- its edges


@check(source=GRAPHS, algorithms=["graph_pc"], kind="identity",
       cases=[("regions",), ("full",), ("sparse",)])  # fmt: skip
def absent_edges_stay_absent(topology) -> Measured:
    """Weights without an edge are drawn as 0, have no gradient and are 0 after five steps of
    AdamW. Measured: the largest of them."""
    net, params, data = _problem(topology)
    rule, numbers = build(GraphPC, net, optimizer=adamw, steps=3), hyper()
    numbers["optimizer"] |= {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1}
    state = jit(rule.init)(jax.random.key(0))
    step = jit(lambda s: rule.step(s, data, numbers, jax.random.key(0)))
    found = [arrays(state.params), compiled(rule)(params, data, numbers)]
    for _ in range(5):
        state = step(state)
    moved = norm(difference(state.params, found[0]))
    absent = [theta[~mask] for theta, mask, *_ in (_matrix(net, t) for t in (*found, state.params))]
    return Measured(largest(absent) if moved else np.inf, 0)
