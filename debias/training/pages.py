"""Results as a self-contained HTML page, in the style of `debias diagnose`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from debias.data.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MARK = b'<meta name="generator" content="debias">'
SMALLEST = 5e-5  # smallest value that four decimals show
WIDTHS = {"wide": 760, "narrow": 350}  # pixels, for laptops and for phones
EXPLAINED = {  # names that a table may show, with or without a cutoff such as @10
    "log_likelihood": "Mean log-probability of the held-out clicks of a session, in "
    "nats. Higher is better.",
    "log_likelihood_per_item": "Mean log-probability of whether an item is clicked, in "
    "nats. Higher is better.",
    "log_likelihood_per_session": "Mean log-probability of the clicks of a session, "
    "summed over its items, in nats. Higher is better.",
    "perplexity": "1: certain and correct predictions. 2: no better than a coin toss.",
    "click_mrr": "Mean of 1 / rank of the first clicked item, if the model orders the "
    "shown items. It has the position bias of the clicks.",
    "predicted": "Mean click probability that the model predicts at this position. "
    "For a calibrated model, it is close to the click rate.",
    "pairs_in_order": "Share of comparable pairs of held-out clicks that the model "
    "puts in order. Both items of a pair were at the same place for the same query.",
    "sessions_trained_on": "Number of training sessions of the candidate.",
    "above_naive": "Difference from `softmax_naive` in pairs in order. The next "
    "column has its standard error.",
    "ndcg": "Discounted gain by relevance grades, divided by the gain of the ideal "
    "ranking.",
    "mrr": "Mean of 1 / rank of the first relevant item, by grades.",
    "loss": "Mean training loss of a pass.",
    "effective": "Effective sample size, in unweighted sessions.",
    "unsupported": "Share of the new ranking that the log does not show.",
}


class Figure(NamedTuple):
    """A figure of a page.

    Attributes:
        title: Heading of the figure.
        about: A sentence that describes the figure, also for screen readers.
        drawings: Pairs of a key of `WIDTHS` and an inline SVG of this width.
        legend: CSS variable of each label's colour.
    """

    title: str
    about: str
    drawings: Sequence[tuple[str, str]]
    legend: Mapping[str, str]


def environment(package: str = "debias.training") -> "Environment":
    """Jinja environment for the templates of a package; it escapes all values."""
    import jinja2

    loaders = [jinja2.PackageLoader(each) for each in (package, "debias.training")]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["code"] = code
    return made


def page(
    title: str,
    headline: str,
    words: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    figures: Sequence[Figure] = (),
) -> str:
    """One HTML page without scripts, fonts or network access.

    Args:
        title: Title, such as the name of a log.
        headline: The main result in a sentence.
        words: Further paragraphs.
        sections: Tables, as pairs of a title and rows. All rows of a table have the
            same keys.
        figures: Figures, placed before the tables.

    >>> made = page("a.csv", "naive", [], [("Passes", [{"loss": 0.5}])])
    >>> "<h2>Passes</h2>" in made and "<td>0.5</td>" in made
    True
    """
    made = environment()
    made.filters |= {"text": text, "head": lambda name: printable(head(name))}
    tables = [rows for _, rows in sections]
    return made.get_template("results.html").render(
        explained=explained(tables),
        title=printable(title),
        headline=printable(headline),
        words=[printable(each) for each in words],
        sections=[(printable(name), rows) for name, rows in sections],
        figures=figures,
    )


def explained(tables: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Explanations of metrics whose names occur in headers or cells of tables.

    >>> explained([[{"metric": "ndcg@5", "value": 0.5}]])["ndcg"][:4]
    'Disc'
    """
    names = {
        word.partition("@")[0]
        for rows in tables
        for row in rows
        for word in (*row, *row.values())
        if isinstance(word, str)
    }
    return {name: means for name, means in EXPLAINED.items() if name in names}


def code(words: str) -> "Markup":
    """Converts a sentence to HTML, with `words` and --options as code.

    >>> str(code("try `a<b` (--rate)"))
    'try <code>a&lt;b</code> (<code>--rate</code>)'
    >>> str(code("`debias train --model auto`"))
    '<code>debias train --model auto</code>'
    """
    from markupsafe import Markup, escape

    found = r"`([^`]*)`|(?<![\w-])(--[a-z][\w-]*)"
    return Markup(re.sub(found, r"<code>\1\2</code>", str(escape(words))))


def text(value: Any) -> str:
    """Text of a cell: five significant digits, or four decimals below .1.

    >>> text(0.123456), text(0.00072841), text(2e-6), text(None), text(3)
    ('0.12346', '0.0007', '2e-06', '', '3')
    """
    if value is None:
        return ""
    if not isinstance(value, float):
        return printable(str(value))
    if 0 < abs(value) < 0.1:
        return f"{value:.4f}" if abs(value) >= SMALLEST else f"{value:.0e}"
    return f"{value:.5g}"


def head(name: str) -> str:
    """Header of a column, from its key.

    >>> head("log_likelihood")
    'log likelihood'
    """
    return name.replace("_", " ")
