"""`debias rank`: scores and ranks a table of items or sessions, in batches."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.commands import inputs
from debias.commands.evaluate import Folder
from debias.commands.places import check_unfilled
from debias.commands.runs import peak_memory
from debias.commands.screen import AsJson, print_json, say, share_bar

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from debias.data.kinds import Features
    from debias.data.read_log import Columns
    from debias.data.tables import Part
    from debias.engine.scoring import Scorer
    from debias.types import Over


@inputs.options()
def rank(
    folder: Folder,
    table: Annotated[
        str,
        typer.Argument(
            help="Table in Parquet, CSV or JSON lines with the features of one item "
            "per row. With --data, the table must be a log that this library wrote."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Output path: NAME.parquet, NAME.csv, or a folder that gets one "
            "Parquet file for each input file.",
        ),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "-c",
            help="Column for the role session or query: session=NAME or query=NAME. "
            "The defaults are the column names used in training. If the model stores "
            "no feature names, also give features=NAME.",
        ),
    ] = None,
    data: inputs.Data = None,
    cluster: inputs.Cluster = None,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Scores every row of a table and ranks the rows within each group.

    The output is the input table with two more columns, `score` and `rank` (from 1). A
    group is a session, or a query if the table has no session column. The rows of a
    group must be consecutive. If the output is a folder, all rows of a group must be in
    the same input file. The command looks up features by name. Features may contain
    text, missing values, lists and dates, as in the training log. If the table has one
    row per session, `score` and `rank` are lists. If the table already has a column
    `rank`, the new column is called `new_rank`. CSV columns that hold only numbers are
    written as numbers.
    """
    from debias.artifacts import RANKED, open_ranker, report_of
    from debias.data.tables import open_parts
    from debias.engine.cluster import joined

    report = report_of(folder, RANKED)
    check_unfilled(out, force)
    if out.suffix not in (".parquet", ".pq", ".csv", ""):
        raise ValueError(
            f"{out}: the name must end with .parquet or .csv, or have no ending for a "
            "folder"
        )
    if cluster is not None and out.suffix:
        raise ValueError(f"{out}: --cluster writes a folder; leave out {out.suffix}")
    mapping = list(column or ())
    if data is None:
        mapping = [*trained_columns(folder, table, mapping), *mapping]
    begun = time.perf_counter()
    with joined(cluster) as over, share_bar("ranking") as progress:
        if not out.suffix:
            model = Model.of(folder, report["features"], mapping, data)
            rows = rank_files(table, out, model, progress, over)
        elif data is None:
            score = open_ranker(folder)
            rows = rank_rows(table, out, score, report["features"], mapping, progress)
        else:
            scores = item_scores(open_ranker(folder), data)
            rows = rank_sessions(open_parts(table), table, out, scores, data, progress)
    seconds = time.perf_counter() - begun
    found = {
        "path": str(out),
        "rows": rows,
        "rows_per_second": rows / seconds,
        "peak_memory_gb": peak_memory(),
    }
    if json:
        print_json(found)
    else:
        say(
            f"{rows:,} rows in {out}; {seconds:.0f} s, "
            f"peak memory {found['peak_memory_gb']:.2f} GB"
        )


def trained_columns(folder: Path, table: str, given: Sequence[str] = ()) -> list[str]:
    """Column options used in training, without those that `given` overrides.

    Session and item columns are left out if the table lacks them. If `given` names a
    query column but no session column, rows are grouped by query.
    """
    from debias.artifacts import plan_of
    from debias.data.tables import open_parts

    named = {text.partition("=")[0] for text in given}
    if "query" in named and "session" not in named:
        return [*trained_columns(folder, table, ("session=", *given)), "session="]
    wanted = {"features", "query", "session", "item"} - named
    asked = plan_of(folder, ("source",))["source"]["column"]
    columns = [text for text in asked if text.partition("=")[0] in wanted]
    there = open_parts(table)[0].schema.names
    optional = ("session", "item")
    pairs = [text.partition("=")[::2] for text in columns]
    return [f"{r}={c}" for r, c in pairs if r not in optional or c in there]


