"""Rules that are exactly backpropagation or predictive coding: Z-IL, fixed prediction, ePC, iPC."""

from functools import cache
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.epc import EPC
from pcbench.algorithms.fixed_prediction import FixedPrediction
from pcbench.algorithms.ipc import IPC
from pcbench.algorithms.pc import PC
from pcbench.algorithms.zil import ZIL
from pcbench.energies.energy import prediction_energy, total
from pcbench.networks.activations import ACTIVATIONS
from pcbench.networks.convolution import Convolution, Join
from pcbench.networks.layers import Dense
from pcbench.networks.network import INPUT, Factor, Network
from pcbench.networks.recurrent import rnn
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import (
    ROUNDING,
    arrays,
    backpropagated,
    batch,
    build,
    compiled,
    compiled_forward,
    compiled_with_info,
    difference,
    hyper,
    jit,
    largest,
    network,
    relative,
    scaled,
    small,
    weights,
)

SALVATORI = "Salvatori et al. 2022, arXiv 2103.04689"
CONVOLUTIONS = "Salvatori et al. 2021, arXiv 2103.03725"
ZIL_2020 = "Song et al. 2020, NeurIPS 33"
ROSENBAUM = "Rosenbaum 2022, arXiv 2106.13082"
GOEMAERE = "Goemaere et al. 2025, arXiv 2505.20137"
INCREMENTAL = "Salvatori et al. 2024, arXiv 2212.00720"


def _case(name: str) -> Network:
    """Networks that the exact rules are tried on."""
    tanh = ACTIVATIONS["tanh"]
    if name == "convolutions":
        first = Convolution(3, "input", padding=1, pool=True, activation=tanh)
        second = Convolution(4, "hidden", activation=tanh)
        layers = (first, second, Dense(4, "output"))
        return Network(tuple(Factor(m, (k - 1,)) for k, m in enumerate(layers)), (6, 6, 2))
    if name == "residual":  # a block of two layers, its skip crosses two levels
        layer = Convolution(5, "hidden", size=1, activation=tanh)
        join = Join(5, "hidden", size=1, activation=tanh)
        factors = ((layer, (INPUT,)), (layer, (0,)), (join, (1, 0)), (Dense(4, "output"), (2,)))
        return Network(tuple(Factor(m, s) for m, s in factors), (1, 1, 6))
    if name == "levelled":  # the same, with an identity state where the skip crosses a level
        residual = _case("residual").factors
        identity = Convolution(5, "hidden", size=1, bias=False)
        factors = (
            *residual[:2],
            Factor(identity, (0,)),
            Factor(residual[2].module, (1, 2)),
            Factor(residual[3].module, (3,)),
        )
        return Network(factors, (1, 1, 6))
    if name == "recurrent":
        return rnn({"width": 8, "activation": "tanh", "bias": True}, (7, 3), 4)
    return {
        "mlp": lambda: network(depth=4),
        "pre": lambda: network(depth=4, states="pre"),
        "stack": lambda: network("resmlp", depth=8),
    }[name]()


def _problem(name: str):
    net = _case(name)
    return net, weights(net), batch(net)


def _layers(net: Network, gradient: tuple) -> list:
    """One pytree per layer, stacks unrolled, input to output."""
    found = []
    for factor, g in zip(net.factors, gradient, strict=True):
        if factor.length is None:
            found.append(g)
        else:
            found += [jax.tree.map(lambda a, n=n: a[n], g) for n in range(factor.length)]
    return found


def _worst_layer(net, ours, expected, factors) -> float:
    """The largest relative error of a layer's gradient against a multiple of the expected one."""
    pairs = zip(_layers(net, ours), _layers(net, expected), factors, strict=True)
    return max(relative(a, scaled(b, f)) for a, b, f in pairs)


# --- Z-IL


@check(source=f"{ZIL_2020}; {CONVOLUTIONS}; {SALVATORI}", algorithms=["zil", "bp"], kind="identity",
       cases=[("mlp", "squared_error"), ("mlp", "cross_entropy"), ("pre", "squared_error"),
              ("stack", "cross_entropy"), ("convolutions", "cross_entropy"),
              ("residual", "squared_error"), ("recurrent", "cross_entropy")])  # fmt: skip
