"""Figures of images: what is shown is what runs have kept, as it was before normalisation."""

import numpy as np
import pytest
from click.testing import CliRunner

from pcbench import data
from pcbench.cli import main
from pcbench.config import ConfigError
from pcbench.results.pictures import as_images
from pcbench.sweeps.expand import single

ROW = {"dataset.mean": [0.5, 0.25, 0.0], "dataset.std": [0.5, 0.25, 1.0]}


def test_images_are_as_they_were_before_normalisation():
    images = np.random.default_rng(0).uniform(size=(2, 4, 4, 3))
    vectors = (images - ROW["dataset.mean"]) / ROW["dataset.std"]
    np.testing.assert_allclose(as_images(vectors.reshape(2, -1), ROW), images, atol=1e-15)
    grey = as_images(np.full((2, 64), 7.0), {})
    assert grey.shape == (2, 8, 8, 1) and (grey == 1).all(), "and cut to [0, 1]"
    with pytest.raises(ConfigError, match="50 numbers are no square images"):
        as_images(np.zeros((1, 50)), {})


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        "seeds: [3, 1]\nblocks:\n  - where: {task: completion, dataset.draw: 20, train.epochs: 1, "
        "train.batch_size: 20, train.validation_fraction: 0, train.selection: final, "
        "algorithm: hopfield_memory, model: patterns, task.corruption: pixels}\n"
    )
    file = tmp_path / "shown.yaml"
    text = f"kind: images\ntitle: t\nsweep: {tmp_path}/sweep.yaml\nline: seed\ncount: 5\n"
    file.write_text(text + "images: [targets, cues]\n")
    return file


def test_pictures_are_made_by_one_command_with_their_data(spec, tmp_path):
    done = CliRunner().invoke(main, ["figure", str(spec), "--results", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    made = [line for line in done.stdout.splitlines() if "figures" in line]
    assert [path.rsplit("/", 1)[-1] for path in made] == ["shown.npz", "shown.png", "shown.pdf"]
    with open(made[1], "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    shown = np.load(made[0])
    assert set(shown.files) == {f"{s}/{name}" for s in (1, 3) for name in ("targets", "cues")}
    targets, cues = shown["1/targets"], shown["1/cues"]
    assert targets.shape == (5, 8, 8, 1)
    digits = data.load(single([])["dataset"], 0.0).train.x.reshape(-1, 64)
    distances = np.abs(targets.reshape(5, 1, 64) - digits).max(-1).min(1)
    assert distances.max() < 1e-6, "images of the training set"
    missing = cues != targets
    np.testing.assert_allclose(cues[missing], 0.5, err_msg="zero, on the scale of the network")


def test_an_array_that_no_run_has_kept_is_named(spec, tmp_path):
    spec.write_text(spec.read_text().replace("cues", "samples"))
    done = CliRunner().invoke(main, ["figure", str(spec), "--results", str(tmp_path / "r")])
    assert done.exit_code == 2 and "kept images named targets and samples" in done.stderr
