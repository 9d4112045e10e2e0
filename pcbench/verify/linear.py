"""Relaxation against the closed forms of predictive coding in deep linear networks.

The closed forms are those of `pcbench.energies.linear`. Two networks have exact rational numbers:
1-1-2 with unit weights (Song et al. 2024) and 2-2-2-2.
"""

import jax
import numpy as np

from pcbench.algorithms.bp import BP
from pcbench.algorithms.ep import EP
from pcbench.algorithms.pc import PC
from pcbench.algorithms.phases import Phase
from pcbench.energies import linear as closed
from pcbench.energies.energy import prediction_energy, squared_error, total
from pcbench.energies.linear import forward
from pcbench.relaxation.relax import relax
from pcbench.relaxation.updaters import gradient_updater
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order, worst
from pcbench.verify.problems import (
    arrays,
    as_batch,
    build,
    chain,
    compiled,
    compiled_forward,
    compiled_states,
    compiled_with_info,
    hessian,
    hyper,
    jit,
    largest,
    network,
    random_chain,
    relative,
    scaled,
    weights,
)

SONG = "Song et al. 2024, Nature Neuroscience 27:348"
INNOCENTI = "Innocenti et al. 2024, arXiv 2408.11979"
MILLIDGE = "Millidge et al. 2022, arXiv 2207.12316"
OLIVIERS = "Oliviers et al., arXiv 2605.11911"

STEPS = 4000  # of relaxation, to rounding
RELAXED = 1e-12
NUMBERS = {"step_size": 0.2, "momentum": 0.7}


def downstream(matrices) -> list:
    return arrays(jit(closed.downstream)(matrices))


def equilibrium(matrices, x, y) -> closed.Equilibrium:
    return arrays(jit(closed.equilibrium)(matrices, x, y))


def output_change(matrices, x, y, rule: str) -> np.ndarray:
    return arrays(jit(closed.output_change, static_argnames="rule")(matrices, x, y, rule=rule))


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def golden(name: str):
    """(matrices, x, y) of the networks whose numbers are exact rationals."""
    if name == "1-1-2":
        return [np.ones((1, 1)), np.ones((2, 1))], np.ones(1), np.array([0.0, 1.0])
    matrices = [[[1, 0], [1, 1]], [[1, 1], [0, 1]], [[1, 0], [1, 1]]]
    return [np.array(m, float) for m in matrices], np.array([1.0, 0.0]), np.array([0.0, 1.0])


def updates(matrices, x, y, rule=None, **numbers):
    """(weight updates as (fan_out, fan_in) matrices, info); relaxed predictive coding if no rule
    is given."""
    net, params = chain(*matrices)
    rule = rule(net) if rule else build(PC, net, steps=STEPS)
    found, info = compiled_with_info(rule)(params, as_batch(x, y), hyper(**(NUMBERS | numbers)))
    return [-g["W"].T for g in found], info


def relaxed_states(matrices, x, y, **numbers) -> list:
    """z_1 … z_L of one sample after relaxation."""
    net, params = chain(*matrices)
    rule = build(PC, net, steps=STEPS)
    numbers = hyper(**(NUMBERS | numbers))
    _, states = compiled_states(rule, "clamp")(params, as_batch(x, y), numbers)
    return [h[0] for h in states]


def weighted_equilibrium(matrices, x, y, variances) -> tuple[list, list, float]:
    """States, top-down signals A_lᵀr and F* under layer variances σ_l² = 1/π_l.

    S = Σ σ_l² A_lA_lᵀ, r = S⁻¹e, ε_l = σ_l² A_lᵀr: the closed form with other units of each layer.
    """
    maps = downstream(matrices)
    error = y - forward(matrices, x)[-1]
    rescaling = sum(v * a @ a.T for v, a in zip(variances, maps, strict=True))
    top = np.linalg.solve(rescaling, error)
    states, z = [], x
    for w, v, a in zip(matrices, variances, maps, strict=True):
        z = w @ z + v * (a.T @ top)
        states.append(z)
    return states, [a.T @ top for a in maps], 0.5 * error @ top


def close(*pairs) -> float:
    """The largest absolute difference of pairs of arrays."""
    return max(largest(np.asarray(a) - np.asarray(b)) for a, b in pairs)


