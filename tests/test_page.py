"""The page: what it says is what the records say, it draws everything, and it asks for nothing."""

import json
import re

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, browser
from click.testing import CliRunner

from pcbench.cli import main
from pcbench.results import Record, Store, page
from pcbench.results.comparison import compare, stored_examples
from pcbench.results.heatmaps import half_decade
from pcbench.results.leaderboard import leaderboard
from pcbench.results.reproduce import Reproducer, written
from pcbench.results.table import table
from pcbench.sweeps.expand import read_overrides, single

HOSTILE = "<script>alert(1)</script>"
METRIC = "test_accuracy_at_best_validation"
BASE = single([])
STEPS, EPOCHS, EXAMPLES = 6, 8, 400

# variant → probability of a right answer; most of them only to have more than fit beside lines
RULES = {"bp": 0.90, "pc": 0.92, HOSTILE: 0.5, "one": 0.8, "constant": 0.7, "lost": 0.85} | {
    f"pc[step={n}]": 0.6 + n / 100 for n in range(19)
}


def add(store, variant, seed, dataset="digits", lr=1e-3, width=128, validation=None):
    random = np.random.default_rng([seed, len(variant), width])
    config = BASE.replace({"seed": seed, "optimizer.lr": lr, "model.width": width})
    right = random.random(EXAMPLES) < RULES[variant]
    if variant == "constant":
        right = np.arange(EXAMPLES) < 0.7 * EXAMPLES
    status = "diverged" if variant == "lost" and seed == 1 else "completed"
    curve = right.mean() * (1 - np.exp(-np.arange(1, EPOCHS + 1)))
    trace = np.exp(-np.arange(STEPS + 1))[:, None] * random.uniform(0.5, 1, 3)
    measured = {
        "task": "classification", "dataset": dataset, "model": "mlp", "width": width, "depth": 4,
        "parameterisation": "sp", "algorithm": variant.split("[")[0], "variant": variant,
        "seed": seed, "lr": lr, "chance": 0.1, "protocol": "validation", "stage": "report",
        METRIC: right.mean(), "validation_accuracy_best": validation or right.mean(),
        "flops_per_step": 1e6 * (1 + len(variant)), "weight_updates": 100, "wall_s": 2.0,
        "energy": "hopfield" if variant == "one" else "pc", "target_alignment": 0.5,
        "energy_relaxed": 0.1, "pack_size": 1, "step_ms": 1.5, "device": "cpu",
    }  # fmt: skip
    real = variant == "pc" and dataset == "digits"
    run_id = config.run_id if real else f"{config.run_id}-{list(RULES).index(variant)}-{dataset}"
    origin = {"versions": {"jax": "0.0"}, "git_revision": HOSTILE, "platform": "p"}
    arrays = {
        "history/epoch": np.arange(1, EPOCHS + 1), "history/test_accuracy": curve,
        "probe/epoch": np.arange(1, 4), "probe/target_alignment": random.random(3),
        "probe/energy_trace": np.stack([trace if variant != "one" else trace - 9] * 3),
        f"examples/{METRIC}": right,
    }  # fmt: skip
    if variant == "bp":  # a rule without inference steps
        arrays["probe/energy_trace"] = np.full((3, 1, 1), np.nan)
    store.write(Record.new(run_id, status, config.tree, measured, (), origin), arrays)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("page"))
    for variant in RULES:
        for seed in range(1 if variant == "one" else 3):
            add(store, variant, seed)
    for seed in range(3):
        for variant in ("bp", "pc"):
            add(store, variant, seed, dataset="mnist")
            add(store, variant, seed, lr=1e-2, validation=0.1)
            add(store, variant, seed, width=64)
    return store


@pytest.fixture(scope="module")
def content(store):
    rows = table(store.root)
    board = leaderboard(rows, examples=stored_examples(store))
    return page.content(board, rows, store)


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("html") / "board.html"
    path.write_text(page.page(content))
    return path


def big(content):
    (group,) = (g for g in content["groups"] if len(g["entries"]) == len(RULES))
    return group


def test_nothing_of_a_record_is_markup(file):
    text = file.read_text()
    assert text.count("<script") == 2 and HOSTILE not in text
    embedded = re.search(r'type="application/json">(.*?)</script>', text, re.S)[1]
    assert HOSTILE in {e["variant"] for g in json.loads(embedded)["groups"] for e in g["entries"]}
    assert "http" not in re.sub(r"http://www.w3.org/2000/svg|http-equiv", "", text), "no address"


