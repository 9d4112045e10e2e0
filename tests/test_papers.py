"""Published tables: strict specs, the rules of verdicts and claims, and what is not filled."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pcbench.cli import main
from pcbench.config import ConfigError
from pcbench.config.compose import choices
from pcbench.papers import render, runs, table, values
from pcbench.papers.coverage import make_coverage
from pcbench.papers.spec import Cell, Claim, read_spec

ROOT = Path(__file__).resolve().parents[1]
PAPERS = {  # arXiv numbers of the sixteen papers that the tables are to cover
    "2212.00720", "2407.01163", "2602.07697", "2206.02629", "2207.12316", "2605.19965",
    "2605.11911", "2402.10814", "2505.23415", "2305.11982", "2202.09467", "2202.04557",
    "2201.13180", "2109.08063", "2103.04689", "2103.03725",
}  # fmt: skip

SMALL = """
title: Two rules
citation: Nobody 2026
metric: test_accuracy_final
honest: test_accuracy_at_best_validation
where: {dataset: digits, model.width: 8, train.epochs: 1, dataset.train_size: 128}
scales:
  smoke: {seeds: 2}
  full: {seeds: 2, needs: gpu}
rows:
  bp: {where: {algorithm: bp}}
  dfa: {where: {algorithm: dfa}}
  other: {cannot: nobody knows its settings}
columns:
  digits: {label: Digits}
cells:
  bp: {digits: 50 ± 50}
  dfa: {digits: 50 ± 0.01}
  other: {digits: 12.5}
claims:
  - {text: BP is not perfect, left: bp, op: "<", right: 100}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_each_of_the_sixteen_papers_has_a_table():
    assert {n for name in choices("paper") for n in read_spec(name).arxiv} >= PAPERS


@pytest.mark.parametrize("name", choices("paper"))
def test_every_table_describes_runs_that_there_are(name):
    """Composed as `smoke` and `cpu`, with one config a cell or a rule for several."""
    own = read_spec(name)
    for scale in ("smoke", "cpu"):
        found = [] if own.coverage else runs.cell_runs(own, scale, accelerator=True)
        for cell in found:
            assert len(table.by_config(cell.configs)) <= 1 or cell.cell.options.get("over_grid")
        data = [r.reason for r in found if r.reason and r.reason.startswith("needs the dataset")]
        runnable = any(r.reason is None for r in found)
        assert own.coverage or scale == "cpu" or runnable or data, "smoke runs nothing"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric:", "metrik:", r"small\.yaml: unknown key 'metrik'.*Did you mean 'metric'"),
        ("needs: gpu", "need: gpu", r"scales\.full: unknown key 'need'.*'needs'"),
        ("needs: gpu", "needs: tpu", "scales.full: needs 'tpu'. Allowed: gpu"),
        ("smoke:", "smok:", "scale 'smok'.*Did you mean 'smoke'"),
        ("cannot:", "canot:", r"rows\.other: unknown key 'canot'.*'cannot'"),
        ("bp: {digits:", "pb: {digits:", "cells: 'pb'.*Did you mean 'bp'"),
        ("{digits: 50 ± 50}", "{digit: 50}", r"cells\.bp: 'digit'.*Did you mean 'digits'"),
        ("50 ± 50", "about 50", "published 'about 50'"),
        ("metric:", "unit: 1e-3\nmetric:", r"unit: a text is needed, got 0\.001"),
        ("metric:", "tolerance: small\nmetric:", "tolerance: a number is needed"),
        ('op: "<"', 'op: "=<"', r"claims\[0\]: op '=<'"),
        ("left: bp", "left: pb", r"claims\[0\]: left: 'pb'"),
        ("left: bp,", "", r"claims\[0\]: it needs the key 'left'"),
        ("title:", "caption:", "it needs the key 'title'"),
        ("metric: test_accuracy_final", "unit: dB", "bp.digits: it needs the key 'metric'"),
        ("{digits: 50 ± 50}", "50", r"cells\.bp: a mapping of columns is needed, got 50"),
        ("title:", "arxiv: 2212.00720\ntitle:", "arxiv: 2212.0072: write the number as a text"),
        ("title:", "caption: [a]\ntitle:", "caption: a text is needed"),
        ("metric:", "best: {seeds: 5}\nmetric:", "best: it needs the key 'of'"),
        ("metric:", "over_grid: {largest: seed}\nmetric:", "over_grid: it needs the key 'below'"),
        ("smoke: {seeds: 2}", "smoke: {seeds: two}", "scales.smoke: seeds: a number or a list"),
        ("smoke: {seeds: 2}", "smoke: {judge: 1}", "scales.smoke: judge: true or false"),
        ("label: Digits", "scales: {smoke: {rows: [bp]}}", "scales.smoke: unknown key 'rows'"),
        ("50 ± 50", "50", None),
    ],
)
def test_a_table_that_is_not_well_formed_is_refused_by_name(small, old, new, message):
    assert old in SMALL
    small.write_text(SMALL.replace(old, new, 1))
    if message is None:
        assert read_spec(str(small)).cells[0].tolerance == 0.5
    else:
        with pytest.raises(ConfigError, match=message):
            read_spec(str(small))


