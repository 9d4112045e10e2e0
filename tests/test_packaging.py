"""What is shipped: the wheel carries the defaults, the pins keep to the ranges, no path leaks."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_wheel_carries_the_package_and_its_defaults(tmp_path):
    """Without isolation: hatchling is at hand, and nothing is fetched."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "pcbench = pcbench.cli:main" in archive.read(entry_points).decode()
    assert {"pcbench/conf/config.yaml", "pcbench/__init__.py", "pcbench/cli/__init__.py"} <= names
    parts = {"page.html", "page.css", "page.js", "charts.js"}
    assert {f"pcbench/results/{part}" for part in parts} <= names
    shipped = {name for name in names if name.startswith("pcbench/conf/") and ".yaml" in name}
    assert shipped == {f"pcbench/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert not [name for name in names if name.startswith(("tests/", "results/"))]


def test_the_defective_jax_is_excluded():
    ranges = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    assert not ranges["jax"].contains("0.10.2") and not ranges["jaxlib"].contains("0.10.2")


def test_every_pin_is_inside_its_range():
    """And what `make setup` installs is pinned, all of it."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        _normal(name): version
        for name, version in (line.split("==") for line in lines if line and line[0] != "#")
    }
    extras = PROJECT["optional-dependencies"]
    for requirement in map(Requirement, PROJECT["dependencies"] + extras["dev"] + extras["hpo"]):
        version = pins.get(_normal(requirement.name))
        assert version, f"{requirement.name} is not pinned in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_source_names_a_home_folder_or_this_checkout():
    """A path of the machine that wrote it works nowhere else."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are sources is not known")
    local = re.compile(rf"/(?:home|Users|root)/\w|{re.escape(str(ROOT))}\b")
    leaks = []
    for path in (ROOT / name for name in listed.splitlines()):
        if not path.is_file():
            continue  # deleted, not yet committed
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # an image or an archive
        leaks += [f"{path.relative_to(ROOT)}: {found.group()}" for found in local.finditer(text)]
    assert leaks == []
