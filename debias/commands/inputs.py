"""Options that the commands share, and functions that read their logs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.commands.mirror import local
from debias.commands.screen import messages, naming_urls, say, share_bar, silenced

if TYPE_CHECKING:
    from debias.data import ClickLog, RankingData
    from debias.data.presentation import Scales
    from debias.data.read_log import Reading
    from debias.data.stream import Stream
    from debias.data.summary import Summary
    from debias.types import Over

Log = Annotated[
    str,
    typer.Argument(
        help="Click log in Parquet, CSV or JSON lines, with one row per shown item or "
        "per session. Give a file, a folder, a glob, or an s3:// or gs:// URL. Logs "
        "that this library wrote are also accepted."
    ),
]
_reading = partial(typer.Option, rich_help_panel="How the log is read")
Column = Annotated[
    list[str] | None,
    _reading(
        "--column",
        "-c",
        help="Column for a role, as ROLE=COLUMN, such as item=doc_id or "
        "features='f_*'; may be repeated. Roles: session query item click "
        "position row column features categories numbers label timestamp user "
        "device context propensity presentation target.",
    ),
]
Items = Annotated[
    str | None,
    _reading(
        help="Table with the features of the items. The table is joined to the log by "
        "item, or by query and item if the table has a query column.",
    ),
]
Data = Annotated[
    Path | None,
    _reading(
        help="Features of the items (Parquet, LETOR or ELWC), for a log that this "
        "library wrote."
    ),
]
ListSize = Annotated[
    int | None,
    _reading(
        min=1, help="Number of positions to keep in each list, counted from the top."
    ),
]
FirstPosition = Annotated[
    int,
    _reading(help="Number of the first position in the log, usually 0 or 1."),
]
FirstFeatures = Annotated[
    bool,
    _reading(
        "--first-features",
        help="Use each item's features from its first session, even if they differ in "
        "later sessions.",
    ),
]

HELD = 0.5  # GB; commands use up to about four times the size of the log
Memory = Annotated[
    float,
    _reading(
        min=0,
        help="Largest size of the log in memory, in GB. A larger log is streamed from "
        "disk if this library wrote it.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Dask cluster that shares the work: tcp://HOST:PORT of a scheduler, or "
        "local:N for N processes on this machine. This option needs the extra "
        "`cluster`.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output.")]


_QUIET = inspect.Parameter(
    "quiet",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only errors, and JSON if requested."),
    ],
)


def options(**makers: Callable[..., Any]) -> Callable[[Callable[..., None]], Any]:
    """Decorator that expands arguments of a command into command-line options.

    For example, `options(source=Source.of)` decorates a command with an argument
    `source`. The command line then has all options of `Source.of`, and `source` is the
    result of `Source.of`. Errors that the user can correct are printed as messages
    without a traceback. Every command has the option `--quiet`.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        groups = {
            name: list(inspect.signature(maker, eval_str=True).parameters.values())
            for name, maker in makers.items()
        }
        given = [each for p in own for each in groups.get(p.name, [p])]
        # Arguments without a default come first, as in any signature.
        given = [p.replace(kind=p.KEYWORD_ONLY) for p in [*given, _QUIET]]

        def called(**values: Any) -> None:
            quiet = silenced(values.pop("quiet"))
            with quiet, naming_urls(), messages(), local(values) as values:
                made = {
                    name: makers[name](**{p.name: values.pop(p.name) for p in group})
                    for name, group in groups.items()
                }
                command(**values, **made)

        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__module__ = command.__module__
        called.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in given}
        return called

    return decorated


