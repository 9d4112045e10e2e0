"""What a rank means: selection without the test set, intervals, divergence, comparable groups."""

import csv
import io
import json

import pytest

from pcbench.results import Record, Store
from pcbench.results import render as formats
from pcbench.results.columns import COLUMNS
from pcbench.results.leaderboard import QueryError, interval, leaderboard
from pcbench.results.table import table

METRIC = "test_accuracy_at_best_validation"


def row(variant="pc", seed=0, test=0.9, validation=0.9, status="completed", **more):
    """A row as a record holds it; the run id is that of its config."""
    base = {
        "status": status, "task": "classification", "dataset": "mnist", "model": "mlp",
        "parameterisation": "sp", "width": 128, "depth": 3, "algorithm": variant.split("[")[0],
        "variant": variant, "seed": seed, "protocol": "validation", "chance": 0.1,
        "schema_version": 1, METRIC: test, "test_accuracy_final": test,
        "validation_accuracy_best": validation, **more,
    }  # fmt: skip
    leaves = sorted((k, v) for k, v in base.items() if "." in k)
    return {"run_id": f"{variant}-{seed}-{leaves}-{base['protocol']}-{base['width']}", **base}


def only(board):
    """The entries of the only group."""
    (group,) = board["groups"]
    return group["entries"]


def test_the_contract():
    board = leaderboard([row("pc", 0, 0.8), row("bp", 0, 0.9)])
    assert board["metric"] == METRIC and board["higher_is_better"] is True
    (group,) = board["groups"]
    assert {"task", "dataset", "model", "parameterisation", "entries"} <= group.keys()
    first = group["entries"][0]
    wanted = {"rank", "algorithm", "variant", "mean", "low", "high", "seeds", "run_ids"}
    assert wanted <= first.keys()
    assert [(e["rank"], e["variant"]) for e in group["entries"]] == [(1, "bp"), (2, "pc")]
    assert json.loads(formats.json(board)) == board


def test_interval_is_the_textbook_one():
    """Student's t with 9 degrees of freedom: t = 2.262157; the sample 1…10 has mean 5.5 and
    standard deviation 3.027650."""
    low, high = interval([float(i) for i in range(1, 11)])
    half = 2.2621571628 * 3.0276503541 / 10**0.5
    assert (low, high) == pytest.approx((5.5 - half, 5.5 + half), rel=1e-9)
    assert interval([0.5]) == (None, None)
    assert interval([0.5, 0.5]) == (0.5, 0.5)


def test_entries_are_means_over_seeds():
    (entry,) = only(leaderboard([row(seed=s, test=t) for s, t in enumerate([0.8, 0.9, 1.0])]))
    half = 4.3026527297 * 0.1 / 3**0.5  # 2 degrees of freedom
    assert entry["mean"] == pytest.approx(0.9)
    assert entry["low"] == pytest.approx(0.9 - half)
    assert entry["high"] == pytest.approx(0.9 + half) and entry["high"] > 1, "not clipped"
    assert entry["seeds"] == 3 and len(entry["run_ids"]) == 3
    (entry,) = only(leaderboard([row()]))
    assert entry["low"] is None and entry["high"] is None


def test_selection_never_sees_the_test_set():
    """The config that is best on test but worse on validation is not chosen, and no change of
    any test score changes the choice."""
    lr = "optimizer.lr"
    good = [row(seed=s, test=0.7, validation=0.95, **{lr: 0.1}) for s in range(3)]
    lucky = [row(seed=s, test=0.99, validation=0.90, **{lr: 0.2}) for s in range(3)]
    (entry,) = only(leaderboard(good + lucky))
    assert entry["config"] == {lr: 0.1} and entry["configs"] == 2
    assert entry["mean"] == pytest.approx(0.7)
    scrambled = [{**r, METRIC: i / 7, "test_accuracy_final": 0.0} for i, r in enumerate(lucky)]
    assert only(leaderboard(good + scrambled))[0]["run_ids"] == entry["run_ids"]


def test_selection_is_by_the_mean_over_seeds():
    """One lucky seed does not choose a config."""
    a = [row(seed=s, validation=v, **{"optimizer.lr": 0.1}) for s, v in enumerate([1.0, 0.1])]
    b = [row(seed=s, validation=v, **{"optimizer.lr": 0.2}) for s, v in enumerate([0.7, 0.7])]
    (entry,) = only(leaderboard(a + b))
    assert entry["config"] == {"optimizer.lr": 0.2} and entry["validation"] == pytest.approx(0.7)