def zero_divergence_learning_is_backpropagation(name, loss) -> Measured:
    """With γ = 1, Z-IL's gradient is that of backpropagation: in chains, stacks, convolutions with
    pooling, residual blocks, and through the steps of a recurrent network."""
    net, params, data = _problem(name)
    found = compiled(build(ZIL, net, loss))(params, data, hyper(1.0))
    return Measured(relative(found, backpropagated(net, params, data, loss)), ROUNDING)


@check(source=ZIL_2020, algorithms=["zil"], kind="identity", cases=[("mlp",), ("stack",)])
def another_rate_scales_layers_geometrically(name) -> Measured:
    """With rate γ layer l learns γ^(L-l) times backpropagation's gradient."""
    net, params, data = _problem(name)
    gamma, expected = 0.7, backpropagated(net, params, data)
    found = compiled(build(ZIL, net))(params, data, hyper(gamma))
    factors = [gamma**k for k in reversed(range(net.layers))]
    return Measured(_worst_layer(net, found, expected, factors), ROUNDING)


def _timed_relaxation(net: Network, params, data, gamma, rate, levels):
    """Z-IL as published: synchronous relaxation of all states at rate γ from the forward pass, in
    which the layers at level t learn at step t; `rate` moves their weights at once."""
    rule = build(ZIL, net)

    def energies(hidden, w):
        states = (*hidden, data.target)
        predictions = net.predict(w, data.x, states)
        return total(prediction_energy(net, predictions, states, rule.loss))

    slopes = jit(jax.grad(energies, (0, 1)))
    hidden = compiled_forward(net)(params, data.x)[:-1]
    w, learned = params, [None] * len(params)
    for t in range(max(levels) + 1):
        of_states, of_weights = arrays(slopes(hidden, w))
        now = [k for k, level in enumerate(levels) if level == t]
        for k in now:
            learned[k] = scaled(of_weights[k], 1 / len(data.x))
        hidden = difference(hidden, scaled(of_states, gamma))
        w = tuple(
            difference(p, scaled(learned[k], rate)) if k in now else p for k, p in enumerate(w)
        )
    return tuple(learned)


@check(source=ZIL_2020, algorithms=["zil"], kind="identity",
       cases=[("mlp", 0.0), ("mlp", 0.5), ("convolutions", 0.0), ("pre", 0.5)])  # fmt: skip
def the_front_is_the_relaxation_with_timed_updates(name, rate) -> Measured:
    """The layer at the error's front learns the same as in a full synchronous relaxation at rate γ
    in which layer L-t learns at step t, whether or not its weights move at once (by `rate`)."""
    net, params, data = _problem(name)
    worst_case = 0.0
    for gamma in (1.0, 0.7):
        found = compiled(build(ZIL, net))(params, data, hyper(gamma))
        levels = list(reversed(range(net.layers)))
        timed = _timed_relaxation(net, params, data, gamma, rate, levels)
        worst_case = max(worst_case, relative(found, timed))
    return Measured(worst_case, ROUNDING)


@check(source=SALVATORI, algorithms=["zil"], kind="identity", cases=[(1.0,), (0.7,)])
def skips_are_levelled_with_identity_states(gamma) -> Measured:
    """A skip over two levels learns as in the graph with an identity state in between, relaxed
    literally: its error is multiplied by γ for every level it crosses."""
    net, params, data = _problem("residual")
    found = compiled(build(ZIL, net))(params, data, hyper(gamma))
    levelled = _case("levelled")
    unit = {"W": np.eye(5)[None, None]}
    wide = (*params[:2], unit, *params[2:])
    timed = _timed_relaxation(levelled, wide, data, gamma, 0.0, [3, 2, 2, 1, 0])
    return Measured(relative(found, (*timed[:2], *timed[3:])), ROUNDING)