class Model(NamedTuple):
    """Paths and column options with which a cluster worker opens a ranker.

    Attributes:
        folder: Folder that `debias train` wrote.
        features, column: See `rank_rows`.
        data: File of ranking data if the table is a log that this library wrote; None
            for other tables.
        contents: Hash of the files, so that a worker reopens files that changed.
        types: Types of CSV columns.
    """

    folder: Path
    features: int
    column: tuple[str, ...]
    data: Path | None
    contents: str
    types: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def of(
        folder: Path, features: int, column: Sequence[str], data: Path | None
    ) -> "Model":
        from debias.data.files import content_hash

        folder = folder.absolute()
        data = None if data is None else data.absolute()
        files = [path for path in folder.glob("ranker.*") if path.is_file()]
        files += [] if data is None else [data]
        return Model(folder, features, tuple(column), data, content_hash(*files))


def rank_files(
    source: str,
    out: Path,
    model: Model,
    progress: Callable[[float], None] = lambda share: None,
    over: "Over" = map,
) -> int:
    """Applies `rank_rows` or `rank_sessions` to each file of a table.

    Args:
        source: See `rank_rows`.
        out: New folder, written atomically. The file part-00000.parquet in the folder
            has the rows of the first input file.
        model: Ranker and columns.
        progress: Function that receives the share of completed files.
        over: The built-in `map`, or the `map` of a cluster whose workers can read the
            files.

    Returns:
        Number of rows written.

    Raises:
        ValueError: `rank_rows` or `rank_sessions` fails, a group is in two files, or
            `out` exists.
    """
    from debias.data.files import atomic_folder
    from debias.data.numbers import types_of
    from debias.data.stores import whole_path
    from debias.data.tables import open_parts

    parts = open_parts(whole_path(source))
    model = model._replace(types=tuple(types_of(parts).items()))
    rows, names, scores = 0, [], None
    if model.data is not None:  # once, so that workers need no runtime of models
        scores = item_scores(_opened(model.folder, model.contents), model.data)
    with atomic_folder(out.absolute()) as aside:
        asked = [
            (part, aside / f"part-{number:05d}.parquet")
            for number, part in enumerate(parts)
        ]
        for count, seen in over(partial(_rank_file, model, scores), asked):
            rows += count
            names.append(seen)
            progress(len(names) / len(parts))
        _check_apart(source, [each for each in names if len(each)])
    return rows


def _check_apart(source: str, names: Sequence["pa.Array"]) -> None:
    """Raises ValueError if a group occurs in two files."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from debias.data.text import quoted

    if not names:
        return
    counted = pc.value_counts(pa.concat_arrays(names))
    twice = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        raise ValueError(
            f"{source}: {quoted(twice[0]['values'].as_py())} is in several files; "
            "write each session or query into one file, or rank to NAME.parquet"
        )


def _rank_file(
    model: Model, scores: "np.ndarray | None", asked: tuple["Part", Path]
) -> tuple[int, "pa.Array"]:
    """Ranks a file; returns the number of its rows and the names of its groups.

    `scores` has the scores of all items if the model has ranking data.
    """
    import pyarrow as pa

    part, out = asked
    if model.data is not None:
        assert scores is not None
        return rank_sessions([part], part.name, out, scores, model.data), pa.array([])
    seen: set[Any] = set()
    score, types = _opened(model.folder, model.contents), dict(model.types)
    arguments = model.features, model.column, lambda share: None, types, seen
    rows = _rank_rows([part], part.name, out, score, *arguments)
    return rows, pa.array(seen)


@lru_cache(1)
def _opened(folder: Path, contents: str) -> "Scorer":
    from debias.artifacts import open_ranker

    return open_ranker(folder)


def rank_rows(
    source: str,
    out: Path,
    score: "Scorer",
    feature_count: int,
    column: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Scores a table of items and writes it with the columns score and rank.

    A CSV file is read twice: the first pass finds the numeric columns. Memory holds
    only one batch, the longest group and the names of all groups. The group names serve
    to detect groups whose rows are not consecutive.

    Args:
        source: File, folder or glob of Parquet, CSV or JSON lines.
        out: Parquet file, written atomically.
        score: Function from features (items, F) to scores (items,). Its feature names
            may be None.
        feature_count: F.
        column: Strings ROLE=COLUMN for the roles `session` and `query`. If `score` has
            no feature names, the role features is also needed. Rows are ranked within
            their session, or within their query if the table has no session column.
            Rows get no rank if the table has neither a session nor a query column. If a
            row holds a list of items, its features, score and rank are lists too.
        progress: Function that receives the completed share of the work.

    Returns:
        Number of rows written.

    Raises:
        ValueError: A column is missing or occurs twice, a feature is not finite, or the
            rows of a group are not consecutive. The message names the file, the column
            and the row.
    """
    from debias.data.numbers import types_of
    from debias.data.tables import open_parts

    parts = open_parts(source)
    seen: set[Any] = set()
    arguments = feature_count, column, progress, types_of(parts), seen
    return _rank_rows(parts, source, out, score, *arguments)