def test_without_validation_nothing_is_selected():
    """Every config is an entry; the metric is the final accuracy."""
    none = {METRIC: None, "validation": None}
    board = leaderboard(
        [row(test=t, **{**none, "optimizer.lr": lr, "test_accuracy_final": t})
         for lr, t in ((0.1, 0.8), (0.2, 0.9))]
    )  # fmt: skip
    assert board["metric"] == "test_accuracy_final"
    assert [(e["rank"], e["config"]["optimizer.lr"], e["mean"]) for e in only(board)] == [
        (1, 0.2, 0.9),
        (2, 0.1, 0.8),
    ]


def test_one_metric_for_a_whole_group():
    """A single row without validation moves its group, and only its group, to final accuracy."""
    rows = [row("pc"), row("bp", validation=None, **{METRIC: None}), row("pc", width=256)]
    board = leaderboard(rows)
    assert {g["width"]: g["metric"] for g in board["groups"]} == {
        128: "test_accuracy_final",
        256: METRIC,
    }
    assert board["metric"] == METRIC and board["higher_is_better"] is True


def test_diverged_runs_score_chance():
    rows = [row(seed=0, test=0.9), row(seed=1, test=0.88, status="diverged")]
    (entry,) = only(leaderboard(rows))
    assert entry["mean"] == pytest.approx((0.9 + 0.1) / 2), "chance, not what it had reached"
    assert (entry["completed"], entry["asked"], entry["seeds"]) == (1, 2, 2)
    (entry,) = only(leaderboard([{**r, "chance": None} for r in rows]))
    assert entry["mean"] == pytest.approx(0.45), "0 where chance is unknown"


def test_divergence_counts_in_the_selection():
    """A config that diverges for one seed of two does not win by its other seed."""
    risky = [
        row(seed=0, validation=0.99, **{"optimizer.lr": 1.0}),
        row(seed=1, validation=None, status="diverged", **{"optimizer.lr": 1.0, METRIC: None}),
    ]
    safe = [row(seed=s, validation=0.9, **{"optimizer.lr": 0.1}) for s in range(2)]
    (entry,) = only(leaderboard(risky + safe))
    assert entry["config"] == {"optimizer.lr": 0.1}


def test_failed_runs_are_counted_not_scored():
    rows = [row(seed=0, test=0.9), row(seed=1, test=None, validation=None, status="failed")]
    (entry,) = only(leaderboard(rows))
    assert entry["mean"] == 0.9 and (entry["completed"], entry["asked"]) == (1, 2)
    (entry,) = only(leaderboard(rows[1:]))
    assert entry["mean"] is None and entry["rank"] is None, "shown, not ranked"


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_run_without_scores_does_not_change_the_metric(status):
    """That column is null because the run ended early, not for want of a validation set."""
    ended = row(seed=1, test=None, validation=None, status=status)
    board = leaderboard([row(seed=0, test_accuracy_final=0.5), ended])
    assert board["metric"] == METRIC


@pytest.mark.parametrize(
    ("column", "a", "b"),
    [
        ("protocol", "validation", "final"),
        ("schema_version", 1, 2),
        ("width", 128, 256),
        ("depth", 3, 4),
        ("dataset", "mnist", "fashion_mnist"),
        ("parameterisation", "sp", "mup"),
        ("model.widths", "[8, 8]", "[8, 9]"),
    ],
)
def test_what_is_not_comparable_is_not_ranked_together(column, a, b):
    rows = [{**row("pc"), column: a}, {**row("bp"), column: b}]
    groups = leaderboard(rows)["groups"]
    assert [len(g["entries"]) for g in groups] == [1, 1]
    assert {g[column] for g in groups} == {a, b}, "and the group says which it is"


def test_the_protocol_that_saw_the_test_set_stands_apart():
    rows = [row("pc"), row("bp", protocol="best_test_epoch", test_accuracy_best_epoch=0.99)]
    by_protocol = {g["protocol"]: g for g in leaderboard(rows)["groups"]}
    assert by_protocol["best_test_epoch"]["metric"] == "test_accuracy_best_epoch"
    assert by_protocol["validation"]["metric"] == METRIC


