"""What a rank means: selection without the test set, intervals, divergence, comparable groups."""

import csv
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from pcbench.cli import main
from pcbench.config import ConfigError
from pcbench.config.config import flatten
from pcbench.results import Record, Store
from pcbench.results import render as formats
from pcbench.results.columns import COLUMNS
from pcbench.results.leaderboard import QueryError, leaderboard
from pcbench.results.statistics import interval, paired_difference
from pcbench.results.table import table
from pcbench.sweeps.expand import single
from pcbench.sweeps.packs import Pack

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


def test_a_diverged_run_scores_chance_on_what_its_task_ranks_by():
    named = {"primary_metric": "test_perplexity_at_best_validation", "chance": 65.0,
             "primary_higher_is_better": False}  # fmt: skip
    perplexity = named["primary_metric"]

    def of(seed, lr, value, status="completed"):
        more = {perplexity: value, "validation_perplexity_best": value, "optimizer.lr": lr}
        return row(seed=seed, test=0.4, status=status, **named, **more)

    risky = [of(0, 1.0, 5.0), of(1, 1.0, 90.0, "diverged")]
    (entry,) = only(leaderboard(risky))
    assert entry["mean"] == pytest.approx((5.0 + 65.0) / 2)
    (entry,) = only(leaderboard([*risky, of(0, 0.1, 6.0), of(1, 0.1, 6.0)]))
    assert entry["config"] == {"optimizer.lr": 0.1}, "the choice counts it"
    (entry,) = only(leaderboard(risky, metric="test_accuracy_final"))
    assert entry["mean"] == pytest.approx(0.4 / 2), "its chance is no accuracy"


def test_next_and_masked_characters_are_not_compared():
    rows = [
        row(variant, **{"task.context": c})
        for c in ("causal", "masked")
        for variant in ("bp", "pc")
    ]
    assert len(leaderboard(rows)["groups"]) == 2


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


# Comparisons


def board_of(scores, **more):
    """A leaderboard of variant → test scores by seed."""
    rows = [row(v, s, t, **more) for v, ts in scores.items() for s, t in enumerate(ts)]
    return leaderboard(rows)


def test_differences_are_paired_by_seed():
    """Seeds that are good for both rules cancel; only common seeds count."""
    rows = [row("bp", s, 0.5 + s / 10) for s in range(4)]
    rows += [row("pc", s, 0.6 + s / 10 + e) for s, e in ((1, 0.01), (2, -0.01), (3, 0.0))]
    by_variant = {e["variant"]: e for e in only(leaderboard(rows))}
    found = by_variant["pc"]["difference"]
    half = 4.3026527297 * 0.01 / 3**0.5  # 2 degrees of freedom
    assert (found["mean"], found["low"]) == pytest.approx((0.1, 0.1 - half))
    assert found["seeds"] == 3 and found["examples"] is None and found["verdict"] == "better"
    assert by_variant["bp"]["difference"] is None


def test_a_difference_is_a_tie_unless_it_survives_holm():
    """p = 0.04 of one comparison is a difference, of six that all are like it a tie."""
    base, other = [0.5, 0.5, 0.5, 0.5], [0.5 + d for d in (0.01, 0.02, 0.03, 0.008)]
    entry = next(e for e in only(board_of({"bp": base, "pc": other})) if e["variant"] == "pc")
    assert entry["difference"]["p"] < 0.05 and entry["difference"]["verdict"] == "better"
    many = {"bp": base} | {f"pc[{n}]": other for n in range(6)}
    for entry in only(board_of(many))[:6]:
        found = entry["difference"]
        assert found["p_holm"] == pytest.approx(6 * found["p"]) and found["verdict"] == "tie"


def test_the_direction_of_the_metric_says_which_is_better():
    rows = [row(v, s, train_loss=x + s / 1000) for v, x in (("bp", 0.5), ("pc", 0.7))
            for s in range(3)]  # fmt: skip
    entries = only(leaderboard(rows, metric="train_loss"))
    assert [(e["variant"], (e["difference"] or {}).get("verdict")) for e in entries] == [
        ("bp", None), ("pc", "worse"),
    ]  # fmt: skip


def test_examples_are_resampled_where_every_run_has_stored_its_own():
    """Of the same mean differences: examples that disagree at random make the interval wider, and
    arrays that are not those of the row, or of another length, are not used."""
    random = np.random.default_rng(0)
    kept = {v: random.random((3, 500)) < p for v, p in (("bp", 0.8), ("pc", 0.9))}
    rows = [row(v, s, float(kept[v][s].mean())) for v in kept for s in range(3)]
    arrays = {r["run_id"]: kept[r["variant"]][r["seed"]] for r in rows}

    def difference(arrays):
        board = leaderboard(rows, examples=lambda run_id, metric: arrays.get(run_id))
        return only(board)[0]["difference"]

    found = difference(arrays)
    assert found["examples"] == 500
    expected = paired_difference(kept["pc"], kept["bp"])
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    first = rows[0]["run_id"]
    for wrong in (None, ~arrays[first], arrays[first][:250]):
        changed = {**arrays, first: wrong}
        assert difference(changed)["examples"] is None


