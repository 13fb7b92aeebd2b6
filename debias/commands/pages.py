"""HTML pages that training and evaluation write for the option `--report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from debias.commands.places import check_free
from debias.commands.screen import say

Report = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Also write an HTML page to this path, such as page.html."
    ),
]


def check(path: Path | None, force: bool) -> None:
    """Checks that the path is free, or holds a page that this library wrote.

    Raises:
        ValueError: The path holds another file and `force` is not set, or the name does
            not end with .html.
    """
    from debias.training.pages import MARK

    if path is None:
        return
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"--report {path}: the name must end with .html")
    if not path.is_file() or MARK not in path.read_bytes()[:1000]:
        check_free(path, force)


def write(path: Path, *content: Any) -> None:
    """Writes an HTML page from the arguments of `debias.training.pages.page`."""
    from debias.data.files import atomic_write
    from debias.training.pages import page

    with atomic_write(path) as aside:
        aside.write_text(page(*content), encoding="utf-8")
    say(f"page written to {path}", err=True)