class Source(NamedTuple):
    """Path of a log, and the options for reading it.

    `debias train` stores these options as JSON in its folder.
    """

    log: str
    column: list[str]
    items: str | None
    data: str | None
    list_size: int | None
    first_position: int
    first_features: bool

    @staticmethod
    def of(
        log: Log,
        column: Column = None,
        items: Items = None,
        data: Data = None,
        list_size: ListSize = None,
        first_position: FirstPosition = 1,
        first_features: FirstFeatures = False,
    ) -> "Source":
        """Makes a source with absolute paths."""
        from debias.data.stores import whole_path

        return Source(
            whole_path(log),
            list(column or ()),
            None if items is None else whole_path(items),
            None if data is None else str(data.absolute()),
            list_size,
            first_position,
            first_features,
        )

    def as_trained(self, asked: Mapping[str, Any]) -> "Source":
        """Replaces missing options by the options used in training.

        Args:
            asked: Options used in training, as `how` returns them.

        >>> asked = {"column": ["query=q", "item=doc"], "list_size": 5}
        >>> given = Source("a.csv", ["item=sku"], None, None, None, 1, False)
        >>> given.as_trained({**asked, "first_features": False})[1:5:3]
        (['query=q', 'item=sku'], 5)
        """
        given = {text.partition("=")[0] for text in self.column}
        kept = [t for t in asked["column"] if t.partition("=")[0] not in given]
        column = [*kept, *self.column]
        if sorted(column) == sorted(asked["column"]):
            column = asked["column"]  # in another column order
        return self._replace(
            column=column,
            list_size=self.list_size or asked["list_size"],
            first_features=self.first_features or asked["first_features"],
        )

    def options(self) -> list[str]:
        """The options for reading the log, written as command-line options."""
        found = [f"-c {text}" for text in self.column]
        if self.list_size is not None:
            found.append(f"--list-size {self.list_size}")
        return [*found, "--first-features"] if self.first_features else found

    def how(self) -> dict[str, Any]:
        """The options for reading the log, without paths."""
        paths = ("log", "items", "data")
        return {k: v for k, v in self._asdict().items() if k not in paths}

    def contents(self) -> dict[str, str]:
        """Fingerprints of the files, which are equal for equal contents."""
        from debias.data import fingerprint

        paths = {"log": self.log, "items": self.items, "data": self.data}
        return {k: fingerprint(v) for k, v in paths.items() if v is not None}


def name_of(path: str) -> str:
    """The last component of a path or URL."""
    from debias.data import stores

    return stores.name_of(path)


class Opened(NamedTuple):
    """An opened log with its ranking data.

    Attributes:
        log: Sessions, in memory or on disk.
        data: Ranking data, or None if the log has no features.
        devices: Device names in the order of their codes. The first name has code 1.
        reading: Result of `read_log`, or None if this library wrote the log.
    """

    log: "ClickLog | Stream"
    data: "RankingData | None"
    devices: Sequence[str] = ()
    reading: "Reading | None" = None

    def by_pair(self) -> "Opened":
        """Treats each (query, item) pair as one item, even if its features change."""
        if self.reading is None:
            return self
        reading = self.reading.by_pair()
        return self._replace(log=reading.log, data=reading.data, reading=reading)


class Found(NamedTuple):
    """A log whose schema has been read.

    Attributes:
        source: Path of the log, and the options for reading it.
        own: Whether this library wrote the log.
        stream: The log on disk, or None if the log fits into memory or another program
            wrote it.
        columns: Columns to read from a log that this library wrote.
    """

    source: Source
    own: bool
    stream: "Stream | None"
    columns: tuple[str, ...] = ()

    def open(
        self,
        devices: Sequence[str] | None = None,
        needs_data: bool = True,
        scales: "Scales | None" = None,
    ) -> Opened:
        """Opens the log, in memory or on disk.

        Args:
            devices: Device names of a trained model. None means the device names of the
                log.
            needs_data: Whether to raise an error if the log has no features.
            scales: Labels of the codes in each presentation column that the model
                reads.

        Raises:
            ValueError: The log cannot be read, or `needs_data` is set and the log has
                no features.
        """
        import pyarrow as pa

        source = self.source
        if source.data is not None and not self.own:
            raise ValueError(
                f"{source.log}: --data needs a log of item numbers that this library "
                "wrote; give the features of your own log with --items or -c "
                "features=NAME"
            )
        opened = self._own() if self.own else _read_table(source, devices, scales)
        pa.default_memory_pool().release_unused()  # releases what the parser keeps
        if needs_data and opened.data is None:
            where = "--data FILE"
            if not self.own:
                where = "-c features=NAME, of the log or of a table --items FILE"
            raise ValueError(
                f"{source.log}: has no features; say where they are: {where}"
            )
        return opened

    def _own(self) -> Opened:
        from debias.data import ClickLog
        from debias.data.stream import Stream

        path = self.source.data
        data = None if path is None else ranking_data(Path(path))
        log: ClickLog | Stream | None = self.stream
        if log is None:
            with share_bar("reading"):
                log = ClickLog.open(self.source.log, self.columns)
        _check_list_size(self.source, log.list_size)
        if data is not None:
            with _of_both(self.source):
                if isinstance(log, Stream):
                    log = replace(log, items=data.items)
                log.check(data)
        return Opened(log, data)


