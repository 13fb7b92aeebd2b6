"""Reads tables as record batches: Parquet, Feather, CSV, JSON lines, Arrow.

Arrow parses the files. This module finds the files on disk or in an object store, and
holds one batch in memory at a time. Error messages name the file and the row. Rows are
counted from 0 within a file, without the header.
"""

import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable
from urllib.parse import unquote

import pyarrow as pa

from debias.data.arrays import bytes_of, first_no_text
from debias.data.files import check_regular
from debias.data.json_text import (
    Odd,
    Parsed,
    as_lines,
    beyond,
    holding_json,
    is_lines,
    learnt,
    leaves,
    with_text,
)
from debias.data.nested import pruned, top
from debias.data.stores import AnyPath, Remote, located, readable, refused, store_url
from debias.data.text import near, printable, quoted

__all__ = [
    "BATCH",
    "DAMAGED",
    "Part",
    "Retyped",
    "Source",
    "broken",
    "check_names",
    "files_of",
    "in_memory",
    "kind_of",
    "near",
    "open_parts",
]

BATCH = 1 << 16  # rows per batch
_BLOCK = 1 << 24  # bytes of text that are parsed at once
_SAMPLES = 16  # places in a JSON file that are searched for further columns
_KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_MAGIC = {b"PAR1": "parquet", b"ARRO": "feather"}
_PACKED = (".gz", ".bz2", ".zst")
# Errors of Arrow for files that are not complete tables: UnicodeError for column names
# that are not UTF-8, OverflowError for sizes out of range.
DAMAGED = (pa.ArrowException, OSError, UnicodeError, OverflowError)

Batches = Iterator[tuple[pa.RecordBatch, float]]


class Retyped(ValueError):
    """Raised if a field of a file has two types; it is read again as text."""


@runtime_checkable
class Streamed(Protocol):
    """A table in memory, of any library that supports Arrow's C stream protocol.

    Examples are data frames of pandas (from 2.2) and Polars, relations of DuckDB, and
    Arrow tables.
    """

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


Source: TypeAlias = str | Path | Streamed | Sequence[str | Path]


class Part(NamedTuple):
    """A file of a table, or a table in memory.

    Attributes:
        name: Path of the file, or "table" for a table in memory.
        schema: Names and types of the columns. Columns of a CSV file have the type
            text.
        read: Function that yields batches, each with the share that was read so far.
            Its arguments are the names of the wanted columns, and the names of the
            columns to read as numbers. A name such as a.b.c requests the column a,
            which may then lack its other fields. Error messages contain `name`.
        file: Path of the file; None for a table in memory.
    """

    name: str
    schema: pa.Schema
    read: Callable[[Sequence[str], Collection[str]], Batches]
    file: AnyPath | None = None


def open_parts(source: Source) -> list[Part]:
    """Opens the files of a table and determines their columns.

    Args:
        source: One or several paths, globs or URLs (s3:// or gs://), or a table in
            memory. Files end in .parquet, .feather, .arrow, .csv, .tsv, .jsonl, .json
            or .tfrecord (of `tf.train.Example`). Text files may also end in .gz, and
            Parquet and Feather files may have any name. A folder is read at any depth,
            in order of names. In a folder, names that begin with a dot or an underscore
            are ignored, and so are .json files beside other files. If every file is in
            a folder NAME=VALUE, NAME becomes a column. A table in memory must support
            Arrow's C stream protocol or be an Arrow dataset.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: The source has no file, a subfolder is empty, a file has an unknown
            format or is damaged, or two columns of a file have the same name. The
            message names the file or the folder.

    >>> part, = open_parts(pa.table({"a": [1, 2]}))
    >>> [(batch.num_rows, share) for batch, share in part.read(["a"], ())]
    [(2, 1.0)]
    """
    if in_memory(source):
        parts = [_of_memory(source)]
    else:
        found = [_OPEN[kind_of(path)](path) for path in files_of(source)]
        parts = _partitioned(found, source)
    for part in parts:
        check_names(part.name, part.schema.names)
    return [part._replace(read=partial(_read_text, part)) for part in parts]