def _rank_rows(
    parts: Sequence["Part"],
    source: str,
    out: Path,
    score: "Scorer",
    feature_count: int,
    column: Sequence[str],
    progress: Callable[[float], None],
    types: Mapping[str, Any],
    seen: set[Any],
) -> int:
    """Does the work of `rank_rows`, and adds the names of the groups to `seen`."""
    import pyarrow as pa

    from debias.data.arrays import is_list
    from debias.data.by_name import columns_of
    from debias.data.numbers import typed
    from debias.data.read_log import Columns
    from debias.data.tables import with_lists

    asked = Columns.of(column)
    parts = with_lists(parts, asked.item)
    schema = parts[0].schema
    called = "new_rank" if "rank" in schema.names else "rank"
    _check_output(parts[0].name, schema, ("score", called))
    listed = asked.item in schema.names and is_list(schema.field(asked.item).type)
    group = None if listed else _group(parts[0].name, schema, asked)
    names = score.feature_names
    if names is None:
        keys = {str(asked.session), str(asked.query)}
        names = _numbered(parts[0].name, schema, asked.features, keys)
    coded = {each.name for each in score.kinds or () if each.coded}
    columns = columns_of(schema, names, parts[0].name)
    numbers = set(columns) - coded
    known: set[str] = set()
    kinds, count = score.kinds, feature_count
    features = partial(_features, names=names, kinds=kinds, count=count, known=known)

    def scored() -> Iterator[tuple[pa.Table, float]]:
        for number, part in enumerate(parts):
            start = 0
            for rows, share in part.read(schema.names, numbers):
                table = pa.Table.from_batches([typed(rows, types)])
                if listed:
                    at, flat, gaps = _shown(rows, asked.item, columns, part.name, start)
                    values = _in_lists(features, flat, at, part.name, start)
                    lists = _as_lists(score(values), at, len(rows), gaps)
                    for name, column in zip(("score", called), lists, strict=True):
                        table = table.append_column(name, column)
                else:
                    values = features(rows, part.name, start)
                    table = table.append_column("score", pa.array(score(values)))
                yield table, (number + share) / len(parts)
                start += len(rows)
        _say_unknown(source, kinds, known)

    batches = _while_unchanged(parts, scored())
    if group is not None:
        batches = _ranked(batches, group, source, called, seen)
    return _write(source, out, batches, progress)


def _say_unknown(source: str, kinds: "Features | None", known: set[str]) -> None:
    """Prints which features have no value that the ranker knows."""
    from debias.data.text import printable

    for each in kinds or ():
        if each.name not in known:
            what = "has no value that training saw" if each.coded else "has no number"
            say(f"note: {source}: column {printable(each.name)} {what}", err=True)


def _while_unchanged(
    parts: Sequence["Part"], batches: Iterator[tuple["pa.Table", float]]
) -> Iterator[tuple["pa.Table", float]]:
    """Yields the batches, then raises ValueError if a file has changed."""
    from debias.data.tables import unchanged

    with unchanged(parts):
        yield from batches


def _shown(
    rows: "pa.RecordBatch", item: str, columns: Sequence[str], where: str, start: int
) -> "tuple[np.ndarray, pa.RecordBatch, np.ndarray]":
    """Flattens lists; returns item rows, flat columns and padding mask."""
    import pyarrow as pa

    from debias.data.arrays import gaps_in, plain
    from debias.data.shown import Batch, exploded

    arrays = {
        "item": [plain(rows.column(item))],
        "features": [plain(rows.column(name)) for name in columns],
    }
    chosen = {"item": (item,), "features": tuple(columns)}
    found = exploded(Batch(where, start, arrays, None, chosen))
    assert found.at is not None
    flat = pa.RecordBatch.from_arrays(found.arrays["features"], names=list(columns))
    return found.at, flat, gaps_in(found.arrays["item"][0])


def _features(
    rows: "pa.RecordBatch",
    where: str,
    start: int,
    names: Sequence[str],
    kinds: "Features | None",
    count: int,
    known: set[str],
) -> "np.ndarray":
    """The features of rows; raises ValueError if their number is not `count`.

    Adds the names of features with at least one known value to `known`.
    """
    from debias.data.by_name import matrix
    from debias.data.kinds import known_in

    values = matrix(rows, names, where, start, kinds)
    if values.shape[1] != count:
        raise ValueError(
            f"{where}: column {' '.join(names)}: the model reads {count} features, "
            f"got {values.shape[1]}"
        )
    known.update(known_in(values, kinds or ()))
    return values


