"""Learning rules that are weighted phases of one energy.

A rule names an energy F of the layer states and a list of phases; in each phase the states relax
under a condition on the output, and the gradient is

    ĝ = Σ_i w_i ∂/∂θ mean_B F(θ, h⁽ⁱ⁾)        (the states held fixed)

Output conditions, with o the output of the free state, y the target, C the loss:

    free     h_L relaxes under F
    nudge    h_L relaxes under F + βC(h_L, y)
    clamp    h_L is held at y
    shift    h_L is held at o - β ∂C/∂o

Every phase but the free one starts from the free state. On the `pc` and `fenchel_young` energies
the free state is the forward pass and the free gradient is zero (references: Scellier et al. 2023,
"Energy-based learning algorithms for analog computing"; Kerjan, Høier & Scellier 2026).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pcbench.algorithms.base import GradientAlgorithm, Info, Unsupported
from pcbench.energies.energy import (
    ENERGIES,
    layer_energies,
    per_factor,
    per_layer,
    squared_error,
    total,
)
from pcbench.networks.network import INPUT, Factor
from pcbench.relaxation.frontier import Window, remaining, windows
from pcbench.relaxation.relax import relax
from pcbench.relaxation.schedules import SCHEDULES
from pcbench.relaxation.updaters import (
    MIRROR,
    PROJECTED,
    gradient_updater,
    mirror_updater,
    projected_updater,
)


class Phase(NamedTuple):
    output: str  # free | nudge | clamp | shift
    weight: Array | float
    beta: Array | float | None = None  # of nudge and shift


@dataclass(frozen=True)
class PhaseRule(GradientAlgorithm):
    """Static choices of every rule of phases; a rule itself is its `phases`."""

    steps: int  # of each phase but the free one
    energy: str = "pc"  # pc | hopfield | fenchel_young
    updater: str = "sgd"
    schedule: str = "sync"
    start: str = "feedforward"  # of the free state: feedforward | zeros | previous | persistent
    free_steps: int = 0  # of the free phase on `hopfield`
    eval_steps: int = 0  # of the free phase when predicting

    energies = ENERGIES  # that the rule is defined on
    starts = ("feedforward", "zeros", "previous", "persistent")
    nudgings = ("positive", "negative", "centred")

    def __post_init__(self):
        """Raises Unsupported where the energy, the network and the updater do not go together."""
        name = type(self).__name__
        if self.energy not in self.energies:
            raise Unsupported(f"{name} is defined on energy={' or '.join(self.energies)}.")
        if self.energy == "pc" and self.updater == MIRROR:
            raise Unsupported(
                "mirror descent needs the potentials of energy=hopfield or fenchel_young; with "
                "energy=pc use updater=projected or an optax optimiser."
            )
        if self.start not in self.starts:
            raise Unsupported(f"{name} starts from {' or '.join(self.starts)}, not {self.start}.")
        nudging = getattr(self, "nudging", None)
        if nudging is not None and nudging not in self.nudgings:
            raise Unsupported(f"{name} has nudging={' or '.join(self.nudgings)}, not {nudging}.")
        if not self.recurrent and self.start in ("previous", "persistent") and not self.infers:
            raise Unsupported(
                f"start={self.start} is for energy=hopfield: with energy={self.energy} the free "
                "state is the forward pass, start=feedforward."
            )
        if self.energy != "pc":
            for factor in self.network.factors:
                require_potentials(factor, self.energy)

    def phases(self, numbers: dict[str, Array], epoch: Array, key: Array) -> tuple[Phase, ...]:
        """What the rule is."""
        raise NotImplementedError

    @property
    def recurrent(self) -> bool:
        """Whether the free state takes a relaxation to find."""
        return self.energy == "hopfield"

    # --- learning

    def gradient(self, weights, memory, batch, hyper, key, measure=False):
        numbers = hyper["algorithm"]
        forward = None if self.recurrent else self.network.forward(weights, batch.x)
        free, hidden = forward, None
        if self.recurrent:
            start = self._recalled(weights, memory, batch)
            free = self._free(weights, batch.x, start, numbers, self.free_steps)
        elif self.start == "persistent":
            hidden = self._recalled(weights, memory, batch)[:-1]
        problem = Problem(self, weights, batch, numbers, forward, hidden, key)
        phases = self.phases(numbers, batch.epoch, key)
        described = next(n for n, phase in enumerate(phases) if phase.output != "free")
        results = [
            problem.relax(phase, free, trace=measure and n == described)
            for n, phase in enumerate(phases)
        ]

        def objective(w):
            """Σ w_i F(w, h⁽ⁱ⁾); the loss has no weights, and neither have the potentials."""
            value = 0.0
            for phase, (states, _) in zip(phases, results, strict=True):
                if phase.output != "free" or self.recurrent:
                    energy = total(problem.energies(phase, w, potentials=False)(states))
                    value += phase.weight * energy
            return value / batch.x.shape[0]

        gradient = jax.grad(objective)(weights)
        remembered = free if self.recurrent else results[described][0]
        memory = self._remembered(memory, batch, remembered)
        if not measure:
            return gradient, memory, None
        return gradient, memory, problem.info(phases[described], free, *results[described])

    # --- the free state

    def states(self, weights, x, hyper):
        if not self.recurrent:
            return super().states(weights, x, hyper)
        start = self._start(weights, x)
        return self._free(weights, x, start, hyper["algorithm"], self.eval_steps)

    def reference_gradient(self, weights, batch, hyper):
        """Of a recurrent net: the gradient of the loss at the free equilibrium, by unrolling the
        relaxation from there (Scellier et al. 2023: it is the implicit gradient)."""
        if not self.recurrent:
            return super().reference_gradient(weights, batch, hyper)
        numbers = hyper["algorithm"]
        free = jax.lax.stop_gradient(self.states(weights, batch.x, hyper))

        def mean_loss(w):
            output = self._free(w, batch.x, free, numbers, self.eval_steps)[-1]
            return jnp.mean(self.loss(output, batch.target))

        return jax.grad(mean_loss)(weights)

    def _free(self, weights, x, start, numbers, steps: int) -> tuple:
        constant = self._constant_outputs(weights, x)
        energies = lambda h: self._layer_energies(weights, x, h, numbers, constant)  # noqa: E731
        drive = None
        if self.updater == MIRROR:
            drive = lambda h: self._layer_energies(  # noqa: E731
                weights, x, h, numbers, constant, potentials=False
            )
        return relax(
            energies,
            start,
            steps=steps,
            updater=self.make_updater(numbers, free_output=True),
            colours=SCHEDULES[self.schedule](self.network),
            drive=drive,
        ).states

    def _start(self, weights, x) -> tuple:
        if self.start == "feedforward":
            return self.network.forward(weights, x)
        shapes = self.network.state_shapes(x.shape[0])
        return jax.tree.map(lambda s: jnp.zeros(s.shape, x.dtype), shapes)

    def memory(self, key):
        """`previous`: the free states of the last batch; `persistent`: of every sample."""
        size = {"previous": self.sizes.batch, "persistent": self.sizes.samples}.get(self.start)
        if size is None:
            return ()
        shapes = self.network.state_shapes(size)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.result_type(float)), shapes)

    def _recalled(self, weights, memory, batch) -> tuple:
        if self.start == "persistent":
            return self._by_sample(lambda m, axis: jnp.take(m, batch.index, axis), memory)
        if self.start == "previous" and memory[-1].shape[0] == batch.x.shape[0]:
            return memory
        return self._start(weights, batch.x)

    def _remembered(self, memory, batch, free):
        if self.start == "previous" and memory[-1].shape[0] == batch.x.shape[0]:
            return free
        if self.start == "persistent":
            put = lambda m, axis, h: (  # noqa: E731
                m.at[batch.index].set(h) if axis == 0 else m.at[:, batch.index].set(h)
            )
            return self._by_sample(put, memory, free)
        return memory

    def _by_sample(self, function: Callable, *states: tuple) -> tuple:
        """`function(state, axis of the samples, …)` for every factor."""
        first, *others = states
        return tuple(
            function(first[k], 0 if factor.length is None else 1, *(o[k] for o in others))
            for k, factor in enumerate(self.network.factors)
        )

    # --- energies and updates

    def _layer_energies(self, weights, x, states, numbers, known, **options) -> tuple:
        network = self.network
        compute = network.predict if self.energy == "pc" else network.preactivations
        outputs = compute(weights, x, states, known)
        precisions = self._precisions(numbers) if "precisions" in numbers else None
        return layer_energies(
            self.energy, network, outputs, states, precisions=precisions, **options
        )

    def _precisions(self, numbers) -> tuple:
        """One entry per factor."""
        ones = jnp.ones(self.network.layers)
        return per_factor(self.network, numbers.get("precisions", ones))

    @property
    def constant(self) -> tuple[int, ...]:
        """Factors that read the input only: their output is constant during relaxation."""
        factors = enumerate(self.network.factors)
        return tuple(k for k, f in factors if not f.length and set(f.sources) == {INPUT})

    def _constant_outputs(self, weights, x) -> dict[int, Array]:
        compute = Factor.apply if self.energy == "pc" else Factor.pre
        factors = self.network.factors
        return {
            k: compute(factors[k], weights[k], *(x for _ in factors[k].sources))
            for k in self.constant
        }

    def make_updater(self, numbers, free_output: bool, output_link: Callable | None = None):
        """The updater of all states, or of the hidden ones where the output is held."""
        links = [factor.activation for factor in self.network.factors] if self._links else []
        if self.updater == MIRROR:
            # π_l(σ⁻¹(h_l) - a_l) plus what comes from above vanishes: h_l = σ(-drive / π_l)
            links = [_scaled(s, p) for s, p in zip(links, self._precisions(numbers), strict=True)]
            links = [*links[:-1], output_link] if output_link else links
        links = links if free_output else links[:-1]
        if self.updater == MIRROR:
            return mirror_updater(links)
        if self.updater == PROJECTED:
            return projected_updater(links, numbers["step_size"])
        return gradient_updater(self.updater, numbers["step_size"], numbers["momentum"])

    @property
    def _links(self) -> bool:
        return self.updater in (MIRROR, PROJECTED)

    # --- cost

    @property
    def layer_updates_per_step(self) -> int:
        numbers = {"beta": 0.5, "beta_increment": 0.0}
        phases = self.phases(numbers, jnp.zeros((), jnp.int32), jax.random.key(0))
        layers = self.network.layers
        updates = self.free_steps * layers if self.recurrent else 0
        for phase in phases:
            if phase.output != "free":
                updates += self.steps * (layers if phase.output == "nudge" else layers - 1)
        return updates


@dataclass(frozen=True)
class Problem:
    """One batch under one set of weights: relaxations from its free state."""

    rule: PhaseRule
    weights: Any
    batch: Any
    numbers: dict
    forward: tuple | None  # the forward pass, where it is the free state
    remembered: tuple | None = None  # hidden states of earlier batches, to start from
    key: Array | None = None  # of the noise

    def energies(self, phase: Phase, weights, known=None, **options) -> Callable:
        """F of all states, per factor, of this phase."""
        rule, batch = self.rule, self.batch
        if phase.output == "clamp" and rule.energy == "pc":
            options["output_loss"] = rule.loss

        def parts(states):
            found = rule._layer_energies(
                weights, batch.x, states, self.numbers, known or {}, **options
            )
            if phase.output == "nudge" and options.get("potentials", True):
                cost = phase.beta * rule.loss(states[-1], batch.target)
                found = (*found[:-1], found[-1] + cost)
            return found

        return parts

    def held(self, phase: Phase, free: tuple) -> Array | None:
        """The value that the output state is held at; None where it is free."""
        if phase.output == "clamp":
            return self.batch.target
        if phase.output == "shift":
            output = free[-1]
            slope = jax.grad(lambda o: jnp.sum(self.rule.loss(o, self.batch.target)))(output)
            return output - phase.beta * slope
        return None

    def relax(self, phase: Phase, free: tuple, trace: bool = False) -> tuple[tuple, list]:
        """The states at the end of a phase, and the energy traces of its windows."""
        if phase.output == "free":
            return free, []
        rule, numbers = self.rule, self.numbers
        held = self.held(phase, free)
        states = self.hidden_start(free) if held is not None else free
        complete = (lambda h: h) if held is None else (lambda h: (*h, held))
        updater_state, traces = None, []
        colours = SCHEDULES[rule.schedule](rule.network)
        if held is not None and colours is not None:
            colours = [colour[:-1] for colour in colours]
        for window in self.windows(held is None) if states else ():
            part, known = self.part(window), self.known(window)
            moving = tuple(h[n:] if n else h for h, n in zip(states, window.first, strict=False))
            updater = part.updater(phase, held is None)
            if updater_state is not None:
                updater_state = _joined(updater, moving, updater_state)
            moving, updater_state, energy = relax(
                _compose(part.energies(phase, part.weights, known), complete),
                moving,
                steps=window.steps,
                updater=updater,
                free_mask=window.free if held is None else window.free[:-1],
                colours=colours,
                drive=part.drive(phase, known, complete),
                discount=numbers.get("step_discount"),
                noise=rule.noise(numbers),
                key=self.key,
                updater_state=updater_state,
                trace=trace,
            )
            states = tuple(
                jnp.concatenate([h[:n], m]) if n else m
                for h, m, n in zip(states, moving, window.first, strict=False)
            )
            if trace:  # layers at rest have no energy
                full = jnp.zeros((window.steps, rule.network.layers), energy.dtype)
                energy = full.at[:, remaining(rule.network, window.first)].set(energy)
            traces.append(energy)
        return complete(states), traces

    def hidden_start(self, free: tuple) -> tuple:
        hidden = free[:-1]
        if self.remembered is not None:
            return self.remembered
        if not self.rule.recurrent and self.rule.start == "zeros":
            return jax.tree.map(jnp.zeros_like, hidden)
        return hidden

    def updater(self, phase: Phase, free_output: bool):
        link = None
        if phase.output == "nudge" and self.rule.loss is squared_error:
            # the minimum over h_L of π(½h² - ⟨h, a⟩) + β½‖h - y‖², where the iteration
            # a - β(h - y)/π would diverge for β ≥ π
            beta, top = phase.beta, self.rule._precisions(self.numbers)[-1]
            link = lambda drive: (drive + beta * self.batch.target) / (top + beta)  # noqa: E731
        return self.rule.make_updater(self.numbers, free_output, link)

    def drive(self, phase: Phase, known, complete) -> Callable | None:
        """What mirror descent differentiates: F without potentials, and without a loss that the
        update of the output solves for."""
        rule = self.rule
        if rule.updater != MIRROR:
            return None
        parts = self.energies(phase, self.weights, known, potentials=False)

        def drive(h):
            states = complete(h)
            found = parts(states)
            if phase.output == "nudge" and rule.loss is not squared_error:
                cost = phase.beta * rule.loss(states[-1], self.batch.target)
                found = (*found[:-1], found[-1] + cost)
            return found

        return drive

    def windows(self, output_free: bool) -> list[Window]:
        rule = self.rule
        forward = rule.energy == "pc" and rule.schedule == "sync" and rule.start == "feedforward"
        if forward and rule.noise(self.numbers) is None:
            return list(windows(rule.network, rule.steps, output_free))
        free = (*(True for _ in rule.network.factors[:-1]), output_free)
        whole = (0,) * len(free)
        return [Window(rule.steps, free, whole, rule.constant)] if rule.steps else []

    def known(self, window: Window) -> dict[int, Array]:
        """The predictions that do not change in a window; of a stack, that of its first layer."""
        if self.rule.energy != "pc":
            return self.rule._constant_outputs(self.weights, self.batch.x)
        stacks = {k for k, factor in enumerate(self.rule.network.factors) if factor.length}
        return {
            k: self.forward[k][n : n + 1] if k in stacks else self.forward[k]
            for k, n in enumerate(window.first)
            if k in window.known
        }

    def part(self, window: Window) -> "Problem":
        """This problem, of the layers that a window computes."""
        if not any(window.first):
            return self
        network, numbers = self.rule.network, self.numbers
        if "precisions" in numbers:
            kept = remaining(network, window.first)
            numbers = numbers | {"precisions": numbers["precisions"][kept]}
        weights = tuple(
            # layer n's output is known
            jax.tree.map(lambda w, n=n: w[n + 1 :], own) if n and not factor.recurrent else own
            for factor, own, n in zip(network.factors, self.weights, window.first, strict=True)
        )
        rule = replace(self.rule, network=network.without(window.first))
        return replace(self, rule=rule, weights=weights, numbers=numbers)

    def info(self, phase: Phase, free: tuple, states: tuple, traces: list) -> Info:
        """Of one phase: energies before every step and after the last, and how far the states
        are from stationary, against the start."""
        known = self.rule._constant_outputs(self.weights, self.batch.x)
        last = per_layer(self.energies(phase, self.weights, known)(states))
        energy = jnp.concatenate([*traces, last[None]])
        held = self.held(phase, free)
        start = free if held is None else (*self.hidden_start(free), held)
        if held is not None and len(states) == 1:  # one layer: nothing relaxes
            return Info(energy, jnp.full((), jnp.nan), states)
        relaxed, initial = (
            optax.tree.norm(self.force(phase, s, held is None)) for s in (states, start)
        )
        return Info(energy, relaxed / initial, states)

    def force(self, phase: Phase, states: tuple, output_free: bool) -> tuple:
        """-∂F/∂h of the states that move; under `mirror` and `projected` the change that one
        update of step size 1 makes, which vanishes where the constraint holds a state."""
        rule = self.rule
        complete = (lambda h: h) if output_free else (lambda h: (*h, states[-1]))
        moving = states if output_free else states[:-1]
        known = rule._constant_outputs(self.weights, self.batch.x)
        drive = self.drive(phase, known, complete)
        energies = drive or _compose(self.energies(phase, self.weights, known), complete)
        gradient = jax.grad(lambda h: total(energies(h)))(moving)
        if not rule._links:
            return gradient
        unit = self.numbers | {"step_size": jnp.ones(())}
        plain = Problem(rule, self.weights, self.batch, unit, self.forward)
        return plain.updater(phase, output_free).update(gradient, (), moving)[0]


def require_potentials(factor: Factor, energy: str) -> None:
    """Raises Unsupported unless the factor's prediction is σ(a) with potentials for σ."""
    if not factor.separable:
        raise Unsupported(
            f"energy={energy} needs layers h = σ(W h_prev): {type(factor.module).__name__} layers "
            "with a skip, with attention or with model.states=pre are none. energy=pc takes any."
        )
    if factor.activation.potential is None:
        raise Unsupported(
            f"energy={energy} needs a monotone activation (the potential G has ∇G = σ⁻¹), which "
            f"{factor.activation.name} is not: choose tanh, sigmoid, relu, hard_sigmoid …, or "
            "energy=pc."
        )


def _joined(updater, states: tuple, state):
    """An updater's state after more layers of a stack have joined the ones that it was of. These
    had no gradient so far, which leaves an updater's state as it is at the start."""
    longer = lambda new, old: jnp.concatenate([new[: len(new) - len(old)], old])  # noqa: E731
    join = lambda new, old: old if new.shape == old.shape else longer(new, old)  # noqa: E731
    (grown,) = (jax.tree.map(join, updater.init(states), old) for old in state.optax)
    return state._replace(optax=(grown,))


def _scaled(link: Callable, precision: Array) -> Callable:
    """a ↦ σ(a / π), a precision of a stack one per layer."""
    return lambda a: link(a / precision.reshape(precision.shape + (1,) * (a.ndim - precision.ndim)))


def _compose(function: Callable, inner: Callable) -> Callable:
    return lambda h: function(inner(h))
