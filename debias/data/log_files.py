"""Click logs on disk: Parquet files (shards), read whole or in pieces.

In this module, a log is a dict of checked columns; `ClickLog` and `debias.data.stream`
make logs from such dicts. Each row of a file is a session. A column with one value per
rank holds lists of fixed size. Shards use plain encoding and lz4 compression. With lz4,
the files of a simulated log are two to six times smaller, and are read as fast as
without compression. A row group has 131,072 sessions, so the memory of a reader does
not depend on the size of a shard.

Parquet files of other programs are read too, if they have the same column names (see
`from_arrow`).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from debias.data.arrays import is_list
from debias.data.columns import (
    COLUMNS,
    PRESENTATION,
    REQUIRED,
    TARGET,
    Column,
    check_items,
    checked,
    others,
)
from debias.data.files import atomic_folder, atomic_write, cached, check_regular
from debias.data.lists import filled, list_size_of, lists_of, rectangle
from debias.data.stores import AnyPath, located, readable
from debias.data.tables import DAMAGED, broken, check_names
from debias.data.text import printable

ROW_GROUP = 1 << 17  # sessions
BATCH = 1 << 16
COMPRESSION = "lz4"
PLAIN = {"use_dictionary": False, "write_statistics": False}
# Replacements of NULL. Only these columns may be NULL in a session that shows an item.
UNKNOWN = {"item": -1, "device": 0, "swap": 0}
_ITEMS = b"items_fingerprint"
_OTHERS = b"other_columns"  # names and roles of columns not in `COLUMNS`, as JSON

Arrays: TypeAlias = dict[str, np.ndarray]  # checked columns of a log, by name


def to_arrow(columns: Mapping[str, np.ndarray], items: str | None = None) -> pa.Table:
    """Converts columns to an Arrow table; only the bools of `click` are copied.

    The metadata of the schema contains the fingerprint of the items.

    >>> to_arrow({"item": np.array([[4, 2], [5, -1]])}).column("item").to_pylist()
    [[4, 2], [5, -1]]
    """
    arrays = {name: lists_of(value) for name, value in columns.items()}
    schema = [pa.field(n, array.type, nullable=False) for n, array in arrays.items()]
    metadata = {} if items is None else {_ITEMS: items.encode()}
    if rest := others(columns):
        roles = {name: _role(columns[name]) for name in rest}
        metadata[_OTHERS] = json.dumps(roles).encode()
    return pa.Table.from_arrays(
        list(arrays.values()), schema=pa.schema(schema, metadata or None)
    )


def _role(value: np.ndarray) -> str:
    return "target" if value.dtype.kind == "f" else "presentation"


def noted_others(schema: pa.Schema) -> dict[str, str]:
    """Roles of the columns that are not in `COLUMNS`, as stored by `to_arrow`.

    >>> noted_others(to_arrow({"badge": np.array([1])}).schema)
    {'badge': 'presentation'}
    """
    noted = (schema.metadata or {}).get(_OTHERS, b"{}")
    try:
        found = json.loads(noted)
    except ValueError as error:
        raise ValueError("the metadata of columns is damaged; copy it again") from error
    return {
        name: role
        for name, role in dict(found).items()
        if name in schema.names and name not in COLUMNS
    }


def noted_items(schema: pa.Schema) -> str | None:
    """The fingerprint of the items, from the metadata of a schema; None if absent."""
    noted = (schema.metadata or {}).get(_ITEMS)
    return None if noted is None else noted.decode(errors="replace")


def from_arrow(
    table: pa.Table | pa.RecordBatch,
    columns: Sequence[str] | None = None,
    list_size: int | None = None,
    roles: Mapping[str, str] | None = None,
) -> Arrays:
    """Reads and checks the columns of a log from an Arrow table of any program.

    Numbers of any width are accepted if the values fit, and lists of any length become
    rectangles. A NULL item, or a cell after the end of its list, is padding. NULL means
    an unknown device in `device`, no swap in `swap`, and 0 in presentation columns and
    targets. In all other columns, NULL is an error, except at padding.

    Args:
        table: Table with one row per session and the column names of `ClickLog`.
        columns: Optional columns to read. None reads all columns; an unknown column is
            then an error.
        list_size: Number of cells in a session. None means the length of the longest
            list.
        roles: Role of each column that is not in `COLUMNS`: "presentation" or "target".
            None takes the roles from the table's metadata.

    Raises:
        ValueError: A column is missing, unknown or of a wrong type, or has a value that
            `ClickLog` does not allow. The message names the column.

    >>> ragged = pa.table({"query": [3], "item": [[8, 9]], "click": [[True, False]]})
    >>> from_arrow(ragged, list_size=3)["item"].tolist()
    [[8, 9, -1]]
    """
    roles = noted_others(table.schema) if roles is None else roles
    names = _chosen(table.schema.names, columns, roles)
    sizes = {"SL": list_size, "S2": 2}
    gaps: dict[str, np.ndarray] = {}
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        column, spec = table.column(name), _spec(name, roles)
        fill = UNKNOWN.get(name, math.nan if spec.dtype is np.float32 else 0)
        try:
            if spec.shape == "S" or (name in roles and not is_list(column.type)):
                found = filled(column, fill)
            else:
                found = rectangle(column, sizes.get(spec.shape), fill)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error
        arrays[name] = found.values
        if roles.get(name) == "target":
            arrays[name] = np.where(np.isnan(found.values), 0, found.values).astype(
                "f4"
            )
        if name == "item":  # read first: it determines the length of other lists
            sizes["SL"] = found.values.shape[1]
        if found.gaps is not None and name not in UNKNOWN and name not in roles:
            gaps[name] = found.gaps
    for name, gap in gaps.items():
        wrong = gap & (arrays["item"] >= 0) if COLUMNS[name].shape == "SL" else gap
        if wrong.any():
            raise ValueError(f"{name} is NULL at row {np.argwhere(wrong)[0][0]}")
    return checked(arrays)


def write_columns(
    columns: Arrays,
    path: str | Path,
    shards: int | None = None,
    compression: str = COMPRESSION,
    items: str | None = None,
) -> None:
    """Writes a log (see `ClickLog.write`)."""
    sessions = len(columns["item"])
    if shards is None:
        if sessions == 0:
            raise ValueError("log must have a session to be written")
        with atomic_write(path) as aside:
            pq.write_table(
                to_arrow(columns, items),
                aside,
                row_group_size=ROW_GROUP,
                compression=compression,
                write_page_checksum=True,
                **PLAIN,
            )
        return
    if not 1 <= shards <= sessions:
        raise ValueError(
            f"shards must be in 1..{sessions}, the number of sessions, got {shards}"
        )
    cuts = [sessions * number // shards for number in range(shards + 1)]
    with atomic_folder(path) as aside:
        for number, (start, stop) in enumerate(pairwise(cuts)):
            some = {name: value[start:stop] for name, value in columns.items()}
            shard = aside / f"part-{number:05d}.parquet"
            write_columns(some, shard, None, compression, items)


class Shard(NamedTuple):
    """A Parquet file of a log, described by its footer."""

    path: AnyPath
    schema: pa.Schema
    footer: pq.FileMetaData

    @property
    def sessions(self) -> int:
        """Number of sessions in the file."""
        return self.footer.num_rows


def shards(path: str | AnyPath) -> list[Shard]:
    """The Parquet files of a log, sorted by name; only their footers are read.

    Args:
        path: A file, or a folder of files NAME.parquet. Files whose names begin with a
            dot or an underscore are ignored.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: The folder holds no Parquet file, a file is damaged or has no row,
            or two files have different columns. The message names the file.
    """
    place = located(path)
    files: list[AnyPath] = [place]
    if place.is_dir():
        every: list[AnyPath] = sorted(place.glob("*.parquet"))
        files = [file for file in every if file.name[0] not in "._"]
        if not files:
            raise ValueError(f"{path}: holds no file *.parquet")
    found = [_shard(file) for file in files]
    first = found[0]
    for shard in found:
        if sorted(shard.schema.names) != sorted(first.schema.names):
            raise ValueError(
                f"{shard.path}: has columns {printable(' '.join(shard.schema.names))}, "
                f"but {first.path.name} has {printable(' '.join(first.schema.names))}"
            )
    return found


def count_sessions(path: str | Path) -> int:
    """Number of sessions in a file or folder; only the footers are read."""
    return sum(shard.sessions for shard in shards(path))


def longest_list(found: Sequence[Shard]) -> int:
    """Length of the longest list; lists are read only if they have no fixed size."""
    longest = 0
    for shard in found:
        index = shard.schema.get_field_index("item")
        if index < 0:
            raise ValueError(f"{shard.path}: no column item")
        kind = shard.schema.field(index).type
        if pa.types.is_fixed_size_list(kind):
            longest = max(longest, kind.list_size)
        elif is_list(kind):
            try:
                with _open(shard.path, shard.footer) as file:
                    for batch in file.iter_batches(BATCH, columns=["item"]):
                        longest = max(longest, list_size_of(batch.column(0)))
            except DAMAGED as error:
                raise broken(shard.path, "Parquet", error) from error
        else:
            raise ValueError(f"{shard.path}: item must be lists, got {kind}")
    return longest


def read_group(
    shard: Shard,
    group: int,
    sessions: int,
    columns: Sequence[str] | None,
    list_size: int,
    items: int | None = None,
) -> Iterator[Arrays]:
    """Reads a row group in validated pieces, in order.

    Args:
        shard: A shard from `shards`.
        group: Number of the row group, from 0.
        sessions: Largest number of sessions in a piece.
        columns: Optional columns to read; None reads all.
        list_size: Number of cells in a session (see `longest_list`).
        items: Number of items in the ranking data. Item numbers must be smaller; None
            skips this check.

    Raises:
        ValueError: See `from_arrow` and `check_items`. The message names the file and
            the row in the file.
    """
    start = sum(shard.footer.row_group(before).num_rows for before in range(group))
    end = start + shard.footer.row_group(group).num_rows
    try:
        roles = noted_others(shard.schema)
        names = _chosen(shard.schema.names, columns, roles)
        with _open(shard.path, shard.footer) as file:
            for batch in file.iter_batches(sessions, row_groups=[group], columns=names):
                found = from_arrow(batch, columns, list_size, roles)
                if items is not None:
                    check_items(found["item"], items)
                yield found
                start += len(batch)
        if start != end:
            raise ValueError(f"ends {end - start} sessions early; copy it again")
    except DAMAGED as error:
        raise broken(shard.path, "Parquet", error, start) from error
    except ValueError as error:
        where = f"{shard.path}, from its row {start} on" if start else f"{shard.path}"
        raise ValueError(f"{where}: {error}") from error


def read_pieces(
    found: Sequence[Shard],
    list_size: int,
    sessions: int,
    columns: Sequence[str] | None,
) -> Iterator[Arrays]:
    """Reads a log in order, in validated pieces (see `debias.data.read_batches`)."""
    if sessions < 1:
        raise ValueError(f"sessions must be at least 1, got {sessions}")
    for shard in found:
        for group in range(shard.footer.num_row_groups):
            yield from read_group(shard, group, sessions, columns, list_size)


def open_columns(
    found: Sequence[Shard],
    columns: Sequence[str] | None,
    memory: int,
    cache: str | Path | None,
) -> Arrays:
    """Opens a whole log in memory, or memory-mapped (see `ClickLog.open`).

    Parquet packs bools and interleaves lists with their lengths, so the pages of a
    Parquet file cannot be memory-mapped. Instead, a decoded copy of the log is
    memory-mapped.
    """
    list_size = longest_list(found)
    total = sum(shard.sessions for shard in found)
    shapes = _shapes(found[0], columns, list_size, total)
    roles = noted_others(found[0].schema)
    pieces = partial(read_pieces, found, list_size, BATCH, columns)
    kinds = {name: np.dtype(_spec(name, roles).dtype) for name in shapes}
    sizes = (math.prod(s) * kinds[name].itemsize for name, s in shapes.items())
    if sum(sizes) <= memory:
        return _held(pieces(), shapes, kinds)
    folder = cached(
        _key(found, list(shapes)),
        lambda aside: _copy(pieces(), shapes, kinds, aside),
        cache,
    )
    return {
        name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
        for name in shapes
    }


def _spec(name: str, roles: Mapping[str, str]) -> Column:
    if name not in roles:
        return COLUMNS[name]
    return TARGET if roles[name] == "target" else PRESENTATION


Kinds: TypeAlias = Mapping[str, np.dtype[Any]]


def _held(
    pieces: Iterator[Arrays], shapes: dict[str, tuple[int, ...]], kinds: Kinds
) -> Arrays:
    arrays: Arrays = {n: np.empty(shape, kinds[n]) for n, shape in shapes.items()}
    start = 0
    for piece in pieces:
        stop = start + len(piece["item"])
        for name, value in piece.items():
            arrays[name][start:stop] = value
        start = stop
    return arrays


def _copy(
    pieces: Iterator[Arrays],
    shapes: dict[str, tuple[int, ...]],
    kinds: Kinds,
    folder: Path,
) -> None:
    """Writes each column as NAME.npy, piece by piece."""
    with ExitStack() as stack:
        handles = {}
        for name, shape in shapes.items():
            handle = stack.enter_context((folder / f"{name}.npy").open("wb"))
            kind = np.lib.format.dtype_to_descr(kinds[name])
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(handle, header)
            handles[name] = handle
        for piece in pieces:
            for name, value in piece.items():
                np.ascontiguousarray(value).tofile(handles[name])


def _chosen(
    names: Sequence[str], columns: Sequence[str] | None, roles: Mapping[str, str]
) -> list[str]:
    """The columns to read, in the order of `COLUMNS`."""
    wanted = {*REQUIRED, *(names if columns is None else columns)}
    every = [*COLUMNS, *roles]
    for name in every:
        if name in wanted and name not in names:
            raise ValueError(f"no column {name}, only {printable(' '.join(names))}")
    strange = wanted - set(every)
    if strange:
        raise ValueError(
            f"unknown column {printable(' '.join(sorted(strange)))}: choose the "
            f"columns to read from {' '.join(every)}"
        )
    return [name for name in every if name in wanted]


def _open(path: AnyPath, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    # Buffered reads are as fast as a memory map, and their pages do not stay resident.
    return pq.ParquetFile(
        readable(path),
        metadata=footer,
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _shard(path: AnyPath) -> Shard:
    check_regular(path)
    try:
        with _open(path) as file:
            found = Shard(path, file.schema_arrow, file.metadata)
        names = found.schema.names
    except DAMAGED as error:
        raise broken(path, "Parquet", error) from error
    check_names(str(path), names)
    if found.sessions == 0:
        raise ValueError(f"{path}: holds no session")
    groups = range(found.footer.num_row_groups)
    sizes = [found.footer.row_group(group).num_rows for group in groups]
    if min(sizes, default=0) < 1 or sum(sizes) != found.sessions:
        raise ValueError(
            f"{path}: is damaged: it has {found.sessions} sessions in groups of "
            f"{sizes}; copy it again"
        )
    return found


def _shapes(
    shard: Shard, columns: Sequence[str] | None, list_size: int, sessions: int
) -> dict[str, tuple[int, ...]]:
    first = next(iter(read_group(shard, 0, 1, columns, list_size)), None)
    if first is None:
        raise ValueError(
            f"{shard.path}: is damaged: it holds no session; copy it again"
        )
    return {n: (sessions, *value.shape[1:]) for n, value in first.items()}


def _key(found: Sequence[Shard], names: Sequence[str]) -> str:
    """The name of a decoded copy.

    The name depends on the times and sizes of the files, because hashing their content
    would be as slow as decoding it.
    """
    total = blake2b(" ".join(names).encode(), digest_size=16)
    for shard in found:
        stat = shard.path.stat()
        total.update(
            f"\0{shard.path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()
        )
    return f"log-{total.hexdigest()}"
