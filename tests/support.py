"""Small networks and rules for the tests of the numerics."""

import jax
import jax.numpy as jnp
import optax

from pcbench.algorithms.base import Batch
from pcbench.energies.energy import LOSSES
from pcbench.networks.chains import linear, mlp, resmlp
from pcbench.networks.network import Network
from pcbench.networks.parameterisations import sp
from pcbench.training.learner import Learner
from pcbench.training.optimizers import sgd

BUILDERS = {"mlp": mlp, "linear": linear, "resmlp": resmlp}


def network(kind="mlp", inputs=6, outputs=4, **model) -> Network:
    settings = {"width": 8, "depth": 4, "activation": "tanh", "states": "post", "bias": True}
    return BUILDERS[kind](settings | model, (inputs,), outputs)


def learner(net: Network, optimizer=sgd) -> Learner:
    return Learner(net, sp(), optimizer, optax.constant_schedule(1.0))


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
    keys = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(keys[0], (size, *net.input_shape))
    labels = jax.random.randint(keys[1], (size,), 0, outputs)
    return Batch(x, jax.nn.one_hot(labels, outputs), jnp.arange(size), jnp.zeros((), jnp.int32))


def as_batch(x, y) -> Batch:
    x, y = jnp.atleast_2d(jnp.asarray(x)), jnp.atleast_2d(jnp.asarray(y))
    return Batch(x, y, jnp.arange(len(x)), jnp.zeros((), jnp.int32))


def weights(net: Network, seed=0):
    return learner(net).init(jax.random.key(seed))[0]


def chain(*matrices) -> tuple[Network, tuple]:
    """A linear network without biases from (fan_out, fan_in) matrices, and its weights."""
    widths = [m.shape[0] for m in matrices[:-1]]
    net = linear(
        {"depth": len(matrices), "widths": widths, "bias": False},
        (matrices[0].shape[1],),
        matrices[-1].shape[0],
    )
    return net, tuple({"W": m.T} for m in matrices)


def relative(a, b) -> float:
    """‖a - b‖ / ‖b‖ over whole pytrees."""
    difference = jax.tree.map(lambda x, y: x - y, a, b)
    return float(optax.tree.norm(difference) / optax.tree.norm(b))
