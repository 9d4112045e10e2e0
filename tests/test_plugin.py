"""A learning rule from a package of its own, really installed, is a choice like any other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment in which `tests/plugin` is installed, beside what is installed already."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(site), str(SOURCE)],
        check=True,
        cwd=site,
    )
    return os.environ | {"PYTHONPATH": str(site)}


def pcbench(installed, *arguments, **options):
    command = [sys.executable, "-m", "pcbench", *arguments]
    return subprocess.run(command, env=installed, capture_output=True, text=True, **options)


def test_it_runs_and_its_number_is_checked(installed, tmp_path):
    results = ["--results", str(tmp_path)]
    run = pcbench(installed, "run", "algorithm=sign_rule", "train.epochs=10", "--json", *results)
    row = json.loads(run.stdout)
    assert run.returncode == 0 and row["algorithm"] == "sign_rule"
    assert row["test_accuracy_final"] > 0.9
    wrong = pcbench(installed, "run", "algorithm=sign_rule", "algorithm.dampin=1", *results)
    assert wrong.returncode == 2 and "algorithm.damping" in wrong.stderr


def test_it_passes_the_contract(installed):
    """`pcbench verify NAME` runs the contract that every rule passes, on this one, too."""
    verify = pcbench(installed, "verify", "sign_rule", "--json")
    document = json.loads(verify.stdout)
    assert verify.returncode == 0 and document["passed"] and len(document["checks"]) >= 5
