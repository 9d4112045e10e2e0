"""Is this machine fit to produce numbers? Versions, devices, and arithmetic that is known to fail.

Each check is a function without required arguments that returns a `Check`; `diagnose` runs them
all. A check that itself breaks is a failed check, so that one bad package hides no other finding.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax
    from packaging.requirements import Requirement

__all__ = ["Check", "diagnose"]

# The versions in constraints.txt; a test holds the two together.
KNOWN_GOOD_JAX = "0.10.1"
JAX_FIX = f"pip install 'jax=={KNOWN_GOOD_JAX}' 'jaxlib=={KNOWN_GOOD_JAX}'"

KEY_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "hydra-core", "tensorflow-datasets")


@dataclass(frozen=True)
class Check:
    """One finding.

    name: a short fixed name.
    ok: whether pcbench can be trusted here, as far as this check sees.
    detail: what was found, with numbers.
    fix: what to do about it; beside `ok`, advice that may be left.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def diagnose(results: str | Path = "results") -> list[Check]:
    """Run every check. `results` is the folder that records would be written to."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", python_version),
        ("packages", package_versions),
        ("hydra", hydra_version),
        ("devices", devices),
        ("jax_sums", jax_sums),
        ("matmul_precision", matmul_precision),
        ("results_dir", partial(_writable, "results_dir", Path(results))),
        ("cache_dir", cache_directory),
        ("tfds_dir", tfds_directory),
        ("git_revision", git_revision),
    ]
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        detail = f"the check itself failed: {type(error).__name__}: {error}"
        return Check(name, False, detail, "make setup")


# --- versions -----------------------------------------------------------------------------------


def python_version() -> Check:
    """Python 3.11 or later."""
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, sys.version.split()[0], "" if ok else "make setup PYTHON=python3.12")


def _requirements() -> list[Requirement]:
    """What the installed pcbench declares for this platform, extras left out."""
    from packaging.requirements import Requirement

    declared = [Requirement(line) for line in metadata.requires("pcbench") or []]
    return [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_versions() -> Check:
    """Every dependency is there and inside the range that pyproject.toml declares."""
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        return Check("packages", False, "pcbench is not installed here", "make setup")
    found = {r.name: _installed(r.name) for r in requirements}
    wrong = [
        r
        for r in requirements
        if (version := found[r.name]) is None or not r.specifier.contains(version, prereleases=True)
    ]
    if wrong:
        detail = "; ".join(
            f"{r.name} is {found[r.name] or 'missing'}, needs {r.specifier}" for r in wrong
        )
        return Check("packages", False, detail, "pip install " + " ".join(f"'{r}'" for r in wrong))
    named = ", ".join(f"{name} {_installed(name)}" for name in KEY_PACKAGES)
    return Check("packages", True, f"{len(requirements)} within their ranges: {named}")


def hydra_version() -> Check:
    """A Hydra without the known holes.

    CVE-2026-68508 (before 1.3.4) and CVE-2026-106439 (1.3.4 to 1.3.6): `instantiate` lets a config
    call anything.
    """
    from packaging.version import Version

    found = metadata.version("hydra-core")
    if Version(found) < Version("1.3.8"):
        detail = f"hydra-core {found} runs code from a config (CVE-2026-68508, CVE-2026-106439)"
        return Check("hydra", False, detail, "pip install 'hydra-core>=1.3.8,<1.5'")
    return Check("hydra", True, f"hydra-core {found}")


# --- devices and arithmetic ---------------------------------------------------------------------


def devices() -> Check:
    """The devices JAX would use; a GPU that it does not see is worth a word."""
    import jax

    found = jax.devices()
    detail = f"{jax.default_backend()}: {', '.join(str(d) for d in found)}; jax {jax.__version__}"
    unused_gpu = jax.default_backend() == "cpu" and shutil.which("nvidia-smi") is not None
    return Check("devices", True, detail, "pip install 'pcbench[cuda]'" if unused_gpu else "")


def _matrix_vector(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """The product under test; a name of its own, so that a test can put a wrong one here."""
    return matrix @ vector


def _row_energies(rows: jax.Array) -> jax.Array:
    """‖I r‖² of each row r, as the vmapped matrix-vector product that jax 0.10.2 gets wrong."""
    import jax
    import jax.numpy as jnp

    identity = jnp.eye(3, dtype=rows.dtype)
    return jax.vmap(lambda row: (_matrix_vector(identity, row) ** 2).sum())(rows)


def jax_sums() -> Check:
    """Jitted sums of a vmapped matrix-vector product against their exact values, on CPU.

    jax 0.10.2 is silently wrong here (jax issues 39103, 39257). Row i is (i, 0, 0), so its energy
    is i² and the n rows sum to (n−1)n(2n−1)/6. The sizes are the smallest that fail.

    float64, n = 16,385: all partial sums are integers below 2⁵³, hence exact in any order: the
    tolerance is nothing. float32, n = 32,769: only the last row is wrong, by less than a hundredth,
    which changes the total by 10⁻⁷ to 10⁻⁶, as much as a float32 sum may round. The rows are
    compared instead: a square rounds once (2⁻²⁴), the zeros add nothing; 2⁻²² leaves a margin of 4.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    def rows(n: int, dtype: Any) -> jax.Array:
        return jnp.zeros((n, 3), dtype).at[:, 0].set(jnp.arange(n, dtype=dtype))

    try:
        device = jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        device = jax.devices()[0]

    # Jitted as new functions, whose traces cannot come from an earlier call.
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        n = 16_385
        with _float64():
            rows_64 = rows(n, jnp.float64)
            total = float(jax.jit(lambda r: _row_energies(r).sum())(rows_64))
            eager = float(_row_energies(rows_64).sum())
        exact = (n - 1) * n * (2 * n - 1) / 6
        energies = np.asarray(jax.jit(lambda r: _row_energies(r))(rows(32_769, jnp.float32)))

    squares = np.arange(32_769, dtype=np.float64) ** 2
    # Negated, so that a NaN counts as wrong.
    wrong_rows = np.flatnonzero(~(np.abs(energies - squares) <= 2.0**-22 * squares))
    findings = []
    if not total == exact == eager:
        findings.append(f"float64 sum {total:.0f} jitted, {eager:.0f} eager, {exact:.0f} exact")
    if wrong_rows.size:
        row = wrong_rows[-1]
        findings.append(
            f"float32: {wrong_rows.size} of 32769 rows wrong, row {row} is {energies[row]:.0f} "
            f"instead of {squares[row]:.0f}"
        )
    where = f"jax {jax.__version__} on {device.platform}"
    if findings:
        detail = f"{where} computes wrong sums: {'; '.join(findings)}"
        return Check("jax_sums", False, detail, JAX_FIX)
    return Check("jax_sums", True, f"{where}: vmapped products sum exactly")


