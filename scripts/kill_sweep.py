"""Kill a sweep with SIGKILL at random moments, launch it again each time, compare at the end.

    python scripts/kill_sweep.py [--kills 50] [--executor inline|processes] [--mode map|vmap]

Checks that the runs are exactly the planned ones, that every record is valid, that none is lost or
computed anew once it is stored, and that all numbers equal those of an undisturbed sweep (bit for
bit: checkpoints are taken every epoch, packs resume as themselves). Exits with 1 if not.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pcbench.results.records import Store
from pcbench.sweeps.expand import expand

SWEEP = [
    "seed=range(12)", "algorithm=bp,pc", "model.width=16", "model.depth=3", "train.epochs=12",
    "train.checkpoint_seconds=0",
]  # fmt: skip
LONGEST = 14.0  # seconds until a kill: sometimes before the first epoch, sometimes after the end
TIMES = {"wall_s", "compile_s", "step_ms", "started", "host", "git_dirty", "git_revision"}


def launch(results: Path, settings: list[str], kill_after: float | None) -> bool:
    """Run the sweep; True when it ended by itself."""
    command = [sys.executable, "-m", "pcbench", "sweep", *SWEEP, *settings, "--results", results]
    with subprocess.Popen(
        list(map(str, command)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            process.wait(kill_after)
            if process.returncode:
                raise SystemExit(f"the sweep failed with exit code {process.returncode}")
            return True
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            return False


def compare(disturbed: Store, undisturbed: Store, planned: set[str]) -> list[str]:
    """What is wrong; empty when all is well."""
    problems: list[str] = []
    records = {r.run_id: r for r in disturbed.iterate(problems)}
    if records.keys() != planned:
        problems.append(f"{len(records)} records for {len(planned)} planned runs")
    for record in undisturbed.iterate(problems):
        twin = records.get(record.run_id)
        if twin is None:
            continue
        for name, value in record.row.items():
            if name not in TIMES and twin.row[name] != value:
                problems.append(f"{record.run_id} {name}: {twin.row[name]} instead of {value}")
        arrays, others = undisturbed.arrays(record.run_id), disturbed.arrays(record.run_id)
        problems += [
            f"{record.run_id} {name} differs"
            for name, array in arrays.items()
            if not np.array_equal(array, others[name], equal_nan=array.dtype.kind == "f")
        ]
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--executor", default="inline")
    parser.add_argument("--mode", default="map")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="pcbench-kill-"))
    settings = [
        f"executor={arguments.executor}",
        f"executor.pack_mode={arguments.mode}",
        "executor.pack_size=3",
    ]
    chance = random.Random(arguments.seed)
    kills, changed, rounds, started = 0, 0, 0, time.monotonic()
    digests: dict[str, str] = {}
    while kills < arguments.kills:
        if launch(root / str(rounds), settings, chance.uniform(0, LONGEST)):
            rounds, digests = rounds + 1, {}  # it ended: the next kills are for a fresh sweep
            continue
        kills += 1
        records = {r.run_id: r.digest for r in Store(root / str(rounds)).iterate()}
        changed += sum(digests[r] != records.get(r) for r in digests)
        digests |= records
    launch(root / str(rounds), settings, None)
    launch(root / "undisturbed", settings, None)
    planned = {config.run_id for config in expand(None, SWEEP)[0]}
    undisturbed = Store(root / "undisturbed")
    problems = [
        problem
        for n in range(rounds + 1)
        for problem in compare(Store(root / str(n)), undisturbed, planned)
    ]
    if changed:
        problems.append(f"{changed} stored records were lost or computed again")
    seconds = time.monotonic() - started
    print(
        f"{arguments.executor}, {arguments.mode}: {kills} kills of {rounds + 1} sweeps of "
        f"{len(planned)} runs in {seconds:.0f} s, {len(problems)} problems"
    )
    for problem in problems[:20]:
        print(f"  {problem}")
    shutil.rmtree(root)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
