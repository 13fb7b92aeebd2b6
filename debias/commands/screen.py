"""What the commands share of the screen: progress, tables, errors."""

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
    """Has what is printed within name a URL where `called` says so."""
    token = _urls.set({})
    try:
        yield
    finally:
        _urls.reset(token)


def called(copy: Any, url: str) -> None:
    """From now on, what is printed names the URL in place of its copy on disk."""
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
    """Prints nothing within, if so asked, but errors and JSON."""
    token = _quiet.set(asked)
    try:
        yield
    finally:
        _quiet.reset(token)


def say(text: str, err: bool = False) -> None:
    """Prints lines of text, unless silenced; see `complain`."""
    if not _quiet.get():
        complain(text, err)


def complain(text: str, err: bool = True) -> None:
    """Prints lines of text; what they quote from files cannot rule the terminal."""
    from debias.data.text import printable  # loads NumPy, which a help does not need

    typer.echo(printable(_renamed(text), kept="\n\t"), err=err)


@contextmanager
def messages() -> Iterator[None]:
    """What the user can put right is a message without a traceback."""
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
    """Moves a progress bar on, and names what is at work.

    The time left is that at the mean speed since the start, for parts of the work, such
    as the candidates of a choice, differ in speed.
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
        if self._shown:
            text = f"{timedelta(seconds=round(left))} left"
            self._shown.update(self._task, completed=done, left=text)
        elif now - self._said >= EVERY and 0 < done < self._total:
            share = done / self._total
            say(f"{self._label}: {share:.0%}, {left:,.0f} s left", err=True)
            self._said = now

    def rename(self, label: str) -> None:
        """Shows another label from now on."""
        self._label = label
        if self._shown:
            self._shown.update(self._task, description=label)


@contextmanager
def bar(label: str, total: float, unit: str = "") -> Iterator[Bar]:
    """A bar with the time left on standard error; yields what moves it on.

    Where standard error is no screen, a line each `EVERY` seconds says the same.
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
def share_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar of the share of the work that is done."""
    with bar(label, 1.0) as advance:
        done = 0.0

        def to(share: float) -> None:
            nonlocal done
            advance(share - done)
            done = share

        yield to


def print_json(record: Any) -> None:
    """A record on standard output, one document."""
    typer.echo(json.dumps(_renamed(record), indent=1, default=_plain))


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Rows with the same keys as a table, or a table each where the screen is narrow.

    Numbers stand to the right, in five digits; see `debias.training.results.tables`.
    """
    if _quiet.get():
        return
    from rich.console import Console

    from debias.training.results import tables

    console = Console(markup=False, highlight=False, emoji=False)
    for made in tables(title, _renamed(rows), console):
        console.print(made)


def print_result(result: Any) -> None:
    """A result of the library as it prints itself: tables, then words."""
    if _quiet.get():
        return
    from rich.console import Console

    Console(markup=False, highlight=False, emoji=False).print(result)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.tolist()
