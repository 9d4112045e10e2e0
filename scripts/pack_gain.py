"""64 runs as one sweep against 64 `pcbench run` processes, and packs against plain loops.

    python scripts/pack_gain.py [--separate 4]

8 learning rates × 8 seeds, predictive coding on digits, width 64, 20 epochs, without any cache of
compiled programs. `--separate` processes are timed and multiplied to 64. Prints wall times of the
sweep in one process and with 1 and 2 workers, and the computing of a `map` pack, a `vmap` pack and
a loop of single runs in one process.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

SETTINGS = ["algorithm=pc", "dataset=digits", "model.width=64", "train.epochs=20"]
GRID = ["optimizer.lr=1e-4,2e-4,5e-4,1e-3,2e-3,5e-3,1e-2,2e-2", "seed=range(8)"]
RUNS = 64


def wall(command: list[str], environment: dict) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pcbench", *command], env=environment, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


def computing(mode: str) -> float:
    """Seconds of training alone, programs compiled."""
    from pcbench.sweeps.expand import expand
    from pcbench.training.train import train

    configs, _ = expand(None, [*SETTINGS, *GRID])
    if mode == "loop":
        train(configs[:1])
        started = time.perf_counter()
        for config in configs:
            train([config])
    else:
        train(configs, mode)
        started = time.perf_counter()
        train(configs, mode)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--separate", type=int, default=4)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="pcbench-gain-"))
    environment = os.environ | {"PCBENCH_CACHE_DIR": str(root / "cache")}
    environment["PCBENCH_COMPILATION_CACHE"] = "off"
    results = ["--results", str(root / "separate")]
    each = [
        wall(["run", *SETTINGS, f"seed={n}", *results], environment)
        for n in range(arguments.separate)
    ]
    separate = median(each) * RUNS
    print(f"{RUNS} processes: {separate:.0f} s ({median(each):.2f} s each)")
    for name, more in (
        ("one process", []),
        ("1 worker", ["executor=processes", "executor.workers=1"]),
        ("2 workers", ["executor=processes", "executor.workers=2"]),
    ):
        sweep = ["sweep", *SETTINGS, *GRID, *more, "--results", str(root / name)]
        shutil.rmtree(root / "cache" / "packing", ignore_errors=True)  # modes are measured anew
        seconds = wall(sweep, environment)
        print(f"sweep, {name}: {seconds:.1f} s, 1/{separate / seconds:.0f}")
    for mode in ("map", "vmap", "loop"):
        print(f"computing as {mode}: {computing(mode):.1f} s")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