def test_the_headline_says_who_by_how_much_how_sure_and_at_what_cost(content):
    group = big(content)
    first, base = group["entries"][0], group["entries"][group["baseline"]]
    assert first["variant"] == "pc" and base["variant"] == "bp"
    found = group["differences"][group["baseline"]][0]
    assert group["headline"].startswith(
        f"On digits · mlp, pc leads: accuracy {100 * first['mean']:.2f} % [{100 * first['low']:.2f}"
    )
    assert f"{100 * found['mean']:+.2f} points over bp" in group["headline"]
    assert f"{100 * found['low']:+.2f}" in group["headline"]
    assert found["low"] > 0 and found["verdict"] == "tie", "a difference that Holm's test undoes"
    assert "a tie, because so many are compared" in group["headline"]
    assert "at 1× the operations" in group["headline"]
    assert ("bp" in group["headline"].partition("Not distinguishable")[2]) == (
        group["differences"][0][group["baseline"]]["verdict"] == "tie"
    )


def test_where_the_baseline_leads_the_next_one_is_named():
    rows = [
        {"run_id": f"{v}{s}", "status": "completed", "task": "classification", "dataset": "d",
         "model": "m", "algorithm": v, "variant": v, "seed": s, METRIC: t + s / 1000,
         "validation_accuracy_best": t, "flops_per_step": f, "chance": 0.1}
        for v, t, f in (("bp", 0.9, 2.0), ("pc", 0.8, 8.0)) for s in range(3)
    ]  # fmt: skip
    (group,) = leaderboard(rows)["groups"]
    told = page.headline(group, [compare(group, n, None) for n in range(2)])
    assert told == (
        "On d · m, bp leads: accuracy 90.10 % [89.85, 90.35]; +10.00 points over pc (95 % interval "
        "[+10.00, +10.00]: better), at 0.25× the operations a step. All that it can be compared "
        "with are significantly worse."
    )


def test_differences_are_there_for_every_pair(content):
    group = big(content)
    for i, line in enumerate(group["differences"]):
        for j, found in enumerate(line):
            assert (found is None) == (i == j)
            if i != j:
                assert found["mean"] == pytest.approx(-group["differences"][j][i]["mean"])


def test_what_is_not_comparable_is_flagged(content):
    flags = " ".join(big(content)["flags"])
    assert "Fewer seeds than the 3 of others: one" in flags
    assert "diverged or failed: lost" in flags


def test_curves_are_means_over_seeds_with_their_intervals(store, content):
    entry = next(e for e in big(content)["entries"] if e["variant"] == "bp")
    curves = [store.arrays(r)["history/test_accuracy"] for r in entry["run_ids"]]
    found = entry["curves"]["learning"]
    assert found["x"] == list(range(1, EPOCHS + 1))
    assert found["mean"] == pytest.approx(np.mean(curves, 0)) and found["runs"] == 3
    assert entry["curves"]["energy"] is None, "without inference steps there is no such curve"
    other = next(e for e in big(content)["entries"] if e["variant"] == "pc")
    traces = [store.arrays(r)["probe/energy_trace"][-1].sum(-1) for r in other["run_ids"]]
    assert other["curves"]["energy"]["mean"] == pytest.approx(np.mean(traces, 0))


def test_heat_maps_hold_the_validation_score_of_every_cell(content):
    (digits,) = (h for h in content["heat"] if "digits" in h["title"])
    (bp,) = (m for m in digits["maps"] if m["variant"] == "bp")
    assert (bp["lr"], bp["width"]) == ([1e-3, 1e-2], [64, 128])
    assert bp["cells"][0][1] is None and bp["cells"][1][1] == {
        "mean": pytest.approx(0.1),
        "runs": 3,
    }


def test_many_learning_rates_are_put_together():
    """The geometric middles of 1e-3, 3.16e-3 and 1e-2 are 1.78e-3 and 5.62e-3."""
    found = [half_decade(lr) for lr in (1e-3, 1.7e-3, 1.8e-3, 5.6e-3, 5.7e-3, 2.0, 0.0)]
    assert found == [1e-3, 1e-3, 3e-3, 3e-3, 1e-2, 3.0, 0.0]