def test_operational_leaves_do_not_make_configs():
    rows = [
        row(seed=0, **{"executor.name": "inline", "logging.wandb.mode": "disabled"}),
        row(seed=1, **{"executor.name": "slurm", "logging.wandb.mode": "online"}),
    ]
    (entry,) = only(leaderboard(rows))
    assert entry["seeds"] == 2 and entry["configs"] == 1


def test_a_leaf_at_its_first_default_is_an_absent_leaf():
    """Rows from before a leaf existed are of the same config as rows from after."""
    rows = [row(seed=0), row(seed=1, **{"model.bias": True})]
    assert only(leaderboard(rows))[0]["configs"] == 1
    rows = [row(seed=0), row(seed=1, **{"model.bias": False})]
    assert only(leaderboard(rows))[0]["configs"] == 2


def test_trials_of_a_search_are_not_ranked():
    rows = [row(seed=0, test=0.8), row(seed=1000, test=0.99, stage="tune")]
    board = leaderboard(rows)
    assert only(board)[0]["mean"] == 0.8 and board["rows"]["tuning"] == 1
    assert only(leaderboard(rows, where={"stage": "tune"}))[0]["mean"] == 0.99


def test_ties_share_the_rank_in_order_of_name():
    entries = only(leaderboard([row("pc", test=0.9), row("bp", test=0.9), row("ep", test=0.8)]))
    assert [(e["rank"], e["variant"]) for e in entries] == [(1, "bp"), (1, "pc"), (3, "ep")]


def test_variants_of_one_algorithm_are_ranked_apart():
    entries = only(leaderboard([row("pc", test=0.8), row("pc[nudge=negative]", test=0.9)]))
    assert [(e["algorithm"], e["variant"]) for e in entries] == [
        ("pc", "pc[nudge=negative]"),
        ("pc", "pc"),
    ]


def test_lower_is_better_where_the_column_says_so():
    rows = [row("pc", train_loss=0.1), row("bp", train_loss=0.2)]
    board = leaderboard(rows, metric="train_loss")
    assert board["higher_is_better"] is False
    assert [e["variant"] for e in only(board)] == ["pc", "bp"]


def test_primary_metric_of_a_task():
    """A task's own column: its row names it and its direction."""
    named = {"primary_metric": "mse", "primary_higher_is_better": False, "task": "completion"}
    rows = [row(v, mse=m, **named) for v, m in (("pc", 0.2), ("bp", 0.1))]
    board = leaderboard([*rows, row("pc")])
    by_task = {g["task"]: g for g in board["groups"]}
    assert by_task["completion"]["metric"] == "mse"
    assert by_task["completion"]["higher_is_better"] is False
    assert [e["variant"] for e in by_task["completion"]["entries"]] == ["bp", "pc"]
    assert by_task["classification"]["metric"] == METRIC
    board = leaderboard([*rows, row("pc")], metric="mse")
    assert only(board)[0]["variant"] == "bp", "and not the group that has no such column"
    assert board["higher_is_better"] is False


def test_by_adds_groups():
    rows = [row("pc", optimizer="sgd"), row("pc", seed=1, optimizer="adam")]
    groups = leaderboard(rows, by="optimizer")["groups"]
    assert [g["optimizer"] for g in groups] == ["adam", "sgd"]
    rows = [row(seed=0, sweep=["a", "b"]), row(seed=1, sweep=["b"])]
    sizes = {g["sweep"]: g["entries"][0]["seeds"] for g in leaderboard(rows, by="sweep")["groups"]}
    assert sizes == {"a": 1, "b": 2}, "a run belongs to every one of its sweeps"


@pytest.mark.parametrize(
    ("where", "seeds"),
    [
        ({"seed": "1"}, {1}),
        ({"seed": "1.0"}, {1}),
        ({"seed": 1}, {1}),
        ({"lr": "1e-1"}, {0}),
        ({"lr": "null"}, {2}),
        ({"sweep": "a"}, {0, 1}),
        ({"git_dirty": "true"}, {2}),
        ({"host": "x", "seed": "0"}, {0}),
        ({"host": "y"}, set()),
    ],
)
def test_where(where, seeds):
    rows = [
        row(seed=0, lr=0.1, sweep=["a"], git_dirty=False, host="x"),
        row(seed=1, lr=0.2, sweep=["a", "b"], git_dirty=False, host="x"),
        row(seed=2, lr=None, sweep=[], git_dirty=True, host="x"),
    ]
    found = {run for g in leaderboard(rows, where=where)["groups"] for run in _runs(g)}
    assert found == {r["run_id"] for r in rows if r["seed"] in seeds}


