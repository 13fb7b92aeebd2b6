"""Screen output of the commands: progress, tables, errors."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Annotated, Any

import typer

from debias.commands.start import INTERRUPTED

FAILED = 1
EARLY = 0.02  # share of work below which a remaining time would be a wild guess
EVERY = 10.0  # seconds between two lines of progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def _show_version(asked: bool) -> None:
    if asked:
        from debias import __version__

        say(f"debias {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
]


_quiet = ContextVar("quiet", default=False)
_urls = ContextVar[dict[str, str] | None]("urls", default=None)


@contextmanager
def naming_urls() -> Iterator[None]:
    """Context manager in which output shows a URL instead of its local copy."""
    token = _urls.set({})
    try:
        yield
    finally:
        _urls.reset(token)


def called(copy: Any, url: str) -> None:
    """Registers the URL that later output shows instead of a local copy."""
    urls = _urls.get()
    if urls is not None:
        urls[str(copy)] = url


def _renamed(value: Any) -> Any:
    if isinstance(value, str):
        for copy, url in (_urls.get() or {}).items():
            value = value.replace(copy, url)
    elif isinstance(value, dict):
        return {key: _renamed(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        return [_renamed(each) for each in value]
    return value


@contextmanager
def silenced(asked: bool) -> Iterator[None]:
    """Context manager that hides all output except errors and JSON, if `asked`."""
    token = _quiet.set(asked)
    try:
        yield
    finally:
        _quiet.reset(token)


def say(text: str, err: bool = False) -> None:
    """Prints lines of text, unless `silenced` is active; see `complain`."""
    if not _quiet.get():
        complain(text, err)


def complain(text: str, err: bool = True) -> None:
    """Prints lines of text, with control characters escaped."""
    from debias.data.text import printable  # loads NumPy, which --help does not need

    typer.echo(printable(_renamed(text), kept="\n\t"), err=err)


@contextmanager
def messages() -> Iterator[None]:
    """Context manager that prints user errors as messages without a traceback."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        complain(f"error: {error}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        complain(
            "interrupted; no output is incomplete. Give the same command again "
            "to resume"
        )
        raise typer.Exit(INTERRUPTED) from None


class Bar:
    """A progress bar with a label.

    The remaining time is computed from the mean speed since the start, because parts of
    the work differ in speed. The bar shows no remaining time until the share `EARLY` of
    the work is done.
    """

    def __init__(self, label: str, total: float, shown: Any = None):
        self._label, self._total, self._shown = label, total, shown
        self._done = 0.0
        self._begun = self._said = time.monotonic()
        self._task = shown and shown.add_task(label, total=total, left="")

    def __call__(self, step: float) -> None:
        self._done += step
        now, done = time.monotonic(), self._done
        left = (now - self._begun) * max(self._total - done, 0.0) / max(done, 1e-9)
        early = done < EARLY * self._total
        if self._shown:
            text = "" if early else f"{timedelta(seconds=round(left))} left"
            self._shown.update(self._task, completed=done, left=text)
        elif now - self._said >= EVERY and 0 < done < self._total:
            text = "" if early else f", {left:,.0f} s left"
            say(f"{self._label}: {done / self._total:.0%}{text}", err=True)
            self._said = now

    def rename(self, label: str) -> None:
        """Changes the label."""
        self._label = label
        if self._shown:
            self._shown.update(self._task, description=label)


@contextmanager
def bar(label: str, total: float, unit: str = "") -> Iterator[Bar]:
    """Context manager for a progress bar with the remaining time, on standard error.

    If standard error is not a terminal, a line every `EVERY` seconds replaces the bar.
    """
    if not sys.stderr.isatty():
        yield Bar(label, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        disable=_quiet.get(),
        transient=True,
    ) as progress:
        yield Bar(label, total, progress)


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Context manager that shows a label and the elapsed time on a terminal.

    Use this context manager for work of unknown length. Do not print to standard output
    inside the context: the text would appear on standard error.
    """
    if _quiet.get() or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(label, total=None)
        yield


@contextmanager
def loading() -> Iterator[None]:
    """Context manager that shows on a terminal that TensorFlow is being loaded."""
    if _quiet.get() or not sys.stderr.isatty():
        yield
        return
    typer.echo("loading TensorFlow ...", err=True, nl=False)
    try:
        yield
    finally:
        typer.echo("\r\x1b[K", err=True, nl=False)


@contextmanager
def share_bar(label: str) -> Iterator[Callable[[float], None]]:
    """Context manager for a progress bar that receives the completed share of work."""
    with bar(label, 1.0) as advance:
        done = 0.0

        def to(share: float) -> None:
            nonlocal done
            advance(share - done)
            done = share

        yield to


def print_json(record: Any) -> None:
    """Prints a record as one JSON document on standard output."""
    typer.echo(json.dumps(_renamed(record), indent=1, default=_plain))


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows as a table, or as lines on a narrow screen.

    All rows must have the same keys. Numbers are right-aligned with five digits; see
    `debias.training.results.tables`.
    """
    if _quiet.get():
        return
    from rich.console import Console

    from debias.training.results import tables

    console = Console(markup=False, highlight=False, emoji=False)
    for made in tables(title, _renamed(rows), console):
        console.print(made)


def print_result(result: Any) -> None:
    """Prints a result of the library: tables, then text."""
    if _quiet.get():
        return
    from rich.console import Console

    Console(markup=False, highlight=False, emoji=False).print(result)


def _plain(value: Any) -> Any:
    """Converts NumPy numbers to Python numbers."""
    return value.tolist()
