"""The command line. Each command is a thin wrapper; nothing here imports JAX at the top."""

from pcbench.cli import checks, papers, reports, runs, sweeps  # noqa: F401  (they add their commands)
from pcbench.cli.common import main

__all__ = ["main"]
