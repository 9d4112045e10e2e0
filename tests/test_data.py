"""Datasets: the split rule, the cache, the errors and the transforms on the device.

Tests of real image sets need a TFDS data directory and are skipped where there is none.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from pcbench import data
from pcbench.data import Facts, cache, generated, tfds_source, transforms

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "conf" / "dataset"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
LABELLED = ["digits", "teacher", "two_moons"]
SEQUENCES = ["binary_sequences", "image_sequences", "moving_digits"]
OFFLINE = sorted([*LABELLED, "gaussian", "normal", "sources", *SEQUENCES])
TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")


def config_of(name: str, **changes) -> dict:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes


def needs(name: str):
    return pytest.mark.skipif(
        not (TFDS_DATA_DIR and (Path(TFDS_DATA_DIR) / name).is_dir()),
        reason=f"{name} is not in TFDS_DATA_DIR={TFDS_DATA_DIR!r}",
    )


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PCBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def rows(*splits: data.Split) -> list[bytes]:
    """All examples of the splits as a sorted multiset: two equal ones hold the same examples."""
    return sorted(x.tobytes() + y.tobytes() for s in splits for x, y in zip(*s, strict=True))


# ------------------------------------------------------------------------------------------ split


def test_fixed_permutation_never_changes():
    """Frozen: with another permutation, stored results were selected on other examples."""
    assert data.fixed_permutation(10).tolist() == [5, 0, 3, 2, 9, 8, 4, 6, 1, 7]
    order = data.fixed_permutation(60_000).astype("<i8")
    assert hashlib.sha256(order.tobytes()).hexdigest()[:16] == "28b3dec51107f369"
    assert sorted(data.fixed_permutation(1437)) == list(range(1437))


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25])
def test_splits_are_disjoint_and_complete(name, fraction):
    """Train and validation are the official training set, dealt out without a repeat."""
    whole, dealt = data.load(config_of(name), 0), data.load(config_of(name), fraction)
    total = len(whole.train.y)
    assert len(dealt.validation.y) == round(fraction * total)
    assert len(dealt.train.y) + len(dealt.validation.y) == total
    assert rows(dealt.train, dealt.validation) == rows(whole.train)
    for split in (dealt.train, dealt.validation, dealt.test):
        assert split.x.shape == (len(split.y), *dealt.facts.shape)
        assert split.y.dtype == np.int32
    np.testing.assert_array_equal(dealt.test.x, whole.test.x)


def test_digits_are_all_of_scikit_learn_in_sixteenths():
    from sklearn.datasets import load_digits

    digits = data.load(config_of("digits"), 0.1)
    assert [len(s.y) for s in (digits.train, digits.validation, digits.test)] == [1293, 144, 360]
    x = np.concatenate([s.x for s in (digits.train, digits.validation, digits.test)]) * 16
    np.testing.assert_array_equal(
        np.unique(x.reshape(-1, 64), axis=0), np.unique(load_digits().data, axis=0)
    )


def test_train_size_takes_from_the_front_and_leaves_validation_alone():
    whole = data.load(config_of("digits"), 0.1)
    part = data.load(config_of("digits", train_size=100), 0.1)
    np.testing.assert_array_equal(part.train.x, whole.train.x[:100])
    np.testing.assert_array_equal(part.validation.x, whole.validation.x)
    with pytest.raises(data.DataError, match=r"train_size=1294.*1293"):
        data.load(config_of("digits", train_size=1294), 0.1)


@pytest.mark.parametrize(
    ("name", "fraction", "changes", "message"),
    [
        ("digits", 1.0, {}, "validation_fraction"),
        ("digits", 0.1, {"crop_size": 9}, r"8 x 8.*1 to 8"),
        ("digits", 0.1, {"crop_padding": 1}, "needs a dataset.crop_size"),
        ("digits", 0.1, {"mean": [0.0, 0.0]}, "dataset.mean"),
        ("two_moons", 0.1, {"flip": True}, "not images"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_key_named(name, fraction, changes, message):
    with pytest.raises(data.DataError, match=message):
        data.load(config_of(name, **changes), fraction)


# ---------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_named_after_its_file_and_has_a_loader(name):
    config = config_of(name)
    assert config["name"] == name
    assert {"version", "mean", "std", "train_size"} <= {*config}
    assert name in {entry["name"] for entry in data.available()}


# -------------------------------------------------------------------------------------- generated


@pytest.mark.parametrize("name", ["teacher", "two_moons"])
def test_generated_data_are_the_same_each_time_and_more_samples_change_no_others(name):
    config = config_of(name)
    first, second = data.load(config, 0.1), data.load(config, 0.1)
    assert rows(first.train, first.validation) == rows(second.train, second.validation)
    more = data.load(config | {"samples": 2 * config["samples"]}, 0.1)
    assert rows(more.test) == rows(first.test)


def test_teacher_is_a_function_of_x_and_uses_all_classes():
    """The same teacher labels both splits: labels depend on x alone, whatever split it is in."""
    small = generated.teacher(config_of("teacher", samples=10))
    large = generated.teacher(config_of("teacher", samples=100))
    np.testing.assert_array_equal(large.train.x[:10], small.train.x)
    np.testing.assert_array_equal(large.train.y[:10], small.train.y)
    assert set(large.test.y) == set(range(large.classes))
    # mean 0 within five standard errors of 20,000 draws
    assert abs(large.test.x.mean()) < 5 / np.sqrt(large.test.x.size)


def test_noiseless_moons_lie_on_unit_half_circles_and_are_normalised():
    config = config_of("two_moons", noise=0.0)
    x, y = data.load(config, 0).train
    centres = np.array([[0.0, 0.0], [1.0, 0.5]])[y]
    np.testing.assert_allclose(np.linalg.norm(x - centres, axis=1), 1, atol=1e-6)
    z = transforms.normalise(x, config["mean"], config["std"], jnp.float32)
    np.testing.assert_allclose(z.mean(0), 0, atol=0.01)  # rounding of the constants
    np.testing.assert_allclose(z.std(0), 1, atol=0.01)


# -------------------------------------------------------------------------------------- real sets


@needs("mnist")
def test_mnist_is_mnist():
    """Label counts of LeCun's training set and the mean pixel 0.1307 that everybody uses."""
    mnist = data.load(config_of("mnist"), 1 / 6)
    sizes = [len(split.y) for split in (mnist.train, mnist.validation, mnist.test)]
    assert sizes == [50_000, 10_000, 10_000]
    labels = np.concatenate([mnist.train.y, mnist.validation.y])
    assert np.bincount(labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert np.bincount(mnist.test.y).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert mnist.train.x.dtype == np.uint8
    assert mnist.facts.shape == (28, 28, 1)
    pixels = np.concatenate([mnist.train.x, mnist.validation.x])
    assert pixels.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() / 255 == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "sizes", "classes", "shape"),
    [
        pytest.param(name, sizes, classes, shape, marks=needs(name), id=name)
        for name, sizes, classes, shape in [
            ("fashion_mnist", (60_000, 10_000), 10, (28, 28, 1)),
            ("cifar10_jpeg", (50_000, 10_000), 10, (32, 32, 3)),
            ("tiny_imagenet_small", (10_000, 10_000), 200, (56, 56, 3)),
        ]
    ],
)
def test_real_sets_are_whole_and_balanced(name, sizes, classes, shape):
    """Each class has the same number of examples, and the config's mean is that of the data."""
    config = config_of(name)
    loaded = data.load(config, 0)
    assert (len(loaded.train.y), len(loaded.test.y)) == sizes
    assert loaded.validation.x.shape == (0, *loaded.train.x.shape[1:])
    assert loaded.classes == classes
    assert loaded.facts.shape == shape
    for split, size in zip((loaded.train, loaded.test), sizes, strict=True):
        assert set(np.bincount(split.y, minlength=classes)) == {size // classes}
    if shape[-1] == 3:
        mean = loaded.train.x.mean((0, 1, 2)) / 255
        np.testing.assert_allclose(mean, config["mean"], atol=0.005)  # a tenth of Tiny ImageNet


@needs("mnist")
def test_decoding_equals_tfds_own():
    import tensorflow_datasets as tfds

    prepared = tfds_source.find("mnist")
    examples = tfds.data_source("mnist", split="test", data_dir=TFDS_DATA_DIR, download=False)
    ours = data.load(config_of("mnist"), 0).test
    for index in (0, 1, 999, 1000, 9999):  # across the batches of the decoder
        np.testing.assert_array_equal(ours.x[index], examples[index]["image"])
        assert ours.y[index] == examples[index]["label"]
    assert prepared.sizes == {"train": 60_000, "test": 10_000}


# ------------------------------------------------------------------------------------------ cache


def test_cache_computes_once_and_heals(own_cache):
    """Every byte of a cached file is guarded: flipped, cut or emptied, it is computed again."""
    truth = {"a": np.arange(12, dtype=np.uint8).reshape(3, 4), "b": np.zeros((0, 2), np.float32)}
    calls = []

    def compute():
        calls.append(1)
        return dict(truth)

    def load():
        loaded = cache.cached("set/1", ["a", "b"], compute)
        for name, array in truth.items():
            np.testing.assert_array_equal(loaded[name], array, strict=True)
        return len(calls)

    assert load() == 1
    assert load() == 1
    path = own_cache / "set" / "1" / "a.npy"
    intact = path.read_bytes()
    np.testing.assert_array_equal(np.load(path), truth["a"])  # still an ordinary .npy
    damaged = [intact[:-1], intact[: len(intact) // 2], b"", b"x" * len(intact)]
    damaged += [
        intact[:i] + bytes([intact[i] ^ 1]) + intact[i + 1 :] for i in (0, 20, 130, len(intact) - 1)
    ]
    for count, content in enumerate(damaged, start=2):
        path.write_bytes(content)
        assert load() == count
        assert path.read_bytes() == intact
    path.unlink()
    assert load() == len(damaged) + 2
    assert not list(own_cache.rglob(".*"))  # no temporary file is left


def test_a_cache_that_cannot_be_written_is_a_warning_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PCBENCH_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="PCBENCH_CACHE_DIR"):
        loaded = cache.cached("set/1", ["a"], lambda: {"a": np.ones(2)})
    np.testing.assert_array_equal(loaded["a"], np.ones(2))


def test_processes_that_fill_the_cache_together_all_get_the_same(own_cache):
    """Eight cold readers and writers of one entry: none sees a half-written file."""
    program = (
        "import numpy as np; from pcbench.data import cache\n"
        "make = lambda: {'a': np.random.default_rng(0).integers(0, 256, (500, 1000), np.uint8)}\n"
        "for _ in range(20): array = cache.cached('set/1', ['a'], make)['a']\n"
        "assert (array == make()['a']).all(); print(array.sum())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(8)
    ]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(outputs) == 1
    assert [path.name for path in own_cache.rglob("*") if path.is_file()] == ["a.npy"]


def test_another_preparation_is_another_cache_entry(tmp_path):
    """The fingerprint follows names and sizes of the files, and nothing else."""
    (tmp_path / "x").write_text("abc")
    first = tfds_source._fingerprint(tmp_path)
    (tmp_path / "x").write_text("abd")
    assert tfds_source._fingerprint(tmp_path) == first
    (tmp_path / "x").write_text("abcd")
    assert tfds_source._fingerprint(tmp_path) != first


# ----------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize("name", ["mnist", "cifar100", "tiny_imagenet"])
def test_a_missing_dataset_says_how_to_get_it(name, no_data):
    with pytest.raises(data.DataError) as error:
        data.load(config_of(name), 0.1)
    for part in (name, str(no_data), f"pcbench data prepare {name}", "tfds-prepare"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["cifar10_jpeg", "tiny_imagenet_small"])
def test_a_dataset_without_a_builder_says_so(name, no_data):
    for call in (lambda: data.load(config_of(name), 0.1), lambda: data.prepare(name)):
        with pytest.raises(data.DataError, match="prepared directory only") as error:
            call()
        assert "TFDS_DATA_DIR" in str(error.value)
        assert f"pcbench data prepare {name}" not in str(error.value)


def test_prepare_refuses_what_needs_no_preparation_or_does_not_exist(no_data, monkeypatch):
    with pytest.raises(data.DataError, match="bundled"):
        data.prepare("digits")
    with pytest.raises(data.DataError, match="Did you mean 'fashion_mnist'"):
        data.prepare("fashion_mnits")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(data.DataError, match="tfds-prepare"):
        data.prepare("mnist")


def test_available_lists_all_and_says_what_is_ready(no_data):
    listed = {entry["name"]: entry for entry in data.available()}
    assert sorted(listed) == NAMES
    assert sorted(name for name, entry in listed.items() if entry["ready"]) == OFFLINE
    assert "pcbench data prepare kmnist" in listed["kmnist"]["how"]
    assert "pcbench data prepare cifar10_jpeg" not in listed["cifar10_jpeg"]["how"]
    assert listed["digits"]["train"] + listed["digits"]["test"] == 1797


@needs("mnist")
def test_available_and_prepare_find_a_prepared_directory():
    (entry,) = [entry for entry in data.available() if entry["name"] == "mnist"]
    assert entry["ready"]
    assert (entry["train"], entry["test"], entry["classes"]) == (60_000, 10_000, 10)
    assert data.prepare("mnist") == Path(entry["where"])


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_directory_that_cannot_be_read_is_named(file_format, no_data):
    version = no_data / "mnist" / "3.0.1"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text(
        f'{{"fileFormat": "{file_format}", "splits": [{{"name": "train", "shardLengths": ["1"]}}]}}'
    )
    with pytest.raises(data.DataError, match=str(no_data / "mnist")):
        data.load(config_of("mnist"), 0)
    assert not {entry["name"]: entry for entry in data.available()}["mnist"]["ready"]


def test_importing_the_package_imports_nothing_slow():
    """The command line starts with this import: neither JAX nor TFDS nor scikit-learn."""
    program = (
        "import sys, pcbench.data; pcbench.data.available()\n"
        "slow = {'jax', 'tensorflow_datasets', 'tensorflow', 'sklearn', 'scipy', 'PIL'}\n"
        "assert not slow & {*sys.modules}, slow & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)


@needs("mnist")
def test_a_warm_cache_does_without_tfds():
    data.load(config_of("mnist"), 0)
    program = (
        "import sys; from pcbench import data\n"
        f"data.load({config_of('mnist')!r}, 0.1)\n"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)


def test_tiny_imagenet_builder_reads_the_official_archive(tmp_path):
    """A miniature of tiny-imagenet-200.zip: labels from the file name, or from the val table."""
    from pcbench.data import tiny_imagenet

    root, archive = "tiny-imagenet-200", tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr(f"{root}/wnids.txt", "n02\nn01\n")
        files.writestr(f"{root}/train/n01/n01_boxes.txt", "n01_0.JPEG\t0\t0\t1\t1\n")
        files.writestr(f"{root}/train/n01/images/n01_0.JPEG", b"one")
        files.writestr(f"{root}/train/n02/images/n02_0.JPEG", b"two")
        files.writestr(f"{root}/val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t1\t1\n")
        files.writestr(f"{root}/val/images/val_0.JPEG", b"three")
        files.writestr(f"{root}/test/images/test_0.JPEG", b"unlabelled")
    builder = tiny_imagenet.TinyImagenet(data_dir=tmp_path)
    found = {
        split: [(e["image"], e["label"]) for _, e in builder._generate_examples(archive, split)]
        for split in ("train", "val")
    }
    assert found == {"train": [(b"one", "n01"), (b"two", "n02")], "val": [(b"three", "n02")]}
    assert builder.info.features["image"].shape == (64, 64, 3)


# ------------------------------------------------------------------------------------- transforms

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(1, 256, (64, 8, 8, 3), np.uint8)  # no 0: that is padding


def windows(image: np.ndarray, size: int, padding: int) -> dict[bytes, tuple[int, int]]:
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    places = range(padded.shape[0] - size + 1)
    return {padded[i : i + size, j : j + size].tobytes(): (i, j) for i in places for j in places}


@pytest.mark.parametrize(("size", "padding"), [(8, 2), (6, 0), (5, 1)])
def test_a_crop_is_a_window_of_the_padded_image(size, padding):
    """Each image gets its own window, and every place is reached."""
    x = np.tile(IMAGES, (10, 1, 1, 1))
    crop = jax.jit(transforms.augment, static_argnums=(2, 3, 4))(KEY, x, size, padding, False)
    assert crop.dtype == np.uint8
    assert crop.shape == (640, size, size, 3)
    places = [
        windows(image, size, padding)[window.tobytes()]
        for image, window in zip(x, np.asarray(crop), strict=True)
    ]
    every = range(8 + 2 * padding - size + 1)
    assert {*places} == {(i, j) for i in every for j in every}


def test_a_flip_is_an_exact_mirror_of_half_of_the_images():
    x = np.tile(IMAGES, (10, 1, 1, 1))
    y = np.asarray(transforms.augment(KEY, x, None, 0, True))
    mirrored = (y == x[:, :, ::-1]).all((1, 2, 3))
    assert ((y == x).all((1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(x))  # five standard errors


def test_augmentation_off_computes_nothing():
    program = jax.make_jaxpr(lambda x: transforms.augment(KEY, x, None, 0, False))(IMAGES)
    assert program.jaxpr.invars == program.jaxpr.outvars


def test_augmentation_depends_on_the_key_alone():
    """Under vmap over keys (a pack of runs) and inside scan, each key gives what it gives alone."""

    def augment(key):
        return transforms.augment(key, IMAGES, 6, 1, True)

    keys = jax.random.split(KEY, 3)
    alone = np.stack([augment(key) for key in keys])
    np.testing.assert_array_equal(jax.jit(jax.vmap(augment))(keys), alone)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, augment(key)), 0, keys)
    np.testing.assert_array_equal(scanned, alone)
    assert (alone[0] != alone[1]).any()


def test_evaluate_crop_takes_the_centre():
    np.testing.assert_array_equal(transforms.evaluate_crop(IMAGES, 4), IMAGES[:, 2:6, 2:6])
    np.testing.assert_array_equal(transforms.evaluate_crop(IMAGES, None), IMAGES)


def test_normalise_by_the_own_statistics_gives_mean_0_and_std_1():
    pixels = IMAGES / 255
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    z = transforms.normalise(IMAGES, mean, std, jnp.float32)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalise_maps_pixels_to_the_pcx_range_in_any_dtype(dtype):
    x = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
    z = transforms.normalise(x, [0.5], [0.5], dtype)
    assert z.dtype == dtype
    assert z.ravel().tolist() == [-1, 1]
    # float input is not scaled by 255
    np.testing.assert_array_equal(transforms.normalise(x / 255, [0.5], [0.5], dtype), z)


# ------------------------------------------------------------------------------------------ drawn


def test_gaussian_pairs_have_targets_that_are_independent_of_the_inputs():
    pairs = data.load(config_of("gaussian"), 0.1)
    assert pairs.facts[:5] == Facts((64,), 3600, 400, None, 64)[:5]
    assert not pairs.facts.labelled
    x, y = pairs.train
    assert x.dtype == y.dtype == np.float32
    for part in (x, y):
        assert abs(part.mean()) < 0.01
        assert abs(part.std() - 1) < 0.01
    assert np.abs(x.T @ y / len(x)).max() < 5 / np.sqrt(len(x))
    more = data.load(config_of("gaussian", samples=8000), 0)
    assert np.array_equal(more.test.x, pairs.test.x)


def test_normal_numbers_have_mean_one_and_variance_five():
    x = data.load(config_of("normal", samples=40_000), 0).train.x
    assert x.shape == (40_000, 1)
    assert abs(x.mean() - 1) < 5 * np.sqrt(5 / 40_000)
    assert abs(x.var() / 5 - 1) < 5 * np.sqrt(2 / 40_000)


def test_a_seed_cannot_draw_more_than_there_is():
    assert data.load(config_of("digits", draw=100), 0.1).facts.samples == 100
    with pytest.raises(data.DataError, match="1293 training examples to draw from"):
        data.load(config_of("digits", draw=2000), 0.1)