def test_any_row_can_be_the_baseline():
    rows = [row(v, s, t + s / 100) for v, t in (("bp", 0.8), ("pc", 0.9)) for s in range(3)]
    board = leaderboard(rows, baseline="pc")
    assert [e["difference"] and round(e["difference"]["mean"], 9) for e in only(board)] == [
        None, -0.1,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no variant 'pcc'"):
        leaderboard(rows, baseline="pcc")
    assert only(leaderboard([row("pc")]))[0]["difference"] is None, "without bp nothing"


def test_fewer_seeds_than_others_have_are_said():
    board = board_of({"bp": [0.9] * 5, "pc": [0.8] * 3})
    assert "| 3/5 (2 not run) |" in formats.markdown(board)
    rows = [row(seed=0), row(seed=1, status="diverged"), row(seed=2, status="failed", test=None)]
    assert "| 1/3 (1 diverged, 1 failed) |" in formats.markdown(leaderboard(rows))


def test_costs_are_of_a_run_alone():
    """Times inside a pack are shared: a step's time counts at pack size 1 only, and of the wall
    time of a pack a run has its share."""
    costs = {"flops_per_step": 10.0, "weight_updates": 4, "wall_s": 6.0, "step_ms": 2.0}
    rows = [row(seed=0, pack_size=1, **costs), row(seed=1, pack_size=3, **costs | {"step_ms": 9.0})]
    assert only(leaderboard(rows))[0]["cost"] == {
        "flops_per_step": 10, "weight_updates": 4, "wall_s": 4, "step_ms": 2, "trials": 1,
    }  # fmt: skip
    lr = [row(seed=0, validation=v, **{"optimizer.lr": v}) for v in (0.1, 0.2, 0.3)]
    assert only(leaderboard(lr))[0]["cost"]["trials"] == 3, "configs that one was chosen of"
    assert only(leaderboard([row(n_trials=32)]))[0]["cost"]["trials"] == 32


def test_scores_across_datasets_are_shares_of_what_the_baseline_learns():
    """0 is chance, 1 the baseline: 0.1 of 10 classes and 0.01 of 100 are both nothing."""
    rows = [row("bp", s, 0.9, dataset="a") for s in range(3)]
    rows += [row("pc", s, 0.5, dataset="a") for s in range(3)]
    rows += [row("bp", s, 0.41, dataset="b", chance=0.01) for s in range(3)]
    rows += [row("pc", s, 0.21, dataset="b", chance=0.01) for s in range(3)]
    rows += [row("ep", s, 0.9, dataset="a") for s in range(3)]
    (family,) = leaderboard(rows)["across"]
    assert family["datasets"] == ["a", "b"]
    found = [(e["variant"], e["groups"], e["iqm"]) for e in family["entries"]]
    assert found == [("bp", 2, 1.0), ("pc", 2, pytest.approx(0.5)), ("ep", 1, 1.0)]
    assert leaderboard(rows[:6])["across"] == [], "of one dataset nothing"


def test_the_order_of_the_records_is_nothing():
    random = np.random.default_rng(0)
    rows = [
        row(v, s, float(random.random()), float(random.random()), dataset=d, wall_s=random.random(),
            run_id=f"{v}-{d}-{lr}-{s}", **{"optimizer.lr": lr})
        for v in ("bp", "pc", "ep") for d in ("a", "b") for lr in (0.1, 0.2) for s in range(22)
    ]  # fmt: skip
    shuffled = [rows[n] for n in random.permutation(len(rows))]
    assert leaderboard(shuffled) == leaderboard(rows)


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


def test_a_half_written_directory_says_what_to_do(tmp_path):
    """A truncated record, and a sweep of which a run is missing."""
    store = Store(tmp_path)
    made = row()
    made.pop("run_id")
    store.write(Record.new("good", "completed", {"seed": 0}, made))
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "record.json").write_text('{"half')
    store.add_to_sweep("s", ["good", "missing"])
    done = CliRunner().invoke(main, ["leaderboard", "--results", str(tmp_path)])
    assert done.exit_code == 0 and "90.00" in done.stdout
    assert "Replace it with `pcbench run --force" in done.stderr
    assert "1 runs of sweeps are not finished" in done.stderr


def test_runs_that_are_not_finished_are_counted_for_each_algorithm(tmp_path):
    """A pack that was planned and not run, of two configs of pc with two seeds each; one ran."""
    store, names = Store(tmp_path), ["algorithm=pc", "model.depth=3", "model.width=128"]
    configs = [
        single([*names, f"optimizer.lr={lr}", f"seed={seed}"])
        for lr in (1e-3, 1e-2)
        for seed in range(2)
    ]
    made = row(dataset="digits", **{k: v for k, v in flatten(configs[0].tree).items() if "." in k})
    made.pop("run_id")
    store.write(Record.new(configs[0].run_id, "completed", configs[0].tree, made))
    bp = single(["algorithm=bp", "model.depth=3"])
    for pack in (Pack(tuple(configs), "map"), Pack((bp,), "none")):
        pack.save(store)
    arguments = ["leaderboard", "--results", str(tmp_path), "--json"]
    found = json.loads(CliRunner().invoke(main, arguments).stdout)
    entries = {entry["variant"]: entry for entry in only(found)}
    pc = entries["pc"]
    assert (pc["completed"], pc["asked"], pc["unfinished"], pc["runs"]) == (1, 2, 3, 4)
    assert (entries["bp"]["rank"], entries["bp"]["unfinished"]) == (None, 1)
    assert found["rows"]["ranked"] == 1 and found["rows"]["unfinished"] == 4
    shown = CliRunner().invoke(main, arguments[:-1]).stdout
    assert "pc 3 of 4" in shown and "bp 1 of 1" in shown


def test_columns_explain_themselves():
    for name, column in COLUMNS.items():
        assert column.meaning, name