# --- golden networks


@check(source=SONG, algorithms=["pc"], kind="identity")
def golden_network_1_1_2() -> Measured:
    """z₁ = 2/3, r = (-2/3, 1/3), ε₁ = -1/3, F* = 1/3, L₀ = 1/2, from relaxation and in closed
    form."""
    matrices, x, y = golden("1-1-2")
    solution = equilibrium(matrices, x, y)
    found, info = updates(matrices, x, y)
    error = close(
        (solution.rescaling, [[2, 1], [1, 2]]),
        (solution.errors[1], [-2 / 3, 1 / 3]),
        (solution.energy, 1 / 3),
        (relaxed_states(matrices, x, y)[0], [2 / 3]),
        (info.energy_initial, 1 / 2),
        (info.energy_relaxed, 1 / 3),
        (found[0], [[-1 / 3]]),  # ε₁xᵀ
        (found[1], [[-4 / 9], [2 / 9]]),  # r z₁ᵀ
    )
    return Measured(error, 1e-12)


@check(source=SONG, algorithms=["bp", "pc"], kind="identity")
def golden_network_1_1_2_alignment() -> Measured:
    """The output moves along (-2, -1) under backpropagation and (-7/9, -1/9) under predictive
    coding: target alignment 2/√5 and 7/√50."""
    matrices, x, y = golden("1-1-2")
    error = y - forward(matrices, x)[-1]
    found = []
    for rule, change, alignment in (
        ("bp", (-2, -1), 2 / 5**0.5),
        ("pc", (-7 / 9, -1 / 9), 7 / 50**0.5),
    ):
        moved = output_change(matrices, x, y, rule)
        found += [(moved, change), (cosine(moved, error), alignment)]
    return Measured(close(*found), 1e-12)


TRAJECTORIES = {  # outputs after each of five steps, to six digits
    "bp": [(0.64, 0.8), (0.514550, 0.761203), (0.444572, 0.763172), (0.396466, 0.782187),
           (0.358315, 0.808373)],
    "pc": [(0.850370, 0.974815), (0.729988, 0.956266), (0.631821, 0.943595), (0.550645, 0.935886),
           (0.482583, 0.932187)],
}  # fmt: skip


def _trajectory(rule: str) -> Measured:
    matrices, x, y = golden("1-1-2")
    make, differences = (lambda net: build(BP, net)) if rule == "bp" else None, []
    for target in TRAJECTORIES[rule]:
        found, _ = updates(matrices, x, y, make)
        matrices = [m + 0.2 * u for m, u in zip(matrices, found, strict=True)]
        differences.append((forward(matrices, x)[-1], target))
    return Measured(close(*differences), 6e-7)


@check(source=SONG, algorithms=["bp"], kind="identity")
def golden_trajectory_of_backpropagation() -> Measured:
    """1-1-2, five steps at learning rate 0.2: the outputs, to half a unit of the sixth digit."""
    return _trajectory("bp")


@check(source=SONG, algorithms=["pc"], kind="identity")
def golden_trajectory_of_predictive_coding() -> Measured:
    """1-1-2, five steps at learning rate 0.2 from relaxed states, to half a unit of the sixth
    digit."""
    return _trajectory("pc")


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def golden_network_2_2_2_2() -> Measured:
    """S = [[4, 4], [4, 8]], z₁ = z₂ = (½, ½), ε₁ = (-½, -½), ε₂ = ε₃ = (-½, 0), F* = ½, L₀ = 4."""
    matrices, x, y = golden("2-2-2-2")
    solution = equilibrium(matrices, x, y)
    states = relaxed_states(matrices, x, y)
    found, info = updates(matrices, x, y)
    error = close(
        (solution.rescaling, [[4, 4], [4, 8]]),
        (states[0], [0.5, 0.5]),
        (states[1], [0.5, 0.5]),
        (found[0], np.outer([-0.5, -0.5], x)),
        (found[1], np.outer([-0.5, 0], [0.5, 0.5])),
        (found[2], np.outer([-0.5, 0], [0.5, 0.5])),
        (info.energy_initial, 4),
        (info.energy_relaxed, 0.5),
    )
    return Measured(error, 1e-12)


