"""A training step of a residual MLP 128 and 1,000 layers deep.

    python scripts/deep_step.py [--rounds 7] [--json FILE]

Width 128, relu, batch 64, Adam, `depth_mup`. At 128 layers with T = 128, predictive coding is timed
against a hand-written relaxation of the same stack of layers, one `lax.scan` over steps and one
batched product for all layers (`plain`), interleaved; the aim is at most 0.6. At 1,000 layers the
compile time against that at 128 (the aim: at most 1.3 with as many windows, so with T = depth),
the memory of the compiled step, and the loss before and after some steps of BP, ePC and PC, T = 20.
"""

import argparse
import json
import time
from statistics import median

import jax
import jax.numpy as jnp
import optax
from step_time import matrix_peak, seconds

from pcbench.algorithms.base import Batch
from pcbench.algorithms.bp import BP
from pcbench.algorithms.epc import EPC
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import squared_error
from pcbench.metrics import flops
from pcbench.networks.chains import resmlp
from pcbench.networks.parameterisations import depth_mup
from pcbench.relaxation import frontier
from pcbench.training.learner import Learner
from pcbench.training.optimizers import adam

WIDTH, BATCH, INPUTS, CLASSES = 128, 64, 784, 10
STEP_SIZE = 0.1


def rule(kind, depth, **choices):
    model = {"width": WIDTH, "depth": depth, "activation": "relu", "states": "pre", "bias": False}
    network = resmlp(model, (INPUTS,), CLASSES)
    learner = Learner(network, depth_mup(), adam, optax.constant_schedule(1.0))
    return kind(network, squared_error, learner, **choices)


def numbers(lr, step_size=STEP_SIZE):
    hyper = {
        "algorithm": {"step_size": step_size, "momentum": 0.0},
        "optimizer": {"lr": lr, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
        "parameterisation": {"gamma0": 1.0},
    }
    return jax.tree.map(jnp.float32, hyper)


def data():
    """A batch of noisy prototypes, one for each class."""
    keys = jax.random.split(jax.random.key(0), 3)
    labels = jax.random.randint(keys[0], (BATCH,), 0, CLASSES)
    x = jax.random.normal(keys[1], (CLASSES, INPUTS))[labels]
    x = x + 0.5 * jax.random.normal(keys[2], x.shape)
    return Batch(x, jax.nn.one_hot(labels, CLASSES), jnp.arange(BATCH), jnp.int32(0))


def compiled(made):
    """(the compiled step, its state, seconds to compile)."""
    state = jax.jit(made.init)(jax.random.key(0))
    step = jax.jit(lambda s, b, h: made.step(s, b, h, None))
    started = time.perf_counter()
    program = step.lower(state, data(), numbers(0.1)).compile()
    return program, state, time.perf_counter() - started


def plain(made, steps):
    """The same step without windows: every layer at every step, the derivative by `jax.grad`."""
    learner = made.learner

    def energy(weights, hidden, x, y):
        first, stack = hidden
        (w1, ws, wl) = (w["W"] for w in weights)
        sources = jnp.concatenate([first[None], stack[:-1]])
        predicted = sources + jax.nn.relu(sources) @ ws
        return (
            0.5 * jnp.sum((first - x @ w1) ** 2)
            + 0.5 * jnp.sum((stack - predicted) ** 2)
            + 0.5 * jnp.sum((y - jax.nn.relu(stack[-1]) @ wl) ** 2)
        )

    def step(state, batch, hyper):
        weights = learner.weights(state.params, hyper)
        first = batch.x @ weights[0]["W"]

        def layer(z, w):
            z = z + jax.nn.relu(z) @ w
            return z, z

        stack = jax.lax.scan(layer, first, weights[1]["W"])[1]
        updater = optax.sgd(STEP_SIZE, momentum=hyper["algorithm"]["momentum"])

        def relax(carry, _):
            hidden, memory = carry
            force = jax.grad(energy, 1)(weights, hidden, batch.x, batch.target)
            updates, memory = updater.update(force, memory)
            return (optax.apply_updates(hidden, updates), memory), None

        start = (first, stack)
        (hidden, _), _ = jax.lax.scan(relax, (start, updater.init(start)), length=steps)
        gradient = jax.grad(energy)(weights, hidden, batch.x, batch.target)
        gradient = jax.tree.map(lambda g: g / BATCH, gradient)
        params, optimizer = learner.update(
            state.params, state.optimizer, gradient, state.step, hyper
        )
        return state._replace(params=params, optimizer=optimizer, step=state.step + 1)

    return step


def measure_step(rounds, depth=128):
    made, batch, hyper = rule(PC, depth, steps=depth), data(), numbers(0.1)
    ours, state, compile_s = compiled(made)
    reference = jax.jit(plain(made, depth)).lower(state, batch, hyper).compile()
    programs = {"pcbench": ours, "plain": reference}
    params = {name: program(state, batch, hyper).params for name, program in programs.items()}
    gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), *params.values())
    times = [
        {name: seconds(p, state, batch, hyper) for name, p in programs.items()}
        for _ in range(rounds)
    ]
    operations = flops.count(lambda s: made.step(s, batch, hyper, None), state)
    unskipped = flops.count(lambda s: plain(made, depth)(s, batch, hyper), state)
    peak, _ = matrix_peak()
    ms = {name: 1e3 * median(t[name] for t in times) for name in programs}
    return {
        "depth": depth,
        "windows": len(list(frontier.windows(made.network, depth))),
        "compile_s": compile_s,
        "step_ms": ms,
        "ratio": median(t["pcbench"] / t["plain"] for t in times),
        "difference_after_a_step": max(jax.tree.leaves(gap)),
        "gflop": operations / 1e9,
        "plain_gflop": unskipped / 1e9,
        "peak_gflops": peak,
        "peak_share": operations / 1e6 / ms["pcbench"] / peak,
    }


