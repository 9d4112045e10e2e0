"""The command line. Each command is a thin wrapper; nothing here imports JAX at the top."""

import json as json_
import shlex
import sys
import time
from collections.abc import Callable
from functools import wraps

import click

from pcbench.config.errors import ConfigError
from pcbench.progress import progress_display

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

    from pcbench.config import load_target
    from pcbench.sweeps.execute import check
    from pcbench.sweeps.jobs import detach as start
    from pcbench.sweeps.packs import claimed
    from pcbench.training.checkpoint import Preempted

    name, configs, plan, store = read_sweep(arguments, retry, force, results)
    label = Path(name).stem if name else adhoc_name(configs)
    if plan.packs:
        check([config for pack in plan.packs for config in pack.configs])
        store.require_writable()
    store.add_to_sweep(label, [config.run_id for config in configs])
    advise(configs)
    to_run = sum(len(pack.configs) for pack in plan.packs)
    click.echo(
        f"{plan.runs} runs: {plan.finished} finished, {plan.taken} queued or running elsewhere, "
        f"{to_run} to run in {len(plan.packs)} packs",
        err=True,
    )
    records = []
    executor = load_target(configs[0]["executor.target"])
    for pack in plan.packs:
        pack.save(store)
    options = [*(f"--retry={status}" for status in retry), *(["--force"] * force)]
    place = f"{label} --results {shlex.quote(str(results))}"
    if detach:
        if plan.packs:
            click.echo(start([*arguments, *options], store, plan.packs), err=True)
        click.echo(f"see: pcbench status {place}")
        return
    try:
        with claimed(store, plan.packs) as packs, progress_display(total=to_run) as observe:
            if len(packs) < len(plan.packs):
                click.echo(f"{len(plan.packs) - len(packs)} packs run elsewhere now", err=True)
            for record in executor(packs, store, observe) if packs else ():
                records.append(record)
                observe.finished(record)
    except (KeyboardInterrupt, Preempted):
        if configs[0]["executor.name"] == "slurm":
            fail(
                "interrupted; the jobs that are submitted go on. See them: pcbench status "
                f"{place}. Wait for them: pcbench collect --wait {place}. Stop them: pcbench "
                f"cancel {place}",
                INTERRUPTED,
            )
        again = shlex.join(["pcbench", "sweep", *arguments, *options, "--results", str(results)])
        fail(f"interrupted; {len(records)} runs are stored. Resume with: {again}", INTERRUPTED)
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
def leaderboard(where, metric, by, format_, baseline, html, results, json):
    """Rank algorithm variants with 95 % confidence intervals over seeds.

    Each is compared with the baseline, paired by seed and by test example.
    """
    from pcbench.results import render
    from pcbench.results.comparison import stored_examples
    from pcbench.results.leaderboard import leaderboard as rank
    from pcbench.results.records import Store
    from pcbench.results.table import table

    conditions = {}
    for condition in where:
        key, equals, value = condition.partition("=")
        if not equals:
            raise ConfigError(f"--where {condition}: expected COLUMN=VALUE.")
        conditions[key] = value
    store, problems = Store(results), []
    rows = table(results, problems)
    for problem in problems:
        click.echo(f"pcbench: {problem}", err=True)
    if unfinished := store.unfinished(rows["run_id"].to_pylist()):
        click.echo(
            f"pcbench: {unfinished} runs of sweeps are not finished: see `pcbench status`; "
            "launching a sweep again runs what is missing",
            err=True,
        )
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
@click.argument("run_id")
@results_option
@json_option
@guarded
def show(run_id, results, json):
    """One record: RUN_ID may be a prefix."""
    from pcbench.results.files import RecordError
    from pcbench.results.records import Store

    store = Store(results)
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


def label(pack) -> str:
    config = pack.configs[0]
    return " ".join(config[f"{group}.name"] for group in ("algorithm", "model", "dataset"))


@main.command()
@overrides_argument
@click.option("--algorithms", help="Comma-separated; default: all.")
@click.option("--sizes", default="1,8,64", show_default=True, help="Pack sizes.")
@json_option
@guarded
def bench(overrides, algorithms, sizes, json):
    """Step and compile time, packing gain and share of the matrix peak, per algorithm."""
    from pcbench.bench import bench as measure
    from pcbench.config.compose import choices

    names = algorithms.split(",") if algorithms else choices("algorithm")
    try:
        counts = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise ConfigError(f"--sizes {sizes}: expected integers separated by commas.") from None
    if min(counts) < 1:
        raise ConfigError(f"--sizes {sizes}: a pack has at least one member.")
    report = measure(names, overrides, counts, lambda label: click.echo(label, err=True))
    if json:
        echo_json(report)
        return
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


def adhoc_name(configs) -> str:
    """A sweep from the command line alone is known by its runs."""
    from hashlib import sha256

    return "sweep-" + sha256(" ".join(sorted(c.run_id for c in configs)).encode()).hexdigest()[:8]


def config_yaml(config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.tree)) + f"# run_id: {config.run_id}\n"


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