def test_the_command_reproduces_the_runs(content):
    entry = next(e for e in big(content)["entries"] if e["variant"] == "pc")
    program, verb, *overrides = entry["command"].split(" ")
    assert (program, verb) == ("pcbench", "sweep") and overrides[-1] == "seed=0,1,2"
    assert single([*overrides[:-1], "seed=1"]).run_id == entry["run_ids"][1]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["algorithm=ep", "dataset=teacher", "optimizer=sgd", "train.max_steps=3"],
        ["model.widths=[8,9,8]", "algorithm.precisions=[1,2,1e-3,1]", "optimizer.lr=1e-05"],
        ["preset=pcx/mlp_mnist_pc_se", "train.selection=best_test_epoch"],
    ],
)
def test_commands_are_of_the_same_identity(overrides):
    config = single([*overrides, "seed=7"])
    found = Reproducer().overrides(config.tree, config.run_id)
    assert single([*found, "seed=7"]).run_id == config.run_id
    assert Reproducer().overrides(config.tree, "of another version") is None


@pytest.mark.parametrize(
    "value", [None, True, 3, 1e-05, -0.5, [1.0, 2.0], "plain", "a b=c,d", "it's", "1", "Null", ""]
)
def test_values_are_written_in_the_grammar_of_overrides(value):
    (found,) = read_overrides([f"key={written(value)}"])[0].values()
    assert found == value and type(found) is type(value)


def test_the_same_records_make_the_same_page(store, content):
    rows = table(store.root)
    board = leaderboard(rows, examples=stored_examples(store))
    assert page.page(page.content(board, rows, store)) == page.page(content)


def test_an_empty_page_says_what_to_do(tmp_path):
    rows = table(tmp_path)
    found = page.content(leaderboard(rows), rows, Store(tmp_path))
    assert "pcbench run" in found["empty"] and found["groups"] == []


def test_one_command_writes_it(store, tmp_path):
    path = tmp_path / "board.html"
    arguments = ["leaderboard", "--where", "dataset=mnist", "--html", str(path)]
    done = CliRunner().invoke(main, [*arguments, "--results", str(store.root)])
    assert done.exit_code == 0 and done.stdout.strip() == str(path)
    assert '"where": {"dataset": "mnist"}' in path.read_text()


# In a browser


