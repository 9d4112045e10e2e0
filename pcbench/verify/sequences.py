"""Memories of sequences: temporal predictive coding against least squares and closed forms of its
inference, asymmetric Hopfield networks against their sums.

The computations are meant for float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Batch, Sizes, Trained
from pcbench.algorithms.sequence_hopfield import SequenceHopfield
from pcbench.algorithms.tpc import TPC
from pcbench.data.dataset import Facts
from pcbench.networks.chains import patterns
from pcbench.networks.temporal import temporal
from pcbench.tasks.sequence_memory import SequenceMemory
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured
from pcbench.verify.problems import (
    ROUNDING,
    arrays,
    build,
    compiled,
    compiled_with_info,
    hyper,
    jit,
    relative,
    weights,
)

TANG = "Tang, Barron & Bogacz 2023, arXiv 2305.11982"
CHAUDHRY = "Chaudhry et al. 2023, arXiv 2306.04532"

LENGTH, UNITS, WIDTH, COUNT = 9, 4, 5, 2  # of the sequences, of one element, of z, of a batch
SETTLED = 800  # steps of inference, to rounding


def some_sequences() -> tuple[np.ndarray, Batch]:
    x = np.random.default_rng(0).normal(size=(COUNT, LENGTH, UNITS))
    target = x[:, 1:].reshape(COUNT, -1)
    zero = jnp.zeros((), jnp.int32)
    return x, Batch(jnp.asarray(x), jnp.asarray(target), jnp.arange(COUNT), zero)


def predictive(depth: int, activation: str, steps: int = 0):
    """(rule, its weights)."""
    model = {"depth": depth, "width": WIDTH, "activation": activation}
    net = temporal(model, (LENGTH, UNITS), 0)
    return build(TPC, net, steps=steps), arrays(weights(net))


def hopfield(x: np.ndarray, separation: str = "identity") -> tuple[SequenceHopfield, Trained]:
    """A memory that has stored sequences x."""
    net = patterns({}, x.shape[1:], 0)
    rule = build(SequenceHopfield, net, separation=separation, sizes=Sizes(len(x), len(x)))
    batch = Batch(jnp.asarray(x), None, jnp.arange(len(x)), None)
    state = jit(lambda b: rule.step(rule.init(jax.random.key(0)), b, {}, None))(batch)
    return rule, Trained((), state.memory)


def followed(rule, trained, cues: np.ndarray, strength=0.7) -> np.ndarray:
    """What a rule without a state says to follow the cues, (B, D)."""
    numbers = hyper(separation_strength=strength)
    carried = rule.beginning(len(cues))
    return np.asarray(jit(rule.follow)(trained, jnp.asarray(cues), carried, numbers)[0])


def least_squares(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(W = Σ x_{t+1} x_tᵀ C⁻¹, C = Σ x_t x_tᵀ) over the steps that have a next one."""
    now, following = x[:, :-1].reshape(-1, UNITS), x[:, 1:].reshape(-1, UNITS)
    covariance = now.T @ now
    return following.T @ now @ np.linalg.inv(covariance), covariance


@check(source=TANG, algorithms=["tpc"], kind="identity")
def one_linear_layer_learns_the_least_squares_optimum() -> Measured:
    """Gradient descent of one linear layer ends at W = (Σ x_{t+1} x_tᵀ)(Σ x_t x_tᵀ)⁻¹."""
    x, data = some_sequences()
    rule, params = predictive(1, "identity")
    expected, covariance = least_squares(x)
    numbers = hyper(lr=COUNT * LENGTH / np.linalg.eigvalsh(covariance)[-1])
    state = rule.init(jax.random.key(0))._replace(params=params)
    descend = lambda s, _: (rule.step(s, data, numbers, None), None)  # noqa: E731
    found = jit(lambda s: jax.lax.scan(descend, s, length=1000)[0])(state)
    return Measured(relative(found.params[0]["W"].T, expected), ROUNDING)


@check(source=TANG, algorithms=["tpc", "sequence_hopfield"], kind="identity")
def the_optimum_is_an_asymmetric_hopfield_network_of_whitened_keys() -> Measured:
    """With the optimal W temporal predictive coding recalls what an asymmetric Hopfield network
    does whose keys and cues are whitened, C^(-1/2) x with C = Σ x_t x_tᵀ."""
    x, _ = some_sequences()
    optimum, covariance = least_squares(x)
    values, vectors = np.linalg.eigh(covariance)
    whitener = vectors / np.sqrt(values) @ vectors.T
    cues = np.random.default_rng(1).normal(size=(6, UNITS))
    rule, _ = predictive(1, "identity")
    ours = followed(rule, Trained(({"W": optimum.T},), ()), cues)
    memory, trained = hopfield(x)
    stored = trained.memory
    trained = trained._replace(memory=stored._replace(keys=stored.keys @ whitener))
    return Measured(relative(ours, followed(memory, trained, cues @ whitener)), ROUNDING)