def _runs(group):
    return [run for entry in group["entries"] for run in entry["run_ids"]]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"where": {"algoritm": "pc"}}, "unknown column 'algoritm'.*mean 'algorithm'"),
        ({"where": {"steps": "8"}}, "mean 'algorithm.steps'"),
        ({"where": {"seed": "one"}}, "seed=one: the column holds numbers"),
        ({"where": {"git_dirty": "1"}}, "true, false or null"),
        ({"metric": "test_acuracy_final"}, "mean 'test_accuracy_final'"),
        ({"metric": "dataset"}, "'dataset' is not a number"),
        ({"metric": "width"}, "no declared direction"),
        ({"by": "hots"}, "mean 'host'"),
    ],
)
def test_questions_without_an_answer(question, message):
    with pytest.raises(QueryError, match=message):
        leaderboard([row(**{"algorithm.steps": 8})], **question)


def test_from_the_records_of_a_directory(tmp_path):
    store = Store(tmp_path)
    for seed in range(3):
        for lr, validation in ((0.1, 0.9), (0.2, 0.8)):
            config = {"algorithm": {"name": "pc"}, "optimizer": {"lr": lr}, "seed": seed}
            made = row(seed=seed, validation=validation, test=1 - validation)
            made.pop("run_id")
            store.write(Record.new(f"{seed}-{lr}", "completed", config, made))
    (entry,) = only(leaderboard(table(tmp_path)))
    assert entry["config"] == {"optimizer.lr": 0.1} and entry["seeds"] == 3
    assert entry["run_ids"] == ["0-0.1", "1-0.1", "2-0.1"]


# Formats


@pytest.fixture
def board():
    rows = [row("pc[nudge=a_b]", seed=s, test=t) for s, t in enumerate([0.5, 0.75])]
    return leaderboard([*rows, row("bp", test=0.9), row("ep", test=None, status="failed")])


def terminal(board, **options):
    from rich.console import Console

    out = io.StringIO()
    formats.table(board, Console(file=out, width=200), **options)
    return out.getvalue()


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_has_every_variant(board, name):
    text = terminal(board) if name == "table" else formats.TEXT[name](board)
    for variant in ("pc[nudge=a", "bp", "ep"):
        assert variant in text
    shown = "90.00" if name in ("table", "markdown", "latex") else "0.9"
    assert shown in text, "percent for readers, fractions for programs"


def test_csv_can_be_read_back(board):
    lines = list(csv.DictReader(io.StringIO(formats.csv(board))))
    assert [line["variant"] for line in lines] == ["bp", "pc[nudge=a_b]", "ep"]
    assert float(lines[1]["mean"]) == 0.625 and len(lines[1]["run_ids"].split(" ")) >= 2
    assert lines[0]["low"] == "" and lines[2]["mean"] == ""


def test_latex_is_escaped(board):
    body = [line for line in formats.latex(board).splitlines() if not line.startswith("%")]
    assert any(r"pc[nudge=a\_b]" in line for line in body)
    assert any(r"(\%)" in line for line in body)


def test_other_metrics_have_four_digits():
    board = leaderboard([row(train_loss=0.123456)], metric="train_loss")
    assert "0.1235" in formats.markdown(board) and "%)" not in formats.markdown(board)


def test_empty_says_where_it_looked_and_what_to_do(tmp_path):
    text = terminal(leaderboard(table(tmp_path)), results_dir="some/where")
    assert "some/where" in text and "pcbench run" in text
    text = formats.markdown(leaderboard([row()], where={"dataset": "cifar10"}))
    assert "--where dataset=cifar10" in text and "1 runs" in text
    text = formats.markdown(leaderboard([row()], metric="gradient_cosine"))
    assert "has a value of 'gradient_cosine'" in text
    assert "stage=tune" in formats.markdown(leaderboard([row(stage="tune")]))
    assert formats.latex(leaderboard([])).startswith("%")
    assert formats.csv(leaderboard([])).count("\n") == 1


def test_columns_explain_themselves():
    for name, column in COLUMNS.items():
        assert column.meaning, name
