"""What all commands share: exit codes, errors, options, and what is printed of a run."""

import gc
import json as json_
import os
import sys
from collections.abc import Callable
from functools import wraps

import click

from pcbench.config.errors import ConfigError

# Before JAX is imported: it would take three quarters of a GPU at once, and leave worker processes
# nothing.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

OK, RUN_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def fail(message: object, code: int = USAGE) -> None:
    click.echo(f"pcbench: {message}", err=True)
    sys.exit(code)


def guarded(command: Callable) -> Callable:
    """Turn the errors that a user can act on into a message and an exit code."""

    @wraps(command)
    def wrapped(*args, **kwargs):
        from pcbench.data import DataError
        from pcbench.results.files import RecordError

        try:
            return command(*args, **kwargs)
        except (ConfigError, DataError) as error:
            fail(error)
        except RecordError as error:
            fail(error, RUN_FAILED)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)

    return wrapped


def uncollected(command: Callable) -> Callable:
    """Without garbage collection meanwhile: of rows none is garbage before the end, and it would
    look through all of them."""

    @wraps(command)
    def wrapped(*args, **kwargs):
        collecting = gc.isenabled()
        gc.disable()
        try:
            return command(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()

    return wrapped


def results_option(command):
    return click.option(
        "--results", default="results", show_default=True, help="Results directory."
    )(command)


def json_option(command):
    return click.option("--json", is_flag=True, help="One JSON document on stdout.")(command)


overrides_argument = click.argument("overrides", nargs=-1, type=click.UNPROCESSED)


def echo_json(document: object) -> None:
    click.echo(json_.dumps(document))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pcbench")
def main() -> None:
    """Compare learning rules: compose an experiment, run or sweep it, read the leaderboard.

    \b
    pcbench run algorithm=pc dataset=digits     one run
    pcbench sweep demo                          a sweep; launch it again to resume
    pcbench leaderboard                         what came out
    pcbench run --help                          every group, choice and key
    """


def advise(configs) -> None:
    """Settings that are allowed and seldom meant, on stderr."""
    for config in {config.static_key: config for config in configs}.values():
        steps, depth = config.get("algorithm.steps"), config.get("model.depth")
        forward = config.get("algorithm.start") == "feedforward"
        forward = forward and config.get("algorithm.schedule") == "sync"
        if forward and steps is not None and depth is not None and steps < depth - 1:
            click.echo(
                f"pcbench: with algorithm.steps={steps} an error reaches {steps} of the "
                f"{depth - 1} hidden layers; those before learn nothing",
                err=True,
            )


def print_row(row: dict) -> None:
    """The measured columns of a row, a line each; null ones and the config's leaves left out."""
    from pcbench.results.columns import COLUMNS

    for name in [*COLUMNS, *(key for key in row if key not in COLUMNS)]:
        value = row.get(name)
        if value is not None and "." not in name:
            shown = f"{value:.6g}" if isinstance(value, float) else value
            click.echo(f"{name:32} {shown}")


def explain(record, results) -> None:
    """Why a run did not complete, on stderr."""
    from pcbench.results.records import Store

    if record.status == "diverged":
        click.echo(f"pcbench: run {record.run_id} diverged: weights are not finite", err=True)
    else:
        explain_failures([record.run_id], Store(results))


def explain_failures(run_ids, store) -> None:
    """Why runs failed, on stderr: those that failed alike together."""
    from pcbench.sweeps.jobs import failures

    for failure in failures(run_ids, store):
        echo_failure(**failure)


def echo_failure(reason, run_ids, traceback) -> None:
    first, *others = run_ids
    more = f" and {len(others)} more" if others else ""
    click.echo(f"pcbench: run {first}{more} failed: {reason} ({traceback})", err=True)
