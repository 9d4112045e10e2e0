"""pcbench: neuroscience-inspired learning rules and backpropagation on one bench.

>>> record = pcbench.run(["algorithm=pc", "dataset=digits", "seed=1"])
>>> record.row["test_accuracy_final"]

Importing this package imports no JAX.
"""

from pcbench.api import Run, expand, load, run, table

__all__ = ["Run", "__version__", "expand", "load", "run", "table"]
__version__ = "0.1.0"
