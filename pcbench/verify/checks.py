"""The registry of checks: functions that measure how far a statement is from holding.

A check is a function without side effects that returns `Measured` and whose docstring says, in a
line or two, what should hold. Its kind says what the measured number is:

- `identity`  the relative error of an equality; the bound is rounding times the condition
- `slope`     the distance of an order of convergence from the expected one
- `limit`     the error at one value of a parameter that goes to its limit
- `bound`     by how much an inequality is violated
- `contract`  how far a rule is from what every rule promises
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pcbench.verify.measured import Measured

KINDS = ("identity", "slope", "limit", "bound", "contract")


class Check(NamedTuple):
    """One statement, at one case of its function's arguments."""

    name: str
    source: str
    algorithms: tuple[str, ...]
    kind: str
    measure: Callable[..., Measured]
    case: tuple = ()

    def __call__(self) -> Measured:
        return self.measure(*self.case)

    @property
    def statement(self) -> str:
        """What should hold, in the words of the docstring."""
        return " ".join((self.measure.__doc__ or "").split())


CHECKS: list[Check] = []  # identities, each of the rules that it names
CONTRACT: list[Callable] = []  # promises of every rule, of a `contract.Subject`
OF_GRADIENTS: set[Callable] = set()  # those of them that only a rule with weights can keep


def check(
    *, source: str, algorithms: Sequence[str], kind: str, cases: Sequence[tuple] = ((),)
) -> Callable:
    """Register a function as a check of these algorithms, once for each case of its arguments."""

    def register(function: Callable) -> Callable:
        for case in cases:
            shown = f"[{'-'.join(map(str, case))}]" if case else ""
            name = function.__name__ + shown
            CHECKS.append(Check(name, source, tuple(algorithms), kind, function, case))
        return function

    return register


def contract(function: Callable) -> Callable:
    """Register a function of a `Subject` as a promise of every rule."""
    CONTRACT.append(function)
    return function


def contract_of_gradients(function: Callable) -> Callable:
    """Register a promise of every rule that learns weights by gradient."""
    OF_GRADIENTS.add(function)
    return contract(function)
