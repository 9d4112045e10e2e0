"""Time and memory of the leaderboard: N records (default 100,000) with what each test example
scored, indexed once, then ranked.

    python scripts/leaderboard_time.py [N] [DIR]

20 rules on 5 datasets, 5 seeds each, the rest configs; DIR (default: a temporary one) is kept.
"""

import os
import resource
import sys
import tempfile
import time

import numpy as np

from pcbench.results import Record, Store
from pcbench.results.comparison import stored_examples
from pcbench.results.leaderboard import leaderboard
from pcbench.results.table import table
from pcbench.sweeps.expand import single

RULES, DATASETS, SEEDS, EXAMPLES = 20, 5, 5, 10_000
METRIC = "test_accuracy_at_best_validation"


def write(store: Store, count: int) -> None:
    random = np.random.default_rng(0)
    config = single(["algorithm=pc"]).tree
    for n in range(count):
        rule, dataset, seed = n % RULES, n // RULES % DATASETS, n // RULES // DATASETS % SEEDS
        lr = 1e-4 * (1 + n // (RULES * DATASETS * SEEDS))
        name = f"r{rule}" if rule else "bp"
        right = random.random(EXAMPLES) < 0.9 + rule / 1000
        row = {
            "task": "classification", "dataset": f"d{dataset}", "model": "mlp", "width": 128,
            "depth": 4, "parameterisation": "sp", "algorithm": name, "variant": name, "seed": seed,
            "chance": 0.1, "protocol": "validation", "stage": "report", METRIC: right.mean(),
            "optimizer.lr": lr, "validation_accuracy_best": random.random(),
            "flops_per_step": 1e7, "wall_s": random.random(), "pack_size": 1, "step_ms": 1.0,
        }  # fmt: skip
        config["seed"], config["optimizer"]["lr"] = seed, lr
        record = Record.new(f"{n:08d}", "completed", config, row)
        directory = store.path(record.run_id)
        directory.mkdir(parents=True)  # plain writes: a sync of each file would take hours
        np.savez(directory / "arrays.npz", **{f"examples/{METRIC}": right})
        (directory / "record.json").write_bytes(record.to_json().encode() + b"\n")


def timed(what: str, function):
    start, busy = time.perf_counter(), time.process_time()
    found = function()
    busy = time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - start
    print(f"{what:20} {seconds:7.2f} s  {busy:7.2f} s of the processor  peak {peak:6.0f} MiB")
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    store = Store(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    print(f"{count} records in {store.root}")
    if not store.root.joinpath("runs").exists():
        if (pid := os.fork()) == 0:  # its memory is not that of reading
            write(store, count)
            os._exit(0)
        os.waitpid(pid, 0)
    timed("index all", lambda: table(store.root, rebuild=True))
    rows = timed("read the index", lambda: table(store.root))
    read = stored_examples(store)
    timed("rank everything", lambda: leaderboard(rows, examples=read))
    timed("rank it again", lambda: leaderboard(rows, examples=read))
    timed("rank one dataset", lambda: leaderboard(rows, where={"dataset": "d1"}, examples=read))


if __name__ == "__main__":
    main()
