"""Flat events on disk, partitioned by key.

Each file of the source becomes one Arrow file and one JSON record, which describes the
batches of the Arrow file. The record is written last, so its presence shows that the
Arrow file is complete. A hash of the key assigns each event to a bucket, so all events
with the same key are in the same bucket. The buckets are read in groups that fit into
memory.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from debias.data.events.flat import NAMES, Flattener, Found
from debias.data.events.roles import EventColumns
from debias.data.files import atomic_write
from debias.data.records import read_record, write_record
from debias.data.tables import Part, Retyped

BUCKETS = 128
_CHUNK = 1 << 18  # rows that are partitioned at once
_KEYS = ("rows", "actions", "batches", "bucket_rows", "first", "notices")


class Spilled(NamedTuple):
    """The flat events of one file of the source, on disk.

    Attributes:
        path: Path of the Arrow file.
        found: Counts of the events.
        buckets: Bucket of each batch in the file.
        rows: (BUCKETS,) number of rows in each bucket.
    """

    path: Path
    found: Found
    buckets: np.ndarray
    rows: np.ndarray


def spill(
    part: Part,
    number: int,
    columns: EventColumns,
    folder: Path,
    progress: Callable[[float], None],
) -> Spilled:
    """Writes the flat events of a file to disk, unless a complete copy exists."""
    path = folder / f"{number:05d}.arrow"
    record = path.with_suffix(".json")
    if not record.exists():
        while True:
            flattener = Flattener(part, number, columns)
            try:
                with atomic_write(path) as aside:
                    buckets, rows = _write(aside, flattener, progress)
                break
            except Retyped:
                continue
        found = flattener.found
        first = {"first": found.first, "actions": dict(found.actions)}
        counts = {"batches": buckets, "bucket_rows": rows.tolist()}
        write_record(record, {**vars(found), **first, **counts})
    return _opened(path, record)


def _opened(path: Path, record: Path) -> Spilled:
    told = read_record(record, _KEYS)
    buckets, rows = told.pop("batches"), told.pop("bucket_rows")
    found = Found(**told)
    found.actions = Counter(told["actions"])
    return Spilled(path, found, np.array(buckets, int), np.array(rows, np.int64))


def _write(
    path: Path, flattener: Flattener, progress: Callable[[float], None]
) -> tuple[list[int], np.ndarray]:
    """Writes the flat batches; returns the bucket of each, and the rows per bucket."""
    buckets: list[int] = []
    rows = np.zeros(BUCKETS, np.int64)
    writer: Any = None
    options = ipc.IpcWriteOptions(compression="lz4")
    try:
        for table in _chunks(flattener, progress):
            if writer is None:
                schema = table.schema
                writer = ipc.new_file(str(path), schema, options=options)
            table = _as(table, schema)
            bucket = _buckets(table.column("key"))
            order = np.argsort(bucket, kind="stable")
            table = table.take(pa.array(order)).combine_chunks()
            sizes = np.bincount(bucket, minlength=BUCKETS)
            rows += sizes
            ends = np.cumsum(sizes)
            for number in np.flatnonzero(sizes):
                some = table.slice(ends[number] - sizes[number], sizes[number])
                for batch in some.to_batches():
                    writer.write_batch(batch)
                    buckets.append(int(number))
    finally:
        if writer is not None:
            writer.close()
    return buckets, rows


def _chunks(
    flattener: Flattener, progress: Callable[[float], None]
) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    size = 0
    for batch, share in flattener.batches():
        held.append(pa.Table.from_batches([batch]))
        size += len(batch)
        progress(share)
        if size >= _CHUNK:
            yield _together(held)
            held, size = [], 0
    if size:
        yield _together(held)


def _buckets(key: pa.ChunkedArray) -> np.ndarray:
    """(n,) bucket of each key, equal in all processes."""
    coded = key.combine_chunks().dictionary_encode()
    names = coded.dictionary.to_pylist()
    bucket = [zlib.crc32(name.encode()) % BUCKETS for name in names]
    return np.array(bucket, np.int16)[coded.indices.to_numpy()]


def read_buckets(
    spilled: Sequence[Spilled], low: int, high: int, schema: pa.Schema
) -> pa.Table:
    """Reads the events of all files in the buckets from `low` to `high` - 1."""
    tables = []
    for each in spilled:
        wanted = np.flatnonzero((each.buckets >= low) & (each.buckets < high))
        if len(wanted):
            with pa.memory_map(str(each.path)) as source:
                file = ipc.open_file(source)
                batches = [file.get_batch(int(number)) for number in wanted]
                tables.append(_as(pa.Table.from_batches(batches), schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def common_schema(spilled: Sequence[Spilled]) -> pa.Schema:
    """The common schema of all files; ids of mixed types become text."""
    schemas = []
    for each in spilled:
        if len(each.buckets):
            with pa.memory_map(str(each.path)) as source:
                schemas.append(ipc.open_file(source).schema)
    return _common(schemas)


def groups(spilled: Sequence[Spilled], most: int) -> list[tuple[int, int]]:
    """Splits the buckets into ranges of up to `most` rows, or of one larger bucket."""
    sizes = np.sum([each.rows for each in spilled], axis=0)
    found, low, held = [], 0, 0
    for number, size in enumerate(sizes):
        if held and held + size > most:
            found.append((low, number))
            low, held = number, 0
        held += int(size)
    return [*found, (low, BUCKETS)]


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    schema = _common([table.schema for table in tables])
    return pa.concat_tables([_as(table, schema) for table in tables])


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    kinds: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            kinds.setdefault(field.name, []).append(field.type)
    return pa.schema([(n, _common_type(n, some)) for n, some in kinds.items()])


def _common_type(name: str, kinds: Sequence[pa.DataType]) -> pa.DataType:
    there = [kind for kind in dict.fromkeys(kinds) if not pa.types.is_null(kind)]
    if len(there) == 1:
        return there[0]
    numeric = all(pa.types.is_floating(k) or pa.types.is_integer(k) for k in there)
    return pa.float64() if there and numeric and name not in NAMES else pa.string()


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Casts the table to a schema; absent columns are NULL."""
    if table.schema.equals(schema):
        return table
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
