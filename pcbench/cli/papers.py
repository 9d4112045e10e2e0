"""Published tables, ours beside theirs: `paper list`, `paper show`, `paper run`."""

import shlex
import sys
from pathlib import Path

import click

from pcbench.cli.common import (
    RUN_FAILED,
    echo_json,
    explain_failures,
    guarded,
    json_option,
    main,
    results_option,
)
from pcbench.cli.sweeps import launch, retry_option
from pcbench.papers.spec import SCALES

scale_option = click.option("--scale", type=click.Choice(SCALES), help="How large the runs are.")


@main.group()
def paper() -> None:
    """Published tables with our numbers beside theirs; conf/paper/ holds them."""


@paper.command("list")
@results_option
@json_option
@guarded
def list_(results, json):
    """What there is, and what became of it: scale, cells filled, verdicts, claims."""
    from pcbench.papers.listing import HEADER, line, listing

    rows = listing(Path(results) / "papers")
    if json:
        echo_json({"papers": rows})
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(*HEADER)
    shown.columns[0].no_wrap = True  # it is what one types next
    for row in rows:
        shown.add_row(*line(row))
    console = Console()
    shown.columns[0].min_width = max(len(row["name"]) for row in rows)
    console.print(shown)
    if not any(row["scale"] for row in rows):
        click.echo(
            f"pcbench: no table was made in {results} yet: pcbench paper run NAME. In a checkout, "
            "those that come with it: pcbench paper list --results results/published",
            err=True,
        )


@paper.command()
@click.argument("name")
@scale_option
@results_option
@json_option
@guarded
def show(name, scale, results, json):
    """The table NAME from the stored records; runs nothing.

    Without --scale, the one that `paper list` shows.
    """
    from pcbench.papers.render import stored, terminal
    from pcbench.papers.runs import cell_runs
    from pcbench.papers.spec import read_spec
    from pcbench.papers.table import make_table
    from pcbench.results.published import Published, opened
    from pcbench.results.records import Store

    spec, folder = read_spec(name), Path(results) / "papers"
    made, published = stored(folder, spec.name), opened(folder)
    scale = scale or (made["scale"] if made else "cpu")
    if spec.coverage:
        table = made if isinstance(published, Published) else coverage(spec, results)
    else:
        store = published if isinstance(published, Published) else Store(results)
        table = make_table(spec, scale, cell_runs(spec, scale), store)
    if json:
        echo_json(table)
        return
    from rich.console import Console

    terminal(table, Console())


@paper.command()
@click.argument("names", metavar="NAME... [executor=...]...", nargs=-1, required=True)
@scale_option
@retry_option
@results_option
@json_option
@guarded
def run(names, scale, retry, results, json):
    """Run what is missing of the tables NAME..., then write them to RESULTS/papers: Markdown, HTML,
    LaTeX, CSV, JSON.

    A cell that needs a GPU or a dataset which is not here is told as such. Default scale: cpu.
    Where the runs run: executor=processes|slurm and keys of it (executor.workers=4). Other
    overrides are refused: a table's runs are those of its file.
    """
    from pcbench.papers.render import save, terminal
    from pcbench.papers.spec import read_spec

    overrides = [name for name in names if "=" in name]
    executor = read_executor(overrides)
    specs = {name: read_spec(name) for name in names if "=" not in name}
    if not specs:
        raise click.UsageError("no table is named: see `pcbench paper list`.")
    scale, tables, failed = scale or "cpu", [], []
    for name, spec in sorted(specs.items(), key=lambda item: item[1].coverage):  # counts: at last
        click.echo(f"{spec.name} ({scale})", err=True)
        if spec.coverage:
            table = coverage(spec, results)
        else:
            options = ["--scale", scale, *(f"--retry={s}" for s in retry)]
            options += ["--results", str(results)]
            again = shlex.join(["pcbench", "paper", "run", name, *options, *overrides])
            table, lost = run_table(spec, scale, results, executor, retry, again)
            failed += lost
        tables.append(table)
        paths = save(table, Path(results) / "papers")
        if not json:
            from rich.console import Console

            terminal(table, Console())
            click.echo("\n".join(map(str, paths)))
    if json:
        echo_json({"papers": tables})
    if failed:
        click.echo(f"pcbench: {len(failed)} runs failed; --retry failed runs them again", err=True)
        sys.exit(RUN_FAILED)


def read_executor(overrides):
    from pcbench.config import ConfigError
    from pcbench.sweeps.expand import read_overrides

    settings, axes = read_overrides(overrides)
    others = [key for key in settings if key.partition(".")[0] != "executor"]
    others += [key for keys, _ in axes for key in keys]
    if others:
        raise ConfigError(
            f"{others[0]}: of a published table, one `executor` and its keys alone can be chosen."
        )
    return settings


def run_table(spec, scale, results, executor, retry, again):
    """(the table, ids of failed runs) after what is missing has been run; `again`: the command that
    resumes it."""
    import jax

    from pcbench.papers.runs import cell_runs
    from pcbench.papers.table import make_table
    from pcbench.results.records import Store
    from pcbench.sweeps.plan import make_plan

    runs = cell_runs(spec, scale, jax.default_backend() != "cpu", executor)
    store = Store(results)
    for reason in dict.fromkeys(own.reason for own in runs if own.reason):
        cells = sum(own.reason == reason for own in runs)
        how = " (`pcbench data list` says how)" if reason.startswith("needs the dataset") else ""
        message = f"{spec.name}: {cells} of {len(runs)} cells are not run: {reason}{how}"
        click.echo(message, err=True)
    asked = [config for own in runs if own.reason is None for config in own.configs]
    configs = list({config.run_id: config for config in asked}.values())
    failed = []
    if configs:
        plan = make_plan(configs, len(asked) - len(configs), store, retry)
        if (own := configs[0]["executor.name"]) != executor.get("executor", own):
            click.echo(f"{spec.name}: executor={own}, as its file says", err=True)
        launch(f"paper-{spec.name}-{scale}", configs, plan, store, again)
        jax.clear_caches()  # of many tables in one process, programs would fill the memory
        statuses = store.finished()
        failed = [c.run_id for c in configs if statuses.get(c.run_id) == "failed"]
        explain_failures(failed, store)
    return make_table(spec, scale, runs, store), failed


def coverage(spec, results):
    from pcbench.papers.coverage import make_coverage, needed
    from pcbench.results.table import table

    rows = table(results)
    names = [name for name in rows.column_names if name in needed(spec)]
    return make_coverage(spec, rows.select(names).to_pylist())
