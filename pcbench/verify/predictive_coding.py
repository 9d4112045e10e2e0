"""Identities of predictive coding in any network: its start, its limits, its kin."""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.bp import BP
from pcbench.algorithms.chl import CHL
from pcbench.algorithms.ep import EP
from pcbench.algorithms.pc import PC
from pcbench.algorithms.phases import Phase
from pcbench.energies.energy import LOSSES
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import (
    ROUNDING,
    along,
    arrays,
    backpropagated,
    batch,
    build,
    compiled,
    compiled_forward,
    compiled_states,
    compiled_with_info,
    directional,
    energy,
    hyper,
    implicit_gradient,
    jit,
    largest,
    network,
    relative,
    scaled,
    small,
    weights,
)

PINCHETTI = "Pinchetti et al. 2024, arXiv 2407.01163"
WHITTINGTON = "Whittington & Bogacz 2017, Neural Computation 29(5)"
INFINITESIMAL = "Millidge et al. 2022, arXiv 2206.02629"
KERJAN = "Kerjan, Høier & Scellier 2026, arXiv 2606.03584"
SCELLIER = "Scellier et al. 2023, arXiv 2312.15103"

RELAXED = {"step_size": 0.3, "momentum": 0.3}  # of a sigmoid network, in some hundred steps
STEPS = 400


@check(source="Rumelhart, Hinton & Williams 1986", algorithms=["bp"], kind="identity",
       cases=[("squared_error",), ("cross_entropy",)])  # fmt: skip
def backpropagation_is_the_slope_of_the_loss(loss) -> Measured:
    """⟨gradient, d⟩ is the derivative of the mean loss along d, by finite differences; skips and a
    stack included."""
    net = network("resmlp", depth=8)
    params, data = weights(net), batch(net)

    @jit
    def value(w):
        return jnp.mean(LOSSES[loss](net.forward(w, data.x)[-1], data.target))

    slope, direction = directional(value, params)
    found = compiled(build(BP, net, loss))(params, data, hyper())
    return Measured(abs(along(found, direction) / slope - 1), 1e-9)


# --- the start


@check(source=WHITTINGTON, algorithms=["pc"], kind="identity",
       cases=[("mlp", "squared_error"), ("resmlp", "cross_entropy")])  # fmt: skip
def at_the_forward_pass_the_energy_is_the_loss(kind, loss) -> Measured:
    """Hidden errors vanish at the forward pass: F there is the loss of backpropagation."""
    net = network(kind)
    params, data = weights(net), batch(net)
    _, info = compiled_with_info(build(PC, net, loss, steps=1))(params, data, hyper())
    output = compiled_forward(net)(params, data.x)[-1]
    value = np.mean(arrays(LOSSES[loss](output, data.target)))
    hidden = largest(info.energy[0, :-1])
    return Measured(max(abs(float(info.energy_initial / value) - 1), hidden), 1e-14)


@check(source=KERJAN, algorithms=["ep"], kind="identity", cases=[("pc",), ("fenchel_young",)])
def the_forward_pass_is_the_free_state(kind) -> Measured:
    """On `pc` and `fenchel_young`, F, ∂F/∂h and ∂F/∂θ all vanish at the forward pass."""
    net, params, data = small()
    rule = build(EP, net, steps=1, energy=kind, updater="sgd")
    states = compiled_forward(net)(params, data.x)
    free = Phase("nudge", 1.0, 0.0)

    def value(w, h):
        return energy(rule, free, w, data, hyper(), h)

    found, slopes = jit(jax.value_and_grad(value, (0, 1)))(params, states)
    return Measured(largest((found, slopes)), 1e-14)


@check(source=INFINITESIMAL, algorithms=["ep", "bp"], kind="identity",
       cases=[("pc",), ("fenchel_young",)])  # fmt: skip
