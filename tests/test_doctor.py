"""The doctor passes here and fails where it should: each failure is produced, not assumed."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pcbench import doctor
from pcbench.doctor import Check, diagnose

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def no_prepared_data(monkeypatch, tmp_path):
    """A home without datasets and a writable cache: nothing depends on who runs the tests."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PCBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_this_environment_is_sound(no_prepared_data):
    """All checks pass, and none leaves anything behind."""
    checks = diagnose(no_prepared_data / "results")
    assert [check for check in checks if not check.ok] == []
    assert len({check.name for check in checks}) == len(checks)
    assert list(no_prepared_data.iterdir()) == []


def test_importing_the_doctor_does_not_import_jax():
    code = "import sys, pcbench.doctor; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _wrong_in_the_last_row(matrix, row):
    """As in jax 0.10.2: the last row of either size gives an earlier row's value."""
    last = 2**15 if row.dtype == "float32" else 2**14
    return matrix @ (row - 32 * (row[0] == last))


@pytest.mark.parametrize(
    "wrong_product",
    [
        pytest.param(lambda matrix, row: matrix @ row * (1 + 1e-6), id="every row, 10⁻⁶"),
        pytest.param(_wrong_in_the_last_row, id="the last row"),
        pytest.param(lambda matrix, row: matrix @ row * float("nan"), id="nan"),
    ],
)
def test_a_wrong_product_is_found(monkeypatch, wrong_product):
    """Both types see the error and the message says which version to install."""
    monkeypatch.setattr(doctor, "_matrix_vector", wrong_product)
    check = doctor.jax_sums()
    assert not check.ok
    assert "float64 sum" in check.detail and "float32" in check.detail
    assert check.fix == doctor.JAX_FIX


def test_the_recommended_jax_is_the_pinned_one():
    pins = dict(re.findall(r"^(jax|jaxlib)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert pins == {"jax": doctor.KNOWN_GOOD_JAX, "jaxlib": doctor.KNOWN_GOOD_JAX}


def test_tf32_products_are_told_from_float32(monkeypatch):
    """Inputs rounded to TF32's 11 significant bits fall on the other side of the bound."""
    import numpy as np

    left, right = np.random.default_rng(0).standard_normal((2, 128, 128))

    def tf32(array):
        mantissa, exponent = np.frexp(array)
        return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)

    exact = left @ right
    error = np.linalg.norm(tf32(left) @ tf32(right) - exact) / np.linalg.norm(exact)
    assert doctor._product_error("highest") < doctor.TRUE_FLOAT32 < error

    monkeypatch.setattr(doctor, "_product_error", lambda precision: error)
    assert not doctor.matmul_precision().ok


@pytest.mark.parametrize(
    ("package", "version", "names"),
    [
        ("jax", "0.10.2", {"packages"}),
        ("hydra-core", "1.3.6", {"packages", "hydra"}),
        ("optax", "0.1.0", {"packages"}),
    ],
)
def test_a_version_out_of_range_is_named(monkeypatch, package, version, names):
    real = metadata.version
    pretended = {package: version}
    monkeypatch.setattr(metadata, "version", lambda name: pretended.get(name) or real(name))
    checks = [doctor.package_versions(), doctor.hydra_version()]
    failed = {check.name: check for check in checks if not check.ok}
    assert set(failed) == names
    assert f"{package} is {version}" in failed["packages"].detail
    assert f"'{package}" in failed["packages"].fix


def test_a_tfds_directory_that_is_not_there_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "absent"))
    assert not doctor.tfds_directory().ok
    (tmp_path / "absent" / "mnist").mkdir(parents=True)
    assert doctor.tfds_directory().ok
    assert "mnist" in doctor.tfds_directory().detail


def test_results_that_cannot_be_written_fail(tmp_path):
    """A file stands where the folder should be: unwritable for root too."""
    (tmp_path / "results").write_text("")
    check = doctor._writable("results_dir", tmp_path / "results" / "deeper")
    assert not check.ok and check.fix


def test_a_check_that_breaks_is_a_failed_check():
    def broken() -> Check:
        raise ImportError("no module named jax")

    check = doctor._guarded("devices", broken)
    assert not check.ok and "no module named jax" in check.detail


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_jax_0_10_2_is_refused(tmp_path):
    """The defective release itself, in a folder ahead of the environment's own JAX."""
    target = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    outcome = subprocess.run(
        [*install, "jax==0.10.2", "jaxlib==0.10.2"], capture_output=True, text=True
    )
    if outcome.returncode:
        pytest.skip(f"jax 0.10.2 cannot be had from the package registry: {outcome.stderr[-200:]}")

    code = """if True:
        import dataclasses, json, sys
        from pcbench.doctor import diagnose
        checks = diagnose()
        print(json.dumps([dataclasses.asdict(check) for check in checks]))
        sys.exit(not all(check.ok for check in checks))
    """
    # On CPU, where the defect is, and without the tests' bounds on threads and their cache.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_")) and name != "NPROC"
    } | {"PYTHONPATH": os.pathsep.join([str(target), str(ROOT)]), "JAX_PLATFORMS": "cpu"}
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert outcome.returncode == 1, outcome.stderr
    checks = {check["name"]: check for check in json.loads(outcome.stdout)}
    assert not checks["jax_sums"]["ok"]
    assert "jax 0.10.2" in checks["jax_sums"]["detail"]
    assert not checks["packages"]["ok"]
    assert checks["jax_sums"]["fix"] == doctor.JAX_FIX
