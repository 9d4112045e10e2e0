"""One training step of predictive coding against a hand-written `lax.scan`, interleaved.

    python scripts/step_time.py [--rounds 15] [--json FILE]

The network is 784-128-128-128-10, tanh, squared error, batch 128, AdamW; the step is taken inside a
scan over batches, with nothing measured. Two hand-written programs are timed beside pcbench's:

- `plain`: the energy by `jax.grad`, as one would write it in an afternoon;
- `tuned`: derivatives by hand, the first layer's prediction computed once.

Prints the median step times, the median of the per-round ratios pcbench / hand-written (at most
1.0 is the aim) and the share of the machine's measured float32 matrix peak.
"""

import argparse
import json
import time
from functools import partial
from statistics import median

import jax
import jax.numpy as jnp
import optax

from pcbench.algorithms.base import Batch
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import squared_error
from pcbench.metrics import flops
from pcbench.networks.chains import mlp
from pcbench.networks.parameterisations import sp
from pcbench.training.learner import Learner
from pcbench.training.optimizers import adamw

WIDTHS = (784, 128, 128, 128, 10)
BATCH, BATCHES = 128, 60
STEP_SIZE, MOMENTUM, LR, DECAY = 0.1, 0.5, 3e-4, 1e-4


def pcbench_epoch(steps):
    model = {"width": 128, "depth": 4, "activation": "tanh", "states": "post", "bias": True}
    network = mlp(model, WIDTHS[:1], WIDTHS[-1])
    learner = Learner(network, sp(), adamw, optax.constant_schedule(1.0))
    rule = PC(network, squared_error, learner, steps=steps)
    hyper = {
        "algorithm": {"step_size": STEP_SIZE, "momentum": MOMENTUM},
        "optimizer": {"lr": LR, "weight_decay": DECAY, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
        "parameterisation": {"gamma0": 1.0},
    }
    hyper = jax.tree.map(jnp.float32, hyper)

    def one(state, xy, hyper):
        return rule.step(state, Batch(*xy, jnp.arange(BATCH), jnp.int32(0)), hyper, None)

    @jax.jit
    def epoch(state, hyper, x, y):
        return jax.lax.scan(lambda s, xy: (one(s, xy, hyper), None), state, (x, y))[0]

    state = rule.init(jax.random.key(0))
    operations = flops.count(one, state, (jnp.zeros((BATCH, 784)), jnp.zeros((BATCH, 10))), hyper)
    return (lambda x, y: epoch(state, hyper, x, y).params), state.params, operations


def layer(k, p, h):
    a = h @ p["W"] + p["b"]
    return a if k == 3 else jnp.tanh(a)


def plain_step(steps, optimizer, carry, xy):
    params, optimizer_state = carry
    x, y = xy
    updater = optax.sgd(STEP_SIZE, momentum=MOMENTUM)
    states, h = [], x
    for k in range(3):
        h = layer(k, params[k], h)
        states.append(h)

    def energy(params, states):
        sources, targets = [x, *states], [*states, y]
        return sum(
            0.5 * jnp.sum((t - layer(k, p, s)) ** 2)
            for k, (p, s, t) in enumerate(zip(params, sources, targets, strict=True))
        )

    def relax(carry, _):
        states, memory = carry
        updates, memory = updater.update(jax.grad(energy, 1)(params, states), memory)
        return (optax.apply_updates(states, updates), memory), None

    (states, _), _ = jax.lax.scan(relax, (states, updater.init(states)), length=steps)
    gradient = jax.tree.map(lambda g: g / BATCH, jax.grad(energy)(params, states))
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    return (optax.apply_updates(params, updates), optimizer_state), None


def tuned_step(steps, optimizer, carry, xy):
    params, optimizer_state = carry
    x, y = xy
    (w2, b2), (w3, b3), (w4, b4) = ((p["W"], p["b"]) for p in params[1:])
    first = layer(0, params[0], x)
    h1 = first
    h2 = layer(1, params[1], h1)
    h3 = layer(2, params[2], h2)

    def errors(h1, h2, h3):
        m2, m3 = jnp.tanh(h1 @ w2 + b2), jnp.tanh(h2 @ w3 + b3)
        e2, e3 = h2 - m2, h3 - m3
        return h1 - first, e2, e3, y - (h3 @ w4 + b4), e2 * (1 - m2**2), e3 * (1 - m3**2)

    def relax(carry, _):
        h1, h2, h3, v1, v2, v3 = carry
        e1, e2, e3, e4, d2, d3 = errors(h1, h2, h3)
        v1 = MOMENTUM * v1 + e1 - d2 @ w2.T
        v2 = MOMENTUM * v2 + e2 - d3 @ w3.T
        v3 = MOMENTUM * v3 + e3 - e4 @ w4.T
        moved = (h1 - STEP_SIZE * v1, h2 - STEP_SIZE * v2, h3 - STEP_SIZE * v3)
        return (*moved, v1, v2, v3), None

    zero = jnp.zeros_like(h1)
    (h1, h2, h3, *_), _ = jax.lax.scan(relax, (h1, h2, h3, zero, zero, zero), length=steps)
    e1, _, _, e4, d2, d3 = errors(h1, h2, h3)
    deltas, sources = [e1 * (1 - first**2), d2, d3, e4], [x, h1, h2, h3]
    gradient = tuple(
        {"W": -(s.T @ d) / BATCH, "b": -d.sum(0) / BATCH}
        for s, d in zip(sources, deltas, strict=True)
    )
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    return (optax.apply_updates(params, updates), optimizer_state), None


def hand_written_epoch(step, steps, params):
    optimizer = optax.adamw(LR, weight_decay=DECAY)

    @jax.jit
    def epoch(carry, x, y):
        return jax.lax.scan(partial(step, steps, optimizer), carry, (x, y))[0][0]

    carry = (params, optimizer.init(params))
    return lambda x, y: epoch(carry, x, y)


def seconds(function, *args):
    started = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - started


def matrix_peak():
    """GFLOP/s of a float32 product: the best over n = 128 … 2048, and at the layer's own size."""
    product = jax.jit(jnp.matmul)
    rates = {}
    for n in (128, 256, 512, 1024, 2048):
        a = jax.random.normal(jax.random.key(0), (n, n))
        seconds(product, a, a)
        rates[n] = 2 * n**3 / min(seconds(product, a, a) for _ in range(10)) / 1e9

    @jax.jit
    def repeated(h, w):  # inside a loop, as in training: no dispatch in between
        return jax.lax.scan(lambda h, _: (h @ w, None), h, length=500)[0]

    h = jax.random.normal(jax.random.key(0), (BATCH, 128))
    w = jax.random.normal(jax.random.key(1), (128, 128)) / 128**0.5
    seconds(repeated, h, w)
    own = 500 * 2 * BATCH * 128**2 / min(seconds(repeated, h, w) for _ in range(10)) / 1e9
    return max(rates.values()), own


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    key = jax.random.key(0)
    x = jax.random.normal(key, (BATCHES, BATCH, WIDTHS[0]))
    y = jax.nn.one_hot(jax.random.randint(key, (BATCHES, BATCH), 0, 10), 10)
    peak, own = matrix_peak()
    report = {"device": jax.devices()[0].device_kind, "peak_gflops": peak, "layer_gflops": own}
    print(f"matrix peak {peak:.0f} GFLOP/s, at 128×128×128 inside a loop {own:.0f} GFLOP/s")
    for steps in (8, 20):
        ours, params, operations = pcbench_epoch(steps)
        programs = {
            "pcbench": ours,
            "plain": hand_written_epoch(plain_step, steps, params),
            "tuned": hand_written_epoch(tuned_step, steps, params),
        }
        results = {name: program(x, y) for name, program in programs.items()}
        for name in ("plain", "tuned"):
            gaps = jax.tree.map(
                lambda a, b: float(jnp.abs(a - b).max()), *map(results.get, ("pcbench", name))
            )
            assert max(jax.tree.leaves(gaps)) < 1e-4, f"{name} learns something else: {gaps}"
        rounds = [
            {name: seconds(program, x, y) / BATCHES for name, program in programs.items()}
            for _ in range(arguments.rounds)
        ]
        times = {name: 1e3 * median(r[name] for r in rounds) for name in programs}
        ratios = {n: median(r["pcbench"] / r[n] for r in rounds) for n in ("plain", "tuned")}
        share = operations / times["pcbench"] / 1e6 / peak
        report[f"T={steps}"] = {
            "step_ms": times, "ratio": ratios, "flops_per_step": operations, "peak_share": share,
        }  # fmt: skip
        shown = ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items())
        print(
            f"T={steps}: {shown}; pcbench/plain {ratios['plain']:.2f}, "
            f"pcbench/tuned {ratios['tuned']:.2f}; {operations / 1e6:.0f} MFLOP a step, "
            f"{100 * share:.0f} % of the peak, {100 * share * peak / own:.0f} % of the layer's own"
        )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
