"""Many runs: `sweep`, `plan`, what became of them, and `tune`."""

import json as json_
import shlex
import sys

import click

from pcbench.cli.common import (
    INTERRUPTED,
    RUN_FAILED,
    advise,
    echo_failure,
    echo_json,
    explain_failures,
    fail,
    guarded,
    json_option,
    main,
    results_option,
)
from pcbench.progress import progress_display

retry_option = click.option(
    "--retry",
    multiple=True,
    type=click.Choice(["failed", "diverged"]),
    help="Run finished runs of this status again (repeatable).",
)


def sweep_options(command):
    for option in (
        click.argument("arguments", metavar="[NAME] [OVERRIDE]...", nargs=-1),
        retry_option,
        click.option("--force", is_flag=True, help="Run everything again."),
        click.option("--detach", is_flag=True, help="Start it, return at once; see `status`."),
        results_option,
        json_option,
    ):
        command = option(command)
    return command


def read_sweep(arguments, retry, force, results):
    """(name, plan, store) of a sweep's command line."""
    from pcbench.results.records import Store
    from pcbench.sweeps.expand import expand
    from pcbench.sweeps.plan import make_plan

    named = bool(arguments) and "=" not in arguments[0]
    name, overrides = (arguments[0], arguments[1:]) if named else (None, arguments)
    configs, duplicates = expand(name, overrides)
    store = Store(results)
    plan = make_plan(configs, duplicates, store, retry, force)
    return name, configs, plan, store


@main.command()
@sweep_options
@guarded
def sweep(arguments, retry, force, detach, results, json):
    """Run what is missing of a sweep: conf/sweep/NAME.yaml, or overrides with several values.

    Launching it again runs only what is not finished.
    """
    from pathlib import Path

    from pcbench.sweeps.jobs import detach as start

    name, configs, plan, store = read_sweep(arguments, retry, force, results)
    label = Path(name).stem if name else adhoc_name(configs)
    options = [*(f"--retry={status}" for status in retry), *(["--force"] * force)]
    if detach:
        prepare(label, configs, plan, store)
        if plan.packs:
            click.echo(start([*arguments, *options], store, plan.packs), err=True)
        click.echo(f"see: pcbench status {label} --results {shlex.quote(str(results))}")
        return
    again = shlex.join(["pcbench", "sweep", *arguments, *options, "--results", str(results)])
    records = launch(label, configs, plan, store, again)
    statuses = store.finished()
    counts = {s: 0 for s in ("completed", "diverged", "failed")}
    for config in configs:
        if config.run_id in statuses:
            counts[statuses[config.run_id]] += 1
    if json:
        echo_json({"sweep": label, "runs": plan.runs, **counts})
    else:
        click.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    failed = [c.run_id for c in configs if statuses.get(c.run_id) == "failed"]
    explain_failures(failed, store)
    if failed:
        earlier = len(set(failed) - {record.run_id for record in records})
        when = f" ({earlier} of them in an earlier launch)" if earlier else ""
        click.echo(
            f"pcbench: {len(failed)} runs failed{when}; --retry failed runs them again", err=True
        )
        sys.exit(RUN_FAILED)


def prepare(label, configs, plan, store) -> None:
    """Check what could stop the runs, note them as a sweep, keep the packs; say what is to do."""
    from pcbench.sweeps.execute import check

    if plan.packs:
        check([config for pack in plan.packs for config in pack.configs])
        store.require_writable()
    store.add_to_sweep(label, [config.run_id for config in configs])
    advise(configs)
    click.echo(
        f"{plan.runs} runs: {plan.finished} finished, {plan.taken} queued or running elsewhere, "
        f"{to_run(plan)} to run in {len(plan.packs)} packs",
        err=True,
    )
    for pack in plan.packs:
        pack.save(store)


def to_run(plan) -> int:
    return sum(len(pack.configs) for pack in plan.packs)


