"""What tasks share whose output is to be the example itself."""

from dataclasses import dataclass
from math import prod

from jax import Array

from pcbench.algorithms.base import flat
from pcbench.data.dataset import Facts
from pcbench.tasks.task import Task


@dataclass(frozen=True)
class Reproduction(Task):
    def __post_init__(self):
        if self.loss != "squared_error":
            raise ValueError("what is to be the example itself has loss=squared_error.")

    @property
    def outputs(self) -> int:
        return prod(self.data.shape)

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        return x, flat(x)


def require_whole(data: Facts) -> None:
    """Raises ValueError unless a memory can be tested on the very examples that it has stored."""
    if data.held_out:
        raise ValueError(
            "a memory is tested on what it has stored: set train.validation_fraction=0 "
            "train.selection=final."
        )
    if data.augmented:
        raise ValueError(
            "a memory stores patterns as they are: set dataset.flip=false "
            "dataset.crop_size=null dataset.crop_padding=0."
        )