@contextmanager
def unchanged(parts: Sequence[Part]) -> Iterator[None]:
    """Context manager that raises an error if a file changes size while it is read.

    Raises:
        ValueError: The size of a file changed. The message names the file.
    """
    files = [part.file for part in parts if isinstance(part.file, Path)]
    sizes = [path.stat().st_size for path in files]
    try:
        yield
    finally:
        for path, size in zip(files, sizes, strict=True):
            if (now := path.stat().st_size) != size:
                raise ValueError(
                    f"{path}: changed while it was read, from {size} bytes to {now}; "
                    "read it when it is complete, or read a copy"
                )


def _read_text(part: Part, columns: Sequence[str], numbers: Collection[str]) -> Batches:
    """Yields the batches of a part after checking that their text is UTF-8.

    Raises:
        ValueError: A text is not UTF-8. The message names the part, the column and the
            row.
    """
    start = 0
    for batch, share in part.read(columns, numbers):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if (entry := first_no_text(column)) is not None:
                raise ValueError(
                    f"{part.name}: column {printable(name)} is not UTF-8, such as "
                    f"{bytes_of(column, entry)}, at row {start + entry}; write the "
                    "file as UTF-8"
                )
        start += batch.num_rows
        yield batch, share


def read_names(fields: Iterable[pa.Field]) -> None:
    """Decodes the names of all columns, including fields within structs and lists.

    Raises:
        UnicodeError: A name is not UTF-8.
    """
    for field in fields:
        _ = field.name
        read_names(map(field.type.field, range(field.type.num_fields)))