def the_implicit_gradient_at_the_forward_pass_is_backpropagation(kind) -> Measured:
    """Differentiating the loss through the free equilibrium, by the implicit function theorem."""
    net, params, data = small()
    rule = build(EP, net, steps=1, energy=kind, updater="sgd")

    @jit
    def found(params):
        free = net.forward(params, data.x)
        return implicit_gradient(rule, params, data, hyper(), free, free[-1] - data.target)

    return Measured(relative(found(params), backpropagated(net, params, data)), ROUNDING)


@check(source=WHITTINGTON, algorithms=["pc"], kind="identity")
def without_relaxation_only_the_output_layer_learns() -> Measured:
    """T = 0: the output layer's gradient is that of backpropagation, all others are zero."""
    net = network()
    params, data = weights(net), batch(net)
    found = compiled(build(PC, net, steps=0))(params, data, hyper())
    expected = backpropagated(net, params, data)
    expected = (*scaled(expected[:-1], 0.0), expected[-1])
    return Measured(relative(found, expected), 1e-14)


@check(source="Rosenbaum 2022, arXiv 2106.13082", algorithms=["pc"], kind="slope")
def early_steps_reach_layers_binomially() -> Measured:
    """After T steps of a small size γ the gradient k layers below the output is C(T, k)γᵏ times
    backpropagation's, to leading order: the slope of the relative error is one."""
    steps, net = 4, network(depth=4)
    params, data = weights(net), batch(net)
    expected = backpropagated(net, params, data)
    rule, gammas, errors = build(PC, net, steps=steps), (1e-2, 1e-3, 1e-4), []
    for gamma in gammas:
        found = compiled(rule)(params, data, hyper(gamma))
        shares = [comb(steps, k) * gamma**k for k in reversed(range(4))]
        triples = zip(found, shares, expected, strict=True)
        errors.append(max(relative(scaled(f, 1 / s), e) for f, s, e in triples))
    return order(gammas, errors, 1)


# --- what is relaxed


@check(source=SCELLIER, algorithms=["pc"], kind="identity")
def the_gradient_is_that_of_the_relaxed_energy() -> Measured:
    """Envelope theorem: at equilibrium ∂F/∂θ is the total derivative of F*(θ), by finite
    differences through the relaxation."""
    net, params, data = small()
    rule, numbers = build(PC, net, steps=STEPS), hyper(**RELAXED)
    clamp = Phase("clamp", 1.0)
    states = compiled_states(rule, "clamp")
    at = jit(lambda w, h: energy(rule, clamp, w, data, numbers, h))
    value = lambda w: float(at(w, states(w, data, numbers)[1]))  # noqa: E731
    slope, direction = directional(value, params)
    found = compiled(rule)(params, data, numbers)
    return Measured(abs(along(found, direction) / slope - 1), 1e-9)


@check(source=INFINITESIMAL, algorithms=["pc"], kind="slope")
def a_weak_loss_gives_backpropagation() -> Measured:
    """With an output precision λ → 0 the gradient over λ is backpropagation's plus O(λ)."""
    net = network(depth=5)
    params, data = weights(net), batch(net)
    expected, rule = backpropagated(net, params, data), build(PC, net, steps=600)
    strengths, errors = (1e-2, 1e-3, 1e-4), []
    for strength in strengths:
        precisions = np.array([1.0] * 4 + [strength])
        found = compiled(rule)(params, data, hyper(0.3, 0.3, precisions=precisions))
        errors.append(relative(scaled(found, 1 / strength), expected))
    return order(strengths, errors, 1)


