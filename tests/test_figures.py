"""Figures: what is drawn is what the rows say."""

import csv
import math

import numpy as np
import pytest
from click.testing import CliRunner

from pcbench.cli import main
from pcbench.config import ConfigError
from pcbench.config.compose import choices, find_yaml
from pcbench.results import figures, heat_figure

SPEC = {"title": "t", "sweep": "s", "x": "width", "y": ["loss"], "line": ["variant"], "panel": [],
        "where": {}, "log": []}  # fmt: skip


def rows_of(function, widths=(2, 4, 8), seeds=3, **more):
    return [
        {"width": w, "variant": "pc", "loss": function(w) + 0.1 * (s - 1), "seed": s, **more}
        for w in widths
        for s in range(seeds)
    ]


def test_a_point_is_the_mean_over_runs_with_its_interval():
    (first, *_) = figures.points(SPEC, rows_of(lambda w: w))
    assert (first.line, first.x, first.runs) == ("pc", 2, 3)
    assert first.mean == pytest.approx(2.0)
    half = 4.302653 * 0.1 / math.sqrt(3)  # t of two degrees of freedom
    assert (first.high - first.mean, first.mean - first.low) == pytest.approx((half, half))


def test_lines_and_panels_split_the_rows_and_undefined_values_do_not_count():
    rows = [
        *rows_of(float, variant="pc", data="a"),
        *rows_of(lambda w: 2.0 * w, variant="bp", data="b"),
        {"width": 2, "variant": "pc", "loss": math.nan, "data": "a"},
        {"width": 2, "variant": "pc", "loss": None, "data": "a"},
    ]
    rows = [row | {"variant": row["variant"]} for row in rows]
    drawn = figures.points(SPEC | {"panel": ["data"]}, rows)
    assert {(p.panel, p.line) for p in drawn} == {("a", "pc"), ("b", "bp")}
    assert all(p.runs == 3 for p in drawn)
    assert {p.panel for p in figures.points(SPEC | {"where": {"data": "b"}}, rows)} == {None}
    some = figures.points(SPEC | {"where": {"width": [2, 8]}}, rows)
    assert {p.x for p in some} == {2, 8}


def test_several_columns_are_several_lines_and_without_lines_there_is_one():
    rows = [row | {"energy": 1.0} for row in rows_of(float)]
    spec = SPEC | {"y": ["loss", "energy"], "labels": {"energy": "F"}}
    assert {p.line for p in figures.points(spec, rows)} == {"pc, loss", "pc, F"}
    assert {p.line for p in figures.points(SPEC | {"line": []}, rows)} == {"loss"}


def test_where_x_differs_between_the_runs_of_a_point_their_mean_is_drawn():
    rows = [row | {"s": row["width"] + 0.1 * row["seed"]} for row in rows_of(float)]
    apart = figures.points(SPEC | {"x": "s"}, rows)
    assert len(apart) == len(rows)
    drawn = figures.points(SPEC | {"x": "s", "at": "width"}, rows)
    assert [p.x for p in drawn] == pytest.approx([2.1, 4.1, 8.1])
    assert [p.mean for p in drawn] == pytest.approx([2, 4, 8]) and drawn[0].runs == 3


def test_a_capacity_is_the_largest_value_with_a_mean_below_the_threshold():
    """Of the loss P/width per length P: below one half up to P < width / 2."""
    rows = [
        {"width": w, "variant": "pc", "length": p, "loss": p / w + spread}
        for w in (8, 16, 2)
        for p in (1, 3, 5, 7)
        for spread in (-0.05, 0.05)
    ]
    drawn = figures.points(SPEC | {"largest": {"of": "length", "below": 0.5}}, rows)
    assert [(p.x, p.mean, p.low, p.runs) for p in drawn] == [(8, 3, None, 8), (16, 7, None, 8)]


def test_slopes_are_those_of_power_laws():
    rows = rows_of(lambda w: w**-1.5, (2, 4, 8, 16), seeds=1)
    rows = [row | {"loss": row["width"] ** -1.5} for row in rows]
    (found,) = figures.slopes(figures.points(SPEC, rows))
    assert found.slope == pytest.approx(-1.5)
    assert found.error == pytest.approx(0, abs=1e-9)
    x = [math.log(w) for w in (2, 4, 8, 16)]
    bent = [row | {"loss": row["loss"] * 1.3 ** (row["width"] == 4)} for row in rows]
    (found,) = figures.slopes(figures.points(SPEC, bent))
    y = [-1.5 * v + math.log(1.3) * (n == 1) for n, v in enumerate(x)]
    fitted, covariance = np.polyfit(x, y, 1, cov=True)
    assert (found.slope, found.error) == pytest.approx((fitted[0], covariance[0, 0] ** 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ["los"]}, "no column 'los'.*Did you mean 'loss'"),
        ({"where": {"variant": "ep"}}, "no run of sweep 's' has width and loss"),
    ],
)
def test_what_cannot_be_drawn_is_said(change, message):
    with pytest.raises(ConfigError, match=message):
        figures.points(SPEC | change, rows_of(float))


