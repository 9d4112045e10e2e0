"""Small networks, batches and rules, and what is measured of them."""

import itertools
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcbench.algorithms.base import Batch
from pcbench.algorithms.bp import BP
from pcbench.algorithms.phases import Phase, PhaseRule, Problem
from pcbench.energies.energy import LOSSES, total
from pcbench.networks.chains import linear, mlp, resmlp
from pcbench.networks.graph import graph
from pcbench.networks.network import Network
from pcbench.networks.parameterisations import sp
from pcbench.training.learner import Learner
from pcbench.training.optimizers import sgd

BUILDERS = {"mlp": mlp, "linear": linear, "resmlp": resmlp, "graph": graph}
CONSTANT = optax.constant_schedule(1.0)
ROUNDING = 1e-12  # of some thousand operations in float64


def jit(function: Callable, **options) -> Callable:
    """`jax.jit` for what runs a few times: on CPU without the compiler's optimisations, which take
    most of the time of a small program. Not to be used inside another one."""
    level = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=level, **options)


# --- networks, rules, batches


def network(kind="mlp", inputs=6, outputs=4, **model) -> Network:
    settings = {"width": 8, "depth": 4, "activation": "tanh", "states": "post", "bias": True}
    return BUILDERS[kind](settings | model, (inputs,), outputs)


def learner(net: Network, optimizer=sgd) -> Learner:
    return Learner(net, sp(), optimizer, CONSTANT)


def build(rule, net: Network, loss="squared_error", optimizer=sgd, **choices):
    return rule(net, LOSSES[loss], learner(net, optimizer), **choices)


def hyper(step_size=0.1, momentum=0.0, lr=0.1, gamma0=1.0, **algorithm) -> dict:
    numbers = {
        "algorithm": {"step_size": step_size, "momentum": momentum, **algorithm},
        "optimizer": {"lr": lr, "weight_decay": 0.0},
        "parameterisation": {"gamma0": gamma0},
    }
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(float)), numbers)


def batch(net: Network, outputs=4, size=5, seed=1) -> Batch:
    return _drawn(net.input_shape, outputs, size, jnp.result_type(float))(jax.random.key(seed))


@cache
def _drawn(shape, outputs, size, dtype) -> Callable:
    def draw(key):
        keys = jax.random.split(key)
        x = jax.random.normal(keys[0], (size, *shape), dtype)
        labels = jax.random.randint(keys[1], (size,), 0, outputs)
        target = jax.nn.one_hot(labels, outputs, dtype=dtype)
        return Batch(x, target, jnp.arange(size), jnp.zeros((), jnp.int32))

    return jit(draw)


def as_batch(x, y) -> Batch:
    """A batch of the rows of x and y, or of one sample."""
    x, y = (jnp.asarray(np.atleast_2d(v)) for v in (x, y))
    return Batch(x, y, jnp.asarray(np.arange(len(x))), jnp.asarray(np.int32(0)))


def weights(net: Network, seed=0):
    return _initial(net)(jax.random.key(seed))


@cache
def _initial(net: Network) -> Callable:
    made = learner(net)
    return jit(lambda key: made.init(key)[0])


def small(**model) -> tuple[Network, tuple, Batch]:
    """6-8-7-4 with sigmoid hidden layers and a linear output; its weights; a batch of five."""
    net = network(**({"widths": [8, 7], "depth": 3, "activation": "sigmoid"} | model))
    return net, weights(net), batch(net)


def chain(*matrices) -> tuple[Network, tuple]:
    """A linear network without biases from (fan_out, fan_in) matrices, and its weights."""
    widths = [m.shape[0] for m in matrices[:-1]]
    net = linear(
        {"depth": len(matrices), "widths": widths, "bias": False},
        (matrices[0].shape[1],),
        matrices[-1].shape[0],
    )
    return net, tuple({"W": m.T} for m in matrices)


def random_chain(
    depth=4, seed=0, width=5, inputs=3, outputs=2
) -> tuple[list, np.ndarray, np.ndarray]:
    """Matrices of a deep linear network (over √fan_in), an input and a target, all normal."""
    generator = np.random.default_rng(seed)
    sizes = [inputs, *[width] * (depth - 1), outputs]
    matrices = [generator.normal(size=(o, i)) / np.sqrt(i) for i, o in itertools.pairwise(sizes)]
    return matrices, generator.normal(size=inputs), generator.normal(size=outputs)


# --- what is measured
#
# Results are numpy arrays: what is done with them then compiles nothing, operation by operation.


def arrays(tree):
    return jax.tree.map(np.asarray, tree)


def scaled(tree, factor):
    return jax.tree.map(lambda v: factor * np.asarray(v), tree)


def difference(a, b):
    return jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)


def norm(tree) -> float:
    """The Euclidean norm of a pytree as one long vector."""
    return float(np.sqrt(sum(np.sum(np.abs(np.asarray(v)) ** 2) for v in jax.tree.leaves(tree))))


def relative(a, b) -> float:
    """‖a - b‖ / ‖b‖ over whole pytrees."""
    return norm(difference(a, b)) / norm(b)


def largest(tree) -> float:
    """The largest absolute value in a pytree; 0 of an empty one."""
    return max((float(np.abs(v).max()) for v in jax.tree.leaves(tree)), default=0.0)


