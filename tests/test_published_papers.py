"""The published tables: what they, their captions and README say is what their records do."""

from pathlib import Path

import numpy as np
import pytest

from pcbench import data
from pcbench.papers import render, runs, table
from pcbench.papers.listing import line, listing
from pcbench.papers.spec import read_spec
from pcbench.results.published import opened
from pcbench.sweeps.expand import single

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "published" / "papers"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="a checkout without its published results")
def test_published_tables_and_readme_say_what_the_records_do(tfds_dir):
    store, readme = opened(FOLDER), (ROOT / "README.md").read_text()
    tables = {path.stem for path in FOLDER.glob("*.md")}
    recorded = {path.name.split("-", 1)[1].rpartition("-")[0] for path in FOLDER.glob("*.gz")}
    assert tables == recorded | {name for name in tables if read_spec(name).coverage}
    for path in FOLDER.glob("paper-*.jsonl.gz"):
        name, _, scale = path.name.removesuffix(".jsonl.gz").removeprefix("paper-").rpartition("-")
        spec = read_spec(name)
        own = runs.cell_runs(spec, scale, accelerator=True)
        made = render.markdown(table.make_table(spec, scale, own, store))
        assert (FOLDER / f"{name}.md").read_text() == made, name
    for name, *rest in map(line, listing(FOLDER)):
        begin, end = (f"| {name} |", f"| [{name}]("), f"{' | '.join(rest)} |"
        assert any(t.startswith(begin) and t.endswith(end) for t in readme.splitlines()), name


@pytest.mark.slow
def test_no_linear_autoencoder_reaches_the_published_error_on_fashion_mnist(tfds_dir):
    """As the caption of the table says; on MNIST the published error is within reach."""
    spec = read_spec("pcx-autoencoder")
    published = {(c.row, c.column): c.published / c.multiply for c in spec.cells}
    for name, reached in (("mnist", True), ("fashion_mnist", False)):
        dataset = single([f"dataset={name}"])["dataset"]
        loaded = data.load(dataset, 0.0)
        train, test = (
            split.x.reshape(len(split.x), -1) / 255 for split in (loaded.train, loaded.test)
        )
        mean = train.mean(0)
        components = np.linalg.eigh(np.cov((train - mean).T))[1][:, -64:]
        left = (test - mean) - (test - mean) @ components @ components.T
        assert (np.mean(left**2) <= published[name, "bp"]) == reached
