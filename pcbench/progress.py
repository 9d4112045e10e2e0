"""What training looks like from a terminal: bars there, plain lines elsewhere, all on stderr."""

import sys
from contextlib import contextmanager

import click

from pcbench.results.columns import validation_column


class _Lines:
    """Progress as plain lines on stderr: some ten per run, or one per run of a sweep."""

    def __init__(self, total: int | None):
        self.total, self.count, self.tenth = total, 0, 0

    def __call__(self, configs, progress) -> None:
        before, self.tenth = self.tenth, 10 * progress.epoch // max(1, progress.epochs)
        if self.total is None and (self.tenth > before or progress.epochs == 0):
            click.echo(f"epoch {progress.epoch}/{progress.epochs}{scores(progress)}", err=True)

    def finished(self, record) -> None:
        self.count += 1
        click.echo(f"[{self.count}/{self.total}] {headline(record)}", err=True)


class _Bars:
    """Progress as bars on a terminal: runs of the sweep, epochs of the run."""

    def __init__(self, display, total: int | None):
        self.display = display
        self.runs = display.add_task("runs", total=total) if total is not None else None
        self.epochs = display.add_task("starting", total=None)

    def __call__(self, configs, progress) -> None:
        label = f"{configs[0]['algorithm.name']} seed {configs[0]['seed']}{scores(progress)}"
        self.display.update(
            self.epochs, total=progress.epochs, completed=progress.epoch, description=label
        )

    def finished(self, record) -> None:
        self.display.update(self.runs, advance=1)
        self.display.console.print(headline(record), markup=False, highlight=False)


@contextmanager
def progress_display(total: int | None = None):
    """An observer of training; `total`: runs of a sweep."""
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as p:
        yield _Bars(p, total)


def scores(progress) -> str:
    """Means over the pack: of every split the first score, and its name once."""
    parts, seen = [], set()
    for name, values in progress.scores.items():
        split, _, score = name.partition("_")
        if split not in seen:
            shown = split if score == "accuracy" else f"{split} {score}"
            parts.append(f"{shown} {float(values.mean()):.4g}")
            seen.add(split)
    return ("  " + "  ".join(parts)) if parts else ""


def headline(record) -> str:
    row = record.row
    column = row.get("primary_metric") or ""
    if row["stage"] == "tune":  # a trial of a search shows nothing of the test set
        column = validation_column(column)
    score = row.get(column)
    shown = "" if score is None else f"  {column.replace('_', ' ')} {score:.4g}"
    name = f"{row['variant']} {row['dataset']} seed {row['seed']}"
    return f"{name}  {record.status}{shown}  {record.run_id}"