def launch(label, configs, plan, store, again) -> list:
    """Run a plan and return its records; interrupted, exit and tell that the command `again`
    resumes."""
    from pcbench.config import load_target
    from pcbench.sweeps.packs import claimed
    from pcbench.training.checkpoint import Preempted

    prepare(label, configs, plan, store)
    records = []
    executor = load_target(configs[0]["executor.target"])
    try:
        with (
            claimed(store, plan.packs) as packs,
            progress_display(total=to_run(plan)) as observe,
        ):
            if len(packs) < len(plan.packs):
                click.echo(f"{len(plan.packs) - len(packs)} packs run elsewhere now", err=True)
            for record in executor(packs, store, observe) if packs else ():
                records.append(record)
                observe.finished(record)
    except (KeyboardInterrupt, Preempted):
        if configs[0]["executor.name"] == "slurm":
            place = f"{label} --results {shlex.quote(str(store.root))}"
            fail(
                "interrupted; the jobs that are submitted go on. See them: pcbench status "
                f"{place}. Wait for them: pcbench collect --wait {place}. Stop them: pcbench "
                f"cancel {place}",
                INTERRUPTED,
            )
        fail(f"interrupted; {len(records)} runs are stored. Resume with: {again}", INTERRUPTED)
    return records


@main.command()
@sweep_options
@guarded
def plan(arguments, retry, force, detach, results, json):
    """What `sweep` would do: runs, finished ones, packs, estimated time. Starts nothing."""
    _, _, planned, _ = read_sweep(arguments, retry, force, results)
    if json:
        echo_json(planned.to_json())
        return
    estimate = planned.total_seconds
    seconds = "unknown" if estimate is None else f"{estimate:.0f} s"
    click.echo(f"runs        {planned.runs}")
    click.echo(f"finished    {planned.finished}")
    click.echo(f"duplicates  {planned.duplicates} (dropped)")
    click.echo(f"taken       {planned.taken} (queued or running elsewhere)")
    click.echo(f"packs       {len(planned.packs)}")
    for pack, pack_seconds in zip(planned.packs[:20], planned.seconds, strict=False):
        shown = "" if pack_seconds is None else f"  {pack_seconds:.0f} s"
        click.echo(f"            {len(pack.configs)} x {label(pack)} ({pack.mode}){shown}")
    if len(planned.packs) > 20:
        click.echo(f"            … {len(planned.packs) - 20} more")
    click.echo(f"time        {seconds} (from past records)")


sweep_argument = click.argument("sweep", required=False)


def echo_status(row, err: bool = False) -> None:
    """A line for the sweep, one for each job behind it, and the end of what a lost one said."""
    hidden = ("sweep", "runs", "jobs")
    counts = ", ".join(f"{n} {s}" for s, n in row.items() if s not in hidden and n)
    click.echo(f"{row['sweep']}: {row['runs']} runs: {counts}", err=err)
    for job in row["jobs"]:
        log = f", output in {job['log']}" if job["log"] else ""
        click.echo(f"  {job['name']} {job['state']}: {job['runs']} runs{log}", err=err)
        for line in job["tail"]:
            click.echo(f"    | {line}", err=err)


@main.command()
@sweep_argument
@results_option
@json_option
@guarded
def status(sweep, results, json):
    """What became of SWEEP, or of all sweeps: runs by state, jobs and where their output lies.

    A missing run is one that nobody takes care of: launch its sweep again. Of jobs that ended
    without records, or with failed ones, the last lines of their output are shown.
    """
    from pcbench.results.records import Store
    from pcbench.sweeps.jobs import status as states

    rows = states(Store(results), sweep)
    if json:
        echo_json({"sweeps": rows})
        return
    for row in rows:
        echo_status(row)
    if not rows:
        click.echo(f"no sweep in {results}: `pcbench sweep` makes one")


