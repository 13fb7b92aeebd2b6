"""Fingerprints of logs and tables by their content."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from debias.data.files import array_hash, sampled_hash
from debias.data.log import ClickLog
from debias.data.ranking import RankingData
from debias.data.stores import AnyPath, located
from debias.data.stream import Stream
from debias.data.tables import Source, files_of, in_memory, table_of


def fingerprint(source: "Source | ClickLog | Stream | RankingData") -> str:
    """Hash of the content of a source, as 32 hexadecimal digits.

    The fingerprint of files depends on their content and order, but not on their names
    and modification times. A copy of a log, or a link to it, therefore has the same
    fingerprint. The same sessions in two file formats have different fingerprints.
    Above 256 MB, only a sample is read (see `debias.data.files.sampled_hash`), so a
    fingerprint takes less than a second for any size.

    Args:
        source: A file of any kind, files that `debias.data.tables.open_parts` accepts,
            or a table, a log or ranking data in memory. A log in memory and its file
            have different fingerprints.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: See `debias.data.tables.open_parts`. The message names the file.

    >>> log = ClickLog([0], [[4]], [[1]])
    >>> fingerprint(log) == fingerprint(ClickLog([0], [[4]], [[True]]))
    True
    >>> fingerprint(log) == fingerprint(ClickLog([0], [[4]], [[False]]))
    False
    """
    if isinstance(source, RankingData):
        return source.fingerprint
    if isinstance(source, ClickLog):
        return array_hash(source.columns())
    if in_memory(source):
        return _of_table(table_of(source))
    files = source.path if isinstance(source, Stream) else source
    if isinstance(files, str | Path) and (path := located(files)).is_file():
        return _of_files([path])  # a file of any kind
    return _of_files(files_of(files))


def _of_files(paths: list[AnyPath]) -> str:
    sizes = [path.stat().st_size for path in paths]

    def read(part: int, start: int, stop: int) -> bytes:
        with paths[part].open("rb", buffering=0) as handle:
            handle.seek(start)
            return handle.read(stop - start)

    return sampled_hash(sizes, read)


def _of_table(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return array_hash({"table": np.frombuffer(sink.getvalue(), np.uint8)})
