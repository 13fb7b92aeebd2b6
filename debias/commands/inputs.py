"""How the commands are told what log to read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from debias.data import ClickLog, RankingData
    from debias.data.read_log import Reading
    from debias.data.stream import Stream
    from debias.data.summary import Summary

Log = Annotated[
    str,
    typer.Argument(
        help="Parquet, CSV or JSON lines: a file, a folder or a glob; one row a shown "
        "item or one row a session. Or a log that this library wrote."
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "-c",
        help="PART=NAME, which column plays which part, such as item=doc_id or "
        "features='f_*'; may be repeated. Parts: session query item click position row "
        "column features label timestamp user device context propensity.",
    ),
]
Items = Annotated[
    str | None,
    typer.Option(help="Table of items with their features, joined by item and query."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Ranking data that a log of this library refers to: Parquet or LETOR."
    ),
]
ListSize = Annotated[
    int | None, typer.Option(min=1, help="Positions to keep, the first ones.")
]
FirstPosition = Annotated[
    int, typer.Option(help="What the log calls the first position.")
]
FirstFeatures = Annotated[
    bool,
    typer.Option(
        "--first-features", help="Keep the first of an item's differing features."
    ),
]

HELD = 0.5  # GB; the commands hold a log up to about four times
Memory = Annotated[
    float,
    typer.Option(
        min=0,
        help="A log of this library that takes more GB is streamed and never held.",
    ),
]


class Source(NamedTuple):
    """A log and how to read it; as JSON values, it says what a model was trained on."""

    log: str
    column: list[str]
    items: str | None
    data: str | None
    list_size: int | None
    first_position: int
    first_features: bool

    @classmethod
    def of(
        cls,
        log: str,
        column: Sequence[str] | None,
        items: str | None,
        data: Path | None,
        list_size: int | None,
        first_position: int,
        first_features: bool,
    ) -> "Source":
        """A source with whole paths, which mean the same from another folder."""
        return cls(
            str(Path(log).absolute()),
            list(column or ()),
            None if items is None else str(Path(items).absolute()),
            None if data is None else str(data.absolute()),
            list_size,
            first_position,
            first_features,
        )

    def record(self) -> dict[str, Any]:
        return self._asdict()


class Opened(NamedTuple):
    """A log and what belongs to it.

    Attributes:
        log: Its sessions, in memory or on disk.
        data: Its ranking data; None where there are no features.
        devices: Names of devices 1, 2 and so on.
    """

    log: "ClickLog | Stream"
    data: "RankingData | None"
    devices: Sequence[str] = ()


def opened(
    source: Source,
    memory: float,
    devices: Sequence[str] | None = None,
    needs_data: bool = True,
) -> Opened:
    """Reads the log, or leaves it on disk if it takes more than `memory` GB.

    Only a log of this library is left there; see `read` for the other arguments.

    Raises:
        ValueError: As `read` does.
    """
    log = stream(source, memory)
    if log is None:
        reading = read(source, devices, needs_data)
        return Opened(reading.log, reading.data, reading.devices)
    if source.data is None and not needs_data:
        return Opened(log, None)
    data = data_of(source)
    return Opened(replace(log, items=data.items), data)


def stream(source: Source, memory: float) -> "Stream | None":
    """The log, if it is this library's and takes more than so many GB; else None."""
    from debias.data.log import COLUMNS, TRUTH
    from debias.data.stream import Stream

    if not is_own(source):
        return None
    found = Stream(source.log)
    _check_list_size(source, found.list_size)
    names = found.groups[0][0].schema.names
    kept = tuple(name for name in COLUMNS if name in names and name not in TRUTH)
    found = replace(found, columns=kept)
    first = next(found.group(0))
    bytes_each = sum(v.nbytes for v in first.columns().values()) / len(first)
    return found if found.total * bytes_each > memory * 1e9 else None


def read(
    source: Source, devices: Sequence[str] | None = None, needs_data: bool = True
) -> "Reading":
    """Reads the log with a bar on the screen.

    Args:
        source: What and how.
        devices: Names of devices that a model knows; None for those of the log.
        needs_data: Whether a log without features is an error.

    Raises:
        ValueError: As the readers do; or there are no features.
    """
    import pyarrow as pa

    from debias.commands.screen import share_bar
    from debias.data.read_log import Columns, read_log

    own = is_own(source)
    if source.data is not None and not own:
        raise ValueError(
            f"{source.log}: --data goes with a log of item numbers that this library "
            "wrote; give the features of your own with --items or -c features=NAME"
        )
    with share_bar("reading") as progress:
        if own:
            reading = _read_own(source)
        else:
            reading = read_log(
                source.log,
                Columns.of(source.column),
                source.items,
                list_size=source.list_size,
                first_position=source.first_position,
                first_features=source.first_features,
                devices=devices,
                progress=progress,
            )
    pa.default_memory_pool().release_unused()  # what the parser holds for another file
    if needs_data and reading.data is None:
        raise ValueError(
            f"{source.log}: has no features, say where they are: "
            + (
                "--data FILE"
                if own
                else "-c features=NAME, of the log or of a table --items FILE"
            )
        )
    return reading


def check_usable(summary: "Summary", name: str) -> None:
    """Does nothing if there is anything to be learned from the clicks.

    Raises:
        ValueError: The log called `name` has no click, or one position.
    """
    if summary.problems:
        problems = "; ".join(summary.problems)
        raise ValueError(f"{name}: cannot be learned from: {problems}")


def data_of(source: Source) -> "RankingData":
    """The ranking data that a log of this library refers to.

    Raises:
        ValueError: The source names none.
    """
    if source.data is None:
        raise ValueError(
            f"{source.log}: has no features, say where they are: --data FILE"
        )
    found: RankingData = ranking_data(Path(source.data))
    return found


def is_own(source: Source) -> bool:
    """Whether the log is Parquet of item numbers, as `ClickLog.write` leaves it."""
    import pyarrow as pa

    from debias.data.log import COLUMNS
    from debias.data.tables import open_parts

    if source.column or source.items is not None:
        return False
    schema = open_parts(source.log)[0].schema
    if not {"query", "item", "click"} <= set(schema.names) <= set(COLUMNS):
        return False
    item = schema.field("item").type
    numbers = hasattr(item, "value_type") and pa.types.is_integer(item.value_type)
    return numbers and pa.types.is_integer(schema.field("query").type)


def _read_own(source: Source) -> "Reading":
    import numpy as np

    from debias.data import ClickLog
    from debias.data.log import TRUTH
    from debias.data.log_files import shards
    from debias.data.read_log import Reading

    names = shards(source.log)[0].schema.names
    wanted = [name for name in names if name not in TRUTH]
    log = ClickLog.open(source.log, wanted)
    _check_list_size(source, log.list_size)
    data = None if source.data is None else ranking_data(Path(source.data))
    if data is not None:
        log.check(data.items)
    items = np.arange(int(log.item.max()) + 1 if data is None else data.items)
    return Reading(log, data, items, None if data is None else data.qid)


def _check_list_size(source: Source, list_size: int) -> None:
    if source.list_size is not None and source.list_size < list_size:
        raise ValueError("--list-size goes with a log of your own")


def ranking_data(path: Path) -> Any:
    """Ranking data from Parquet or, by any other name, LETOR."""
    from debias.data import RankingData, read_letor

    if path.suffix in (".parquet", ".pq"):
        return RankingData.read_parquet(path)
    return read_letor(path)