def check_names(file: str, names: Sequence[str]) -> None:
    """Checks that all columns of a file have distinct names.

    Raises:
        ValueError: Two columns have the same name. The message contains the name and
            the file.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{file}: {names.count(twice)} columns are called {printable(twice)}; "
            "rename or remove all but one"
        )


# Files


def files_of(source: Any) -> list[AnyPath]:
    """The files that `open_parts` opens, in order.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: There is no file, a file has an unknown format, or the source does
            not consist of paths. The message names a file with an unknown format.
    """
    one = isinstance(source, str | Path) or not isinstance(source, Iterable)
    several = [source] if one else list(source)
    named = all(isinstance(each, str | Path) for each in several)
    if not named or isinstance(source, Mapping):
        raise ValueError(
            f"source must be paths, or one table, got {type(source).__name__}; a table "
            "must support Arrow's C stream protocol, as tables of pandas 2.2 do; "
            "pyarrow.table makes one from columns"
        )
    paths = [path for each in several for path in _files(each)]
    if not paths:
        raise ValueError("source names no file")
    return paths


def kind_of(path: AnyPath) -> str | None:
    """Format of a file, from its first bytes or its name; None if it is unknown.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: The path is a folder, a pipe or a device.
    """
    path = located(path)
    check_regular(path)
    with path.open("rb") as file:
        magic = _MAGIC.get(file.read(4))
    return magic or _named_kind(path)


def _named_kind(path: AnyPath) -> str | None:
    plain = path.with_suffix("") if path.suffix in _PACKED else path
    return _KINDS.get(plain.suffix)


def _files(source: str | Path) -> list[AnyPath]:
    if (url := store_url(source)) is not None and has_magic(url.partition("?")[0]):
        return _matching_urls(url)
    path = located(source)
    if isinstance(path, Path) and has_magic(str(source)) and not path.exists():
        found = sorted(Path(name) for name in glob(str(source), recursive=True))
        if not found:
            raise FileNotFoundError(f"{source}: no file matches")
        return [file for each in found for file in _files(each)]
    if path.is_dir():
        return _within(path)
    if kind_of(path) is None:
        raise ValueError(f"{path}: must end with one of {' '.join(_KINDS)}")
    return [path]


def _matching_urls(url: str) -> list[AnyPath]:
    """The files of a store whose keys match a pattern."""
    pattern, _, options = url.partition("?")
    if "=" not in options:  # the question mark belongs to the pattern
        pattern, options = url, ""
    before = pattern.split("/")
    fixed = next(n for n, part in enumerate(before) if has_magic(part))
    folder = located("/".join(before[:fixed]) + (f"?{options}" if options else ""))
    assert isinstance(folder, Remote)
    wanted = "/".join([folder.path, *before[fixed:]]).replace("**/", "*")
    found = [
        path
        for path in folder.inside(recursive=True)
        if path.is_file()
        and fnmatchcase(path.path, wanted)
        and ("**" in pattern or path.path.count("/") == wanted.count("/"))
    ]
    if not found:
        raise FileNotFoundError(f"{pattern}: no file matches")
    return list(found)


def _within(folder: AnyPath) -> list[AnyPath]:
    inside = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
    folders = [path for path in inside if path.is_dir()]
    named = [path for path in inside if path not in folders and _named_kind(path)]
    # A .json file beside parts of another kind is usually a manifest, not a part.
    files = [path for path in named if ".json" not in path.suffixes]
    files = files if files or folders else named
    for path in files:
        check_regular(path)
    parts = files + [path for each in folders for path in _within(each)]
    if not parts:
        raise ValueError(
            f"{folder}: holds no file {' '.join(_KINDS)}; remove or fill it"
        )
    return parts


def _partitioned(parts: Sequence[Part], source: Any) -> list[Part]:
    """Adds the columns that folder names define, such as NAME=VALUE.

    Only folders below the requested folder count. The column is added only if it is in
    the path of every file, and no file has a column of the same name.
    """
    asked = [source] if isinstance(source, str | Path) else source
    named = [
        (store_url(each) or str(each)).replace("//anonymous@", "//") for each in asked
    ]
    whole = [re.split(r"[*?\[]", name) for name in named]
    roots = [w[0].rpartition("/")[0] if len(w) > 1 else w[0] for w in whole]
    values = []
    for part in parts:
        root = max((r for r in roots if part.name.startswith(r)), key=len, default="")
        below = part.name[len(root) :].split("/")[:-1]
        pairs = (each.partition("=") for each in below)
        values.append(
            {name: unquote(v) for name, equals, v in pairs if equals and name}
        )
    names = [n for n in values[0] if all(n in each for each in values)]
    names = [n for n in names if not any(n in p.schema.names for p in parts)]
    return [
        _with_columns(part, {name: each[name] for name in names}) if names else part
        for part, each in zip(parts, values, strict=True)
    ]


def _with_columns(part: Part, values: dict[str, str]) -> Part:
    """Adds columns that have the same value in every row of the part."""

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        asked = [name for name in columns if name not in values]
        asked = asked or part.schema.names[:1]  # reads one column to count the rows
        for batch, share in part.read(asked, numbers):
            for name in columns:
                if name in values:
                    value = None if values[name] == _NO_VALUE else values[name]
                    column = pa.repeat(pa.scalar(value, pa.string()), len(batch))
                    batch = batch.append_column(name, column)
            yield batch.select(_tops(batch.schema.names, columns)), share

    fields = [pa.field(name, pa.string()) for name in values]
    return part._replace(schema=pa.schema([*part.schema, *fields]), read=read)


_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def _tops(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The top-level columns of these paths, without repetition."""
    found = (top(names, column) or column for column in columns)
    return list(dict.fromkeys(found))


# Parquet and Feather


def _of_parquet(path: AnyPath) -> Part:
    import pyarrow.parquet as pq

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        seen = 0
        try:
            # Buffered reads, unlike a memory map, leave no pages resident.
            with pq.ParquetFile(
                readable(path), pre_buffer=False, page_checksum_verification=True
            ) as file:
                leaves = _leaves(file, columns)
                for batch in file.iter_batches(BATCH, columns=leaves):
                    seen += batch.num_rows
                    yield batch, seen / max(file.metadata.num_rows, 1)
        except DAMAGED as error:
            raise broken(path, "Parquet", error, seen) from error

    try:
        schema = pq.read_schema(readable(path))
        read_names(schema)
    except DAMAGED as error:
        raise broken(path, "Parquet", error) from error
    return Part(str(path), schema, read, path)


