"""Equilibrium propagation, contrastive and coupled learning on the Hopfield energy.

Their reference is the gradient of the loss at the free equilibrium of the *recurrent* network,
by the implicit function theorem, never the backpropagation of a feed-forward one.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.chl import CHL
from pcbench.algorithms.coupled import CoupledLearning
from pcbench.algorithms.ep import EP
from pcbench.algorithms.holomorphic_ep import HolomorphicEP
from pcbench.algorithms.pc import PC
from pcbench.algorithms.phases import Phase
from pcbench.energies.energy import total
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured, order
from pcbench.verify.problems import (
    FREE,
    ROUNDING,
    along,
    arrays,
    backpropagated,
    build,
    compiled,
    compiled_states,
    directional,
    energy,
    free_states,
    hessian,
    hyper,
    implicit_gradient,
    jit,
    largest,
    problem,
    relative,
    scaled,
    small,
)

SCELLIER = "Scellier & Bengio 2017, arXiv 1602.05179"
COMPARED = "Scellier et al. 2023, arXiv 2312.15103"
LABORIEUX = "Laborieux et al. 2021, arXiv 2006.03824"
ERNOULT = "Ernoult et al. 2019, arXiv 1905.13633"
HOLOMORPHIC = "Laborieux & Zenke 2022, arXiv 2209.00530"
MOVELLAN = "Movellan 1991"

STEPS = 150  # mirror steps to rounding, in the small network
HOPFIELD = {
    "energy": "hopfield",
    "updater": "mirror",
    "schedule": "even_odd",
    "start": "zeros",
    "steps": STEPS,
    "free_steps": STEPS,
    "eval_steps": STEPS,
}


def rule_of(kind, **choices):
    net, params, data = small()
    return build(kind, net, **(HOPFIELD | choices)), params, data


@cache
def _implicit(rescaled):
    """The gradient of the loss at the free equilibrium, its output error scaled by S = [(H⁻¹)_oo]⁻¹
    or not."""
    rule, *_ = rule_of(EP)

    def of_sample(params, x, y, h, error):
        inverse = jnp.linalg.inv(hessian(rule, params, x, y, hyper(), h))
        return jnp.linalg.solve(inverse[-error.size :, -error.size :], error)

    def gradient(params, data):
        free = free_states(rule, params, data, hyper())
        error = free[-1] - data.target
        if rescaled:
            error = jax.vmap(of_sample, (None, 0, 0, 0, 0))(
                params, data.x, data.target, free, error
            )
        return implicit_gradient(rule, params, data, hyper(), free, error)

    return jit(gradient)


def implicit(params, data, rescaled=False):
    """The gradient of the loss at the free equilibrium."""
    return arrays(_implicit(rescaled)(params, data))


# --- the gradient of the loss


@check(source=COMPARED, algorithms=["ep"], kind="identity")
def unrolling_from_the_equilibrium_gives_the_implicit_gradient() -> Measured:
    """The reference gradient of a recurrent net: backpropagation through a relaxation that starts
    at the free equilibrium is the implicit gradient."""
    rule, params, data = rule_of(EP)
    unrolled = jit(lambda w: rule.reference_gradient(w, data, hyper()))(params)
    return Measured(relative(unrolled, implicit(params, data)), ROUNDING)


@check(source=LABORIEUX, algorithms=["ep"], kind="slope",
       cases=[("positive",), ("negative",), ("centred",)])  # fmt: skip
def equilibrium_propagation_tends_to_the_gradient(nudging) -> Measured:
    """EP(β) is the gradient of the loss at the free equilibrium plus O(β), centred O(β²)."""
    rule, params, data = rule_of(EP, nudging=nudging)
    expected, betas = implicit(params, data), (1e-1, 3e-2, 1e-2)
    found = [compiled(rule)(params, data, hyper(beta=beta)) for beta in betas]
    errors = [relative(f, expected) for f in found]
    return order(betas, errors, 2 if nudging == "centred" else 1, 0.1)


@check(source=COMPARED, algorithms=["ep"], kind="identity", cases=[("positive",), ("centred",)])
def at_finite_beta_it_is_the_gradient_of_a_contrast_of_energies(nudging) -> Measured:
    """EP(β) = d/dθ (1/β)[F_β(h^β) - F₀(h⁰)], centred d/dθ (1/2β)[F_β(h^β) - F_-β(h^-β)], exactly,
    for any β: by finite differences through both relaxations."""
    beta = 0.3
    rule, params, data = rule_of(EP, nudging=nudging)
    other = -beta if nudging == "centred" else 0.0

    @jit
    def value(w):
        def at(strength):
            phase = Phase("nudge", 1.0, strength)
            free = free_states(rule, w, data, hyper())
            states = problem(rule, w, data, hyper()).relax(phase, free)[0]
            return energy(rule, phase, w, data, hyper(), states)

        first, second = jax.vmap(at)(jnp.array([beta, other]))
        return (first - second) / (beta - other)

    slope, direction = directional(value, params)
    found = compiled(rule)(params, data, hyper(beta=beta))
    return Measured(abs(along(found, direction) / slope - 1), 1e-9)


@check(source=COMPARED, algorithms=["ep"], kind="identity")
def centred_is_the_mean_of_both_signs() -> Measured:
    """Every nudge restarts from the free state, so centred EP is (positive + negative)/2, and one
    of random sign is one of the two."""
    found = {}
    for nudging in ("positive", "negative", "centred", "random"):
        rule, params, data = rule_of(EP, nudging=nudging, steps=6)
        found[nudging] = compiled(rule)(params, data, hyper(beta=0.2))
    sides = found["positive"], found["negative"]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *sides)
    signs = (relative(found["random"], side) for side in sides)
    return Measured(max(relative(found["centred"], mean), min(signs)), ROUNDING)


# --- contrastive and coupled learning


@check(source=MOVELLAN, algorithms=["chl"], kind="identity")
def contrastive_learning_is_the_gradient_of_its_contrast() -> Measured:
    """CHL = d/dθ [F(h^clamped) - F(h^free)], by finite differences through both relaxations."""
    rule, params, data = rule_of(CHL)
    clamp = Phase("clamp", 1.0)

    @jit
    def value(w):
        free = free_states(rule, w, data, hyper())
        states = problem(rule, w, data, hyper()).relax(clamp, free)[0]
        contrast = [energy(rule, FREE, w, data, hyper(), h) for h in (states, free)]
        return contrast[0] - contrast[1]

    slope, direction = directional(value, params)
    found = compiled(rule)(params, data, hyper())
    return Measured(abs(along(found, direction) / slope - 1), 1e-9)


@check(source=COMPARED, algorithms=["chl", "ep"], kind="slope")
def strong_nudging_is_contrastive_learning() -> Measured:
    """β·EP(β) → CHL under squared error, with slope one in 1/β."""
    rule, params, data = rule_of(EP, nudging="positive")
    chl, *_ = rule_of(CHL)
    expected, betas, errors = compiled(chl)(params, data, hyper()), (1e2, 1e3, 1e4), []
    for beta in betas:
        found = compiled(rule)(params, data, hyper(beta=beta))
        errors.append(relative(scaled(found, beta), expected))
    return order(betas, errors, -1)


@check(source="Xie & Seung 2003, Neural Computation 15(2)", algorithms=["chl"], kind="slope")
def weak_feedback_makes_contrastive_learning_backpropagate() -> Measured:
    """With precisions γ^(l-L) feedback is γ times weaker than forward weights, and CHL is the
    backpropagation of the feed-forward network plus O(γ)."""
    options = {"updater": "sgd", "schedule": "sync", "start": "feedforward"}
    rule, params, data = rule_of(CHL, **options, steps=6000, free_steps=6000)
    expected = backpropagated(rule.network, params, data)
    gammas, errors = (0.1, 0.05, 0.025), []
    for gamma in gammas:
        # descent on the sum of energies: the stiffest layer sets the step size
        numbers = hyper(0.1 * gamma**2, 0.95, precisions=gamma ** np.array([-2.0, -1.0, 0.0]))
        errors.append(relative(compiled(rule)(params, data, numbers), expected))
    return order(gammas, errors, 1)


@check(source="Stern et al. 2021, arXiv 2011.03098", algorithms=["coupled"], kind="slope",
       cases=[("positive",), ("negative",), ("centred",)])  # fmt: skip
def coupled_learning_rescales_the_error(nudging) -> Measured:
    """Coupled learning tends to the gradient with the output error multiplied by S = [(H⁻¹)_oo]⁻¹,
    H = ∂²F/∂h² at the free equilibrium: slope one in β, two if centred."""

    rule, params, data = rule_of(CoupledLearning, nudging=nudging)
    expected, betas = implicit(params, data, rescaled=True), (1e-1, 3e-2, 1e-2)
    found = [compiled(rule)(params, data, hyper(beta=beta)) for beta in betas]
    errors = [relative(f, expected) for f in found]
    return order(betas, errors, 2 if nudging == "centred" else 1, 0.1)


@check(source=COMPARED, algorithms=["coupled", "pc"], kind="identity")
def coupled_learning_on_the_pc_energy_is_nudged_predictive_coding() -> Measured:
    """Both hold the output at o - β∂C/∂o; the free term vanishes at the forward pass."""
    net, params, data = small()
    numbers = hyper(0.2, beta=0.3, beta_increment=0.0)
    options = {"steps": 6, "nudging": "positive"}
    coupled = compiled(build(CoupledLearning, net, energy="pc", **options))(params, data, numbers)
    nudged = compiled(build(PC, net, **options))(params, data, numbers)
    return Measured(relative(coupled, nudged), 1e-14)


# --- equality with the unrolled gradient at every step


STEP_SIZE, TRANSIENT = 0.2, 12


@cache
def _transients(updater: str) -> dict:
    """Of a synchronous relaxation: changes of states and of ∂F/∂θ per nudged step over β, and the
    gradients of the loss with respect to states and to each step's weights, at equilibrium."""
    options = {"updater": updater, "schedule": "sync"}
    rule, params, data = rule_of(EP, **options, steps=1)
    exact, *_ = rule_of(EP)
    numbers = hyper(STEP_SIZE)

    def step(w, h, beta):
        return problem(rule, w, data, numbers).relax(Phase("nudge", 1.0, beta), h)[0]

    @jit
    def measure(w, beta):
        free = free_states(exact, w, data, numbers)

        def weight_slopes(h):
            parts = problem(rule, w, data, numbers).energies
            return jax.grad(lambda v: total(parts(FREE, v, potentials=False)(h)))(w)

        def nudged(carry, _):
            h, slopes = carry
            moved = step(w, h, beta)
            after = weight_slopes(moved)
            change = lambda a, b: jax.tree.map(lambda x, y: (x - y) / beta, a, b)  # noqa: E731
            return (moved, after), (change(moved, h), change(after, slopes))

        _, observed = jax.lax.scan(nudged, (free, weight_slopes(free)), length=TRANSIENT)

        _, pull = jax.vjp(lambda v, h: step(v, h, 0.0), w, free)

        def unrolled(cotangent, _):
            of_weights, of_states = pull(cotangent)
            return of_states, (cotangent, of_weights)

        top = (*jax.tree.map(jnp.zeros_like, free[:-1]), free[-1] - data.target)
        _, expected = jax.lax.scan(unrolled, top, length=TRANSIENT)
        return free, observed, expected

    betas, errors = (1e-2, 1e-3, 1e-4), {"states": [], "weights": []}
    for beta in betas:
        free, (states, slopes), (of_states, of_weights) = arrays(measure(params, beta))
        factors = [-STEP_SIZE] * len(free)
        if updater == "mirror":  # σ'(a) at h = σ(a), of the sigmoid and the identity
            factors = [*(-h * (1 - h) for h in free[:-1]), -1.0]
        predicted = tuple(f * g for f, g in zip(factors, of_states, strict=True))
        errors["states"].append(relative(states, predicted))
        errors["weights"].append(relative(slopes, of_weights))
    return {name: order(betas, values, 1) for name, values in errors.items()}


