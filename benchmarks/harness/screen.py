"""Screen output of a run: progress, durations, failures."""

import math
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from benchmarks.harness import scheduler, store


def wrapped(text: str, indent: str) -> None:
    """Prints a paragraph without breaking names at hyphens."""
    typer.echo(
        textwrap.fill(
            text,
            shutil.get_terminal_size().columns,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def plural(number: int, what: str) -> str:
    """Number and noun.

    >>> plural(1, "seed"), plural(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{number} {what}{'s' * (number != 1)}"


def report_failures(console: Console, outcome: scheduler.Outcome) -> None:
    """Prints the failed jobs, grouped by the reason of their failure."""
    reasons: dict[str, list[str]] = {}
    for failure in sorted(outcome.failures, key=lambda failure: failure.job.seed):
        reasons.setdefault(failure.reason, []).append(str(failure.job))
    for reason, jobs in reasons.items():
        console.print(f"\nFailed: {'; '.join(jobs)}", style="bold red", markup=False)
        console.print(reason.rstrip(), markup=False, highlight=False)


@contextmanager
def progress(console: Console, total: int) -> Iterator[scheduler.Report]:
    """Shows a progress bar on a terminal; anywhere else, prints a line per result."""
    if console.quiet:
        yield lambda outcome, news: None
        return
    if not total or not console.is_terminal:
        yield lambda outcome, news: _say(outcome, news, total)
        return
    from rich import progress as bars

    columns = (
        bars.BarColumn(20),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[left]}"),
        bars.TextColumn("[dim]{task.description}"),
    )
    with bars.Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=total, left="")

        def show(outcome: scheduler.Outcome, news: Any) -> None:
            jobs = [f"{job.experiment.row} {job.seed}" for job in outcome.running]
            bar.update(
                task,
                completed=outcome.ended,
                left=_left(outcome),
                description=", ".join(jobs),
            )

        yield show


def _say(
    outcome: scheduler.Outcome,
    news: store.Record | scheduler.Failure | None,
    total: int,
) -> None:
    """Prints a new result or failure on a line."""
    if news is None:
        return
    if isinstance(news, store.Record):
        what = f"{news.row} on {news.population}, seed {news.seed}"
        how = f"{news.seconds:.1f} s"
    else:
        what, how = str(news.job), "failed"
    left = f", {_left(outcome)}" if outcome.ended < total and _left(outcome) else ""
    typer.echo(f"{outcome.ended}/{total} {what}: {how}{left}", err=True)


def _left(outcome: scheduler.Outcome) -> str:
    seconds = outcome.seconds_left
    return "" if math.isnan(seconds) else f"{about(seconds)} left"


def about(seconds: float) -> str:
    """A rough duration.

    >>> about(7), about(95), about(5000), about(10_000)
    ('about 10 s', 'about 2 min', 'about 84 min', 'about 2.8 h')
    """
    if seconds < 90:
        return f"about {max(math.ceil(seconds / 10) * 10, 10)} s"
    if seconds < 5400:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