@check(source=PINCHETTI, algorithms=["pc"], kind="slope", cases=[("positive",), ("negative",)])
def weakly_held_outputs_backpropagate_rescaled_errors(nudging) -> Measured:
    """Nudged predictive coding tends to backpropagation of S⁻¹(ŷ - y) per sample, with
    S = I + Σ_l J_lJ_lᵀ and J_l = ∂h_L/∂h_l, in a nonlinear network; slope one in β."""
    net, params, data = small()
    hidden = scaled(compiled_forward(net)(params, data.x)[:-1], 0.0)

    def output(x, offsets):
        return net.forward(params, x[None], tuple(o[None] for o in offsets))[-1][0]

    @jit
    def limit():
        jacobians = jax.vmap(jax.jacrev(output, 1))(data.x, hidden)
        rescaling = jnp.eye(4) + sum(j @ j.mT for j in jacobians)
        prediction, pull = jax.vjp(lambda w: net.forward(w, data.x)[-1], params)
        error = jnp.linalg.solve(rescaling, (prediction - data.target)[..., None])[..., 0]
        return pull(error / len(data.x))[0]

    rule, betas, errors = build(PC, net, steps=STEPS, nudging=nudging), (1e-2, 1e-3, 1e-4), []
    for beta in betas:
        numbers = hyper(**RELAXED, beta=beta, beta_increment=0.0)
        errors.append(relative(compiled(rule)(params, data, numbers), limit()))
    return order(betas, errors, 1)


@check(source=PINCHETTI, algorithms=["pc"], kind="identity")
def nudging_with_strength_one_is_clamping() -> Measured:
    """β = 1 holds the output at the target."""
    net, params, data = small()
    numbers = hyper(0.1, beta=1.0, beta_increment=0.0)
    nudged = compiled(build(PC, net, steps=6, nudging="positive"))(params, data, numbers)
    clamped = compiled(build(PC, net, steps=6))(params, data, numbers)
    return Measured(relative(nudged, clamped), 1e-14)


@check(source=SCELLIER, algorithms=["chl", "pc"], kind="identity")
def contrastive_learning_on_the_pc_energy_is_predictive_coding() -> Measured:
    """The free term vanishes at the forward pass: CHL with energy=pc is PC, after any T."""
    net, params, data = small()
    chl = compiled(build(CHL, net, steps=6, energy="pc"))(params, data, hyper())
    pc = compiled(build(PC, net, steps=6))(params, data, hyper())
    return Measured(relative(chl, pc), 1e-14)


@check(source=KERJAN, algorithms=["ep", "pc"], kind="identity", cases=[(0.1,), (1.0,), (10.0,)])
def nudging_is_clamping_with_another_precision(beta) -> Measured:
    """Under squared error an output nudged with β is one held at the target with precision
    β/(1 + β): the same hidden states, and β times the gradient."""
    net, params, data = small()
    ep = build(EP, net, steps=1500, energy="pc", updater="sgd", nudging="positive")
    pc = build(PC, net, steps=1500)
    nudged = hyper(0.1, 0.3, beta=beta)
    held = hyper(0.1, 0.3, precisions=np.array([1.0, 1.0, beta / (1 + beta)]))
    ours = compiled_states(ep, "nudge")(params, data, nudged, beta)[1]
    theirs = compiled_states(pc, "clamp")(params, data, held)[1]
    gradient = scaled(compiled(ep)(params, data, nudged), beta)
    off = relative(gradient, compiled(pc)(params, data, held))
    return Measured(max(off, relative(ours[:-1], theirs[:-1])), ROUNDING)


# --- one nudged state suffices


@check(source=KERJAN, algorithms=["ep"], kind="slope",
       cases=[(e, n) for e in ("pc", "fenchel_young")
              for n in ("positive", "negative", "centred")])  # fmt: skip
def nudged_states_give_backpropagation(kind, nudging) -> Measured:
    """On `pc` and `fenchel_young`, EP tends to backpropagation: slope one in β from either side,
    two if centred."""
    net, params, data = small()
    updater = {"pc": "sgd", "fenchel_young": "mirror"}[kind]
    rule = build(EP, net, steps=300, energy=kind, updater=updater, nudging=nudging)
    expected, betas = backpropagated(net, params, data), (1e-1, 1e-2, 1e-3)
    errors = []
    for beta in (0.3 * b for b in betas):
        found = compiled(rule)(params, data, hyper(**RELAXED, beta=beta))
        errors.append(relative(found, expected))
    return order(betas, errors, 2 if nudging == "centred" else 1)


