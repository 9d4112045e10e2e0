"""Published sets: read like a results directory, nothing private in them, shown in README."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import pcbench
from pcbench.cli import main
from pcbench.results import Record, RecordError, Store, render
from pcbench.results.comparison import stored_examples
from pcbench.results.leaderboard import leaderboard
from pcbench.results.published import opened, publish
from pcbench.results.table import table
from pcbench.sweeps.expand import single

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "published"
METRIC = "test_accuracy_at_best_validation"
SETTING = {"task": "classification", "dataset": "digits", "model": "mlp", "chance": 0.1,
           "host": "mine", "validation_accuracy_best": 0.9, "protocol": "validation"}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """Two rules of three seeds each, finished."""
    store, random = Store(tmp_path / "results"), np.random.default_rng(0)
    run_ids = []
    for name in ("bp", "pc"):
        for seed in range(3):
            config = single([f"algorithm={name}", f"seed={seed}"])
            right = random.random(50) < 0.9
            row = {
                **SETTING,
                "algorithm": name,
                "variant": name,
                "seed": seed,
                METRIC: right.mean(),
            }
            origin = {"command": "/mine", "host": "mine", "git_revision": "abc"}
            record = Record.new(config.run_id, "completed", config.tree, row, (), origin)
            store.write(record, {f"examples/{METRIC}": right, "weights/W": np.ones(3)})
            run_ids.append(config.run_id)
    store.add_to_sweep("s", run_ids)
    return store


def ranked(root):
    board = leaderboard(table(root), examples=stored_examples(opened(root)))
    return board["groups"]


def test_a_published_set_ranks_as_the_directory_that_it_was_made_from(store, tmp_path):
    folder = tmp_path / "published"
    publish([store], "s", folder, store.finished())
    assert ranked(folder) == ranked(store.root)
    assert table(folder)["sweep"].to_pylist() == table(store.root)["sweep"].to_pylist()
    run_id = next(iter(store.finished()))
    assert list(pcbench.load(run_id[:8], folder).arrays) == [f"examples/{METRIC}"]
    shown = CliRunner().invoke(main, ["leaderboard", "--results", str(folder)])
    assert shown.exit_code == 0 and shown.stderr == ""
    assert sorted(path.name for path in folder.iterdir()) == ["s.jsonl.gz", "s.npz"]


def test_it_says_nothing_of_the_machine_and_is_the_same_each_time(store, tmp_path):
    folder = tmp_path / "published"
    paths = publish([store], "s", folder, store.finished())
    first = [path.read_bytes() for path in paths]
    for record in opened(folder).iterate():
        assert "mine" not in record.to_json() and record.provenance["git_revision"] == "abc"
    publish([opened(folder), store], "s", folder, store.finished())
    assert [path.read_bytes() for path in paths] == first


def test_a_published_set_is_read_only_and_a_damaged_one_is_told(store, tmp_path):
    folder = tmp_path / "published"
    (path,) = publish([store], "s", folder, ())
    record = store.read(next(iter(store.finished())))
    with pytest.raises(RecordError, match="read only"):
        opened(folder).write(record)
    with pytest.raises(RecordError, match="no arrays"):
        opened(folder).arrays(record.run_id)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match=re.escape(str(path))):
        opened(folder).finished()


@pytest.mark.skipif(not any(FOLDER.glob("*.gz")), reason="no published leaderboard here")
def test_readme_shows_what_the_published_records_say():
    board = leaderboard(table(FOLDER), examples=stored_examples(opened(FOLDER)))
    made = render.markdown(board)
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"<!-- leaderboard:.*?-->\n\n(.*)\n<!-- end of leaderboard", readme, re.S)
    assert shown[1] == made
    assert (FOLDER / "leaderboard.md").read_text() == made
    found = {(g["dataset"], e["variant"]) for g in board["groups"] for e in g["entries"]}
    rules = {variant for _, variant in found}
    assert found == {(data, rule) for data in ("digits", "mnist") for rule in rules}
    assert all(e["asked"] >= 5 for g in board["groups"] for e in g["entries"])
    assert len({e["cost"]["trials"] for g in board["groups"] for e in g["entries"]}) == 1
