"""Helpers of the commands: reading propensities, and checking output paths."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs
from debias.commands.screen import say, waiting

if TYPE_CHECKING:
    from debias.data import ClickLog
    from debias.propensity.places import Propensities

ALL = float("inf")  # GB: the log stays in memory, because every pair is judged

Given = Annotated[
    str,
    typer.Option(
        "--propensities",
        help="File that `debias propensities` wrote, or the name of an estimator, "
        "such as auto, pbm_conditional or adjacent_chain.",
    ),
]
By = Annotated[
    str,
    typer.Option(
        help="Columns, separated by commas, such as device,badge. Each combination of "
        "values in these columns has its own examination curve."
    ),
]


def opened(
    source: inputs.Source, by_pair: bool = True
) -> tuple["ClickLog", inputs.Opened]:
    """Opens the log in memory, with its ranking data.

    Args:
        source: Path of the log, and the options for reading it.
        by_pair: Whether to treat a (query, item) pair as one item even if its features
            change between sessions.

    Raises:
        ValueError: The log cannot be read, has no clicks, or has only one position.
    """
    from debias.data import ClickLog
    from debias.data.summary import summarize

    given = inputs.look(source, ALL).open(needs_data=False)
    given = given.by_pair() if by_pair else given
    assert isinstance(given.log, ClickLog)
    inputs.check_usable(summarize(given.log), source.log)
    return given.log, given


def listed(by: str) -> list[str]:
    """Splits names separated by commas."""
    return [name.strip() for name in by.split(",") if name.strip()]


def names_of(given: inputs.Opened) -> Mapping[str, Sequence[str]]:
    """Dict from each coded column to the labels of its codes."""
    names = {"device": given.devices} if given.devices else {}
    if given.reading is not None:
        names |= {n: each.labels for n, each in given.reading.scales.items()}
    return names


def source_names(given: inputs.Opened) -> tuple[Any, Any]:
    """Original ids of items and queries; None if only their indices are known."""
    if given.reading is not None:
        return given.reading.items, given.reading.queries
    data = given.data
    return (None, None) if data is None else (data.item_id, data.qid)


def found_or_read(
    asked: str, log: "ClickLog", given: inputs.Opened, by: str = ""
) -> "Propensities":
    """Reads propensities from a file, or estimates them with a named estimator.

    Raises:
        ValueError: `asked` is neither a file nor the name of an estimator, or `asked`
            is a file and `by` is set.
    """
    from debias.data.text import near, quoted
    from debias.propensity import ESTIMATORS, propensities, read_propensities

    if asked == "auto" or asked in ESTIMATORS:
        features = None if given.data is None else given.data.dense()
        with waiting("estimating examination"):
            found = propensities(
                log, asked, by=listed(by), names=names_of(given), features=features
            )
        for note in found.notes:
            say(f"note: {note}", err=True)
        return found
    if not Path(asked).exists():
        raise ValueError(
            f"--propensities must be a file or an estimator, got {quoted(asked)}: "
            f"{near(asked, ['auto', *ESTIMATORS])}"
        )
    if by:
        raise ValueError("--by needs an estimator; a file has its own columns")
    return read_propensities(asked)


def say_left_out(share: float) -> None:
    """Prints the share of unused impressions, unless it is 0."""
    if share:
        say(
            f"note: {share:.1%} of the impressions are at ranks with unknown "
            "examination and are left out"
        )


def check_free(out: Path, force: bool) -> None:
    """Checks that the file may be written, before any work begins.

    Raises:
        ValueError: The file exists and `force` is not set, or its folder is read-only.
    """
    if out.exists() and not force:
        raise ValueError(f"{out}: exists; --force replaces it, or choose another name")
    check_writable(out)


def check_unfilled(out: Path, force: bool) -> None:
    """Like `check_free`, for commands whose --force does not replace a folder.

    Raises:
        ValueError: `check_free` fails, or the path is a folder with files.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"{out}: is a folder with files, which --force does not replace: remove "
            "it, or choose another name"
        )
    check_free(out, force)


def check_writable(out: Path) -> None:
    """Raises ValueError if the folder of a file is read-only.

    If the folder does not exist, the nearest existing folder above it is checked.
    """
    folder = next(each for each in out.absolute().parents if each.exists())
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{out}: {folder} cannot be written: choose another folder")
