"""What is there and whether it works: `data`, `doctor`, `verify`, `bench`."""

import sys
import time

import click

from pcbench.cli.common import (
    INTERRUPTED,
    OK,
    RUN_FAILED,
    echo_json,
    guarded,
    json_option,
    main,
    overrides_argument,
    results_option,
)
from pcbench.config.errors import ConfigError


@main.group()
def data():
    """Datasets: what is there, and what it takes to get them."""


@data.command("list")
@json_option
@guarded
def data_list(json):
    """Every dataset, whether it is ready, and how to get it."""
    from pcbench.data import available

    datasets = available()
    if json:
        echo_json({"datasets": datasets})
        return
    for entry in datasets:
        click.echo(
            f"{'ready  ' if entry['ready'] else 'missing'}  {entry['name']:20} {entry['how']}"
        )


@data.command("prepare")
@click.argument("name")
@guarded
def data_prepare(name):
    """Download and prepare dataset NAME with TFDS (needs the extra tfds-prepare)."""
    from pcbench.data import prepare

    click.echo(prepare(name))


@main.command()
@results_option
@json_option
def doctor(results, json):
    """Check versions, devices, data and the known bad versions; say what to install."""
    from dataclasses import asdict

    from pcbench.doctor import diagnose

    checks = diagnose(results)
    ok = all(check.ok for check in checks)
    if json:
        echo_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            click.echo(f"{'ok ' if check.ok else 'BAD'}  {check.name:18} {check.detail}")
            if check.fix:
                click.echo(f"     {'':18} -> {check.fix}")
    sys.exit(OK if ok else RUN_FAILED)


@main.command()
@click.argument("algorithms", metavar="[ALGORITHM]...", nargs=-1)
@json_option
@guarded
def verify(algorithms, json):
    """Check the rules against published identities: measured error against its bound.

    Then what every learning rule promises, of the named ones or of all. Exits with 1 if a check
    fails.
    """
    from pcbench.config.compose import choices
    from pcbench.config.errors import nearest

    known = choices("algorithm")
    for name in algorithms:
        if name not in known:
            raise ConfigError(f"algorithm '{name}' does not exist." + nearest(name, known))
    from pcbench.verify.runner import run, select

    checks, results, started = select(algorithms, known), {}, time.perf_counter()
    shown = not json or sys.stderr.isatty()
    for count, result in enumerate(run(checks), 1):
        results[result.check.name] = result
        if shown:
            echo_result(result, f"{count}/{len(checks)}", err=json)
    ordered = [results[check.name] for check in checks]
    failed = [result for result in ordered if not result.passed]
    if json:
        echo_json({"passed": not failed, "checks": [r.to_json() for r in ordered]})
    else:
        for result in failed:
            click.echo(f"failed: {result.check.name}: {result.error or result.check.statement}")
        seconds = time.perf_counter() - started
        click.echo(f"{len(checks)} checks, {len(failed)} failed, {seconds:.0f} s")
    sys.exit(RUN_FAILED if failed else OK)


def echo_result(result, count: str, err: bool = False) -> None:
    """A line of `verify`: what was measured, what it may be, of what, from where."""
    numbers = "raised an error" if result.error else f"{result.measured:8.1e} ≤ {result.bound:7.1e}"
    name, source = result.check.name, result.check.source
    verdict = "ok " if result.passed else "BAD"
    click.echo(f"{count:>7} {verdict} {numbers:18}  {name}  ({source})", err=err)


@main.command()
@overrides_argument
@click.option("--algorithms", help="Comma-separated; default: all.")
@click.option("--sizes", default="1,8,64", show_default=True, help="Pack sizes.")
@json_option
@guarded
def bench(overrides, algorithms, sizes, json):
    """Step and compile time, packing gain and share of the matrix peak, per algorithm."""
    from pcbench import bench as measuring
    from pcbench.config.compose import choices

    names = algorithms.split(",") if algorithms else choices("algorithm")
    try:
        counts = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise ConfigError(f"--sizes {sizes}: expected integers separated by commas.") from None
    if min(counts) < 1:
        raise ConfigError(f"--sizes {sizes}: a pack has at least one member.")
    report = measuring.bench(names, overrides, counts, lambda label: click.echo(label, err=True))
    stopped = any(row["reason"] == measuring.INTERRUPTED for row in report["skipped"])
    if json:
        echo_json(report)
        sys.exit(INTERRUPTED if stopped else OK)
    described = report["machine"]
    click.echo(
        f"{described['device']} x {described['devices']}, jax {described['jax']}, "
        f"matrix peak {described['peak_gflops']:.0f} GFLOP/s (float32)"
    )
    width = max(map(len, ["algorithm", *names]))
    click.echo(f"{'algorithm':{width}}  size  mode  ms/step/member  gain  compile s  % of peak")
    for row in report["rows"]:
        click.echo(
            f"{row['algorithm']:{width}}  {row['size']:4}  {row['mode']:4}  "
            f"{row['member_step_ms']:14.3f}  {row['gain']:4.1f}  {row['compile_s']:9.2f}  "
            f"{100 * row['peak_share']:9.1f}"
        )
    for row in report["skipped"]:
        what = "" if row["size"] is None else f", {row['size']} x {row['mode']}"
        click.echo(f"not measured: {row['algorithm']}{what}: {row['reason']}", err=True)
    sys.exit(INTERRUPTED if stopped else OK)
