"""Target alignment: when does an update move the output straight to its target?

Oliviers et al., arXiv 2605.11911; Song et al. 2024. In a linear network, with G_l = A_lA_lᵀ,
M_BP = Σ ‖h_{l-1}‖²G_l and M_PC = Σ c_l G_l, c_l = h_{l-1}·z_{l-1}, the output moves along M_BP e
under backpropagation and along M_PC S⁻¹e under relaxed predictive coding.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.bp import BP
from pcbench.algorithms.ddtp import DDTP
from pcbench.algorithms.pc import PC
from pcbench.energies.linear import forward
from pcbench.metrics.alignment import first_order_change, target_alignment
from pcbench.verify.checks import check
from pcbench.verify.linear import (
    NUMBERS,
    STEPS,
    cosine,
    downstream,
    equilibrium,
    output_change,
    weighted_equilibrium,
)
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import (
    ROUNDING,
    arrays,
    as_batch,
    build,
    chain,
    compiled,
    compiled_forward,
    compiled_states,
    difference,
    hyper,
    jit,
    network,
    random_chain,
    relative,
    scaled,
    weights,
)

OLIVIERS = "Oliviers et al., arXiv 2605.11911"
SONG = "Song et al. 2024, Nature Neuroscience 27:348"


@cache
def _change_of(net):
    """The output's first-order change along minus a gradient, of (parameters, x, gradient)."""

    def change(params, x, gradient):
        descent = jax.tree.map(jnp.negative, gradient)
        return first_order_change(lambda p: net.forward(p, x)[-1], params, descent)

    found = jit(change)
    return lambda *args: arrays(found(*args))


def alignment(change, error) -> float:
    """The metric that runs report, of one sample or of a batch."""
    return float(jit(target_alignment)(np.atleast_2d(change), np.atleast_2d(error)))


def rule_of(name: str, net):
    return build(BP, net) if name == "bp" else build(PC, net, steps=STEPS)


def change(name: str, matrices, x, y, scales=None, **numbers):
    """The output's first-order change under a rule, of one sample or of a batch: (B, C)."""
    net, params = chain(*matrices)
    data = as_batch(x, y)
    gradient = compiled(rule_of(name, net))(params, data, hyper(**(NUMBERS | numbers)))
    if scales is not None:
        gradient = tuple({"W": s * g["W"]} for s, g in zip(scales, gradient, strict=True))
    return _change_of(net)(params, data.x, gradient)


def orthogonal(seed: int, size: int):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


# --- closed forms