@pytest.fixture(scope="module")
def opened(file, tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    with browser(tmp_path_factory.mktemp("browser")) as session:
        session.view(1400, 900)
        session.open(file)
        yield session


@pytest.fixture
def page_in(opened, file):
    """The page as it is when it is opened."""
    opened.view(1400, 900)
    opened.open(file)
    return opened


def cells(session, group, column):
    """The shown texts of a column of a group's table."""
    return session.run(
        "return [...document.querySelectorAll(`#${arguments[0]} .board tbody tr`)]"
        ".filter((row) => row.offsetParent !== null)"
        ".map((row) => row.children[arguments[1]].innerText.trim())",
        group, column,
    )  # fmt: skip


def test_it_asks_for_nothing_and_logs_nothing(page_in, file):
    page_in.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page_in.requests() == [file.as_uri()]
    assert page_in.logs("browser") == []


def test_a_name_that_is_markup_is_shown_as_text(page_in, content):
    assert HOSTILE in cells(page_in, big(content)["id"], 1)
    assert page_in.run("return document.querySelectorAll('main script, footer script').length") == 0


def test_every_chart_is_drawn(page_in, content):
    """Each with a name, labels, a mark for each variant that has the numbers, and its table."""
    group = big(content)
    found = page_in.run(
        "return [...document.querySelectorAll(`#${arguments[0]} figure`)].map((f) => ({"
        "title: f.querySelector('h4').textContent,"
        "name: f.querySelector('svg > title').textContent,"
        "texts: [...f.querySelectorAll('svg > text')].map((t) => t.textContent),"
        "series: [...f.querySelectorAll('svg .series')].map((s) => s.dataset.variant),"
        "bad: f.querySelector('svg').outerHTML.includes('NaN')}))",
        group["id"],
    )
    titles = [chart["title"] for chart in found]
    assert titles == [
        "accuracy against cost", "Learning curves", "Energy over inference steps (pc)",
        "Energy over inference steps (hopfield)", "Target alignment over training",
    ]  # fmt: skip
    inferring = set(RULES) - {"bp", "one"}
    expected = [set(RULES), set(RULES), inferring, {"one"}, set(RULES)]
    assert [set(chart["series"]) for chart in found] == expected
    assert not any(chart["bad"] for chart in found)
    assert all(chart["title"] in chart["name"] for chart in found)
    assert {"counted FLOP a step", "accuracy (%)"} <= set(found[0]["texts"])
    behind = page_in.run(
        "const f = document.querySelector(`#${arguments[0]} figure`);"
        "f.querySelector('details').open = true;"
        "return new Promise((done) => setTimeout(() => "
        "done(f.querySelectorAll('tbody tr').length), 50))",
        group["id"],
    )
    assert behind == len(RULES)
    maps = page_in.run("return document.querySelectorAll('.heats svg .cell').length")
    assert maps == sum(len(m["lr"]) * len(m["width"]) for h in content["heat"] for m in h["maps"])


def test_a_click_sorts_and_another_turns_the_order(page_in, content):
    group = big(content)
    by_name = f"#{group['id']} .board th:nth-child(2) button"
    aria = "return document.querySelector(arguments[0]).parentElement.getAttribute('aria-sort')"
    ranked = cells(page_in, group["id"], 1)
    assert ranked == [entry["variant"] for entry in group["entries"]]
    page_in.click(by_name)
    ascending = cells(page_in, group["id"], 1)
    assert sorted(ascending) == sorted(ranked) and ascending != ranked
    assert page_in.run(aria, by_name) == "ascending"
    page_in.press("\ue007")  # Enter: the header kept the focus
    assert cells(page_in, group["id"], 1) == ascending[::-1]
    assert page_in.run(aria, by_name) == "descending"
    page_in.click(f"#{group['id']} .board th:nth-child(3) button")
    scores = [float(text) for text in cells(page_in, group["id"], 2)]
    assert scores == sorted(scores, reverse=True)


def test_the_filter_hides_what_does_not_match(page_in, content):
    group = big(content)
    page_in.type("#filter", "step=1")
    shown = cells(page_in, group["id"], 1)
    assert sorted(shown) == sorted(v for v in RULES if "step=1" in v)
    hidden = page_in.run("return [...document.querySelectorAll('main > section.hidden')].length")
    assert hidden == len(content["groups"]) - 1
    page_in.type("#filter", "x")
    assert cells(page_in, group["id"], 1) == []


def test_another_baseline_changes_the_differences(page_in, content):
    group = big(content)
    page_in.run(
        "const s = document.querySelector(`#${arguments[0]} select`); s.value = '0';"
        "s.dispatchEvent(new Event('change'))",
        group["id"],
    )
    differences = cells(page_in, group["id"], 5)
    assert differences[0] == "–"
    expected = group["differences"][0][group["baseline"]]["mean"]
    assert differences[group["baseline"]].startswith(f"{100 * expected:+.2f}")


def test_the_legend_hides_a_variant_in_all_charts(page_in, content):
    group = big(content)["id"]
    count = (
        "return [...document.querySelectorAll(`#${arguments[0]} svg [data-variant]`)]"
        ".filter((part) => part.dataset.variant === 'pc' && !part.classList.contains('hidden'))"
        ".length"
    )
    assert page_in.run(count, group) > 3
    page_in.click(f"#{group} .legend li:nth-child(1) button")
    assert page_in.run(count, group) == 0


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(opened, file, dark):
    """Tables scroll in their own box; and in the dark, dark is what it is."""
    opened.view(390, 844, dark)
    opened.open(file)
    assert opened.run("return document.documentElement.scrollWidth") <= 390
    paper = opened.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) is dark


def test_first_of_all_the_page_says_who_leads_in_each_group(page_in, content):
    """By how much, how sure and at what cost: in columns, the texts of which lead to the groups."""
    found = page_in.run(
        "return [...document.querySelectorAll('.glance tbody tr')].map((row) => "
        "[...row.children].map((cell) => cell.innerText))"
    )
    led = [group for group in content["groups"] if group["glance"]]
    assert found == [[text for _, text in group["glance"]] for group in led]
    heads = page_in.run(
        "return [...document.querySelectorAll('.glance th')].map((cell) => cell.innerText)"
    )
    assert heads == ["On", "Best", "accuracy %", "By how much", "How sure", "At what cost"]
    group, glance = big(content), dict(big(content)["glance"])
    found = group["differences"][group["baseline"]][0]
    assert glance["Best"] == "pc" and f"{100 * found['mean']:+.2f}" in glance["By how much"]
    assert f"[{100 * found['low']:+.2f}, " in glance["How sure"]
    assert "1× the operations of bp" in glance["At what cost"]
    assert page_in.run("return document.querySelector('main > section').className") == "glance"
