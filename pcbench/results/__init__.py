"""Records, the table derived from them, and what ranks and prints its rows. Imports no JAX.

Heavy libraries (numpy, pyarrow, rich, wandb) are imported by the functions that use them:
the command line answers `--help` and `run` of a finished config without them.
"""

from pcbench.results.records import Record, RecordError, Store

__all__ = ["Record", "RecordError", "Store"]