@check(source=KERJAN, algorithms=["ep"], kind="slope", cases=[("even_odd",), ("backward",)])
def as_many_sweeps_as_layers_suffice(schedule) -> Measured:
    """Centred EP on `pc`, step size 1 from the forward pass: after T = L sweeps from the output
    down, or of even and odd layers, what is left of the error is O(β²)."""
    net, params, data = small()
    rule = build(EP, net, steps=3, energy="pc", updater="sgd", schedule=schedule)
    expected, betas, errors = backpropagated(net, params, data), (3e-2, 1e-2, 3e-3), []
    for beta in betas:
        found = compiled(rule)(params, data, hyper(1.0, beta=beta))
        errors.append(relative(found, expected))
    return order(betas, errors, 2)


@check(source=KERJAN, algorithms=["ep"], kind="bound")
def synchronous_steps_of_size_one_diverge_on_the_pc_energy() -> Measured:
    """h ← h - ∂F/∂h for all layers at once is unstable where the Hessian's largest eigenvalue
    exceeds 2, as here: the energy grows. Measured: the energy after 20 steps over that after 40."""
    net, params, data = small()
    rule = build(EP, net, steps=40, energy="pc", updater="sgd", nudging="positive")
    _, info = compiled_with_info(rule)(params, data, hyper(1.0, beta=1e-3))
    energy = info.energy.sum(1)
    return Measured(float(energy[20] / energy[40]), 0.1)


@check(source=KERJAN, algorithms=["ep"], kind="limit")
def synchronous_mirror_steps_converge_on_the_fenchel_young_energy() -> Measured:
    """h ← σ(-∂(F - G)/∂h) for all layers at once converges in the same network, with the same
    nudging: after 80 steps the gradient is that of a schedule of even and odd layers."""
    net, params, data = small()
    found = [
        compiled(
            build(EP, net, steps=steps, energy="fenchel_young", updater="mirror", schedule=schedule)
        )(params, data, hyper(beta=1e-3))
        for schedule, steps in (("sync", 80), ("even_odd", 300))
    ]
    return Measured(relative(*found), 1e-10)


@check(source="Høier & Zach 2020 (lifted networks)", algorithms=["ep"], kind="identity")
def stationary_lifted_states_predict_with_feedback() -> Measured:
    """On `fenchel_young`, equilibrium is h_l = σ(a_l + W_{l+1}ᵀε_{l+1}) with ε = h - σ(a), and the
    weight gradient is -ε_l h_{l-1}ᵀ, without σ'."""
    net, params, data = small()
    beta = 0.5
    rule = build(EP, net, steps=300, energy="fenchel_young", updater="mirror", nudging="positive")
    numbers = hyper(beta=beta)
    states = compiled_states(rule, "nudge")(params, data, numbers, beta)[1]
    sigmas = [factor.activation for factor in net.factors]

    @jit
    def predicted(states):
        pre = net.preactivations(params, data.x, states)
        errors = [h - s(a) for h, s, a in zip(states, sigmas, pre, strict=True)]
        below = zip(sigmas[:-1], pre[:-1], errors[1:], params[1:], strict=True)
        return errors, [s(a + e @ p["W"].T) for s, a, e, p in below]

    errors, expected = arrays(predicted(states))
    gradient = compiled(rule)(params, data, numbers)
    sources = (np.asarray(data.x), *states[:-1])
    local = [-h.T @ e / len(data.x) / beta for h, e in zip(sources, errors, strict=True)]
    off = relative([g["W"] for g in gradient], local)
    return Measured(max(relative(list(states[:-1]), expected), off), ROUNDING)