def _leaves(file: Any, columns: Sequence[str]) -> list[str]:
    """The leaf columns that Parquet must read for these paths."""
    schema = file.schema
    stored = [schema.column(number).path for number in range(len(schema.names))]
    names = file.schema_arrow.names
    leaves: dict[str, None] = {}
    for column in columns:
        if column in names or top(names, column) is None:
            leaves[column] = None
            continue
        below: list[str] = []
        path = column
        while not below:
            below = [
                leaf for leaf in stored if f"{_cleaned(leaf)}.".startswith(f"{path}.")
            ]
            path = path.rpartition(".")[0]
        leaves |= dict.fromkeys(below)
    return list(leaves)


def _cleaned(leaf: str) -> str:
    """The path of a leaf without the levels that Parquet inserts for lists."""
    return re.sub(r"\.(list\.(element|item)|bag\.array_element|key_value)\b", "", leaf)


def _of_feather(path: AnyPath) -> Part:
    from pyarrow import ipc

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        seen = 0
        try:
            with ipc.open_file(readable(path)) as file:
                for number in range(file.num_record_batches):
                    whole = file.get_batch(number)
                    whole = whole.select(_tops(whole.schema.names, columns))
                    for start in range(0, len(whole), BATCH):
                        batch = whole.slice(start, BATCH)
                        seen += batch.num_rows
                        done = min(1.0, (start + BATCH) / len(whole))
                        yield batch, (number + done) / file.num_record_batches
        except DAMAGED as error:
            raise broken(path, "Feather", error, seen) from error

    try:
        with ipc.open_file(readable(path)) as file:
            schema = file.schema
            read_names(schema)
    except DAMAGED as error:
        raise broken(path, "Feather", error) from error
    return Part(str(path), schema, read, path)


def broken(path: AnyPath, kind: str, error: Exception, seen: int = 0) -> Exception:
    """An error that names a damaged or unreadable file."""
    if isinstance(path, Remote) and (refusal := refused(str(path), error)) is not None:
        return refusal
    if isinstance(error, PermissionError):
        return PermissionError(error.errno, "Permission denied", str(path))
    where = f", from row {seen} on" if seen else ""
    return ValueError(
        f"{path}{where}: is not a complete {kind} file; write or copy it again "
        f"({printable(str(error))})"
    )


# Text


SEPARATORS = (";", "\t", "|")  # separators of dialects other than ours


def _of_csv(path: AnyPath) -> Part:
    from pyarrow import csv

    tab = ".tsv" in path.suffixes[-2:]

    def opened(columns: Sequence[str] | None, threads: bool) -> csv.CSVStreamingReader:
        return csv.open_csv(
            _unpacked(path),
            csv.ReadOptions(block_size=_BLOCK, use_threads=threads),
            csv.ParseOptions(delimiter="\t" if tab else ","),
            csv.ConvertOptions(
                check_utf8=False,  # `_read_text` checks and names the row
                column_types=dict.fromkeys(columns or (), pa.string()),
                include_columns=columns,
                strings_can_be_null=True,
                null_values=["", "NULL", "null", "\\N"],  # NA and nan may be names
            ),
        )

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        columns = _tops(names, columns)
        try:
            yield from _blocks(path, lambda: opened(list(columns), True))
        except ValueError as error:
            if "in row" not in str(error):  # threads lose the line number: read again
                for _ in _blocks(path, lambda: opened(list(columns), False)):
                    pass
            raise

    try:
        names = opened(None, False).schema.names
    except DAMAGED as error:
        raise _fault(path, error) from error
    if len(names) == 1 and any(sign in names[0] for sign in SEPARATORS):
        sign = next(sign for sign in SEPARATORS if sign in names[0])
        raise ValueError(
            f"{path}: has one column, whose name contains {sign!r}: separate the "
            "columns by ',' (or by tabs in a .tsv file)"
        )
    schema = pa.schema([(name, pa.string()) for name in names])
    return Part(str(path), schema, read, path)


def _unpacked(path: AnyPath) -> Any:
    """The source of a text file for Arrow, which decompresses only local files."""
    if not isinstance(path, Remote):
        return path
    kinds = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
    kind = kinds.get(path.suffix)
    return path.open() if kind is None else pa.CompressedInputStream(path.open(), kind)