def _float64() -> AbstractContextManager[Any]:
    """The context in which JAX has 64-bit types, without touching the global flag."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


# float32 rounds a product's inputs to 2⁻²⁴, TF32 to 2⁻¹¹, bfloat16 to 2⁻⁸; between the first two,
# in the geometric mean, no honest error falls.
TRUE_FLOAT32 = 2.0**-17.5


def _product_error(precision: str | None) -> float:
    """Relative Frobenius error of a 128 × 128 float32 product, against float64."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    left, right = np.random.default_rng(0).standard_normal((2, 128, 128)).astype(np.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))(left, right)
    exact = left.astype(np.float64) @ right.astype(np.float64)
    return float(np.linalg.norm(np.asarray(product) - exact) / np.linalg.norm(exact))


def matmul_precision() -> Check:
    """A float32 product is one where pcbench asks for it, and what the device does unasked."""
    asked, unasked = _product_error("highest"), _product_error(None)
    detail = f"relative error {asked:.1e} as pcbench computes"
    if unasked > TRUE_FLOAT32:
        detail += f"; {unasked:.1e} by the device's default (TF32 or bfloat16), which is not used"
    if not asked <= TRUE_FLOAT32:
        detail += f", above {TRUE_FLOAT32:.1e}: float32 products are rounded to TF32 or below"
        fix = "unset NVIDIA_TF32_OVERRIDE and XLA_FLAGS, or run with JAX_PLATFORMS=cpu"
        return Check("matmul_precision", False, detail, fix)
    return Check("matmul_precision", True, detail)


# --- places -------------------------------------------------------------------------------------


def _writable(name: str, path: Path) -> Check:
    """A file can be written in `path`, or where it would be made; nothing stays behind."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"pcbench")
    except OSError as error:
        fix = "--results DIR, a folder that can be written"
        if name == "cache_dir":
            fix = "set PCBENCH_CACHE_DIR to a folder that can be written"
        return Check(name, False, f"{path}: {error.strerror or error}", fix)
    return Check(name, True, f"{path}" if place == path.absolute() else f"{path} (to be made)")


def cache_directory() -> Check:
    """The folder for decoded datasets."""
    from pcbench.data.cache import cache_dir

    return _writable("cache_dir", cache_dir())


def tfds_directory() -> Check:
    """Where prepared TFDS datasets lie. Having none is fine: some datasets need none."""
    advice = "set TFDS_DATA_DIR, or see `pcbench data list`"
    if name := os.environ.get("TFDS_DATA_DIR"):
        folder = Path(name)
        if not folder.is_dir():
            return Check("tfds_dir", False, f"TFDS_DATA_DIR names no folder: {name}", advice)
    else:
        folder = Path.home() / "tensorflow_datasets"  # the default of TFDS itself
        if not folder.is_dir():
            return Check("tfds_dir", True, "none: bundled and generated datasets only", advice)
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    return Check("tfds_dir", True, f"{folder}: {', '.join(found) or 'empty'}")


def git_revision() -> Check:
    """The revision that records would name. An installed package has none."""
    from pcbench.results.provenance import PACKAGE, git_state

    revision, dirty = git_state(PACKAGE)
    if revision is None:
        advice = "run from a git checkout for rows that name their code"
        return Check("git_revision", True, "none: rows carry no revision", advice)
    if dirty:
        return Check("git_revision", True, f"{revision}, with uncommitted changes", "commit them")
    return Check("git_revision", True, revision)