@contextmanager
def _of_both(source: Source) -> Iterator[None]:
    """Names the log and its ranking data in errors that concern both."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{source.log} with {source.data}: {error}") from error


def look(source: Source, memory: float) -> Found:
    """Reads the schema of a log, and decides whether to stream the log from disk.

    Args:
        source: Path of the log, and the options for reading it.
        memory: Size limit in GB. Larger logs are streamed from disk if this library
            wrote them.

    Raises:
        ValueError: The log does not exist or is not a table.
    """
    import pyarrow as pa

    from debias.data.log import COLUMNS, TRUTH
    from debias.data.log_files import noted_others
    from debias.data.stream import Stream
    from debias.data.tables import open_parts

    schema = open_parts(source.log)[0].schema
    item = schema.field("item").type if "item" in schema.names else pa.null()
    own = (
        not source.column
        and source.items is None
        and {"query", "item", "click"} <= set(schema.names)
        and set(schema.names) <= {*COLUMNS, *noted_others(schema)}
        and hasattr(item, "value_type")
        and pa.types.is_integer(item.value_type)
        # Wider numbers are foreign ids, unless they come with --data.
        and (source.data is not None or item.value_type.bit_width <= 32)
        and pa.types.is_integer(schema.field("query").type)
    )
    if not own:
        return Found(source, False, None)
    own_names = (*COLUMNS, *noted_others(schema))
    kept = tuple(n for n in own_names if n in schema.names and n not in TRUTH)
    stream = Stream(source.log, kept)
    first = next(stream.group(0))
    bytes_each = sum(v.nbytes for v in first.columns().values()) / len(first)
    too_large = stream.total * bytes_each > memory * 1e9
    return Found(source, True, stream if too_large else None, kept)


@contextmanager
def opened_over(
    source: Source, memory: float, cluster: str | None
) -> Iterator[tuple[Opened, "Over"]]:
    """Context manager that yields an opened log and a function like `map`.

    With a cluster, the yielded function distributes calls over the workers of the
    cluster. Without a cluster, the yielded function is the built-in `map`.

    Raises:
        ValueError: `look`, `Found.open` or `debias.engine.cluster.joined` fails, or a
            cluster is given for a log that this library did not write.
    """
    from debias.engine.cluster import joined

    if cluster is not None:  # its workers have other working folders
        from debias.data.stores import whole_path

        source, memory = source._replace(log=whole_path(source.log)), 0
    found = look(source, memory)
    if cluster is not None and not found.own:
        raise ValueError(
            f"{source.log}: --cluster needs a log of item numbers that this library "
            "wrote; read_log(...).log.write(FOLDER, shards=N) or the simulator writes "
            "one"
        )
    given = found.open(needs_data=False)
    with joined(cluster) as over:
        yield given, over


def _read_table(
    source: Source, devices: Sequence[str] | None, scales: "Scales | None"
) -> Opened:
    """Reads a log in a foreign format, with a progress bar."""
    from debias.data.read_log import Columns, read_log

    with share_bar("reading") as progress:
        reading = read_log(
            source.log,
            Columns.of(source.column),
            source.items,
            list_size=source.list_size,
            first_position=source.first_position,
            first_features=source.first_features,
            devices=devices,
            scales=scales,
            progress=progress,
        )
    for notice in reading.notices:
        say(f"note: {notice}", err=True)
    return Opened(reading.log, reading.data, reading.devices, reading)


def _check_list_size(source: Source, list_size: int) -> None:
    if source.list_size is not None and source.list_size < list_size:
        raise ValueError(
            f"--list-size applies only to a log of your own; {source.log} was written "
            "by this library and is read unchanged"
        )


def check_name(option: str, name: str, known: Iterable[str]) -> None:
    """Checks that `name` is one of the known names.

    Raises:
        ValueError: The name is unknown. The error message has the option and the most
            similar known names.
    """
    if name not in (names := list(known)):
        from debias.data.text import one_of  # loads NumPy, which --help does not need

        raise ValueError(one_of(option, names, name))


def check_usable(summary: "Summary", name: str) -> None:
    """Checks that the log has clicks and several positions, and prints warnings.

    Raises:
        ValueError: The log has no click or only one position.
    """
    if summary.problems:
        problems = "; ".join(summary.problems)
        raise ValueError(f"{name}: cannot be learned from: {problems}")
    for warning in summary.warnings:
        say(f"warning: {name}: {warning}", err=True)


def arranged(data: "RankingData", ranker: Any, source: Source) -> "RankingData":
    """The items with the features of a ranker, in its order.

    Raises:
        ValueError: A feature is missing or has another kind. The message names the file
            with the features.
    """
    try:
        return data.arranged(ranker.feature_names, ranker.kinds)
    except ValueError as error:
        where = source.items or source.data or source.log
        raise ValueError(f"{where}: {error}") from error


def ranking_data(path: Path) -> "RankingData":
    """Reads ranking data from a Parquet, ELWC or LETOR file."""
    from debias.data import RankingData, read_elwc, read_letor
    from debias.data.tables import kind_of

    kind = kind_of(path)
    if kind == "parquet":
        return RankingData.read_parquet(path)
    return read_elwc(path) if kind == "tfrecord" else read_letor(path)
