"""Target propagation: what its targets are, and what its feedback weights learn.

The computations are meant for float64.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pcbench.algorithms.ddtp import DDTP, gauss_newton_targets
from pcbench.algorithms.dfa import DFA
from pcbench.algorithms.dtp import DTP
from pcbench.algorithms.ldrl import LDRL
from pcbench.algorithms.target_propagation import Feedback, Layerwise, layer_inputs
from pcbench.networks.activations import Activation
from pcbench.networks.layers import Dense
from pcbench.networks.network import Factor, Network
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import (
    ROUNDING,
    arrays,
    backpropagated,
    batch,
    build,
    compiled_forward,
    difference,
    jit,
    network,
    relative,
    scaled,
    weights,
)

LEE = "Lee et al. 2015, arXiv 1412.7525"
MEULEMANS = "Meulemans et al. 2020, arXiv 2006.14331"
ERNOULT = "Ernoult et al. 2022, arXiv 2201.13415"
NOKLAND = "Nøkland 2016, arXiv 1609.01596"

NUMBERS = {
    "target_step": 0.3,
    "feedback_lr": 0.01,
    "feedback_noise": 0.3,
    "feedback_weight_decay": 0.2,
}
SIGMA, DECAY = NUMBERS["feedback_noise"], NUMBERS["feedback_weight_decay"]
ARCSINH = Activation("arcsinh", jnp.arcsinh)  # smooth, and invertible everywhere

# --- rules whose feedback is given


def gradient(rule, params, feedback, data):
    memory, hyper = Feedback(feedback, ()), {"algorithm": NUMBERS}
    return jax.jit(rule.gradient)(params, memory, data, hyper, None)[0]


class PerfectInverse(DTP):
    """g_l is a right inverse of f_l: f_l(g_l(t)) = t. Its feedback weights are the layer's own."""

    def g(self, k):
        invert = jnp.sinh if self.network.factors[k].activation is ARCSINH else lambda t: t

        def g(q, t):
            return (invert(t) - q["b"]) @ jnp.linalg.pinv(q["W"])

        return g


class Transposed(Layerwise):
    """g_l(t) = J_fᵀ t, J_f at the states; feedback weights are (the layer's own, its source)."""

    def g(self, k):
        factor = self.network.factors[k]

        def g(q, t):
            params, source = q
            return jax.vjp(lambda h: factor.apply(params, h), source)[1](t)[0]

        return g

    def feedback_at(self, params, x, states):
        inputs = (layer_inputs(self.network, k, x, states) for k in range(len(states)))
        return tuple(zip(params, inputs, strict=True))


def _invertible(widths) -> Network:
    """Layers with right inverses (none is wider than the one before), linear at the output."""
    layers = [Dense(n, "hidden", ARCSINH) for n in widths[1:-1]] + [Dense(widths[-1], "output")]
    factors = tuple(Factor(layer, (k - 1,)) for k, layer in enumerate(layers))
    return Network(factors, (widths[0],))


def _inverse_problem(widths):
    """(rule, weights, batch, states) of perfect inverses."""
    net = _invertible(widths)
    params, data = weights(net), batch(net, outputs=widths[-1])
    return build(PerfectInverse, net), params, data, compiled_forward(net)(params, data.x)


# --- targets


@check(source=f"{LEE}; {MEULEMANS}", algorithms=["dtp"], kind="identity")
def perfect_inverse_targets_hit_the_output_target() -> Measured:
    """Where f_l(g_l(t)) = t, the forward pass from the first layer's target ends at t_L: for any η,
    and whatever g_l(f_l(h)) is."""
    rule, params, data, states = _inverse_problem([8, 8, 7, 5, 4])
    output_target = states[-1] - 0.3 * (states[-1] - np.asarray(data.target))

    @jit
    def reached(states, output_target):
        targets = rule.targets(params, params, data.x, states, output_target, NUMBERS)
        return rule.network.forward(params, data.x, (targets[0] - states[0],))[-1]

    return Measured(relative(reached(states, output_target), output_target), ROUNDING)


@check(source=MEULEMANS, algorithms=["dtp", "ddtp"], kind="slope")
def perfect_inverse_targets_are_gauss_newton() -> Measured:
    """Square layers with exact inverses: DTP's targets are t_l = h_l - ηJ⁺e + O(η²), J = ∂h_L/∂h_l,
    so the relative error of the step is O(η)."""
    rule, params, data, states = _inverse_problem([4] * 5)
    steps, errors = (1e-3, 1e-4, 1e-5), []

    @jit
    def both(output_target):
        ours = rule.targets(params, params, data.x, states, output_target, NUMBERS)
        return ours, gauss_newton_targets(rule.network, params, data.x, states, output_target, 0.0)

    for eta in steps:
        targets = both(states[-1] - eta * (states[-1] - np.asarray(data.target)))
        errors.append(relative(*(difference(t, states) for t in targets)))
    return order(steps, errors, 1)