def test_a_number_without_spread_or_tolerance_cannot_be_judged(small):
    text = SMALL.replace("metric: test_accuracy_final", "metric: train_loss")
    small.write_text(text)
    with pytest.raises(ConfigError, match=r"other|give it, `tolerance`|judge: false") as error:
        read_spec(str(small))
    small.write_text(text.replace("title:", "judge: false\ntitle:"))
    assert read_spec(str(small)) and "other.digits" in str(error.value)


def test_a_setting_that_no_config_has_is_refused_with_its_cell(small):
    small.write_text(SMALL.replace("algorithm: dfa", "algorithm.stepz: 3"))
    with pytest.raises(ConfigError, match=r"cell dfa/digits, scale smoke: algorithm\.stepz"):
        runs.cell_runs(read_spec(str(small)), "smoke")


@pytest.mark.parametrize(
    ("difference", "spread", "tolerance", "expected"),
    [
        (0.04, 0.04, 0.5, "inside spread"),
        (-0.04, 0.04, 0.5, "inside spread"),
        (0.041, 0.04, 0.5, "inside 0.5"),
        (-0.5, 0.04, 0.5, "inside 0.5"),
        (-0.501, 0.04, 0.5, "outside"),
        (0.7, 0.86, 0.5, "inside spread"),
        (0.1, None, 0.5, "inside 0.5"),
        (0.1, 0.0, None, "outside"),
    ],
)
def test_verdicts(difference, spread, tolerance, expected):
    assert table.verdict(difference, spread, tolerance) == expected


def cell(**options):
    return Cell("r", "c", None, None, {"metric": "test_accuracy_final"} | options)


def rows(*scores, **more):
    return [{"status": "completed", "test_accuracy_final": s, **more} for s in scores]


def test_the_published_protocol_averages_the_best_seeds_and_all_seeds_are_told():
    scores = (0.10, 0.20, 0.90, 0.91, 0.92, 0.93, 0.94)
    best = {"best": {"seeds": 5, "of": 7}}
    found = values.value(cell(**best), [rows(*scores)])
    assert found.published == pytest.approx(92.0)
    assert found.spread == pytest.approx(2**0.5)  # of 90 … 94, as numpy's std
    assert found.seeds.mean == pytest.approx(100 * sum(scores) / 7)
    few = values.value(cell(**best), [rows(0.5, 0.7)])  # there are no seven to choose from
    assert (few.published, few.spread) == (pytest.approx(60.0), None)


def test_a_diverged_run_scores_chance_and_a_time_is_that_of_a_run_alone():
    lost = {"status": "diverged", "test_accuracy_final": 0.9, "chance": 0.1, "step_ms": 1.0}
    assert values.column("test_accuracy_final", [lost]) == [0.1]
    top5 = "test_top5_accuracy_final"
    assert values.column(top5, [lost | {top5: 0.9}]) == [0.5]
    timed = [{"status": "completed", "step_ms": ms, "pack_size": n} for ms, n in ((3, 1), (1, 7))]
    assert values.column("step_ms", timed) == [3.0]
    with pytest.raises(ConfigError, match=r"no column 'step_m'.*Did you mean 'step_ms'"):
        values.column("step_m", timed)


