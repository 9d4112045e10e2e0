"""Every identity of `pcbench verify` is a test; and what the command says of them."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from pcbench.cli import main
from pcbench.config.compose import choices
from pcbench.verify import runner
from pcbench.verify.checks import CHECKS, KINDS, Check, check
from pcbench.verify.measured import Measured, order


@pytest.mark.parametrize("identity", CHECKS, ids=lambda c: c.name)
def test_identity(identity):
    result = runner.outcome(identity)
    assert result.passed, result.error or f"{result.measured:.2e} > {result.bound:.1e}"


def test_checks_say_what_they_check_of_whom_and_where_from():
    assert len(CHECKS) >= 55
    assert [name for name, n in Counter(c.name for c in CHECKS).items() if n > 1] == []
    known = set(choices("algorithm"))
    for c in CHECKS:
        assert c.statement.endswith((".", ")", ":")) and c.source and c.kind in KINDS, c.name
        assert c.algorithms and set(c.algorithms) <= known, c.name


def test_named_algorithms_get_their_identities_and_their_contract():
    known = choices("algorithm")
    chosen = runner.select(["ep"], known)
    assert all("ep" in c.algorithms for c in chosen)
    assert {c.kind for c in chosen} >= {"identity", "slope", "contract"}
    everything = runner.select([], known)
    assert len(everything) == len(CHECKS) + sum(len(runner.promises(name)) for name in known)
    assert runner.promises("ep") == runner.CONTRACT
    assert 0 < len(runner.promises("hopfield_memory")) < len(runner.CONTRACT)
    assert {c.name for c in chosen} < {c.name for c in everything}


def test_an_order_of_convergence_is_the_slope_of_the_error():
    values = (1e-1, 1e-2, 1e-3)
    assert order(values, [3 * v**2 for v in values], 2).measured < 1e-12
    assert order(values, [3 * v for v in values], 2).measured == pytest.approx(1)


# --- the command


def broken() -> Measured:
    raise ZeroDivisionError("no such network")


OUTCOMES = {
    "holds": lambda: Measured(1e-13, 1e-12),
    "fails": lambda: Measured(0.5, 0.1),
    "undefined": lambda: Measured(float("nan"), 1.0),
    "broken": broken,
}


@pytest.fixture
def registry(monkeypatch):
    """Put checks of these outcomes in place of all the others."""

    def replace(*names):
        made = [Check(n, "a paper", ("ep", "bp"), "identity", OUTCOMES[n]) for n in names]
        monkeypatch.setattr(runner, "CHECKS", made)
        monkeypatch.setattr(runner, "CONTRACT", [])

    return replace


def invoke(*arguments):
    return CliRunner().invoke(main, ["verify", *arguments], catch_exceptions=False)


def test_json_is_one_document_of_all_checks(registry):
    registry("holds")
    result = invoke("--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["passed"] is True and len(document) == 2
    (entry,) = document["checks"]
    assert entry.pop("seconds") >= 0
    assert entry == {
        "name": "holds",
        "source": "a paper",
        "kind": "identity",
        "measured": 1e-13,
        "bound": 1e-12,
        "passed": True,
        "algorithms": ["ep", "bp"],
    }


def test_a_failed_check_fails_the_command_and_the_others_still_run(registry):
    registry("fails", "undefined", "broken", "holds")
    result = invoke("--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1 and document["passed"] is False
    passed = {entry["name"]: entry["passed"] for entry in document["checks"]}
    assert passed == {"fails": False, "undefined": False, "broken": False, "holds": True}
    measured = {entry["name"]: entry["measured"] for entry in document["checks"]}
    assert measured["undefined"] is None and measured["broken"] is None
    shown = invoke()
    assert shown.exit_code == 1 and "ZeroDivisionError: no such network" in shown.stdout
    assert "4 checks, 3 failed" in shown.stdout


def test_only_the_checks_of_the_named_algorithm_run(registry, monkeypatch):
    registry("holds", "fails")
    others = [runner.CHECKS[0], runner.CHECKS[1]._replace(algorithms=("pc",))]
    monkeypatch.setattr(runner, "CHECKS", others)
    document = json.loads(invoke("ep", "--json").stdout)
    assert [entry["name"] for entry in document["checks"]] == ["holds"]
    assert invoke("pc").exit_code == 1


def test_an_unknown_algorithm_is_a_usage_error_with_the_nearest_match():
    result = CliRunner().invoke(main, ["verify", "epp"])
    assert result.exit_code == 2
    assert "'epp'" in result.stderr and "Did you mean 'ep" in result.stderr


def test_a_function_is_registered_once_for_each_case(monkeypatch):
    registered = []
    monkeypatch.setattr("pcbench.verify.checks.CHECKS", registered)

    @check(source="a paper", algorithms=["bp"], kind="identity", cases=[(1,), (2,)])
    def ratio(case) -> Measured:
        """The case is small."""
        return Measured(case, 1)

    assert [c.name for c in registered] == ["ratio[1]", "ratio[2]"]
    assert [c().measured for c in registered] == [1, 2]
    assert registered[0].statement == "The case is small."