@check(source=OLIVIERS, algorithms=["bp", "pc"], kind="identity")
def golden_network_2_2_2_2_alignment() -> Measured:
    """M_BP e = (-28, -38) and M_PC r = (-9/4, -2): target alignment .988715504 and .998274373."""
    matrices, x, y = golden("2-2-2-2")
    error = y - forward(matrices, x)[-1]
    moved = {rule: output_change(matrices, x, y, rule) for rule in ("bp", "pc")}
    exact = close((moved["bp"], (-28, -38)), (moved["pc"], (-9 / 4, -2)))
    printed = close(
        (cosine(moved["bp"], error), 0.988715504), (cosine(moved["pc"], error), 0.998274373)
    )
    return worst([Measured(exact, 1e-12), Measured(printed, 5e-10)])


# --- equilibria


@check(source=INNOCENTI, algorithms=["pc"], kind="identity", cases=[(2,), (4,), (5,)])
def relaxation_reaches_the_closed_form(depth) -> Measured:
    """Relaxed weight updates are ε_l z_{l-1}ᵀ, and F* = ½eᵀS⁻¹e."""
    matrices, x, y = random_chain(depth)
    solution = equilibrium(matrices, x, y)
    found, info = updates(matrices, x, y)
    sources = [x, *solution.states[:-1]]
    expected = [np.outer(e, z) for e, z in zip(solution.errors, sources, strict=True)]
    energy = abs(float(info.energy_relaxed / solution.energy) - 1)
    return Measured(max(relative(found, expected), energy, float(info.residual)), RELAXED)


@check(source=INNOCENTI, algorithms=["pc"], kind="identity", cases=[("feedforward",), ("zeros",)])
def a_stack_reaches_the_closed_form(start) -> Measured:
    """Six equal layers, relaxed as one stack; the minimum does not depend on the start."""
    net = network("linear", inputs=5, outputs=5, width=5, depth=8, bias=False)
    params = weights(net)
    first, stack, last = (np.asarray(p["W"]).swapaxes(-1, -2) for p in params)
    matrices = [first, *stack, last]
    x, y = np.linspace(-1, 1, 5), np.linspace(1, 0, 5)
    solution = equilibrium(matrices, x, y)
    rule = build(PC, net, steps=6000, start=start)
    found, info = compiled_with_info(rule)(params, as_batch(x, y), hyper(**NUMBERS))
    expected = [-np.outer(solution.states[n], solution.errors[n + 1]) for n in range(6)]
    energy = abs(float(info.energy_relaxed / solution.energy) - 1)
    return Measured(max(relative(found[1]["W"], np.stack(expected)), energy), RELAXED)


@check(source=MILLIDGE, algorithms=["pc"], kind="identity")
def errors_are_those_above_through_the_transposed_weights() -> Measured:
    """At equilibrium ε_l = W_{l+1}ᵀ ε_{l+1}."""
    matrices, x, y = random_chain(4)
    states = [x, *relaxed_states(matrices, x, y)]
    errors = [z - w @ below for w, z, below in zip(matrices, states[1:], states[:-1], strict=True)]
    expected = [w.T @ e for w, e in zip(matrices[1:], errors[1:], strict=True)]
    return Measured(relative(errors[:-1], expected), RELAXED)


@check(source=MILLIDGE, algorithms=["pc"], kind="identity")
def states_are_local_equilibria() -> Measured:
    """z_l = (I + qW_{l+1}ᵀW_{l+1})⁻¹ (W_l z_{l-1} + qW_{l+1}ᵀz_{l+1}) with q = π_{l+1}/π_l."""
    matrices, x, y = random_chain(4)
    precisions = np.array([1.0, 0.5, 2.0, 0.8])
    states = [x, *relaxed_states(matrices, x, y, step_size=0.1, precisions=precisions)]
    expected = []
    for l in range(1, 4):
        above, ratio = matrices[l], precisions[l] / precisions[l - 1]
        matrix = np.eye(len(states[l])) + ratio * above.T @ above
        drive = matrices[l - 1] @ states[l - 1] + ratio * above.T @ states[l + 1]
        expected.append(np.linalg.solve(matrix, drive))
    return Measured(relative(states[1:4], expected), RELAXED)


