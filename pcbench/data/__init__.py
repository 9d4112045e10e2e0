"""Datasets: where the examples come from, how they are split, what is done to them on the device.

A dataset is one YAML under `conf/dataset` plus the function that its `target` names. The function
takes that YAML as a mapping and returns a `Source`; `load` does the rest, the same for every
dataset, so that one from a plugin cannot get the split wrong.

Importing this package costs numpy and nothing more: JAX, TFDS and scikit-learn are imported where
they are used. `pcbench.data.transforms` (crop, flip, normalise) is imported by name, with JAX.
"""

from pcbench.data.catalogue import available, prepare
from pcbench.data.dataset import DataError, Dataset, Facts, Source, Split, fixed_permutation, load

__all__ = [
    "DataError",
    "Dataset",
    "Facts",
    "Source",
    "Split",
    "available",
    "fixed_permutation",
    "load",
    "prepare",
]
