"""What comes out: `leaderboard`, `figure`, `wandb`."""

import sys

import click

from pcbench.cli.common import (
    RUN_FAILED,
    echo_json,
    guarded,
    json_option,
    main,
    results_option,
    uncollected,
)
from pcbench.cli.sweeps import sweep
from pcbench.config.errors import ConfigError


@main.command()
@click.option("--where", multiple=True, metavar="K=V", help="Only rows with column K at V.")
@click.option("--metric", help="Column to rank by; default: the task's, tuned on validation.")
@click.option("--by", metavar="K", help="Group by this column as well.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "markdown", "csv", "json", "latex"]),
    default="table",
    show_default=True,
)
@click.option("--baseline", default="bp", show_default=True, help="Variant to compare with.")
@click.option("--html", metavar="FILE", help="Write it as one page with charts, configs, commands.")
@results_option
@json_option
@guarded
@uncollected
def leaderboard(where, metric, by, format_, baseline, html, results, json):
    """Rank algorithm variants with 95 % confidence intervals over seeds.

    Each is compared with the baseline, paired by seed and by test example.
    """
    from pcbench.results import render
    from pcbench.results.comparison import stored_examples
    from pcbench.results.leaderboard import leaderboard as rank
    from pcbench.results.published import opened
    from pcbench.results.row import unfinished_row
    from pcbench.results.table import table, with_unfinished
    from pcbench.sweeps.packs import unfinished_configs

    conditions = {}
    for condition in where:
        key, equals, value = condition.partition("=")
        if not equals:
            raise ConfigError(f"--where {condition}: expected COLUMN=VALUE.")
        conditions[key] = value
    store, problems = opened(results), []
    rows = table(results, problems)
    for problem in problems:
        click.echo(f"pcbench: {problem}", err=True)
    finished = set(rows["run_id"].to_pylist())
    if unfinished := store.unfinished(finished):
        click.echo(
            f"pcbench: {unfinished} runs of sweeps are not finished: see `pcbench status`; "
            "launching a sweep again runs what is missing",
            err=True,
        )
    if asked := [unfinished_row(config) for config in unfinished_configs(store, finished)]:
        rows = with_unfinished(rows, asked)
    read = stored_examples(store)
    board = rank(rows, metric, conditions, by, baseline=baseline, examples=read)
    format_ = "json" if json else format_
    if html:
        from pathlib import Path

        from pcbench.results.page import write

        write(Path(html), board, rows, store)
        click.echo(html)
        return
    if format_ == "table":
        from rich.console import Console

        render.table(board, Console(), results)
    elif format_ in ("markdown", "latex"):
        click.echo(getattr(render, format_)(board, results), nl=False)
    else:
        click.echo(getattr(render, format_)(board).rstrip("\n"))


@main.command("wandb")
@click.argument("sweep")
@click.option("--project", default="pcbench", show_default=True)
@click.option("--entity", help="User or team.  [default: yours]")
@click.option("--online", is_flag=True, help="Upload now; needs a key.")
@results_option
@guarded
def wandb_(sweep, project, entity, online, results):
    """Copy the finished runs of SWEEP to Weights & Biases: config, history and summary.

    Offline unless --online: `wandb sync --sync-all` in the results directory uploads them.
    """
    from pcbench.results.records import Store
    from pcbench.results.wandb_mirror import mirror_sweep

    mode = "online" if online else "offline"
    settings = {"mode": mode, "project": project, "entity": entity}
    taken, finished = mirror_sweep(Store(results), sweep, settings)
    click.echo(f"{taken} of {finished} finished runs copied, {mode}")
    if taken < finished:
        sys.exit(RUN_FAILED)


@main.command()
@click.argument("name")
@click.argument("overrides", metavar="[OVERRIDE]...", nargs=-1)
@click.option("--draw-only", is_flag=True, help="Run nothing; show what is there.")
@results_option
@json_option
@click.pass_context
@guarded
def figure(ctx, name, overrides, draw_only, results, json):
    """A chart or pictures for a paper, from conf/figure/NAME.yaml or a file: PNG, PDF and the data
    as CSV or npz.

    Runs what is missing of its sweep first; OVERRIDES change that sweep.
    """
    from pathlib import Path

    from pcbench.results import figures, pictures
    from pcbench.results.records import Store
    from pcbench.sweeps.expand import expand

    name, spec = figures.read_spec(name)
    arguments = (spec["sweep"], *overrides)
    if not draw_only:
        options = {"retry": (), "detach": False, "force": False, "results": results, "json": False}
        ctx.invoke(sweep, arguments=arguments, **options)
    store = Store(results)
    run_ids = [config.run_id for config in expand(*arguments[:1], arguments[1:])[0]]
    if missing := sum(not store.holds(run_id) for run_id in run_ids):
        click.echo(
            f"pcbench: {missing} of {len(run_ids)} runs have no record yet; drawn without them",
            err=True,
        )
    folder = Path(results) / "figures"
    if spec["kind"] == "images":
        drawn = pictures.strips(spec, store, run_ids)
        paths = pictures.save(name, spec, drawn, folder)
    else:
        drawn = figures.points(spec, figures.table_rows(spec, store, run_ids))
        paths = figures.save(name, spec, drawn, folder)
    if json:
        echo_json({"figure": name, "files": [str(p) for p in paths], "points": len(drawn)})
    else:
        click.echo("\n".join(str(p) for p in paths))
