"""pcbench: neuroscience-inspired learning rules and backpropagation on one bench.

>>> record = pcbench.run(["algorithm=pc", "dataset=digits", "seed=1"])
>>> record.row["test_accuracy_final"]

Importing this package imports no JAX.
"""

import os

from pcbench.api import Run, expand, load, run, table

# Before JAX is imported: a compiled program read from the cache makes XLA warn, at length, of code
# generation preferences that are not features of any machine. Errors still arrive as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["Run", "__version__", "expand", "load", "run", "table"]
__version__ = "0.1.0"