def _in_lists(
    features: Callable[["pa.RecordBatch", str, int], "np.ndarray"],
    flat: "pa.RecordBatch",
    at: "np.ndarray",
    where: str,
    start: int,
) -> "np.ndarray":
    """Features of all shown items; errors name the list and the place in the list."""
    import numpy as np

    try:
        return features(flat, where, 0)
    except ValueError:
        for row in range(int(at[-1]) + 1):
            first, stop = np.searchsorted(at, [row, row + 1])
            some = flat.slice(first, stop - first)
            features(some, f"{where}: list {start + row}", 0)
        raise


def _as_lists(
    scores: "np.ndarray", at: "np.ndarray", count: int, gaps: "np.ndarray"
) -> tuple["pa.Array", "pa.Array"]:
    """Scores and ranks as lists; padding has the score NULL and the rank 0."""
    import numpy as np
    import pyarrow as pa

    order = np.lexsort((np.where(gaps, np.inf, -scores), at))
    starts = np.searchsorted(at, np.arange(count + 1))
    rank = np.empty(len(at), np.int32)
    rank[order] = np.arange(len(at)) - starts[at] + 1
    ends = pa.array(starts.astype(np.int32))
    values = pa.array(scores, mask=gaps), pa.array(np.where(gaps, 0, rank))
    score, place = (pa.ListArray.from_arrays(ends, each) for each in values)
    return score, place


class _Group(NamedTuple):
    """The column whose runs are ranked, and its role."""

    column: str
    role: str


def _group(file: str, schema: Any, asked: "Columns") -> _Group | None:
    """The column that groups rows; None if no such column exists or was requested."""
    from debias.data.read_log import Columns
    from debias.data.tables import near

    for role in ("session", "query"):
        column = getattr(asked, role)
        if column in schema.names:
            return _Group(column, role)
        if column not in (None, getattr(Columns, role)):
            raise ValueError(
                f"{file}: no column {column} for {role}: {near(column, schema.names)}; "
                f"say -c {role}=NAME"
            )
    return None


def _numbered(
    file: str, schema: Any, asked: str | tuple[str, ...] | None, keys: set[str]
) -> tuple[str, ...]:
    """The columns with unnamed features, in the requested order."""
    from debias.data.shown import matching
    from debias.data.tables import near

    wanted = (asked,) if isinstance(asked, str) else asked or ()
    found = matching(wanted, schema.names, {"session", "query", "item", "label", *keys})
    if not found:
        raise ValueError(
            f"{file}: no column {' '.join(wanted)} for features: "
            f"{near(str(wanted), schema.names)}; say -c features=NAME"
        )
    return tuple(found)


def _ranked(
    batches: Iterator[tuple["pa.Table", float]],
    group: _Group,
    source: str,
    called: str,
    seen: set[Any],
) -> Iterator[tuple["pa.Table", float]]:
    """Appends ranks; holds a batch's last group back until it is complete."""
    import pyarrow as pa

    held: pa.Table | None = None
    share, row = 0.0, 0
    for table, share in batches:
        if held is not None:
            table = pa.concat_tables([held, table])
        starts = _run_starts(table.column(group.column))
        if len(starts) > 1:
            over = table.slice(0, starts[-1])
            yield _with_rank(over, group, seen, source, row, called), share
            row += len(over)
            table = table.slice(starts[-1])
        held = table
    if held is not None:
        yield _with_rank(held, group, seen, source, row, called), share


def _run_starts(column: Any) -> "np.ndarray":
    """Indices at which runs of equal values begin."""
    import numpy as np

    from debias.data.arrays import name_codes

    return np.flatnonzero(np.diff(name_codes(column), prepend=-2))


def _with_rank(
    table: "pa.Table",
    group: _Group,
    seen: set[Any],
    source: str,
    row: int,
    called: str,
) -> "pa.Table":
    """Appends a column of ranks; `row` is the first row of the table in the source."""
    import numpy as np
    import pyarrow as pa

    from debias.data.shown import known_as
    from debias.data.text import quoted

    column = table.column(group.column)
    starts = _run_starts(column)
    for start, name in zip(
        starts, column.take(pa.array(starts)).to_pylist(), strict=True
    ):
        if name in seen:
            raise ValueError(
                f"{source}: column {known_as(*group)}: {quoted(name)} starts again at "
                f"row {row + start}, so its rows are not consecutive; sort the table "
                "by this column"
            )
        seen.add(name)
    sizes = np.diff(starts, append=len(table))
    run = np.repeat(np.arange(len(starts)), sizes)
    order = np.lexsort((-table.column("score").to_numpy(), run))
    rank = np.empty(len(table), np.int32)
    rank[order] = np.arange(len(table)) - np.repeat(starts, sizes) + 1
    return table.append_column(called, pa.array(rank))