@check(source=TANG, algorithms=["tpc", "bp"], kind="identity")
def one_layer_learns_by_backpropagation() -> Measured:
    """The gradient of one layer is that of the loss of its predictions, over the steps; of the
    first one, which nothing comes before, there is none."""
    _, data = some_sequences()
    rule, params = predictive(1, "tanh")
    found = compiled(rule)(params, data, hyper())
    reference = jit(rule.reference_gradient)(params, data, hyper())
    return Measured(relative(jax.tree.map(lambda g: LENGTH * g, found), reference), ROUNDING)


@check(source=TANG, algorithms=["tpc"], kind="identity")
def hidden_states_relax_to_the_most_likely_ones() -> Measured:
    """Of two linear layers, z_t = (I + W_oᵀW_o)⁻¹(W_r z_{t-1} + W_oᵀ x_t), one step after the
    other; the weights learn the mean of ε_z z_{t-1}ᵀ and ε_x z_tᵀ."""
    x, data = some_sequences()
    rule, params = predictive(2, "identity", SETTLED)
    gradient, info = compiled_with_info(rule)(params, data, hyper(0.2))
    recurrent, output = (p["W"].T for p in params)
    square = np.eye(WIDTH) + output.T @ output
    z, states, learned = np.zeros((COUNT, WIDTH)), [], [0.0, 0.0]
    for now in np.moveaxis(x, 1, 0):
        prediction = z @ recurrent.T
        before, z = z, np.linalg.solve(square, (prediction + now @ output).T).T
        states.append(z)
        learned[0] = learned[0] - before.T @ (z - prediction) / (COUNT * LENGTH)
        learned[1] = learned[1] - z.T @ (now - z @ output.T) / (COUNT * LENGTH)
    expected = np.stack(states[1:], 1).reshape(COUNT, -1)
    found = [info.states[0], *(g["W"] for g in gradient)]
    return Measured(relative(found, [expected, *learned]), ROUNDING)


@check(source=TANG, algorithms=["tpc"], kind="identity")
def what_it_recalled_itself_moves_no_state() -> Measured:
    """Offline, two layers go on as z_{t+1} = W_r f(z_t), x̂ = W_o f(z): an own prediction has no
    error, so that inference leaves the state where it was predicted."""
    x, data = some_sequences()
    rule, params = predictive(2, "tanh", 15)
    numbers, trained = hyper(0.1), Trained(params, ())
    task = SequenceMemory(Facts(x.shape[1:], COUNT, 0, 1, 1))
    found = jit(lambda t: task.evaluate(rule, t, data, numbers, None))(trained)["images"]
    start = rule.beginning(COUNT)
    _, z = jit(rule.follow)(trained, jnp.asarray(x[:, 0]), start, numbers)
    recurrent, output = (p["W"] for p in params)
    expected = []
    for _ in range(LENGTH - 1):
        z = np.tanh(z) @ recurrent
        expected.append(np.tanh(z) @ output)
    return Measured(relative(found, np.stack(expected, 1).reshape(COUNT, -1)), ROUNDING)


@check(source=CHAUDHRY, algorithms=["sequence_hopfield"], kind="identity",
       cases=[("identity",), ("square",), ("cube",), ("softmax",)])  # fmt: skip
def a_sequence_is_recalled_by_what_follows_similar_elements(name) -> Measured:
    """x̂ = Σ_s x_{s+1} sep(x_s · x), over all pairs of all sequences; with the identity, the Hebbian
    matrix W = Σ_s x_{s+1} x_sᵀ times x."""
    x, _ = some_sequences()
    now, following = x[:, :-1].reshape(-1, UNITS), x[:, 1:].reshape(-1, UNITS)
    cues = np.random.default_rng(1).normal(size=(6, UNITS))
    found = followed(*hopfield(x, name), cues)
    if name == "identity":
        return Measured(relative(found, cues @ (following.T @ now).T), ROUNDING)
    scores = cues @ now.T
    separated = {"square": scores**2, "cube": scores**3, "softmax": np.exp(0.7 * scores)}[name]
    if name == "softmax":
        separated = separated / separated.sum(1, keepdims=True)
    return Measured(relative(found, separated @ following), ROUNDING)