@cache
def compiled(rule) -> Callable:
    """The gradient of a rule without memory, of (weights, batch, numbers)."""

    @jit
    def gradient(weights, batch, numbers):
        return rule.gradient(weights, (), batch, numbers, jax.random.key(0))[0]

    return lambda *args: arrays(gradient(*args))


@cache
def compiled_with_info(rule) -> Callable:
    """(gradient, info) of a rule without memory, of (weights, batch, numbers)."""

    @jit
    def gradient(weights, batch, numbers):
        key = jax.random.key(0)
        return rule.gradient(weights, (), batch, numbers, key, measure=True)[::2]

    return lambda *args: arrays(gradient(*args))


def backpropagated(net: Network, params, data: Batch, loss="squared_error"):
    """The gradient of BP."""
    return compiled(build(BP, net, loss))(params, data, hyper())


@cache
def compiled_forward(net: Network) -> Callable:
    """The states of the forward pass, of (weights, x)."""
    forward = jit(net.forward)
    return lambda *args: arrays(forward(*args))


FREE = Phase("nudge", 1.0, 0.0)  # nudging with strength 0: the free energy


def problem(rule: PhaseRule, weights, batch: Batch, numbers: dict) -> Problem:
    forward = None if rule.recurrent else rule.network.forward(weights, batch.x)
    return Problem(rule, weights, batch, numbers["algorithm"], forward)


def free_states(rule: PhaseRule, weights, batch: Batch, numbers: dict) -> tuple:
    """The forward pass, or what a relaxation from zeros finds."""
    found = problem(rule, weights, batch, numbers)
    if not rule.recurrent:
        return found.forward
    shapes = rule.network.state_shapes(len(batch.x))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, batch.x.dtype), shapes)
    return found.relax(FREE, zeros)[0]


@cache
def compiled_states(rule: PhaseRule, output: str) -> Callable:
    """(free states, states of a phase with output condition `output`), of (weights, batch, numbers,
    β)."""

    def states(weights, batch, numbers, beta=1.0):
        free = free_states(rule, weights, batch, numbers)
        phase = Phase(output, 1.0, beta)
        return free, problem(rule, weights, batch, numbers).relax(phase, free)[0]

    found = jit(states)
    return lambda *args: arrays(found(*args))


def energy(rule: PhaseRule, phase: Phase, weights, batch, numbers, states) -> Array:
    """F of a phase at given states, mean over the batch."""
    parts = problem(rule, weights, batch, numbers).energies(phase, weights)(states)
    return total(parts) / len(batch.x)


def implicit_gradient(rule: PhaseRule, weights, batch, numbers, free, output_gradient):
    """The gradient of mean_B ⟨g, h_L⟩ at a free equilibrium, g = `output_gradient` (B, C): by the
    implicit function theorem, with the Hessian of every sample solved exactly."""
    adjoint = jax.vmap(lambda x, y, h, g: _solve(hessian(rule, weights, x, y, numbers, h), h, g))(
        batch.x, batch.target, free, output_gradient
    )

    def force(w):
        parts = problem(rule, w, batch, numbers).energies(FREE, w)
        slopes = jax.grad(lambda h: total(parts(h)))(free)
        products = [jnp.sum(s.reshape(a.shape) * a) for s, a in zip(slopes, adjoint, strict=True)]
        return -sum(products) / len(batch.x)

    return jax.grad(force)(weights)


def hessian(rule: PhaseRule, weights, x, y, numbers, states, phase: Phase = FREE) -> Array:
    """∂²F/∂h² of one sample over all its states, flattened in the order of the factors."""
    zero = jnp.zeros((), jnp.int32)
    one = Batch(x[None], y[None], zero[None], zero)
    parts = problem(rule, weights, one, numbers).energies(phase, weights)
    sizes = [h.size for h in states]

    def value(flat):
        pieces = jnp.split(flat, np.cumsum(sizes)[:-1])
        return total(parts(tuple(p.reshape(1, -1) for p in pieces)))

    return jax.hessian(value)(jnp.concatenate([h.ravel() for h in states]))


def _solve(matrix, states, output_gradient) -> tuple:
    sizes = [h.size for h in states]
    rhs = jnp.zeros(sum(sizes)).at[-sizes[-1] :].set(output_gradient)
    return tuple(jnp.split(jnp.linalg.solve(matrix, rhs), np.cumsum(sizes)[:-1]))


def directional(function: Callable, point, seed=7, step=1e-3) -> tuple[float, tuple]:
    """(derivative of a function of a pytree along a random direction of norm 1, that direction).

    By five points: the error is O(step⁴), some 1e-12 of smooth functions of order one.
    """
    leaves, structure = jax.tree.flatten(point)
    generator = np.random.default_rng(seed)
    direction = structure.unflatten([generator.normal(size=v.shape) for v in leaves])
    direction = scaled(direction, 1 / norm(direction))

    def at(s):
        moved = jax.tree.map(lambda v, d: np.asarray(v) + s * d, point, direction)
        return float(function(moved))

    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8 * near - far) / (12 * step), direction


def along(gradient, direction) -> float:
    """⟨gradient, direction⟩."""
    products = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), gradient, direction)
    return float(sum(jax.tree.leaves(products)))
