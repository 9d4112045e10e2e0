"""64 runs as one sweep against 64 `pcbench run` processes, and against their computing alone.

    python scripts/pack_gain.py [--separate 4] [--rounds 3]

8 learning rates × 8 seeds, predictive coding on digits, width 64, 20 epochs, without any cache of
compiled programs. `--separate` processes are timed and multiplied to 64. The computing is a process
that trains the same 64 runs by `map`, by `vmap` or in a loop and stores nothing: its wall time from
start to end, compilation included. Sweeps (the mode measured anew, or known from an earlier pack of
that kind) and computing are interleaved, `--rounds` times; medians are printed. The overhead is
what plan, packs and records take for runs whose training is left out.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

SETTINGS = ["algorithm=pc", "dataset=digits", "model.width=64", "train.epochs=20"]
GRID = ["optimizer.lr=1e-4,2e-4,5e-4,1e-3,2e-3,5e-3,1e-2,2e-2", "seed=range(8)"]
RUNS = 64
MODES = ("map", "vmap", "loop")


def wall(command: list[str], environment: dict) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], env=environment, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


def compute(mode: str) -> None:
    from pcbench.sweeps.expand import expand
    from pcbench.training.train import train

    configs, _ = expand(None, [*SETTINGS, *GRID])
    if mode == "loop":
        for config in configs:
            train([config])
    else:
        train(configs, mode)


def overhead(root: Path, rounds: int) -> list[float]:
    """Milliseconds per run of everything but the training."""
    from pcbench.results.records import Store
    from pcbench.sweeps import execute
    from pcbench.sweeps.expand import expand
    from pcbench.sweeps.plan import make_plan
    from pcbench.training import train as training

    overrides = [*SETTINGS, *GRID, "executor.pack_mode=map"]
    (outcome,) = training.train(expand(None, [*SETTINGS, "seed=0", "train.epochs=2"])[0])
    training.train = lambda configs, *_: [outcome] * len(configs)
    times = []
    for n in range(rounds + 1):  # the first one imports
        started, store = time.perf_counter(), Store(root / f"overhead{n}")
        plan = make_plan(*expand(None, overrides), store)
        assert len(list(execute.inline(plan.packs, store, lambda *_: None))) == RUNS
        times.append(1e3 * (time.perf_counter() - started) / RUNS)
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--separate", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compute", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compute:
        compute(arguments.compute)
        return
    root = Path(tempfile.mkdtemp(prefix="pcbench-gain-"))
    environment = os.environ | {"PCBENCH_CACHE_DIR": str(root / "cache")}
    environment["PCBENCH_COMPILATION_CACHE"] = "off"

    def sweep(*more: str, known: bool = False) -> float:
        if not known:
            shutil.rmtree(root / "cache" / "packing", ignore_errors=True)
        results = tempfile.mkdtemp(dir=root)
        command = ["-m", "pcbench", "sweep", *SETTINGS, *GRID, *more, "--results", results]
        return wall(command, environment)

    results = ["--results", str(root / "separate")]
    each = [
        wall(["-m", "pcbench", "run", *SETTINGS, f"seed={n}", *results], environment)
        for n in range(arguments.separate)
    ]
    separate = median(each) * RUNS
    print(f"{RUNS} processes: {separate:.0f} s ({median(each):.2f} s each)", flush=True)
    times = defaultdict(list)
    workers = ["executor=processes", "executor.workers=2"]
    for _ in range(arguments.rounds):
        for mode in MODES:
            times[mode].append(wall([__file__, "--compute", mode], environment))
        times["one process, mode measured"].append(sweep())
        times["one process, mode known"].append(sweep(known=True))
        times["1 worker, mode measured"].append(sweep(*workers[:1], "executor.workers=1"))
        times["2 workers, mode measured"].append(sweep(*workers))
        times["2 workers, mode known"].append(sweep(*workers, known=True))
    medians = {name: median(values) for name, values in times.items()}
    best = min(MODES, key=medians.get)
    for mode in MODES:
        print(f"computing as {mode}, one process: {medians.pop(mode):.1f} s")
    for name, seconds in medians.items():
        ratio = median(s / c for s, c in zip(times[name], times[best], strict=True))
        print(
            f"sweep, {name}: {seconds:.1f} s, 1/{separate / seconds:.0f} of the processes, "
            f"{ratio:.2f} × computing as {best}"
        )
    spent = overhead(root, arguments.rounds)
    print(f"plan, packs and records: {median(spent):.1f} ms a run (least {min(spent):.1f})")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