@check(source=CONVOLUTIONS, algorithms=["zil", "bp"], kind="identity", cases=[(1.0,), (0.7,)])
def recurrent_weights_learn_the_sum_over_steps(gamma) -> Measured:
    """Z-IL through T steps of time is Z-IL in a chain of T layers with the same weights, each of
    which also reads its own step: of W_h, W_x and b, the sum over these layers. With γ = 1 this is
    what differentiating the recurrence, written out, gives."""
    net, params, data = _problem("recurrent")
    found = compiled(build(ZIL, net))(params, data, hyper(gamma))
    steps, (cell, output) = data.x.shape[1], params

    def loss(per_step):
        """With weights of its own for each step."""
        h = jnp.zeros((len(data.x), 8))
        for t, w in enumerate(per_step):
            h = jnp.tanh(h @ w["W_h"] + data.x[:, t] @ w["W_x"] + w["b"])
        return jnp.mean(jnp.sum((h @ output["W"] + output["b"] - data.target) ** 2, -1)) / 2

    each = arrays(jit(jax.grad(loss))([cell] * steps))
    weighed = [scaled(g, gamma ** (steps - t)) for t, g in enumerate(each)]
    return Measured(relative(found[0], jax.tree.map(lambda *g: sum(g), *weighed)), ROUNDING)


# --- fixed predictions


def _binomial_tail(trials: int, chance: float, least: int) -> float:
    """P[Binomial(trials, chance) ≥ least]."""
    terms = range(least, trials + 1)
    return sum(comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in terms)


@check(source=ROSENBAUM, algorithms=["fixed_prediction"], kind="identity",
       cases=[("mlp", 3), ("mlp", 20), ("stack", 9), ("convolutions", 5)])  # fmt: skip
def fixed_predictions_follow_a_binomial_law(name, steps) -> Measured:
    """After T sweeps at rate γ layer l has P[Binomial(T - 1, γ) ≥ L - l] times backpropagation's
    gradient, in any chain; none where T - 1 < L - l."""
    net, params, data = _problem(name)
    gamma, expected = 0.3, backpropagated(net, params, data)
    found = compiled(build(FixedPrediction, net, steps=steps))(params, data, hyper(gamma))
    factors = [_binomial_tail(steps - 1, gamma, k) for k in reversed(range(net.layers))]
    reached = [f for f in factors if f > 0]
    ours, theirs = _layers(net, found), _layers(net, expected)
    count = len(reached)
    triples = zip(ours[-count:], theirs[-count:], reached, strict=True)
    error = max(relative(a, scaled(b, f)) for a, b, f in triples)
    return Measured(max(error, largest(ours[:-count])), ROUNDING)


@check(source=ROSENBAUM, algorithms=["fixed_prediction"], kind="identity")
def the_published_defaults_weigh_layers_as_computed() -> Measured:
    """Rate 0.1 and 20 sweeps: 1, .864915, .579735, .294555, .114998 times backpropagation's
    gradient, from the output down (to half a unit of the sixth digit)."""
    net = network(depth=5)
    params, data = weights(net), batch(net)
    found = compiled(build(FixedPrediction, net, steps=20))(params, data, hyper(0.1))
    expected = backpropagated(net, params, data)
    factors = [0.114998, 0.294555, 0.579735, 0.864915, 1.0]
    pairs = [(a["W"], b["W"]) for a, b in zip(found, expected, strict=True)]
    ratios = [np.vdot(a, b) / np.vdot(b, b) for a, b in pairs]
    return Measured(largest(np.array(ratios) - factors), 6e-7)


@check(source=ROSENBAUM, algorithms=["fixed_prediction", "bp"], kind="identity",
       cases=[("squared_error",), ("cross_entropy",)])  # fmt: skip
def at_rate_one_as_many_sweeps_as_layers_are_exact(loss) -> Measured:
    """γ = 1, T ≥ L: the gradient is backpropagation's. T = L - 1: the first layer's is zero and all
    others are exact."""
    net, params, data = _problem("mlp")
    expected, error = backpropagated(net, params, data, loss), 0.0
    for steps in (4, 7):
        rule = build(FixedPrediction, net, loss, steps=steps)
        error = max(error, relative(compiled(rule)(params, data, hyper(1.0)), expected))
    short = compiled(build(FixedPrediction, net, loss, steps=3))(params, data, hyper(1.0))
    return Measured(max(error, largest(short[0]), relative(short[1:], expected[1:])), ROUNDING)