def test_every_figure_is_of_a_sweep_that_there_is():
    for name in choices("figure"):
        named, spec = figures.read_spec(name)
        assert named == name
        assert find_yaml("sweep", spec["sweep"])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return str(tmp_path_factory.mktemp("results"))


def test_a_figure_is_made_by_one_command_with_its_data(results, tmp_path):
    spec = tmp_path / "widths.yaml"
    spec.write_text(
        "title: Loss against width\nsweep: SWEEP\nx: model.width\ny: train_loss\nline: null\n"
        "log: [x]\nslope: true\n".replace("SWEEP", str(tmp_path / "sweep.yaml"))
    )
    (tmp_path / "sweep.yaml").write_text(
        "seeds: 2\nblocks:\n  - where: {algorithm: bp, dataset.train_size: 128, "
        "train.max_steps: 2}\n    grid: {model.width: [8, 16]}\n"
    )
    done = CliRunner().invoke(main, ["figure", str(spec), "--results", results])
    assert done.exit_code == 0, done.output
    made = [line for line in done.stdout.splitlines() if "figures" in line]
    assert [path.rsplit("/", 1)[-1] for path in made] == [
        "widths.csv", "widths-slopes.csv", "widths.png", "widths.pdf",
    ]  # fmt: skip
    with open(made[0], newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["line"], row["model.width"], row["runs"]) for row in table] == [
        ("train loss", "8", "2"), ("train loss", "16", "2"),
    ]  # fmt: skip
    assert all(float(row["low"]) < float(row["mean"]) < float(row["high"]) for row in table)
    with open(made[2], "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    more = [str(spec), "seed=0,1,2", "--draw-only", "--results", results]
    done = CliRunner().invoke(main, ["figure", *more])
    assert done.exit_code == 0, done.output
    assert "2 of 6 runs have no record yet" in done.stderr


@pytest.mark.parametrize(
    ("table", "x", "y", "values"),
    [
        ("history", "epoch", "gradient_cosine", "1 2 3"),
        ("learning", "epoch", "test_accuracy", "1 2 3"),
        ("learning", "weight_updates", "test_accuracy", "2 4 6"),
        ("learning", "epoch", "train_s", "1 2 3"),
        ("inference", "step", "energy_of_step", "0 1 2 3 4"),
        ("evaluations", "layer", "update_norm", "1 2 3"),
    ],
)
def test_histories_and_layers_are_tables_too(table, x, y, values, results, tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        "blocks:\n  - where: {algorithm: pc, dataset.train_size: 128, train.epochs: 3, "
        "train.probe_every: 1, model.depth: 3, model.width: 8, algorithm.steps: 4}\n"
    )
    spec = tmp_path / f"{table}.yaml"
    spec.write_text(f"title: t\nsweep: {tmp_path}/sweep.yaml\ntable: {table}\nx: {x}\ny: {y}\n")
    done = CliRunner().invoke(main, ["figure", str(spec), "--results", results, "--json"])
    assert done.exit_code == 0, done.output
    with open(f"{results}/figures/{table}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row[x] for row in rows] == values.split()
    assert all(np.isfinite(float(row["mean"])) for row in rows)


def test_a_map_shows_every_mean_in_its_place():
    """A cell without runs stays empty."""
    from matplotlib.figure import Figure

    rows = [{"lr": lr, "width": w, "loss": lr * w} for lr in (1, 2) for w in (3, 5)]
    spec = SPEC | {"x": "lr", "line": ["width"], "heat": True}
    drawn = figures.points(spec, rows[:3])
    (axis, _) = heat_figure.draw(spec, drawn, Figure, figures.label).axes
    (image,) = axis.images
    assert image.get_array().filled(-1).tolist() == [[3, 6], [5, -1]]
    assert [text.get_text() for text in axis.texts] == ["3", "6", "5"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["3", "5"]


def test_an_unknown_key_or_table_is_refused(tmp_path):
    spec = tmp_path / "odd.yaml"
    for text, message in (
        ("colour: red", "unknown key 'colour'"),
        ("limits: {test_accuracy: [0, 1]}", "limits: unknown key 'test_accuracy'"),
        ("table: row", "'rows'"),
        ("kind: image", "no kind 'image'.*'images'"),
        ("kind: images", "unknown key 'x'"),
    ):
        spec.write_text(f"title: t\nsweep: demo\nx: width\ny: train_loss\n{text}\n")
        with pytest.raises(ConfigError, match=message):
            figures.read_spec(str(spec))