@check(source=ERNOULT, algorithms=["ep"], kind="slope", cases=[("states",), ("weights",)])
def nudged_steps_of_gradient_descent_follow_the_unrolled_gradient(what) -> Measured:
    """h ← h - ε∂F: step t after the nudge, Δh/β = -ε∇_h(T-t) and Δ(∂F/∂θ)/β = ∇_θ(T-1-t) of
    backpropagation through time, up to O(β)."""
    return _transients("sgd")[what]


@check(source=ERNOULT, algorithms=["ep"], kind="slope", cases=[("states",), ("weights",)])
def nudged_steps_of_mirror_descent_follow_the_unrolled_gradient(what) -> Measured:
    """h ← σ(∂Φ/∂h): as with gradient descent for the weights, while the states carry a factor
    σ'(a): Δh/β = -σ'∇_h(T-t)."""
    return _transients("mirror")[what]


@check(source=ERNOULT, algorithms=["ep"], kind="slope")
def the_second_phase_converges_at_the_rate_of_its_jacobian() -> Measured:
    """Synchronous fixed-point iteration: with T steps in the nudged phase the gradient's error
    falls like ρᵀ, ρ the spectral radius of the iteration's Jacobian at equilibrium."""
    rule, params, data = rule_of(EP, schedule="sync", steps=1)
    exact, *_ = rule_of(EP)

    def step(h, beta):
        return problem(rule, params, data, hyper()).relax(Phase("nudge", 1.0, beta), h)[0]

    @jit
    def contrast(free, steps, beta=1e-3):
        def slope(strength):
            h = jax.lax.fori_loop(0, steps, lambda _, h: step(h, strength), free)
            phase = Phase("nudge", 1.0, strength)
            parts = problem(rule, params, data, hyper()).energies
            return jax.grad(lambda w: total(parts(phase, w, potentials=False)(h)))(params)

        up, down = slope(beta), slope(-beta)
        return jax.tree.map(lambda a, b: (a - b) / (2 * beta * len(data.x)), up, down)

    free = compiled_states(exact, "nudge")(params, data, hyper())[0]
    expected = compiled(exact)(params, data, hyper(beta=1e-3))
    flat, restore = jax.flatten_util.ravel_pytree(free)
    jacobian = jit(jax.jacobian(lambda f: jax.flatten_util.ravel_pytree(step(restore(f), 0.0))[0]))(
        flat
    )
    radius = float(np.abs(np.linalg.eigvals(np.asarray(jacobian))).max())
    counts = np.array([8, 12, 16, 20, 24])
    errors = [relative(contrast(free, n), expected) for n in counts]
    rate = np.polyfit(counts, np.log(errors), 1)[0]
    return Measured(abs(rate / np.log(radius) - 1), 0.05)