@check(source=ERNOULT, algorithms=["ldrl", "bp"], kind="identity",
       cases=[("squared_error",), ("cross_entropy",)])  # fmt: skip
def transposed_feedback_is_backpropagation(loss) -> Measured:
    """Where g_l is linear with the Jacobian J_g = J_fᵀ at the states, (h_l - t_l)/η is the error of
    backpropagation, for any η. Of nine layers, seven are a stack."""
    net = network(depth=9)
    params, data, rule = weights(net), batch(net), build(Transposed, net, loss)
    feedback = jit(rule.feedback_at)(params, data.x, compiled_forward(net)(params, data.x))
    expected = backpropagated(net, params, data, loss)
    return Measured(relative(gradient(rule, params, feedback, data), expected), ROUNDING)


@check(source=f"{ERNOULT}; {NOKLAND}", algorithms=["ldrl", "ddtp", "dfa", "bp"], kind="identity")
def transposed_weights_are_backpropagation() -> Measured:
    """In a linear network L-DRL with Q_l = W_lᵀ, DDTP with Q_l = J_lᵀ and DFA with B_l = J_lᵀ have
    the gradient of backpropagation."""
    net = network("linear", widths=[8, 7, 5])
    params, data = weights(net), batch(net)
    direct = tuple(_jacobians(params))
    ours = [
        gradient(build(LDRL, net), params, _transposes(params), data),
        gradient(build(DDTP, net), params, direct, data),
        jit(build(DFA, net).gradient)(params, direct, data, {}, None)[0],
    ]
    expected = backpropagated(net, params, data)
    return Measured(relative(ours, [expected] * 3), ROUNDING)


@check(source=MEULEMANS, algorithms=["ddtp"], kind="identity")
def gauss_newton_updates_of_the_weights() -> Measured:
    """For one sample the Gauss–Newton step of a layer's weights alone is J⁺e h_{l-1}ᵀ/‖h_{l-1}‖²,
    J the Jacobian of the output in the pre-activations: in a linear network the gradient of the
    Gauss–Newton targets over ‖h_{l-1}‖²."""
    net = network("linear", widths=[8, 7, 5])
    params, data = weights(net), batch(net, size=1)
    states = compiled_forward(net)(params, data.x)
    error = (states[-1] - np.asarray(data.target))[0]

    @jit
    def targets_and_jacobians(params):
        output = lambda ws: net.forward(  # noqa: E731
            [p | {"W": w} for p, w in zip(params, ws, strict=True)], data.x
        )[-1][0]
        jacobians = jax.jacrev(output)([p["W"] for p in params])
        return gauss_newton_targets(net, params, data.x, states, data.target, 0.0), jacobians  # η=1

    targets, jacobians = arrays(targets_and_jacobians(params))
    ours, exact = [], []
    sources = (np.asarray(data.x), *states[:-1])
    for jacobian, source, h, t in zip(jacobians, sources, states, targets, strict=True):
        step = np.linalg.pinv(jacobian.reshape(len(error), -1)) @ error
        exact.append(step.reshape(jacobian.shape[1:]))
        ours.append(source.T @ (h - t) / np.sum(source**2))
    return Measured(relative(ours, exact), ROUNDING)


# --- what the feedback weights learn


@check(source=f"{LEE}; {MEULEMANS}", algorithms=["dtp"], kind="identity")
def reconstruction_optimum() -> Measured:
    """In a linear layer the reconstruction loss is least at CAᵀ(ACAᵀ)⁻¹, C = E[hhᵀ] + σ²I, an
    inverse weighted by the data. Measured is the gradient there over that at zero."""
    net, params, x, states, noise = _learning_problem()
    feedback = [{}]
    for p, h in zip(params[1:], states, strict=False):
        a, c = p["W"].T, h.T @ h / len(h) + SIGMA**2 * np.eye(h.shape[1])
        feedback.append({"Q": (c @ a.T @ np.linalg.inv(a @ c @ a.T)).T})
    sources = (None, *noise[:-1])
    return _stationary(build(DTP, net), tuple(feedback), params, x, states, sources, 0.0)


@check(source=MEULEMANS, algorithms=["ddtp"], kind="identity")
def difference_reconstruction_optimum() -> Measured:
    """In a linear network DDTP's loss is least at Jᵀ(JJᵀ + λI)⁻¹, the damped Gauss–Newton inverse
    of J = ∂h_L/∂h_l. Measured is the gradient there over that at zero."""
    net, params, x, states, noise = _learning_problem()
    feedback = tuple(_damped_inverse(j).T for j in _jacobians(params))
    return _stationary(build(DDTP, net), feedback, params, x, states, noise[:-1], DECAY)


