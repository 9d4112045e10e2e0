"""Identities of bidirectional predictive coding: its equations, its limits, what it generates."""

import jax
import numpy as np

from pcbench.algorithms.base import OwnWeights, Trained
from pcbench.algorithms.bpc import BPC, as_factors, as_layers
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import squared_error, total
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import (
    ROUNDING,
    along,
    arrays,
    as_batch,
    batch,
    build,
    compiled,
    directional,
    hyper,
    jit,
    network,
    relative,
    scaled,
    weights,
)

OLIVIERS = "Oliviers, Tang & Bogacz 2025, arXiv 2505.23415"
TSCHANTZ = "Tschantz et al. 2023, PLOS Computational Biology 19(8)"
KINDS = [("post",), ("pre",), ("stack",)]
STEPS = 6


def problem(kind, loss="squared_error", **choices):
    """(rule, weights V and W, batch) of a tanh network: 6-8-7-4, or of nine layers with a stack."""
    model = {"states": "pre", "depth": 9} if kind == "stack" else {
        "states": kind, "depth": 3, "widths": [8, 7]
    }  # fmt: skip
    net = network(**model)
    rule = build(BPC, net, loss, **({"steps": STEPS} | choices))
    return rule, weights(net), weights(rule.top_down.network, seed=3), batch(net)


def numbers(a_disc, a_gen, step_size=0.1, momentum=0.3):
    return hyper(step_size, momentum, discriminative_weight=a_disc, generative_weight=a_gen)


def gradients(rule, v, w, data, hyper):
    """(of V, of W)."""
    return arrays(jit(lambda *args: rule.gradients(*args)[0])(v, w, data, hyper))


def relaxed(rule, v, w, data, hyper) -> list:
    """The nodes that `gradients` differentiates at."""
    info = jit(lambda *args: rule.gradients(*args, measure=True)[1])(v, w, data, hyper)
    return [data.x, *as_layers(rule.network, info.states)]


@check(source=OLIVIERS, algorithms=["bpc"], kind="identity", cases=[("relu",), ("tanh",)])
def bidirectional_learning_follows_the_published_equations(activation) -> Measured:
    """ε_l = a_gen(x_l - W f(x_{l+1})) and δ_l = a_disc(x_l - V f(x_{l-1})): the states move by
    f'(x_l)(Wᵀε_{l-1} + Vᵀδ_{l+1}) - ε_l - δ_l, W by ε_l f(x_{l+1})ᵀ, V by δ_l f(x_{l-1})ᵀ. Written
    out in numpy, without biases."""
    net = network(states="pre", depth=4, widths=[8, 7, 5], activation=activation, bias=False)
    rule = build(BPC, net, steps=STEPS)
    v, w, data = weights(net), weights(rule.top_down.network, seed=3), batch(net)
    a_disc, a_gen, gamma = 0.8, 0.3, 0.1
    f = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[activation]
    slope = {"relu": lambda x: (x > 0) * 1.0, "tanh": lambda x: 1 - np.tanh(x) ** 2}[activation]
    up = [np.asarray(p["W"]) for p in v]  # from x_l to x_{l+1}
    down = [np.asarray(p["W"]) for p in reversed(w)]  # from x_{l+1} to x_l
    last = len(up)

    def fired(n):
        return x[n] if n in (0, last) else f(x[n])

    def errors():
        """(ε of x_0 …, δ of x_1 …)."""
        above = [a_gen * (x[n] - fired(n + 1) @ down[n]) for n in range(last)]
        below = [a_disc * (x[n + 1] - fired(n) @ up[n]) for n in range(last)]
        return above, below

    x = [np.asarray(data.x)]
    for n in range(last):
        x.append(fired(n) @ up[n])
    x[last] = np.asarray(data.target)
    for _ in range(STEPS):
        above, below = errors()
        for n in range(1, last):
            back = above[n - 1] @ down[n - 1].T + below[n] @ up[n].T
            x[n] = x[n] + gamma * (slope(x[n]) * back - above[n] - below[n - 1])
    above, below = errors()
    for_v = [{"W": -fired(n).T @ below[n] / len(x[0])} for n in range(last)]
    for_w = [{"W": -fired(n + 1).T @ above[n] / len(x[0])} for n in reversed(range(last))]
    found = gradients(rule, v, w, data, numbers(a_disc, a_gen, gamma, 0.0))
    return Measured(relative(found, (tuple(for_v), tuple(for_w))), ROUNDING)


@check(source=OLIVIERS, algorithms=["bpc"], kind="identity", cases=KINDS)
def both_weights_descend_the_energy_at_the_relaxed_states(kind) -> Measured:
    """⟨gradient of V and W, d⟩ is the derivative of mean_B E along d, the states held where they
    relaxed to; by finite differences."""
    rule, v, w, data = problem(kind)
    hyper = numbers(1.0, 0.3)
    nodes = relaxed(rule, v, w, data, hyper)

    @jit
    def energy(both):
        return total(rule.energies(*both, nodes, hyper["algorithm"])) / len(data.x)

    slope, direction = directional(energy, arrays((v, w)))
    found = gradients(rule, v, w, data, hyper)
    return Measured(abs(along(found, direction) / slope - 1), 1e-9)


