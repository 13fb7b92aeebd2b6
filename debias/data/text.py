"""Text from input files as messages quote it, and suggestions of names."""

import reprlib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_NAMED = 30  # names that a message lists


def printable(text: str, kept: str = "") -> str:
    r"""The text with all that could rule a terminal escaped, but what is in `kept`.

    Control characters, ANSI escapes, marks that turn the direction of text and lone
    surrogates stand as in a literal of Python; so do line breaks, unless kept.

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
    """A value as a message gives it: a literal that is not too long.

    >>> quoted("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return printable(short.repr(value))


def near(name: str, names: Sequence[str]) -> str:
    """Which of `names` somebody who wrote `name` may have meant, as half a sentence.

    >>> near("qurey", ["query", "item"])
    'did you mean query? There are query item'
    """
    close = get_close_matches(name, names, n=2, cutoff=0.5)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    there = " ".join(names[:_NAMED]) or "no columns"
    return printable(f"{meant}{'There' if meant else 'there'} are {there}{more}")