def test_several_configs_make_a_capacity_a_share_or_a_choice():
    lengths = [rows(e, e, length=n) for n, e in ((4, 0.0), (8, 0.005), (16, 0.3))]
    largest = cell(over_grid={"largest": "length", "below": 0.01})
    assert values.value(largest, lengths).published == 8
    near = cell(over_grid={"share_within": 0.01})
    assert values.value(near, [rows(s) for s in (0.9, 0.895, 0.8, 0.85)]).published == 50
    by = cell(over_grid={"best_by": "validation_accuracy_best"})
    chosen = [rows(0.9, validation_accuracy_best=0.5), rows(0.7, validation_accuracy_best=0.6)]
    assert values.value(by, chosen).published == pytest.approx(70)
    with pytest.raises(ConfigError, match="2 configs: say with `over_grid`"):
        values.value(cell(), chosen)


def claim(**change):
    fields = {"text": "", "left": 0, "op": ">", "right": 0, "factor": 1.0, "margin": 0.0}
    return Claim(**fields | {"columns": ()} | change)


@pytest.mark.parametrize(
    ("op", "left", "right", "factor", "margin", "expected"),
    [
        (">", 5.1, 1, 5, 0, True),
        (">", 5.0, 1, 5, 0, False),
        (">", 96, 97, 1, -2, True),
        ("<", 1, 3, 1 / 3, 0, False),
        ("<", 0.8, 1, 1, 0.5, False),
        (">=", 1.5, 1, 1, 0.5, True),
        ("~", 97.5, 97, 1, 0.5, True),
        ("~", 96.4, 97, 1, 0.5, False),
    ],
)
def test_claims(op, left, right, factor, margin, expected):
    assert table.holds(left, claim(op=op, factor=factor, margin=margin), right) is expected


def test_a_claim_holds_in_every_column_or_is_open():
    own = claim(left="a", right="b", columns=("x", "y"))

    def cells(*, ours, complete=True):
        return {("a", "x"): {"ours": 3.0, "complete": True},
                ("a", "y"): {"ours": ours, "complete": complete},
                ("b", "x"): {"ours": 2.0, "complete": True},
                ("b", "y"): {"ours": 2.0, "complete": True}}  # fmt: skip

    assert table._claim(own, cells(ours=3.0))["passed"] is True
    assert table._claim(own, cells(ours=1.0))["passed"] is False
    assert table._claim(own, cells(ours=3.0, complete=False))["passed"] is None


def test_one_command_runs_what_is_missing_and_writes_the_table(small, tmp_path):
    arguments = ("paper", "run", small, "--scale", "smoke", "--results", tmp_path / "r")
    first = invoke(*arguments)
    assert "4 runs: 0 finished, 0 queued or running elsewhere, 4 to run" in first.stderr
    assert "4 finished, 0 queued or running elsewhere, 0 to run" in invoke(*arguments).stderr

    (bp, dfa, other) = cells = invoke_json(small, tmp_path)["cells"]
    assert bp["verdict"] == "inside spread" and bp["seeds"] == 2 and bp["complete"]
    assert dfa["verdict"] in ("inside 0.5", "outside")
    assert other["ours"] is None and other["verdict"] is None
    written = {s: (tmp_path / f"r/papers/small.{s}").read_text() for s in ("md", "html", "tex")}
    for text in written.values():
        shown = f"{bp['ours']:.2f} ["
        assert shown in text and "nobody knows its settings" in text and "50.00" in text
    lines = list(csv.DictReader((tmp_path / "r/papers/small.csv").open()))
    assert [line["ours"] for line in lines] == [str(bp["ours"]), str(dfa["ours"]), ""]
    stored = json.loads((tmp_path / "r/papers/small.json").read_text())
    assert stored["cells"] == cells and stored["summary"]["filled"] == 2
    assert stored["claims"][0]["passed"] is True
    small.write_text(SMALL.replace("smoke: {seeds: 2}", "smoke: {seeds: 2, judge: false}"))
    again = invoke_json(small, tmp_path)["cells"]
    assert [cell["verdict"] for cell in again] == [None, None, None]
    assert again[0]["ours"] == bp["ours"]