# --- holomorphic


def _holomorphic_errors(points: int, radii) -> list[float]:
    rule, params, data = rule_of(HolomorphicEP, points=points)
    expected = implicit(params, data)
    return [relative(compiled(rule)(params, data, hyper(beta=r)), expected) for r in radii]


@check(source=HOLOMORPHIC, algorithms=["holomorphic_ep"], kind="slope", cases=[(2,), (4,), (6,)])
def a_circle_of_n_points_has_an_error_of_order_n(points) -> Measured:
    """The first Fourier coefficient that N points on a circle of radius r mistake is the one at
    N + 1: the error is O(rᴺ)."""
    radii = (0.2, 0.15, 0.1)
    return order(radii, _holomorphic_errors(points, radii), points, 0.05 * points)


@check(source=HOLOMORPHIC, algorithms=["holomorphic_ep"], kind="slope")
def the_error_falls_geometrically_in_the_number_of_points() -> Measured:
    """At fixed radius every two more points divide the error by the same factor: the slope of log
    error in N from 2 to 4 is that from 4 to 6."""
    logs = [np.log(_holomorphic_errors(n, [0.1])[0]) for n in (2, 4, 6)]
    first, second = np.diff(logs)
    return Measured(abs(first / second - 1), 0.1)


@check(source=HOLOMORPHIC, algorithms=["holomorphic_ep", "ep"], kind="identity")
def two_points_are_centred_equilibrium_propagation() -> Measured:
    """N = 2 is the pair ±β, at any number of steps."""
    holomorphic, params, data = rule_of(HolomorphicEP, points=2)
    centred, *_ = rule_of(EP)
    numbers = hyper(beta=0.3)
    found, expected = (compiled(r)(params, data, numbers) for r in (holomorphic, centred))
    return Measured(relative(found, expected), ROUNDING)