def _of_json(path: AnyPath) -> Part:
    from pyarrow import json

    odd: Odd = {}

    def opened(schema: pa.Schema | None) -> pa.RecordBatchReader:
        bare = lines and not odd
        return json.open_json(
            _unpacked(path) if bare else as_lines(_lines(path), str(path), odd),
            json.ReadOptions(block_size=_BLOCK),
            json.ParseOptions(
                explicit_schema=schema,
                unexpected_field_behavior="infer" if schema is None else "ignore",
            ),
        )

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        some = pruned(schema, columns)
        for place, mode in odd.items():
            some = with_text(some, place) if mode == "text" else some
        # If the first rows leave a value out, its type is text, which fits all values.
        wanted = pa.schema(
            field.with_type(
                _as_float(field.type)
                if field.name in numbers
                else _as_text(field.type, pa.types.is_null)
            )
            for field in some
        )
        try:
            for batch, share in _blocks(path, lambda: opened(wanted)):
                yield batch.select(wanted.names), share
        except ValueError as error:
            if learnt(odd, error.__cause__):
                raise Retyped(str(error)) from error
            raise

    try:
        with _lines(path) as stream:
            lines = is_lines(stream)
        while True:
            try:
                schema = opened(None).schema
                break
            except pa.ArrowInvalid as error:
                if not learnt(odd, error):
                    raise
        if pa.float64() in leaves(schema):
            with _lines(path) as stream:
                odd.update(dict.fromkeys(beyond(stream, str(path)), "text"))
            schema = opened(None).schema if odd else schema
        schema = _sampled(path, schema) if lines else schema
        # Times become text, because later rows may not be times.
        plain = (f.with_type(_as_text(f.type, pa.types.is_timestamp)) for f in schema)
        schema = pa.schema(plain)
        read_names(schema)
    except DAMAGED as error:
        raise _fault(path, error) from error
    return Part(str(path), schema, read, path)


def _sampled(path: AnyPath, schema: pa.Schema) -> pa.Schema:
    """The schema of the first block, plus columns that occur further down.

    The additional columns are found in samples of a large file on disk. If a column has
    a different type in a sample, the type of the first block stays.
    """
    from pyarrow import json

    if path.suffix in _PACKED or isinstance(path, Remote):
        return schema
    size = path.stat().st_size
    if size <= _BLOCK:
        return schema
    with path.open("rb") as file:
        for start in range(_BLOCK, size, max(_BLOCK, size // _SAMPLES)):
            file.seek(start)
            file.readline()
            lines = b"".join(file.readlines(_BLOCK >> 6))
            try:
                more = json.read_json(io.BytesIO(lines)).schema
                new = [field for field in more if field.name not in schema.names]
                schema = pa.unify_schemas(
                    [schema, pa.schema(new)], promote_options="permissive"
                )
                schema = pa.unify_schemas([schema, more], promote_options="permissive")
            except DAMAGED:
                continue  # errors in it are reported when it is read
    return schema


def _as_text(kind: pa.DataType, some: Callable[[pa.DataType], bool]) -> pa.DataType:
    """Values of some types become text, also within lists and structs."""
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type, some))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_text(field.type, some)) for field in kind])
    return pa.string() if some(kind) else kind