@check(source=INNOCENTI, algorithms=["pc"], kind="identity")
def precisions_rescale_the_closed_form() -> Measured:
    """With variances σ_l²: S = Σ σ_l² A_lA_lᵀ, r = S⁻¹e, F* = ½eᵀr, and the update of layer l is
    A_lᵀr z_{l-1}ᵀ."""
    matrices, x, y = random_chain(4)
    precisions = np.array([1.0, 0.5, 2.0, 0.8])
    states, signals, energy = weighted_equilibrium(matrices, x, y, 1 / precisions)
    found, info = updates(matrices, x, y, step_size=0.1, precisions=precisions)
    expected = [np.outer(s, z) for s, z in zip(signals, [x, *states[:-1]], strict=True)]
    off = abs(float(info.energy_relaxed / energy) - 1)
    return Measured(max(relative(found, expected), off), RELAXED)


@check(source=MILLIDGE, algorithms=["pc"], kind="identity")
def energy_splits_into_output_and_internal_parts() -> Measured:
    """The output's part of F* is ½‖r‖², of ½‖e‖² before; the internal one ½rᵀ(S - I)r: together
    F*."""
    matrices, x, y = random_chain(4)
    solution = equilibrium(matrices, x, y)
    _, info = updates(matrices, x, y)
    r, s = solution.errors[-1], solution.rescaling
    expected = np.array([0.5 * r @ (s @ r - r), 0.5 * r @ r])
    found = np.array([info.energy[-1, :-1].sum(), info.energy[-1, -1]])
    total_off = abs(float(expected.sum() / solution.energy) - 1)
    error = y - forward(matrices, x)[-1]
    ratio_off = abs(float(info.output_energy_ratio) / (r @ r / (error @ error)) - 1)
    return Measured(max(relative(found, expected), total_off, ratio_off), RELAXED)


@check(source=MILLIDGE, algorithms=["pc"], kind="bound")
def relaxation_lowers_energy_and_loss() -> Measured:
    """L* ≤ F* ≤ F at every step ≤ L₀, where L is the output's part."""
    matrices, x, y = random_chain(5)
    _, info = updates(matrices, x, y, momentum=0.0)
    energy, loss = info.energy.sum(1), info.energy[:, -1]
    rises = [np.diff(energy), loss[-1] - energy[-1], energy[-1] - loss[0]]
    return Measured(max(float(np.max(r)) for r in rises), 1e-15)


@check(source=SONG, algorithms=["pc"], kind="identity")
def the_update_is_the_gradient_of_the_relaxed_energy() -> Measured:
    """Envelope theorem: -ε_l z_{l-1}ᵀ = ∂F*/∂W_l, by automatic differentiation through S⁻¹."""
    matrices, x, y = random_chain(5, seed=3)
    found, _ = updates(matrices, x, y)
    expected = jit(jax.grad(lambda ws: closed.equilibrium(ws, x, y).energy))(matrices)
    return Measured(relative(found, scaled(expected, -1)), RELAXED)


@check(source=INNOCENTI, algorithms=["pc"], kind="identity")
def rescaling_is_a_sum_over_jacobians() -> Measured:
    """S = I + Σ_l J_lJ_lᵀ with J_l = ∂h_L/∂h_l from the network itself: F* = ½eᵀS⁻¹e."""
    matrices, x, y = random_chain(4)
    net, params = chain(*matrices)
    *hidden, output = compiled_forward(net)(params, x[None])
    jacobian = jit(jax.jacrev(lambda o: net.forward(params, x[None], o)[-1][0]))
    jacobians = arrays(jacobian(scaled(tuple(hidden), 0.0)))
    rescaling = np.eye(2) + sum(j[:, 0] @ j[:, 0].T for j in jacobians)
    error = y - output[0]
    _, info = updates(matrices, x, y)
    energy = 0.5 * error @ np.linalg.solve(rescaling, error)
    return Measured(abs(float(info.energy_relaxed / energy) - 1), RELAXED)


# --- limits