@main.command()
@sweep_argument
@click.option("--wait", is_flag=True, help="Until nothing of it is queued or running.")
@results_option
@json_option
@guarded
def collect(sweep, wait, results, json):
    """Read in what SWEEP (or every sweep) left: counts by variant, and why runs failed.

    Exits with 1 if a run failed, or if one is missing and nobody takes care of it.
    """
    from pcbench.results.records import Store
    from pcbench.sweeps import jobs

    store = Store(results)
    if wait:

        def progress(rows):
            for row in rows:
                if row["running"] or row["queued"]:
                    echo_status(row, err=True)

        try:
            rows = jobs.wait(store, sweep, progress)
        except KeyboardInterrupt:
            fail("interrupted; what computes the runs goes on", INTERRUPTED)
    else:
        rows = jobs.status(store, sweep)
    found = jobs.collect(store, [row["sweep"] for row in rows])
    if json:
        echo_json({"sweeps": rows, **found})
    else:
        for row in rows:
            echo_status(row)
            echo_variants([v for v in found["variants"] if v["sweep"] == row["sweep"]])
    for failure in found["failures"]:
        echo_failure(**failure)
    for problem in found["problems"]:
        click.echo(f"pcbench: {problem}", err=True)
    failed, missing = (sum(row[state] for row in rows) for state in ("failed", "missing"))
    if failed:
        click.echo("pcbench: `pcbench sweep … --retry failed` runs failed runs again", err=True)
    if missing:
        click.echo(
            f"pcbench: nobody runs the {missing} missing runs: launch the sweep again", err=True
        )
    if failed or missing or found["problems"]:
        sys.exit(RUN_FAILED)


def echo_variants(variants) -> None:
    """What came out, a line for each variant; `pcbench leaderboard` ranks them."""
    if not variants:
        return
    names = [name for name in variants[0] if name != "sweep"]
    rows = [names, *([str(v[name]) for name in names] for v in variants)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(names))]
    for row in rows:
        click.echo("  " + "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip())


@main.command()
@sweep_argument
@results_option
@guarded
def cancel(sweep, results):
    """Stop what computes SWEEP, or everything; finished runs stay, the rest can be resumed."""
    from pcbench.results.records import Store
    from pcbench.sweeps.jobs import cancel as stop

    for name in stop(Store(results), sweep) or ["nothing was running"]:
        click.echo(name)


@main.command()
@click.argument("name")
@click.argument("overrides", metavar="[OVERRIDE]...", nargs=-1)
@click.option("--trials", type=int, help="Trials of the search.  [default: the file's]")
@click.option("--batch", type=int, help="Trials proposed at once: one pack.")
@click.option("--seeds", type=int, help="Runs of each trial, with seeds from 1000 up.")
@click.option("--report", type=int, default=0, help="Run so many fresh seeds of the best trial.")
@retry_option
@results_option
@json_option
@guarded
def tune(name, overrides, trials, batch, seeds, report, retry, results, json):
    """Search hyper-parameters: NAME of conf/tune/NAME.yaml, or a file.

    Selection is by the task's score on validation. Launching it again runs only what is not
    finished; a larger --trials goes on.
    """
    from pcbench.results.records import Store
    from pcbench.sweeps.space import read_search
    from pcbench.sweeps.tune import tune as run_search
    from pcbench.training.checkpoint import Preempted

    search = read_search(name, overrides, trials, batch, seeds)
    failed = []
    try:
        with progress_display(total=search.trials * search.seeds + report) as observe:

            def finished(record):
                observe.finished(record)
                if record.status == "failed":
                    failed.append(record)

            result = run_search(search, Store(results), report, retry, observe, finished)
    except (KeyboardInterrupt, Preempted):
        again = shlex.join(["pcbench", *sys.argv[1:]])
        fail(f"interrupted; finished runs are stored. Resume with: {again}", INTERRUPTED)
    if json:
        echo_json(result)
    else:
        best, fresh = result["best"], result["report"]
        value = "undefined" if best["value"] is None else f"{best['value']:.4g}"
        click.echo(f"best of {search.trials} trials: {result['metric']} {value} with")
        click.echo(" ".join(f"{key}={json_.dumps(v)}" for key, v in best["settings"].items()))
        if fresh and fresh["mean"] is not None:
            low, high = fresh["low"], fresh["high"]
            interval = "" if low is None else f" [{low:.4f}, {high:.4f}]"
            click.echo(f"{fresh['metric']} {fresh['mean']:.4f}{interval}, {fresh['seeds']} seeds")
    explain_failures([record.run_id for record in failed], Store(results))
    if failed:
        sys.exit(RUN_FAILED)


def label(pack) -> str:
    config = pack.configs[0]
    return " ".join(config[f"{group}.name"] for group in ("algorithm", "model", "dataset"))


def adhoc_name(configs) -> str:
    """A sweep from the command line alone is known by its runs."""
    from hashlib import sha256

    return "sweep-" + sha256(" ".join(sorted(c.run_id for c in configs)).encode()).hexdigest()[:8]
