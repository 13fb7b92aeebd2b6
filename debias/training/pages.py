"""Results as one self-contained HTML page; the diagnosis shares its looks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from debias.data.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

MARK = b'<meta name="generator" content="debias">'
WIDTHS = {"wide": 760, "narrow": 350}  # pixels: a drawing for laptops, one for phones


class Figure(NamedTuple):
    """A drawing of a page.

    Attributes:
        title: Its heading.
        about: What it shows, in a sentence, which a screen reader reads in its place.
        drawings: Pairs of a name of `WIDTHS` and inline SVG of that width.
        legend: The CSS variable of each label's colour.
    """

    title: str
    about: str
    drawings: Sequence[tuple[str, str]]
    legend: Mapping[str, str]


def environment(package: str = "debias.training") -> "Environment":
    """Templates of a package over those of this one; all values are escaped."""
    import jinja2

    loaders = [jinja2.PackageLoader(each) for each in (package, "debias.training")]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def page(
    title: str,
    headline: str,
    words: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    figures: Sequence[Figure] = (),
) -> str:
    """One HTML page: no script, no font, nothing from a network.

    Args:
        title: What it is of, such as the name of a log.
        headline: What was found, in a sentence.
        words: Further sentences, a paragraph each.
        sections: Titles, and rows with the same keys.
        figures: They stand before the tables.

    >>> made = page("a.csv", "naive", [], [("Passes", [{"loss": 0.5}])])
    >>> "<h2>Passes</h2>" in made and "<td>0.5</td>" in made
    True
    """
    made = environment()
    made.filters |= {"text": text, "head": lambda name: printable(head(name))}
    return made.get_template("results.html").render(
        title=printable(title),
        headline=printable(headline),
        words=[printable(each) for each in words],
        sections=[(printable(name), rows) for name, rows in sections],
        figures=figures,
    )


def text(value: Any) -> str:
    """A value in a cell: five digits, and nothing for None.

    >>> text(0.123456), text(None), text(3)
    ('0.12346', '', '3')
    """
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else printable(str(value))


def head(name: str) -> str:
    """What a column is called.

    >>> head("log_likelihood")
    'log likelihood'
    """
    return name.replace("_", " ")