def _as_float(kind: pa.DataType) -> pa.DataType:
    """Integers become floats, also in lists: later rows may have fractions."""
    if pa.types.is_list(kind):
        return pa.list_(_as_float(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) or pa.types.is_null(kind) else kind


def _blocks(path: AnyPath, opened: Callable[[], pa.RecordBatchReader]) -> Batches:
    seen = read = 0
    size = max(path.stat().st_size, 1)
    try:
        with opened() as reader:
            for batch in reader:
                seen += batch.num_rows
                # Blocks are divided by size. The decompressed size of text is unknown.
                read = min(read + _BLOCK, size)
                yield batch, read / size
    except DAMAGED as error:
        raise _fault(path, error, seen) from error


def _fault(path: AnyPath, error: Exception, seen: int = 0) -> Exception:
    """Arrow's error, with rows counted from the start of the file.

    >>> _fault(Path("a.jsonl"), ValueError("Column(/x) is odd in row 2"), 8)
    ValueError('a.jsonl: column x is odd in row 10; repair that line')
    """
    if isinstance(path, Remote) and (refusal := refused(str(path), error)) is not None:
        return refusal
    if isinstance(error, PermissionError):
        return PermissionError(error.errno, "Permission denied", str(path))
    if re.search("Empty (CSV|JSON) (file|stream)", str(error)):
        return ValueError(f"{path}: is empty; remove or fill it")
    if path.suffix in _PACKED and re.search("inflate|ompress", str(error)):
        return ValueError(
            f"{path}: is not a complete {path.suffix[1:]} file; write or copy it again "
            f"({printable(str(error))})"
        )
    if isinstance(error, UnicodeError):  # in column names
        return _no_utf8(path)
    if "straddl" in str(error):
        return ValueError(
            f"{path} at or after row {seen}: a line is longer than {_BLOCK >> 20} MB; "
            "write each object on a separate line"
        )
    if (
        odd := re.search(r"JSON to (\w+), couldn't parse:(.*)", str(error))
    ) is not None:
        return _odd_value(path, odd[1], odd[2].strip(), seen)
    # Arrow names a list in a column /column/[].
    text = re.sub(r"Column\(/(.+?)(/\[\])*\)", r"column \1", str(error))
    text = re.sub(r"in row (\d+)", lambda m: f"in row {seen + int(m[1])}", text)
    if "Column() changed from object" in text:
        return ValueError(f"{path}: must hold a JSON object on each line: {text}")
    # In CSV, Arrow counts lines from 1, including the header.
    text = re.sub(r"Row #(\d+)", lambda m: f"in row {int(m[1]) - 2}", text)
    where = f" at or after row {seen}" if seen and "in row" not in text else ""
    todo = "repair that line"
    if " changed from " in text:
        todo = "write all of its values as one type, such as text"
    return ValueError(f"{path}{where}: {printable(text)}; {todo}")


_PLAIN = {"int64": "whole numbers", "double": "numbers", "bool": "true and false"}


def _odd_value(path: AnyPath, kind: str, value: str, seen: int) -> ValueError:
    """The error that names the column and row of `value`, from row `seen` on.

    Arrow inferred the type of the column from earlier rows, and its error contains only
    the value.
    """
    import json

    usual = _PLAIN.get(kind, kind)
    with _lines(path) as stream:
        for row, line in enumerate(filter(bytes.strip, stream)):
            if row < seen:
                continue
            plain = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
            for name, own in plain.items():
                if value in (own if isinstance(own, list) else [own]):
                    return ValueError(
                        f"{path}: column {printable(name)} holds {usual} in the rows "
                        f"before, got {printable(value)} at row {row}; "
                        "write all numbers in one form, and null for missing values"
                    )
    return ValueError(
        f"{path} at or after row {seen}: got {printable(value)} in a column that "
        f"holds {usual} before; write all numbers in one form"
    )


def _lines(path: AnyPath) -> io.BufferedReader:
    """Opens a text, decompressed, for reading by line."""
    return io.BufferedReader(pa.input_stream(_unpacked(path)))


def _no_utf8(path: AnyPath) -> ValueError:
    """The error for the first line that is not UTF-8."""
    header = _named_kind(path) == "csv"
    with _lines(path) as stream:
        for number, line in enumerate(stream):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                some = quoted(line[max(error.start - 10, 0) : error.end + 10])
                row = number - header
                where = "its header" if row < 0 else f"row {row}"
                return ValueError(
                    f"{path}: {where} is not UTF-8, at {some}; write the file as UTF-8"
                )
    return ValueError(f"{path}: is not UTF-8; write the file as UTF-8")


def with_json(part: Part, inside: Iterable[str], lists: Collection[str] = ()) -> Part:
    """Returns the part with a reader that parses JSON in text columns.

    Args:
        part: A part from `open_parts`.
        inside: Paths with dots. A text column is parsed if a path leads into it.
        lists: Names of columns that may hold lists. Such text columns are parsed too.
    """
    columns = holding_json(part.schema, inside, lists)
    first = next(part.read(columns, ()), None) if columns else None
    if first is None:
        return part
    parsers, schema = {}, part.schema
    for name in columns:
        parser = Parsed(part.name, name)
        kind = parser.kind(first[0].column(name))
        if kind is not None:
            parsers[name] = parser
            schema = schema.set(schema.names.index(name), pa.field(name, kind))

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        start = 0
        tops, numbers = _tops(part.schema.names, columns), {*numbers} - {*parsers}
        for batch, share in part.read(tops, numbers):
            for name in parsers.keys() & set(batch.schema.names):
                number = batch.schema.names.index(name)
                table = parsers[name](batch.column(number), start)
                value = table.column(0).combine_chunks()
                batch = batch.set_column(number, name, value)
            start += len(batch)
            yield batch, share

    return part._replace(schema=schema, read=read) if parsers else part


def with_lists(parts: Sequence[Part], item: str) -> Sequence[Part]:
    """Parses the lists in text columns if the item column holds text such as [4, 7]."""
    if with_json(parts[0], (), [item]) is parts[0]:
        return parts
    return [with_json(part, (), part.schema.names) for part in parts]


# Memory


def in_memory(source: Any) -> bool:
    """Whether a source is a table in memory, not a path."""
    return isinstance(source, Streamed) or _is_dataset(source)


def _is_dataset(source: Any) -> bool:
    return hasattr(source, "get_fragments")  # works without importing pyarrow.dataset


def table_of(source: Any) -> pa.Table:
    """Converts a table in memory to an Arrow table."""
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    return source.to_table() if _is_dataset(source) else _streamed(source).read_all()


def _streamed(source: Any) -> pa.RecordBatchReader:
    """Converts a table of any library to a stream of record batches.

    Raises:
        ValueError: Arrow cannot convert the table, such as columns of mixed objects.
    """
    try:
        return pa.RecordBatchReader.from_stream(source)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(
            f"table: {type(source).__name__} cannot be converted by Arrow "
            f"({printable(str(error))}); give each column one type"
        ) from error


def _of_memory(source: Any) -> Part:
    """A part that reads a table in memory; a reader can be read only once."""
    if isinstance(source, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        source = table_of(source)
    rows = source.count_rows() if _is_dataset(source) else _length(source)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = _tops(schema.names, columns)
        if isinstance(source, pa.Table):
            yield from source.select(wanted).to_batches(BATCH)
        elif _is_dataset(source):
            yield from source.to_batches(columns=wanted, batch_size=BATCH)
        else:
            for batch in _streamed(source):
                yield batch.select(wanted)

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        seen = 0
        for whole in batches(columns):
            for start in range(0, len(whole), BATCH):
                batch = whole.slice(start, BATCH)
                seen += batch.num_rows
                yield batch, min(1.0, seen / max(rows or seen, 1))

    has_schema = isinstance(source, pa.Table) or _is_dataset(source)
    schema = source.schema if has_schema else _streamed(source).schema
    return Part("table", schema, read)


def _length(source: Any) -> int | None:
    """The number of rows of a table, or None if counting would compute the table."""
    try:
        return len(source)
    except (TypeError, ValueError, RuntimeError):
        return None


def _of_examples(path: AnyPath) -> Part:
    """A part that reads a TFRecord file of examples; loads TensorFlow."""
    from debias.data.examples import batches_of, schema_of

    if isinstance(path, Remote):
        raise ValueError(
            f"{path}: TFRecord files are read only from disk; copy it there"
        )
    schema = schema_of(path)

    def read(columns: Sequence[str], numbers: Collection[str]) -> Batches:
        seen, size = 0, max(path.stat().st_size, 1)
        for batch, length in batches_of(path, schema, _tops(schema.names, columns)):
            seen += length
            yield batch, min(seen / size, 1.0)

    return Part(str(path), schema, read, path)


_OPEN: dict[Any, Callable[[AnyPath], Part]] = {
    "parquet": _of_parquet,
    "feather": _of_feather,
    "csv": _of_csv,
    "json": _of_json,
    "tfrecord": _of_examples,
}
