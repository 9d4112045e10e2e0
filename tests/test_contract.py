"""What every learning rule promises, checked of all that are choices."""

import jax.numpy as jnp
import pytest

from pcbench.algorithms.bp import BP
from pcbench.config.compose import choices
from pcbench.verify import contract, runner
from pcbench.verify.checks import CONTRACT

PROMISES = [runner.promise(f, name) for name in choices("algorithm") for f in runner.promises(name)]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda c: c.name)
def test_promise(promise):
    result = runner.outcome(promise)
    assert result.passed, result.error or f"{result.measured:.2e} > {result.bound:.1e}"


class Growing(BP):
    """Its state changes its type."""

    def step(self, state, batch, hyper, key):
        return super().step(state, batch, hyper, key)._replace(step=jnp.ones(()))


class Frozen(BP):
    """Its weights stay, and it looks at the values of its numbers."""

    def step(self, state, batch, hyper, key):
        return state._replace(step=state.step + 1)

    def observe(self, state, batch, hyper, key):
        gradient, info, _ = super().observe(state, batch, hyper, key)
        return gradient, info, super().step(state, batch, hyper, key)


class Miscounting(BP):
    @property
    def weight_updates_per_step(self):
        return 0


@pytest.mark.parametrize(
    "rule,broken",
    [
        (Growing, "a_step_keeps_the_structure_of_the_state"),
        (Frozen, "the_loss_falls"),
        (Frozen, "observing_learns_as_stepping_does"),
        (Miscounting, "updates_are_counted_as_they_are_computed"),
    ],
)
def test_a_broken_promise_is_found(rule, broken, monkeypatch):
    subject = contract.Subject("bp")
    made = subject.rule
    subject.rule = rule(made.network, made.loss, made.learner)
    monkeypatch.setattr(runner, "subject", lambda name: subject)
    (promise,) = (f for f in CONTRACT if f.__name__ == broken)
    assert not runner.outcome(runner.promise(promise, "bp")).passed