def test_where_the_runs_run_can_be_chosen_and_nothing_else(small, tmp_path):
    """The same runs; a table of times says itself that they run one after the other."""

    def executors(name, **settings):
        own = runs.cell_runs(read_spec(name), "smoke", executor=settings)
        found = [config for cell in own for config in cell.configs]
        return [c["executor.name"] for c in found], [c.run_id for c in found]

    inline, ids = executors(str(small))
    assert executors(str(small), executor="processes") == (["processes"] * len(inline), ids)
    assert set(executors("pcx-speed", executor="processes")[0]) == {"inline"}

    def reason(**settings):
        return runs.cell_runs(read_spec(str(small)), "full", executor=settings)[0].reason

    assert reason() == reason(executor="slurm") == "needs a GPU"
    assert reason(**{"executor": "slurm", "executor.slurm.gpus": 1}) is None
    for override in ("model=mlp", "seed=1", "executor=inline,slurm"):
        done = invoke("paper", "run", small, override, "--results", tmp_path / "r", code=2)
        assert "`executor` and its keys alone can be chosen" in done.stderr
    assert not (tmp_path / "r").exists()


def invoke_json(path, tmp_path, scale="smoke"):
    command = ("paper", "show", path, "--scale", scale, "--results", tmp_path / "r", "--json")
    return json.loads(invoke(*command).stdout)


def test_what_cannot_run_here_is_told_and_never_filled(small, tmp_path, monkeypatch):
    absent = SMALL.replace("algorithm: dfa", "algorithm: dfa, dataset: mnist")
    small.write_text(absent.replace("dataset.train_size: 128", "train.max_steps: 1"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    done = invoke("paper", "run", small, "--scale", "full", "--results", tmp_path / "r")
    reasons = [cell["reason"] for cell in invoke_json(small, tmp_path, "full")["cells"]]
    assert reasons == ["needs a GPU", "needs the dataset mnist", "nobody knows its settings"]
    assert "1 of 3 cells are not run: needs a GPU" in done.stderr
    assert "1 of 3 cells are not run: needs the dataset mnist" in done.stderr
    text = (tmp_path / "r/papers/small.md").read_text()
    assert "needs a GPU" in text and "needs the dataset mnist" in text and "inside" not in text


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (1.0, "1"),
        (1 - 1e-9, "0.999999999"),
        (0.99999, "0.99999"),
        (0.81234, "0.8123"),
        (12345.6, "1.235e+04"),
    ],
)
def test_a_cosine_near_one_is_told_from_one(number, shown):
    assert render.plain(number) == shown


@pytest.mark.parametrize(
    ("op", "margin", "shown"),
    [
        (">", 2.0, "2 · 3 + 2"),
        (">=", -2.0, "2 · 3 - 2"),
        ("<", 2.0, "2 · 3 - 2"),
        ("~", 2.0, "2 · 3 ± 2"),
    ],
)
def test_the_bound_of_a_claim_is_written_out(op, margin, shown):
    """It is what `holds` compares with."""
    own = claim(op=op, margin=margin, factor=2.0)
    assert render._bound(vars(own), 3.0) == shown
    if op != "~":
        bound = eval(shown.replace("·", "*"))
        assert table.holds(bound + 0.1, own, 3.0) is (op[0] == ">")
        assert table.holds(bound - 0.1, own, 3.0) is (op[0] == "<")