@check(source=MILLIDGE, algorithms=["pc"], kind="slope")
def imprecise_layers_infer_the_targets_of_target_propagation() -> Measured:
    """As π₁/π₂ → 0 the hidden state goes to W₂⁻¹y, with slope one."""
    generator = np.random.default_rng(0)
    matrices = [np.eye(4) + 0.2 * generator.normal(size=(4, 4)) for _ in range(2)]
    x, y = generator.normal(size=(2, 4))
    target, ratios, errors = np.linalg.solve(matrices[1], y), (1e-2, 1e-3, 1e-4), []
    for ratio in ratios:
        states = relaxed_states(matrices, x, y, precisions=np.array([ratio, 1.0]))
        errors.append(relative(states[0], target))
    return order(ratios, errors, 1)


@check(source=MILLIDGE, algorithms=["pc"], kind="identity")
def an_unclamped_input_lets_the_energy_vanish() -> Measured:
    """With the input free as well, F → 0 and x_l → W_{l+1}⁻¹ x_{l+1} in square networks."""
    generator = np.random.default_rng(1)
    matrices = [np.eye(4) + 0.2 * generator.normal(size=(4, 4)) for _ in range(3)]
    net, params = chain(*matrices)
    x, y = generator.normal(size=(2, 1, 4))

    def energies(free):
        states = (*free[1:], y)
        predictions = net.predict(params, free[0], states)
        return prediction_energy(net, predictions, states, squared_error)

    @jit
    def relaxed(start):
        updater = gradient_updater("sgd", 0.2, 0.9)
        found = relax(energies, start, steps=STEPS, updater=updater).states
        return found, total(energies(found)) / total(energies(start))

    found, left = arrays(relaxed((x, *compiled_forward(net)(params, x)[:-1])))
    expected = [y[0]]
    for matrix in reversed(matrices):
        expected.insert(0, np.linalg.solve(matrix, expected[0]))
    off = relative([f[0] for f in found], expected[:-1])
    return worst([Measured(off, RELAXED), Measured(float(left), RELAXED**2)])


@check(source="Kerjan, Høier & Scellier 2026, arXiv 2606.03584", algorithms=["ep"], kind="identity")
def nudging_away_is_bounded_up_to_the_inverse_of_the_largest_rescaling() -> Measured:
    """The Hessian of F - βC over all states, squared error, is singular exactly at
    β = 1/λ_max(S): definite below, indefinite above."""
    matrices, x, y = random_chain(3)
    net, params = chain(*matrices)
    rule = build(EP, net, steps=1, energy="pc")
    threshold = 1 / np.linalg.eigvalsh(equilibrium(matrices, x, y).rescaling)[-1]
    states = compiled_forward(net)(params, x[None])

    @jit
    def matrix(beta):
        phase = Phase("nudge", 1.0, -beta)
        return hessian(rule, params, x, y, hyper(), states, phase)

    def smallest(beta):
        return float(np.linalg.eigvalsh(np.asarray(matrix(beta)))[0])

    below, at, above = (smallest(share * threshold) for share in (0.99, 1.0, 1.01))
    return Measured(abs(at) if below > 0 > above else np.inf, 1e-12)


@check(source="Scellier et al. 2023, arXiv 2312.15103", algorithms=["pc"], kind="slope",
       cases=[("positive",), ("negative",)])  # fmt: skip
def nudged_predictive_coding_has_a_rescaled_limit(nudging) -> Measured:
    """Holding the output a little nearer the target gives backpropagation of S⁻¹(y - ŷ), not of
    y - ŷ, plus O(β): A_lᵀS⁻¹e h_{l-1}ᵀ."""
    matrices, x, y = random_chain(3)
    errors, sources = equilibrium(matrices, x, y).errors, [x, *forward(matrices, x)[:-1]]
    limit = [-np.outer(e, h).T for e, h in zip(errors, sources, strict=True)]
    net, params = chain(*matrices)
    rule = build(PC, net, steps=STEPS, nudging=nudging)
    betas, gaps = (1e-2, 1e-3, 1e-4), []
    for beta in betas:
        numbers = hyper(**NUMBERS, beta=beta, beta_increment=0.0)
        found = compiled(rule)(params, as_batch(x, y), numbers)
        gaps.append(relative([g["W"] for g in found], limit))
    return order(betas, gaps, 1)
