"""`run` and `show`: one run."""

import sys

import click

from pcbench.cli.common import (
    RUN_FAILED,
    advise,
    echo_json,
    explain,
    fail,
    guarded,
    json_option,
    main,
    overrides_argument,
    print_row,
    results_option,
)
from pcbench.cli.sweeps import sweep
from pcbench.progress import progress_display


class _RunCommand(click.Command):
    """A command whose help lists the config's groups, choices and keys."""

    def format_epilog(self, ctx, formatter):
        from pcbench.config.compose import COMPOSED, choices
        from pcbench.config.schema import VOCABULARY

        with formatter.section("Groups and choices (GROUP=CHOICE)"):
            formatter.write_dl([(g, ", ".join(choices(g)) or "-") for g in COMPOSED])
        with formatter.section("Keys (KEY=VALUE); a choice's YAML says which of them it has"):
            hidden = ("name", "version", "target")
            formatter.write_dl(
                [
                    (path, f"{leaf.doc} [{leaf.type_name}, {leaf.kind}]")
                    for path, leaf in VOCABULARY.items()
                    if path.rsplit(".", 1)[-1] not in hidden
                ]
            )


@main.command(cls=_RunCommand)
@overrides_argument
@click.option("-m", "--multirun", is_flag=True, help="Overrides with several values: a sweep.")
@click.option("--force", is_flag=True, help="Run a finished config again, replace its record.")
@click.option("--cfg", type=click.Choice(["job"]), help="Print the composed config and exit.")
@results_option
@json_option
@click.pass_context
@guarded
def run(ctx, overrides, multirun, force, cfg, results, json):
    """One run of the config that OVERRIDES describe; prints its row.

    A finished config is not run again: its stored row is printed.
    """
    from pcbench import api
    from pcbench.results.records import Store
    from pcbench.sweeps.expand import single

    if multirun and not cfg:
        options = {"retry": (), "detach": False, "force": force, "results": results, "json": json}
        ctx.invoke(sweep, arguments=overrides, **options)
        return
    config = single(overrides)
    if cfg:
        click.echo(config_yaml(config), nl=False)
        return
    stored = Store(results).holds(config.run_id) and not force
    advise([config])
    with progress_display() as observe:
        record = api.run(config, results, force, observe)
    if json:
        echo_json(record.row)
    else:
        print_row(record.row)
    if record.status != "completed":
        explain(record, results)
        if stored:
            click.echo("pcbench: this is the stored record; --force runs it again", err=True)
        sys.exit(RUN_FAILED)


@main.command()
@click.argument("run_id")
@results_option
@json_option
@guarded
def show(run_id, results, json):
    """One record: RUN_ID may be a prefix."""
    from pcbench.results.files import RecordError
    from pcbench.results.published import opened

    store = opened(results)
    try:
        record = store.read(store.resolve(run_id))
    except RecordError as error:
        fail(error)
    if json:
        click.echo(record.to_json())
    else:
        print_row(record.row)
        if record.status == "failed":
            explain(record, results)


def config_yaml(config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.tree)) + f"# run_id: {config.run_id}\n"