def test_the_notes_tell_what_a_scale_sets_wherever_it_is_said(tmp_path):
    own = {
        "digits: {label: Digits}": "digits: {label: Digits, scales: {smoke: {grid: {seed: [1]}}}}",
        "bp: {digits: 50 ± 50}": "bp: {digits: {scales: {smoke: {where: {model.width: 4}}}}}",
    }
    path, text = tmp_path / "own.yaml", SMALL
    for old, new in own.items():
        text = text.replace(old, new)
    path.write_text(text)
    told = "Scale smoke: 2 seeds; Digits: seed in [1]; bp, Digits: model.width=4."
    assert told in table.notes(read_spec(str(path)), "smoke", [])


def test_a_table_is_replaced_by_one_of_a_larger_scale_with_as_many_numbers(tmp_path):
    made = {"name": "t", "title": "T", "citation": "C", "arxiv": [], "cells": [], "claims": [],
            "notes": []}  # fmt: skip
    saved = []
    for scale, filled in (("cpu", 9), ("smoke", 9), ("full", 0), ("full", 9), ("full", 8)):
        own = {"scale": scale, "summary": {"filled": filled}}
        saved.append(render.save(made | own, tmp_path)[0].name)
    assert saved == ["t.md", "t-smoke.md", "t-full.md", "t.md", "t.md"]
    assert json.loads((tmp_path / "t.json").read_text())["scale"] == "full"


def test_coverage_counts_the_completed_runs_that_show_a_capability(tmp_path):
    run = {"status": "completed", "stage": "report", "task": "classification", "model": "mlp"}
    graph = run | {"model": "graph", "algorithm": "graph_pc", "test_generation_rmse_final": 0.1}
    made = make_coverage(
        read_spec("survey"),
        [
            run | {"algorithm": "bp"},
            run | {"algorithm": "bp", "status": "failed"},
            run | {"algorithm": "bp", "stage": "tune"},
            graph,
            graph,
        ],
    )
    counted = {(cell["row"], cell["column"]): cell["count"] for cell in made["cells"]}
    assert counted["classification", "bp"] == 1 and counted["graph", "bp"] == 0
    assert counted["classification", "graph_pc"] == counted["graph", "graph_pc"] == 2
    assert counted["generation", "graph_pc"] == 2 and counted["generation", "bp"] == 0
    assert counted["control", "bp"] == 0 and "not covered" in render.markdown(made)

    render.save(made, tmp_path / "papers")
    listed = json.loads(invoke("paper", "list", "--results", tmp_path, "--json").stdout)["papers"]
    by_name = {row["name"]: row for row in listed}
    assert by_name["survey"]["filled"] == 4 and by_name["survey"]["scale"] == "full"
    assert by_name["pcx-mlp"]["scale"] is None and by_name["pcx-mlp"]["cells"] == 16


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_table_can_be_made_at_the_smallest_scale(tmp_path, tfds_dir):
    """No run fails, and all that the scale asks for and that is not told to be missing is there."""
    done = invoke("paper", "run", *choices("paper"), "--scale", "smoke", "--results", tmp_path)
    assert "failed" not in done.stderr
    for name in choices("paper"):
        made = render.stored(tmp_path / "papers", name)
        incomplete = [c for c in made["cells"] if c.get("run_ids") and not c["complete"]]
        assert all(c["reason"].startswith(("needs", "not at scale")) for c in incomplete), name


@pytest.mark.parametrize("columns", [3, render.WIDEST, render.WIDEST + 1])
def test_an_overview_is_turned_rather_than_wider_than_a_page(columns):
    cells = [
        {"row_label": f"r{row}", "column_label": f"c{column}", "unit": "%", "published": None,
         "ours": 10.0 * row + column}
        for row in range(2) for column in range(columns)
    ]  # fmt: skip
    header, lines = render.overview({"cells": cells})
    assert len(header) <= 1 + render.WIDEST and all(len(line) == len(header) for line in lines)
    shown = {
        frozenset((line[0], name)): text
        for line in lines
        for name, text in zip(header[1:], line[1:], strict=True)
    }
    wanted = {frozenset((c["row_label"], c["column_label"])): f"{c['ours']:.2f}" for c in cells}
    assert shown == wanted
