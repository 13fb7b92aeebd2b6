"""Results that print as tables in a terminal and as HTML in a notebook."""

from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from debias.data.files import atomic_write
from debias.data.text import printable
from debias.training.pages import Figure, head, page, text

Section = tuple[str, Sequence[dict[str, Any]]]  # a title, and rows with the same keys
SHORT = 24  # letters of a name that tables do not break


class Printed:
    """Base class of results; subclasses define `sections` and `words`."""

    def sections(self) -> Iterator[Section]:
        """Titles and rows of the tables."""
        raise NotImplementedError

    def words(self) -> str:
        """One or two sentences on the result."""
        return ""

    def parts(self) -> tuple[list[Section], list[Figure]]:
        """Tables and figures of the page; subclasses may add more."""
        return list(self.sections()), []

    def report(self, path: str | Path, title: str = "") -> None:
        """Writes the result atomically as a self-contained HTML page."""
        sections, figures = self.parts()
        words = [self.words()]
        made = page(title or "debias", type(self).__name__, words, sections, figures)
        with atomic_write(path) as aside:
            aside.write_text(made, encoding="utf-8")

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        for title, rows in self.sections():
            yield from tables(title, rows, console)
        if words := self.words():
            from rich.text import Text

            yield Text(words)

    def __str__(self) -> str:
        from rich.console import Console

        out = StringIO()
        Console(file=out, width=100).print(self)
        return out.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        from html import escape

        parts = []
        for title, rows in self.sections():
            names = rows[0] if rows else ()
            heads = "".join(f"<th>{escape(head(n))}</th>" for n in names)
            body = "".join(
                "<tr>"
                + "".join(f"<td>{escape(text(v))}</td>" for v in row.values())
                + "</tr>"
                for row in rows
            )
            parts.append(
                f"<table><caption>{escape(title)}</caption>"
                f"<tr>{heads}</tr>{body}</table>"
            )
        return "".join(parts) + f"<p>{escape(self.words())}</p>"


def tables(title: str, rows: Sequence[dict[str, Any]], console: Any) -> Iterator[Any]:
    """Formats rows as tables that fit the console.

    A single row that is wider than the screen is printed as one line per column, with
    name and value. Several rows are printed in this form if the screen is too narrow
    for their numbers.
    """
    made, wide = table(title, rows), console.options.update(width=1_000)
    if len(rows) == 1:
        most = console.measure(made, options=wide).maximum
    else:  # long words, such as paths, are folded
        folded = [
            {k: v[:SHORT] if isinstance(v, str) else v for k, v in row.items()}
            for row in rows
        ]
        most = console.measure(table(title, folded), options=wide).minimum
    if most <= console.width:
        yield made
        return
    for row in rows:
        yield table(title, [{"what": k, "value": v} for k, v in row.items()])


def table(title: str, rows: Sequence[dict[str, Any]]) -> Any:
    """Formats rows with equal keys as a `rich` table with right-aligned numbers.

    >>> table("Clicks", [{"metric": "ndcg", "value": 0.5}]).row_count
    1
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE)
    for name, value in (rows[0] if rows else {}).items():
        named = isinstance(value, str)
        words = [*(text(row[name]) for row in rows), *head(name).split()]
        made.add_column(
            Text(printable(head(name))),
            justify="left" if named else "right",
            overflow="fold",  # a truncated id identifies nothing
            # In a narrow table, headings are broken before names. Numbers are never
            # broken.
            no_wrap=named and all(_short(row[name]) for row in rows),
            min_width=None if named else min(max(map(len, words)), SHORT),
        )
    for row in rows:
        made.add_row(*(Text(text(value)) for value in row.values()))
    return made


def _short(value: Any) -> bool:
    """Whether a value is a single short word."""
    return len(text(value)) <= SHORT and " " not in text(value)
