"""Training steps of VGG-5: inside a scan and dispatched, backpropagation and predictive coding.

    python scripts/convolution_step.py [--batch 32] [--rounds 9] [--steps 7] [--json FILE]

The network is VGG-5 on 32×32×3 images (3,859,210 parameters, GELU), squared error, AdamW. Programs,
timed in turn, every round in another order:

- `bp dispatched`: one compiled step per call;
- `bp`, `pc`: the same step inside a scan over batches, as a run takes it;
- `bp dispatched, XLA`: one step per call with XLA's own convolution.

Prints medians of the step times over the rounds, medians of the per-round ratios beside their
bounds (BP in the scan: 1.3 × dispatched; PC with T steps: 1.2 · (2T+2)/3 × BP in the scan), and the
memory that each compiled program takes besides its arguments.
"""

import argparse
import json
import random
import time
from statistics import median
from unittest.mock import patch

import jax
import jax.numpy as jnp
import optax

from pcbench.algorithms.base import Batch
from pcbench.algorithms.bp import BP
from pcbench.algorithms.pc import PC
from pcbench.energies.energy import squared_error
from pcbench.networks import convolution
from pcbench.networks.parameterisations import sp
from pcbench.networks.vgg import vgg5
from pcbench.training.learner import Learner
from pcbench.training.optimizers import adamw

MODEL = {"name": "vgg5", "activation": "gelu", "states": "post", "bias": True}
SHAPE, CLASSES = (32, 32, 3), 10
# of PCX's PC-SE on CIFAR-10, rounded
NUMBERS = {
    "algorithm": {"step_size": 0.0235, "momentum": 0.3},
    "optimizer": {"lr": 2.66e-4, "weight_decay": 6.7e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
    "parameterisation": {"gamma0": 1.0},
}


def programs(batch: int, batches: int, steps: int, model: dict) -> dict:
    """name → (function without arguments that takes `batches` steps, temporary bytes)."""
    network = vgg5(model, SHAPE, CLASSES)
    learner = Learner(network, sp(), adamw, optax.constant_schedule(1.0))
    hyper = jax.tree.map(jnp.float32, NUMBERS)
    images, labels = jax.random.split(jax.random.key(1))
    x = jax.random.normal(images, (batches, batch, *SHAPE))
    y = jax.nn.one_hot(jax.random.randint(labels, (batches, batch), 0, CLASSES), CLASSES)

    def compiled(rule, scanned: bool):
        def one(state, xy):
            return rule.step(state, Batch(*xy, jnp.arange(batch), jnp.int32(0)), hyper, None)

        state = rule.init(jax.random.key(0))
        if scanned:
            epoch = lambda state, x, y: jax.lax.scan(  # noqa: E731
                lambda s, xy: (one(s, xy), None), state, (x, y)
            )[0]
            program = jax.jit(epoch).lower(state, x, y).compile()
            run = lambda: program(state, x, y)  # noqa: E731
        else:
            program = jax.jit(one).lower(state, (x[0], y[0])).compile()

            def run():
                after = state
                for n in range(batches):
                    after = program(after, (x[n], y[n]))
                return after

        return run, program.memory_analysis().temp_size_in_bytes

    bp, pc = BP(network, squared_error, learner), PC(network, squared_error, learner, steps=steps)
    found = {
        "bp dispatched": compiled(bp, scanned=False),
        "bp": compiled(bp, scanned=True),
        "pc": compiled(pc, scanned=True),
    }
    with patch.object(convolution, "as_product", lambda: False):
        found["bp dispatched, XLA"] = compiled(bp, scanned=False)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="steps per measurement")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=7, help="relaxation steps T")
    parser.add_argument("--channels", type=int, default=128, help="of the first convolution")
    parser.add_argument("--activation", default="gelu")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    model = MODEL | {"channels": arguments.channels, "activation": arguments.activation}
    found = programs(arguments.batch, arguments.batches, arguments.steps, model)
    for run, _ in found.values():
        jax.block_until_ready(run())
    rounds = []
    for _ in range(arguments.rounds):
        times = {}
        for name in random.sample(list(found), len(found)):
            started = time.perf_counter()
            jax.block_until_ready(found[name][0]())
            times[name] = 1e3 * (time.perf_counter() - started) / arguments.batches
        rounds.append(times)
    report = {
        "device": jax.devices()[0].device_kind,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "step_ms": {name: median(r[name] for r in rounds) for name in found},
        "temporary_mb": {name: memory / 1e6 for name, (_, memory) in found.items()},
        "ratio": {
            "bp/bp dispatched": median(r["bp"] / r["bp dispatched"] for r in rounds),
            "pc/bp": median(r["pc"] / r["bp"] for r in rounds),
        },
        "bound": {"bp/bp dispatched": 1.3, "pc/bp": 1.2 * (2 * arguments.steps + 2) / 3},
    }
    print(f"{report['device']}, batch {report['batch']}, T={report['steps']}")
    for name in found:
        memory = report["temporary_mb"][name]
        print(f"{name:20} {report['step_ms'][name]:8.1f} ms a step, {memory:6.0f} MB")
    for name, ratio in report["ratio"].items():
        print(f"{name:20} {ratio:8.2f}, bound {report['bound'][name]:.2f}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