def measure_depth(rounds, shallow=128, deep=1000):
    """Compile times at as many windows, interleaved, and what the deep step needs."""
    times = {shallow: [], deep: []}
    for _ in range(rounds):
        for depth in times:
            jax.clear_caches()
            program, _, compile_s = compiled(rule(PC, depth, steps=depth))
            times[depth].append(compile_s)
    memory = program.memory_analysis()
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    return {
        "compile_s": {depth: median(t) for depth, t in times.items()},
        "ratio": median(ratios),
        "memory_mb": {
            "temporary": memory.temp_size_in_bytes / 2**20,
            "arguments": memory.argument_size_in_bytes / 2**20,
            "output": memory.output_size_in_bytes / 2**20,
        },
    }


def train(kind, depth=1000, steps=20, updates=30):
    """Loss of the batch before and after some updates."""
    choices, lr, step_size = {
        "BP": ((BP, {}), 0.5, STEP_SIZE),
        "ePC": ((EPC, {"steps": steps}), 0.5, STEP_SIZE),
        "PC": ((PC, {"steps": steps}), 0.5, 0.5),
    }[kind]
    made = rule(choices[0], depth, **choices[1])
    program, state, compile_s = compiled(made)
    batch, hyper, losses, times = data(), numbers(lr, step_size), [], []

    @jax.jit
    def loss(s):
        output = made.network.forward(made.learner.weights(s.params, hyper), batch.x)[-1]
        return jnp.mean(squared_error(output, batch.target))

    for _ in range(updates):
        losses.append(float(loss(state)))
        started = time.perf_counter()
        state = jax.block_until_ready(program(state, batch, hyper))
        times.append(time.perf_counter() - started)
    losses.append(float(loss(state)))
    return {
        "compile_s": compile_s,
        "temporary_mb": program.memory_analysis().temp_size_in_bytes / 2**20,
        "step_ms": 1e3 * median(times),
        "loss": [losses[0], losses[-1]],
        "updates": updates,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    report = {"device": jax.devices()[0].device_kind}
    report["step"] = step = measure_step(arguments.rounds)
    print(
        f"128 layers, T=128, {step['windows']} windows: {step['step_ms']['pcbench']:.0f} ms a step,"
        f" plain {step['step_ms']['plain']:.0f} ms, ratio {step['ratio']:.2f}; compile "
        f"{step['compile_s']:.2f} s; {step['gflop']:.1f} GFLOP (plain {step['plain_gflop']:.1f}), "
        f"{100 * step['peak_share']:.0f} % of the peak of {step['peak_gflops']:.0f} GFLOP/s; "
        f"weights differ by {step['difference_after_a_step']:.1e}"
    )
    report["depth"] = depth = measure_depth(3)
    print(
        f"1,000 layers, T=1,000: compile {depth['compile_s'][1000]:.2f} s, at 128 layers "
        f"{depth['compile_s'][128]:.2f} s, ratio {depth['ratio']:.2f}; "
        + ", ".join(f"{k} {v:.0f} MB" for k, v in depth["memory_mb"].items())
    )
    report["training"] = {}
    for kind in ("BP", "ePC", "PC"):
        report["training"][kind] = r = train(kind)
        name = kind if kind == "BP" else f"{kind}, T=20"
        print(
            f"1,000 layers, {name}: loss {r['loss'][0]:.4f} → {r['loss'][1]:.4f} after "
            f"{r['updates']} updates, {r['step_ms']:.0f} ms a step, compile {r['compile_s']:.2f} "
            f"s, temporary {r['temporary_mb']:.0f} MB"
        )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
