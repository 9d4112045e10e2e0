"""`pcbench bench`: what is measured of every algorithm, and what one that fails does not stop."""

import json

import pytest
from click.testing import CliRunner

from pcbench import bench
from pcbench.cli import main

SMALL = ["model.width=16", "model.depth=3"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench, "STEPS", 2)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "PRODUCT_SIZES", (64, 128))


def invoke(*arguments, code=0):
    done = CliRunner().invoke(main, ["bench", *SMALL, *arguments])
    assert done.exit_code == code, done.output
    return done


def test_step_compile_time_gain_and_share_of_the_peak_per_algorithm_size_and_mode():
    report = json.loads(invoke("--algorithms", "bp,pc", "--sizes", "1,2", "--json").stdout)
    assert report.keys() == {"machine", "rows", "skipped"} and not report["skipped"]
    assert [(r["algorithm"], r["size"], r["mode"]) for r in report["rows"]] == [
        (name, size, mode)
        for name in ("bp", "pc")
        for size, mode in ((1, "none"), (2, "map"), (2, "vmap"))
    ]
    for row in report["rows"]:
        assert all(row[k] > 0 for k in ("member_step_ms", "flops_per_step", "gain", "peak_share"))
    assert {r["gain"] for r in report["rows"] if r["size"] == 1} == {1.0}


def test_an_algorithm_that_cannot_run_is_named_and_the_others_are_measured(monkeypatch):
    real = bench._measure

    def measure(config, size, mode):
        if config["algorithm.name"] == "pc":
            raise NotImplementedError("not with this network")
        return real(config, size, mode)

    monkeypatch.setattr(bench, "_measure", measure)
    done = invoke("--algorithms", "pc,bp", "--sizes", "1")
    assert "bp" in done.stdout
    assert "not measured: pc, 1 x none: NotImplementedError: not with this network" in done.stderr
    done = invoke("algorithm.steps=4", "--algorithms", "pc,bp", "--sizes", "1")
    assert "not measured: bp: algorithm.steps" in done.stderr


def test_stopped_it_tells_what_it_has_measured(monkeypatch):
    real = bench._measure

    def measure(config, size, mode):
        if config["algorithm.name"] == "pc":
            raise KeyboardInterrupt
        return real(config, size, mode)

    monkeypatch.setattr(bench, "_measure", measure)
    arguments = ["--algorithms", "bp,pc,ipc", "--sizes", "1", "--json"]
    report = json.loads(invoke(*arguments, code=130).stdout)
    assert [row["algorithm"] for row in report["rows"]] == ["bp"]
    assert [(row["algorithm"], row["reason"]) for row in report["skipped"]] == [
        ("pc", "interrupted"), ("ipc", "interrupted"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--algorithms", "bq"], "bp"),
        (["--algorithms", "bp", "algorithm.steps=4"], "no such key"),
        (["--sizes", "0"], "at least one member"),
        (["--sizes", "one"], "integers"),
    ],
)
def test_what_suits_no_algorithm_is_an_error_before_anything_is_measured(arguments, message):
    assert message in invoke(*arguments, code=2).stderr
