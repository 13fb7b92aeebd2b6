"""Quotes input safely in messages, and suggests similar names."""

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

_NAMED = 30  # most names that a message lists
_OFTEN = {  # parts of names that columns of a role often have, the likeliest first
    "session": ("session", "visit", "search_id", "request"),
    "query": ("query", "term", "keyword", "search"),
    "item": ("item", "sku", "product", "article", "doc"),
    "click": ("click",),
    "position": ("position", "rank", "slot"),
    "event": ("event", "action", "type"),
    "user": ("user", "customer", "shopper", "visitor", "client"),
    "time": ("time", "date", "_at"),
    "timestamp": ("time", "date", "_at"),
}


def printable(text: str, kept: str = "") -> str:
    r"""Escapes the characters of a text that could control a terminal, except `kept`.

    Control characters, ANSI escapes, direction marks and lone surrogates are written as
    in Python literals. Line breaks are escaped too, unless `kept` contains them.

    >>> print(printable("\x1b[31mred \udcff \u202e é"))
    \x1b[31mred \udcff \u202e é
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode()
        for c in text
    )


def quoted(value: Any) -> str:
    """Formats a value as a shortened Python literal for messages.

    >>> quoted("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    >>> quoted(np.int64(7))
    '7'
    """
    if isinstance(value, np.generic):
        value = value.item()
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return printable(short.repr(value))


def near(name: str, names: Sequence[str]) -> str:
    """Suggests the names most similar to `name`, for the end of an error message.

    >>> near("qurey", ["query", "item"])
    'did you mean query? There are query item'
    >>> near("item", ["time", "sku"])
    'did you mean sku? There are time sku'
    """
    meant = _meant(name, names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    there = " ".join(names[:_NAMED]) or "no columns"
    return printable(f"{meant}{'There' if meant else 'there'} are {there}{more}")


def one_of(what: str, names: Iterable[str], given: Any) -> str:
    """Error message that `given` is not among `names`, with the most similar names.

    >>> one_of("--model", ["additive", "product"], "producs")
    "--model must be one of additive product, got 'producs': did you mean product?"
    >>> one_of("format", ["csv", "letor"], None)
    'format must be one of csv letor, got None'
    """
    known = list(names)
    meant = _meant(str(given), known).strip()
    advice = f": {meant}" if meant else ""
    return f"{what} must be one of {' '.join(known)}, got {quoted(given)}{advice}"


def role_and_column(text: str, roles: Sequence[str]) -> tuple[str, str]:
    """Splits a text ROLE=COLUMN.

    Raises:
        ValueError: The text does not have this form, or the role is unknown.

    >>> role_and_column("item=", ["item", "click"])
    ('item', '')
    """
    role, equals, column = text.partition("=")
    if not equals or role not in roles:
        advice = f"write {role}=NAME" if role in roles else near(role, roles)
        raise ValueError(f"{quoted(text)} is not ROLE=COLUMN: {advice}")
    return role, column


def _meant(name: str, names: Sequence[str]) -> str:
    """Suggests up to two names similar to `name`; empty if there are none."""
    often = [n for part in _OFTEN.get(name, ()) for n in names if part in n.lower()]
    close = list(dict.fromkeys(often))[:2]
    close = close or get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(close)}? " if close else ""