@check(source=OLIVIERS, algorithms=["bp"], kind="identity")
def backpropagation_moves_the_output_along_its_closed_form() -> Measured:
    """The derivative of the network along BP's own gradient is M_BP e."""
    matrices, x, y = random_chain(5)
    found = change("bp", matrices, x, y)[0]
    return Measured(relative(found, output_change(matrices, x, y, "bp")), ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def predictive_coding_moves_the_output_along_its_closed_form() -> Measured:
    """The derivative of the network along PC's own gradient is M_PC S⁻¹e."""
    matrices, x, y = random_chain(5)
    found = change("pc", matrices, x, y)[0]
    return Measured(relative(found, output_change(matrices, x, y, "pc")), ROUNDING)


@check(source=OLIVIERS, algorithms=["bp", "pc"], kind="identity", cases=[("bp",), ("pc",)])
def a_batch_moves_each_output_by_what_its_samples_share(name) -> Measured:
    """Sample i moves by the mean over j of Σ_l (h_{l-1}ⁱ·z_{l-1}ʲ) G_l S⁻¹eʲ (BP: h for z, e for
    S⁻¹e)."""
    matrices, *_ = random_chain(4)
    generator = np.random.default_rng(2)
    x, y = (generator.normal(size=(3, n)) for n in (3, 2))
    found, expected = change(name, matrices, x, y), []
    maps = downstream(matrices)
    for i in range(3):
        moved, before = 0.0, [x[i], *forward(matrices, x[i])]
        for j in range(3):
            solution = equilibrium(matrices, x[j], y[j])
            read, direction = [x[j], *solution.states], solution.errors[-1]
            if name == "bp":
                read = [x[j], *forward(matrices, x[j])]
                direction = y[j] - read[-1]
            for a, h, z in zip(maps, before, read, strict=False):
                moved = moved + (h @ z) * (a @ (a.T @ direction)) / 3
        expected.append(moved)
    return Measured(relative(found, np.stack(expected)), ROUNDING)


@check(source=OLIVIERS, algorithms=["bp"], kind="identity")
def backpropagation_moves_the_output_along_the_tangent_kernel() -> Measured:
    """M_BP = JJᵀ with J the Jacobian of the output in the weights: the neural tangent kernel."""
    matrices, x, y = random_chain(4)
    net, params = chain(*matrices)
    jacobian = jit(jax.jacrev(lambda p: net.forward(p, x[None])[-1][0]))(params)
    flat = [j.reshape(2, -1) for j in jax.tree.leaves(arrays(jacobian))]
    kernel = sum(j @ j.T for j in flat)
    error = y - forward(matrices, x)[-1]
    return Measured(relative(change("bp", matrices, x, y)[0], kernel @ error), ROUNDING)


@check(source=SONG, algorithms=["bp", "pc"], kind="slope", cases=[("bp",), ("pc",)])
def finite_updates_approach_the_first_order(name) -> Measured:
    """The output's change for a learning rate η, over η, is the first-order change plus O(η)."""
    matrices, x, y = random_chain(4)
    net, params = chain(*matrices)
    data, rates, errors = as_batch(x, y), (1e-2, 1e-3, 1e-4), []
    gradient = compiled(rule_of(name, net))(params, data, hyper(**NUMBERS))
    first = _change_of(net)(params, data.x, gradient)
    for rate in rates:
        moved = difference(params, scaled(gradient, rate))
        before, after = (compiled_forward(net)(p, data.x)[-1] for p in (params, moved))
        errors.append(relative((after - before) / rate, first))
    return order(rates, errors, 1)


# --- conditions for an alignment of one


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def the_last_layer_alone_is_aligned() -> Measured:
    """With T = 0 only the last layer learns: the output moves by ‖h_{L-1}‖² e, alignment one."""
    matrices, x, y = random_chain(4)
    net, params = chain(*matrices)
    data = as_batch(x, y)
    gradient = compiled(build(PC, net, steps=0))(params, data, hyper())
    *_, last, output = forward(matrices, x)
    found = _change_of(net)(params, data.x, gradient)[0]
    return Measured(relative(found, (last @ last) * (y - output)), ROUNDING)


@check(source=SONG, algorithms=["bp", "pc"], kind="identity", cases=[("bp",), ("pc",)])
def orthogonal_weights_are_aligned(name) -> Measured:
    """All G_l = I: the alignment is one under both rules."""
    matrices = [orthogonal(seed, 4) for seed in range(5)]
    _, x, y = random_chain(2, inputs=4, outputs=4)
    moved = change(name, matrices, x, y)
    return Measured(abs(alignment(moved, y - forward(matrices, x)[-1]) - 1), ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def layer_rates_can_align_predictive_coding() -> Measured:
    """With learning rates η/c_l, c_l = h_{l-1}·z_{l-1}, the output moves by ηe to first order."""
    matrices, x, y = random_chain(4, seed=1)
    states, before = equilibrium(matrices, x, y).states, forward(matrices, x)
    shared = [h @ z for h, z in zip([x, *before[:-1]], [x, *states[:-1]], strict=True)]
    found = change("pc", matrices, x, y, scales=[1 / c for c in shared])[0]
    return Measured(relative(found, y - before[-1]), ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def precisions_can_align_predictive_coding() -> Measured:
    """With equal learning rates and variances σ_l² ∝ c_l (a fixed point, as c depends on σ²) the
    output moves along e."""
    matrices, x, y = random_chain(3, seed=1)
    before = [x, *forward(matrices, x)]
    variances = np.ones(3)
    for _ in range(500):
        states, *_ = weighted_equilibrium(matrices, x, y, variances)
        shared = np.array([h @ z for h, z in zip(before, [x, *states[:-1]], strict=False)])
        variances = 0.5 * variances + 0.5 * shared / shared[-1]
    precisions = 1 / variances
    numbers = {"step_size": 0.1 / precisions.max(), "momentum": 0.9}
    moved = change("pc", matrices, x, y, **numbers, precisions=precisions)
    return Measured(abs(alignment(moved, y - before[-1]) - 1), ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="identity", cases=[("tanh",), ("identity",)])
def one_update_can_hit_the_target(activation) -> Measured:
    """z_l = Wφ(z_{l-1}) + ε_l: with learning rates 1/‖φ(z_{l-1})‖² the next forward pass runs
    through the relaxed states and ends at y exactly, after any number of relaxation steps."""
    net = network(depth=3, activation=activation, states="pre", bias=False)
    params, sigma = weights(net), net.factors[1].module.source_activation
    _, x, y = random_chain(2, inputs=6, outputs=4)
    data, rule = as_batch(x, y), build(PC, net, steps=7)
    gradient = compiled(rule)(params, data, hyper())
    states = compiled_states(rule, "clamp")(params, data, hyper())[1]
    sources = arrays([data.x, *map(sigma, states[:-1])])
    moved = tuple(
        {"W": np.asarray(p["W"]) - g["W"] / np.sum(s**2)}
        for p, g, s in zip(params, gradient, sources, strict=True)
    )
    return Measured(relative(compiled_forward(net)(moved, data.x), states), ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def one_update_can_hit_the_targets_of_a_batch() -> Measured:
    """ΔW_l = E_l φ(Z_{l-1})⁺, with no more samples than units in any layer: all targets are met."""
    net = network(depth=4, states="pre", bias=False)
    params, sigma = weights(net), net.factors[1].module.source_activation
    generator = np.random.default_rng(3)
    data = as_batch(*(generator.normal(size=(4, n)) for n in (6, 4)))
    states = compiled_states(build(PC, net, steps=7), "clamp")(params, data, hyper())[1]
    sources, moved = arrays([data.x, *map(sigma, states[:-1])]), []
    for p, source, state in zip(arrays(params), sources, states, strict=True):
        error = state - source @ p["W"]
        moved.append({"W": p["W"] + np.linalg.pinv(source) @ error})
    return Measured(relative(compiled_forward(net)(tuple(moved), data.x)[-1], data.target), 1e-11)


@check(source="Meulemans et al. 2020, arXiv 2006.14331", algorithms=["ddtp"], kind="identity")
def gauss_newton_targets_are_aligned_in_invertible_networks() -> Measured:
    """Square linear layers: A_l(t_l - h_l) = -ηe in every layer, so the output moves along e to
    first order (finite updates need not)."""
    generator = np.random.default_rng(4)
    matrices = [np.eye(4) + 0.3 * generator.normal(size=(4, 4)) for _ in range(4)]
    x, y = generator.normal(size=(2, 4))
    net, params = chain(*matrices)
    data, rule = as_batch(x, y), build(DDTP, net, feedback="gauss_newton")
    numbers = {"algorithm": {"target_step": 0.1, "feedback_weight_decay": 0.0}}
    gradient = jit(
        lambda w: rule.gradient(w, rule.memory(jax.random.key(0)), data, numbers, None)[0]
    )(params)
    moved = _change_of(net)(params, data.x, gradient)
    return Measured(abs(alignment(moved, y - forward(matrices, x)[-1]) - 1), ROUNDING)


# --- bounds and limits


@check(source=OLIVIERS, algorithms=["bp"], kind="bound")
def kantorovich_bounds_the_alignment_of_backpropagation() -> Measured:
    """TA_BP ≥ 2√(λ_min λ_max)/(λ_min + λ_max), the eigenvalues being those of M_BP: the largest
    violation in twenty networks."""
    violations = []
    for seed in range(20):
        matrices, x, y = random_chain(4, seed=seed, outputs=3)
        before = [x, *forward(matrices, x)]
        pairs = zip(before[:-1], downstream(matrices), strict=True)
        kernel = sum((h @ h) * (a @ a.T) for h, a in pairs)
        low, *_, high = np.linalg.eigvalsh(kernel)
        found = alignment(output_change(matrices, x, y, "bp"), y - before[-1])
        violations.append(2 * np.sqrt(low * high) / (low + high) - found)
    return Measured(max(violations), 1e-14)


SCALAR_SEED = 214  # a network of which predictive coding moves the output away from its target


@check(source=OLIVIERS, algorithms=["bp"], kind="identity")
def scalar_outputs_are_aligned_under_backpropagation() -> Measured:
    """One output: M_BP is a positive number, so the alignment is +1 whatever the weights."""
    off = 0.0
    for seed in range(6):
        matrices, x, y = random_chain(3, seed=seed, width=4, outputs=1)
        moved = change("bp", matrices, x, y)
        off = max(off, abs(alignment(moved, y - forward(matrices, x)[-1]) - 1))
    return Measured(off, ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="identity")
def predictive_coding_can_move_a_scalar_output_away() -> Measured:
    """One output: the alignment of PC is the sign of Σ c_l G_l, which in this network is -1, though
    the energy falls."""
    matrices, x, y = random_chain(3, seed=SCALAR_SEED, width=4, outputs=1)
    moved = change("pc", matrices, x, y)
    return Measured(abs(alignment(moved, y - forward(matrices, x)[-1]) + 1), ROUNDING)


@check(source=OLIVIERS, algorithms=["pc"], kind="slope")
def small_errors_precondition_backpropagation() -> Measured:
    """As ‖e‖ → 0, M_PC → M_BP: TA_PC tends to cos(M_BP S⁻¹e, e) with slope one."""
    matrices, x, _ = random_chain(4)
    output = forward(matrices, x)[-1]
    direction = np.array([0.6, -0.8])
    maps, before = downstream(matrices), [x, *forward(matrices, x)]
    kernel = sum((h @ h) * a @ a.T for h, a in zip(before[:-1], maps, strict=True))
    rescaled = np.linalg.solve(sum(a @ a.T for a in maps), direction)
    limit = cosine(kernel @ rescaled, direction)
    sizes, errors = (1e-1, 1e-2, 1e-3), []
    for size in sizes:
        moved = change("pc", matrices, x, output + size * direction)[0]
        errors.append(abs((cosine(moved, direction)) - limit))
    return order(sizes, errors, 1)