def item_scores(score: "Scorer", data: Path) -> "np.ndarray":
    """Scores (items,) of all items in a file of ranking data."""
    items = inputs.ranking_data(data).arranged(score.feature_names, score.kinds)
    return score(items.features)


def rank_sessions(
    parts: Sequence["Part"],
    source: str,
    out: Path,
    scores: "np.ndarray",
    data: Path,
    progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Ranks the shown items of a log that this library wrote.

    The output has the columns of the log and two columns of lists, score and rank.
    Padding has the score NULL and the rank 0. Items with equal scores keep the logged
    order.

    Args:
        parts: The files of the log, from `debias.data.tables.open_parts`.
        source: Name of the log, for error messages.
        out: Parquet file, written atomically.
        scores: (items,) scores from `item_scores`.
        data: File of ranking data, for error messages.
        progress: Function that receives the completed share of the work.

    Raises:
        ValueError: An item number of the log is too large for the ranking data. The
            message names the file and the row.
    """
    import numpy as np
    import pyarrow as pa

    from debias.data.lists import rectangle

    schema = parts[0].schema
    _check_output(parts[0].name, schema)
    if "item" not in schema.names:
        raise ValueError(f"{parts[0].name}: no column item")

    def ranked() -> Iterator[tuple[pa.Table, float]]:
        for number, part in enumerate(parts):
            start = 0
            for rows, share in part.read(schema.names, ()):
                try:
                    item, _ = rectangle(rows.column("item"), None, -1)
                except ValueError as error:
                    raise ValueError(f"{part.name}: column item {error}") from error
                if item.max() >= len(scores):
                    row = start + int(np.argmax((item >= len(scores)).any(axis=1)))
                    raise ValueError(
                        f"{part.name}: column item must be below {len(scores)}, the "
                        f"items of {data}, got {item.max()} at row {row}"
                    )
                mask = item >= 0
                value = np.where(mask, scores[item], -np.inf)
                order = np.argsort(-value, axis=1, kind="stable")
                place = np.argsort(order, axis=1, kind="stable").astype(np.int32) + 1
                table = pa.Table.from_batches([rows])
                ends = np.arange(len(rows) + 1, dtype=np.int32) * item.shape[1]
                lists = {
                    "score": pa.array(value.ravel(), mask=~mask.ravel()),
                    "rank": pa.array((place * mask).ravel()),
                }
                for name, flat in lists.items():
                    column = pa.ListArray.from_arrays(ends, flat)
                    table = table.append_column(name, column)
                yield table, (number + share) / len(parts)
                start += len(rows)

    return _write(source, out, ranked(), progress)


def _check_output(
    name: str, schema: Any, columns: Sequence[str] = ("score", "rank")
) -> None:
    for column in columns:
        if column in schema.names:
            raise ValueError(f"{name}: has a column {column} already; rename it")


def _write(
    source: str,
    out: Path,
    tables: Iterator[tuple["pa.Table", float]],
    progress: Callable[[float], None],
) -> int:
    from debias.data.files import atomic_write

    first, share = next(tables, (None, 0.0))
    if first is None:
        raise ValueError(f"{source}: has no rows to rank")
    rows = len(first)
    with atomic_write(out) as aside, _writer(out, aside, first.schema) as file:
        file.write_table(first)
        for table, share in tables:
            file.write_table(table)
            rows += len(table)
            progress(share)
    return rows


def _writer(out: Path, aside: Path, schema: "pa.Schema") -> Any:
    """A writer of tables to `aside`; the extension of `out` sets CSV or Parquet."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    from debias.data.text import quoted

    if out.suffix != ".csv":
        return parquet.ParquetWriter(aside, schema, write_page_checksum=True)
    for field in schema:
        if pa.types.is_nested(field.type) or pa.types.is_string_view(field.type):
            raise ValueError(
                f"{out}: CSV cannot hold column {quoted(field.name)} ({field.type}); "
                "choose a name that ends with .parquet"
            )
    return csv.CSVWriter(aside, schema)