@check(source=MEULEMANS, algorithms=["dtp"], kind="identity")
def layerwise_difference_reconstruction_optimum() -> Measured:
    """As `difference_reconstruction_optimum`, layer by layer (DTPDRL): Q_l is the damped inverse of
    the way from its source up to the output and down again to its layer."""
    net, params, x, states, noise = _learning_problem()
    down, up, feedback = np.eye(4), np.eye(4), [{}]
    for p in reversed(params[1:]):
        up = up @ p["W"].T
        q = _damped_inverse(down @ up)
        feedback.insert(1, {"Q": q.T})
        down = q @ down
    rule, sources = build(DTP, net, feedback_loss="drl"), (None, *noise[:-1])
    return _stationary(rule, tuple(feedback), params, x, states, sources, DECAY)


@check(source=ERNOULT, algorithms=["ldrl"], kind="identity")
def local_difference_reconstruction_optimum() -> Measured:
    """In a linear layer the loss of L-DRL is least at the transpose of its weights. Measured is the
    gradient there over that at zero."""
    net, params, x, states, noise = _learning_problem()
    pairs = (None, *pairwise(noise))
    return _stationary(build(LDRL, net), _transposes(params), params, x, states, pairs, 0.0)


@check(source="the definition of a stack", algorithms=["dtp", "ldrl", "ddtp"], kind="identity",
       cases=[("reconstruction",), ("drl",), ("ldrl",), ("ddtp",)])  # fmt: skip
def stacks_learn_as_single_layers(name) -> Measured:
    """The gradient and that of the feedback weights are the same whether equal layers are a stack
    or single factors."""
    kind, choices = {
        "reconstruction": (DTP, {}),
        "drl": (DTP, {"feedback_loss": "drl"}),
        "ldrl": (LDRL, {}),
        "ddtp": (DDTP, {}),
    }[name]
    net = network(depth=8)
    stacked, params, data = build(kind, net, **choices), weights(net), batch(net)
    single = build(kind, _unrolled(net, params)[0], **choices)
    feedback = arrays(jit(stacked.memory)(jax.random.key(2)).weights)
    states = compiled_forward(net)(params, data.x)
    noise = stacked.corrupted(np.asarray(data.x), states)
    noise = jax.tree.map(lambda h: 0.1 * np.sin(7 * np.asarray(h) + 1), noise)  # any will do

    def learned(rule, feedback, params, states, noise):
        def gradients(feedback, params, states, noise):
            found = rule.feedback_gradient(feedback, params, data.x, states, noise, NUMBERS)
            return gradient(rule, params, feedback, data), found

        return jit(gradients)(feedback, params, states, noise)

    ours = learned(stacked, feedback, params, states, noise)
    layers = (_unrolled(net, tree)[1] for tree in (feedback, arrays(params), states, noise))
    expected = learned(single, *layers)
    return Measured(
        relative([_unrolled(net, arrays(t))[1] for t in ours], list(expected)), ROUNDING
    )


def _learning_problem():
    """A linear network without biases, five samples, and noise with the exact moments of N(0, σ²I)
    in every state: every sample is repeated with ±σ√D e_i in each of D directions."""
    net = network("linear", widths=[8, 7, 5], bias=False)
    params = arrays(weights(net))
    x = np.repeat(batch(net).x, 2 * np.lcm.reduce([8, 7, 5, 4]), 0)
    states = compiled_forward(net)(params, x)

    def noise(width):
        points = SIGMA * width**0.5 * np.concatenate([np.eye(width), -np.eye(width)])
        return np.tile(points, (len(x) // len(points), 1))

    return net, params, x, states, tuple(noise(h.shape[1]) for h in states)


def _stationary(rule, feedback, params, x, states, noise, decay) -> Measured:
    """‖gradient of the feedback's loss at `feedback`‖ over that at zero."""
    numbers = NUMBERS | {"feedback_weight_decay": decay}

    @jit
    def norm(feedback):
        found = rule.feedback_gradient(feedback, params, x, states, noise, numbers)
        return optax.tree.norm(found)

    return Measured(float(norm(feedback)) / float(norm(scaled(feedback, 0.0))), ROUNDING)


def _jacobians(params) -> list:
    """∂h_L/∂h_l of a linear network for every hidden l, (C, units)."""
    jacobians, j = [], np.eye(params[-1]["W"].shape[1])
    for p in reversed(arrays(params)[1:]):
        j = j @ p["W"].T
        jacobians.insert(0, j)
    return jacobians


def _damped_inverse(j):
    return j.T @ np.linalg.inv(j @ j.T + DECAY * np.eye(len(j)))


def _transposes(params) -> tuple:
    """Feedback of every layer by the transpose of its own weights."""
    return ({}, *({"Q": p["W"].T} for p in arrays(params)[1:]))


def _unrolled(net: Network, tree: tuple) -> tuple[Network, tuple]:
    """The network without stacks, and one entry per layer of what had one per factor."""
    factors, entries = [], []
    for factor, entry in zip(net.factors, tree, strict=False):
        layers = [entry]
        if factor.length is not None:
            layers = [jax.tree.map(lambda a, j=j: a[j], entry) for j in range(factor.length)]
        for layer in layers:
            factors.append(Factor(factor.module, (len(factors) - 1,)))
            entries.append(layer)
    return Network(tuple(factors), net.input_shape), tuple(entries)