@check(source=OLIVIERS, algorithms=["bpc"], kind="bound", cases=[(1.0, 0.3), (1e-3, 1.0)])
def bidirectional_relaxation_lowers_the_energy(a_disc, a_gen) -> Measured:
    """At every step of a small size. Measured: the largest ratio of E after a step to E before."""
    rule, v, w, data = problem("pre", steps=30)
    hyper = numbers(a_disc, a_gen, momentum=0.0)
    info = jit(lambda *args: rule.gradients(*args, measure=True)[1])(v, w, data, hyper)
    energy = np.asarray(info.energy).sum(1)
    return Measured(float(np.max(energy[1:] / energy[:-1])), 1.0)


# --- limits


@check(source=OLIVIERS, algorithms=["bpc", "pc"], kind="identity",
       cases=[("post", "squared_error"), ("pre", "cross_entropy"),
              ("stack", "squared_error")])  # fmt: skip
def without_top_down_errors_it_is_predictive_coding(kind, loss) -> Measured:
    """a_gen = 0: V has the gradient of predictive coding after any T, whatever W is."""
    rule, v, w, data = problem(kind, loss)
    found = gradients(rule, v, w, data, numbers(1.0, 0.0))[0]
    expected = compiled(build(PC, rule.network, loss, steps=STEPS))(v, data, numbers(1.0, 0.0))
    return Measured(relative(found, expected), ROUNDING)


@check(source=OLIVIERS, algorithms=["bpc", "pc"], kind="identity", cases=KINDS)
def without_bottom_up_errors_it_is_generative_predictive_coding(kind) -> Measured:
    """a_disc = 0: W has the gradient of predictive coding in the mirrored network, with the label
    as input and the input as output, after any T. V = 0 starts the states at zero, as there."""
    rule, v, w, data = problem(kind)
    hyper = numbers(0.0, 1.0)
    found = gradients(rule, scaled(v, 0.0), w, data, hyper)[1]
    generative = build(PC, rule.top_down.network, steps=STEPS, start="zeros")
    expected = compiled(generative)(w, as_batch(data.target, data.x), hyper)
    return Measured(relative(found, expected), ROUNDING)


@check(source=TSCHANTZ, algorithms=["bpc"], kind="slope")
def with_weak_bottom_up_errors_it_is_hybrid_predictive_coding() -> Measured:
    """a_disc → 0: V's gradient over a_disc is that of a regression onto the states that W's
    generative inference ends in, from V's own sweep; the slope of the error is one."""
    rule, v, w, data = problem("pre", steps=40)
    nodes = relaxed(rule, v, w, data, numbers(0.0, 1.0))
    above = as_factors(rule.network, nodes[1:])

    def regression(v):
        predictions = rule.network.predict(v, data.x, above)
        errors = [squared_error(p, h) for p, h in zip(predictions, above, strict=True)]
        return total(errors) / len(data.x)

    expected = arrays(jit(jax.grad(regression))(v))
    strengths, errors = (1e-2, 1e-3, 1e-4), []
    for a_disc in strengths:
        found = gradients(rule, v, w, data, numbers(a_disc, 1.0))[0]
        errors.append(relative(scaled(found, 1 / a_disc), expected))
    return order(strengths, errors, 1)


# --- what it is asked for


@check(source=OLIVIERS, algorithms=["bpc"], kind="identity", cases=KINDS)
def the_top_down_sweep_is_what_generative_inference_finds(kind) -> Measured:
    """a_disc = 0, label clamped, all else free: E is zero at the top-down sweep, and inference from
    the nodes of another input comes back to it."""
    rule, v, w, data = problem(kind, eval_steps=10)
    hyper, steps = numbers(0.0, 1.0, 0.3), 1500
    trained = Trained(v, OwnWeights(w, ()))

    @jit
    def both(trained, data, hyper):
        swept = rule.generate(trained, data.target, hyper, None)
        nodes = [data.x, *as_layers(rule.network, rule.network.forward(v, data.x))]
        nodes[-1] = data.target
        found = rule.relax(v, w, nodes, hyper["algorithm"], steps, free=(True, False))
        return swept, found.states[0], rule.top_down.network.forward(w, data.target)[-1]

    swept, found, expected = arrays(both(trained, data, hyper))
    return Measured(max(relative(swept, expected), relative(found, expected)), ROUNDING)


@check(source=OLIVIERS, algorithms=["bpc"], kind="identity", cases=KINDS)
def without_top_down_errors_inference_is_the_bottom_up_sweep(kind) -> Measured:
    """a_gen = 0, input clamped, label free: E is zero at the bottom-up sweep, and inference stays
    there; with a_gen > 0 it does not."""
    rule, v, w, data = problem(kind, eval_steps=10)
    trained = Trained(v, OwnWeights(w, ()))
    infer = jit(lambda hyper: rule.infer(trained, data.x, hyper))
    expected = rule.predict(v, data.x, {})
    stays = relative(infer(numbers(1.0, 0.0)), expected)
    moves = relative(infer(numbers(1.0, 0.3)), expected)
    return Measured(stays if moves > 1e-3 else np.inf, ROUNDING)