# --- errors instead of states


@check(source=GOEMAERE, algorithms=["epc", "pc"], kind="identity",
       cases=[("squared_error",), ("cross_entropy",)])  # fmt: skip
def errors_and_states_share_their_equilibrium(loss) -> Measured:
    """ePC and PC, each relaxed to rounding: the same energy and the same gradient."""
    net, params, data = small()
    epc = compiled_with_info(build(EPC, net, loss, steps=400))
    pc = compiled_with_info(build(PC, net, loss, steps=800))
    ours, info = epc(params, data, hyper(0.3, 0.3))
    theirs, other = pc(params, data, hyper(0.3, 0.3))
    energy = abs(float(info.energy_relaxed / other.energy_relaxed) - 1)
    return Measured(max(relative(ours, theirs), energy), ROUNDING)


@check(source=GOEMAERE, algorithms=["epc"], kind="identity")
def a_stack_of_errors_is_relaxed_as_single_layers_are() -> Measured:
    """In a residual stack, ePC and PC reach the same gradient, too."""
    net, params, data = _problem("stack")
    params = scaled(params, 0.7)
    ours = compiled(build(EPC, net, steps=1500))(params, data, hyper(0.05, 0.7))
    theirs = compiled(build(PC, net, steps=3000))(params, data, hyper(0.1, 0.9))
    return Measured(relative(ours, theirs), 1e-11)


@check(source=GOEMAERE, algorithms=["epc"], kind="slope")
def one_step_of_errors_reaches_every_layer() -> Measured:
    """After a single step of size γ every hidden layer's gradient is γ times backpropagation's plus
    O(γ²), however deep."""
    net, params, data = _problem("mlp")
    rule, expected = build(EPC, net, steps=1), backpropagated(net, params, data)
    gammas, errors = (1e-2, 1e-3, 1e-4), []
    for gamma in gammas:
        found = compiled(rule)(params, data, hyper(gamma))
        errors.append(_worst_layer(net, found, expected, [gamma] * 3 + [1.0]))
    return order(gammas, errors, 1)


# --- states and weights together


@cache
def _compiled_step(rule):
    def step(params, data, numbers):
        state = rule.init(jax.random.key(0))._replace(params=params)
        return rule.step(state, data, numbers, None).params

    return jit(step)


def _change(rule, params, data, numbers):
    """The weights after one step, minus those before."""
    return difference(_compiled_step(rule)(params, data, numbers), params)


@check(source=INCREMENTAL, algorithms=["ipc", "pc"], kind="identity",
       cases=[("mlp", "warmup"), ("mlp", "interval"), ("stack", "warmup")])  # fmt: skip
def one_weight_update_after_a_warmup_is_predictive_coding(name, how) -> Measured:
    """iPC with T + 1 steps of which only the last moves the weights, by T steps of warm-up or by
    an interval of T + 1, makes the weights of PC with T steps."""
    net, params, data = _problem(name)
    steps, numbers = 6, hyper(0.1, 0.5, lr=0.2)
    choices = {"warmup": steps} if how == "warmup" else {"interval": steps + 1}
    ours = _change(build(IPC, net, steps=steps + 1, **choices), params, data, numbers)
    theirs = _change(build(PC, net, steps=steps), params, data, numbers)
    return Measured(relative(ours, theirs), ROUNDING)


@check(source=INCREMENTAL, algorithms=["ipc"], kind="slope")
def slow_weights_sum_the_gradients_along_the_way() -> Measured:
    """As the learning rate α → 0, iPC's change over α is the sum of PC's gradients after 0 … T - 1
    steps, plus O(α)."""
    net, params, data = _problem("mlp")
    parts = [compiled(build(PC, net, steps=t))(params, data, hyper(0.2)) for t in range(3)]
    expected = jax.tree.map(lambda *g: -sum(g), *parts)
    rates, errors, rule = (1e-2, 1e-3, 1e-4), [], build(IPC, net, steps=3)
    for rate in rates:
        change = _change(rule, params, data, hyper(0.2, lr=rate))
        errors.append(relative(scaled(change, 1 / rate), expected))
    return order(rates, errors, 1)
