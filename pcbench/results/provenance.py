"""Where a number came from: revision, versions, machine, command."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = ("pcbench", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "hydra-core")


def provenance() -> dict[str, Any]:
    """Plain values for `Record.provenance`. All but `started` is found once per process."""
    return {**_fixed(), "started": datetime.now(UTC).isoformat(timespec="seconds")}


@cache
def _fixed() -> dict[str, Any]:
    revision, dirty = git_state(PACKAGE)
    versions = {name: _version(name) for name in DISTRIBUTIONS}
    return {
        "git_revision": revision,
        "git_dirty": dirty,
        "versions": versions,
        "jax_version": versions["jax"],
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "command": shlex.join(sys.argv),
    }


def git_state(package: Path) -> tuple[str | None, bool | None]:
    """Revision and dirtiness of the checkout that tracks `package`; nulls where none does.

    "Tracks" matters: a package installed into ``.venv`` inside the user's own repository lies in
    that checkout, and its revision says nothing about us.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    revision, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain")
    return revision, None if changes is None else bool(changes)


def _git(directory: Path, *arguments: str) -> str | None:
    # GIT_DIR and its kin (set inside hooks) would answer for another repository; optional locks
    # would disturb the user's own git commands.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