@check(source=COMPARED, algorithms=["ep"], kind="identity",
       cases=[("projected", None), ("sgd", None), ("sgd", (0.5, 2.0, 0.8))])  # fmt: skip
def updaters_share_their_equilibria(updater, precisions) -> Measured:
    """Mirror descent, projected and plain gradient descent stop where ∂F/∂h = 0: one gradient."""
    choices = {"steps": 1500, "free_steps": 1500, "start": "feedforward"}
    other, params, data = rule_of(EP, updater=updater, **choices)
    mirror, *_ = rule_of(EP)
    weighted = {} if precisions is None else {"precisions": np.array(precisions)}
    numbers = hyper(0.1, beta=0.2, **weighted)
    found, expected = (compiled(r)(params, data, numbers) for r in (other, mirror))
    return Measured(relative(found, expected), 1e-11)


@check(source=COMPARED, algorithms=["ep", "chl", "coupled"], kind="identity")
def nudged_equilibria_are_stationary() -> Measured:
    """What mirror descent finds satisfies ∂(F + βC)/∂h = 0, potentials included."""
    rule, params, data = rule_of(EP)
    beta = 0.3
    _, states = compiled_states(rule, "nudge")(params, data, hyper(), beta)
    phase = Phase("nudge", 1.0, beta)
    parts = problem(rule, params, data, hyper()).energies(phase, params)
    slopes = jit(jax.grad(lambda h: total(parts(h))))(states)
    return Measured(largest(slopes), ROUNDING)
