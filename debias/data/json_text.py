"""Converts JSON of any layout to the JSON lines that Arrow parses.

Arrow needs one object per line and one type per field. Exported files may also contain
arrays, objects over several lines, and text columns that hold JSON. An id may be a
number in one row and text in another row.
"""

import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from debias.data.nested import top
from debias.data.text import printable

Odd: TypeAlias = dict[tuple[str, ...], str]  # "text" or "empty" by path
_CHUNK = 1 << 20  # characters
_LARGEST = 1 << 26  # characters of one object
_BETWEEN = re.compile(r"[\s,\[\]]*")
_CLASH = re.compile(r"Column\(/(.+?)\) changed from (\w+) to (\w+)")


def is_lines(stream: BinaryIO) -> bool:
    """Guesses from the first line whether a file has one JSON object per line.

    >>> [is_lines(io.BytesIO(text)) for text in (b'{"a": 1}', b"[{}]", b"{\\n}")]
    [True, False, False]
    """
    head = stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    line, end, _ = head.partition(b"\n")
    return not head.startswith(b"[") and (not end or line.rstrip().endswith(b"}"))


def learnt(odd: Odd, error: BaseException | None) -> bool:
    """Records the field that has two types, as reported by an error of Arrow.

    Returns True if the error names a field that was not recorded before.

    >>> odd, text = {}, "Column(/a/[]/b) changed from string to number in row 6"
    >>> learnt(odd, ValueError(text)), odd
    (True, {('a', 'b'): 'text'})
    """
    found = _CLASH.search(str(error))
    if found is None:
        return False
    path = tuple(name for name in found[1].split("/") if name != "[]")
    if path in odd:
        return False
    odd[path] = "empty" if {found[2], found[3]} & {"object", "array"} else "text"
    return True


def with_text(schema: pa.Schema, path: Sequence[str]) -> pa.Schema:
    """Changes the type of a field to text; the field may be within lists and structs.

    >>> with_text(pa.schema({"a": pa.list_(pa.struct({"b": pa.int64()}))}), ["a", "b"])
    a: list<item: struct<b: string>>
      child 0, item: struct<b: string>
          child 0, b: string
    """

    def changed(field: pa.Field, rest: Sequence[str]) -> pa.Field:
        kind = field.type
        if pa.types.is_list(kind):
            inner = pa.field("item", kind.value_type)
            return field.with_type(pa.list_(changed(inner, rest).type))
        if pa.types.is_struct(kind):
            return field.with_type(pa.struct(among(kind, rest)))
        return field if rest else field.with_type(pa.string())

    def among(fields: Iterable[pa.Field], rest: Sequence[str]) -> list[pa.Field]:
        return [changed(f, rest[1:]) if f.name in rest[:1] else f for f in fields]

    return pa.schema(among(schema, path))


def as_lines(stream: BinaryIO, name: str, odd: Odd) -> io.RawIOBase:
    """Converts JSON of any layout to a stream of JSON lines, with one type per field.

    Args:
        stream: JSON objects in any layout, or arrays of them.
        name: Name of the file, for error messages.
        odd: Treatment of each field with mixed types: "text" converts numbers to text,
            and "empty" replaces empty values by null, because PHP writes [] for an
            object without fields.

    >>> text = io.BytesIO(b'[{"a": 1, "b": []},\\n {"a": "x", "b": {"c": 2}}]')
    >>> as_lines(text, "", {("a",): "text", ("b",): "empty"}).read()
    b'{"a": "1", "b": null}\\n{"a": "x", "b": {"c": 2}}\\n'
    """
    tree: dict[str, Any] = {}
    for path, mode in odd.items():
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if isinstance(place, str):
                break
        else:
            place[path[-1]] = mode
    return _Stream(
        json.dumps(_one_type(value, tree)).encode() + b"\n"
        for value in _objects(stream, name)
    )


class _Stream(io.RawIOBase):
    """Presents lines as a file."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines, self._held = lines, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        held, size = [self._held], len(self._held)
        while size < len(buffer) and (line := next(self._lines, b"")):
            held.append(line)
            size += len(line)
        whole, size = b"".join(held), min(size, len(buffer))
        buffer[:size], self._held = whole[:size], whole[size:]
        return size


def _objects(stream: BinaryIO, name: str) -> Iterator[Any]:
    """Yields the objects of a text in order."""
    decoder, reader = json.JSONDecoder(), io.TextIOWrapper(stream, "utf-8-sig")
    text, at, row = "", 0, 0
    while True:
        more = reader.read(_CHUNK)
        text, at = text[at:] + more, 0
        while (at := _BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            try:
                value, at = decoder.raw_decode(text, at)
            except ValueError as error:
                if more and len(text) < _LARGEST:
                    break  # the object continues in the next chunk
                raise ValueError(
                    f"{name}: invalid JSON at row {row}: {printable(str(error))}; "
                    "repair it"
                ) from None
            yield value
            row += 1
        if not more:
            return


def beyond(stream: BinaryIO, name: str, rows: int = 1000) -> set[tuple[str, ...]]:
    """The fields with integers beyond int64, which Arrow would read as floats.

    >>> beyond(io.BytesIO(b'{"a": 9223372036854775808, "b": [{"c": 1}]}'), "")
    {('a',)}
    """

    def places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from places(inner, (*path, key))
        elif isinstance(value, list):
            for inner in value:
                yield from places(inner, path)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            yield path

    return {
        path
        for each in islice(_objects(stream, name), rows)
        for path in places(each, ())
    }


def leaves(fields: Iterable[pa.Field]) -> set[pa.DataType]:
    """The types of all values in columns, including values within lists and structs."""
    found: set[pa.DataType] = set()
    for field in fields:
        kind = field.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        found |= leaves(kind) if pa.types.is_struct(kind) else {kind}
    return found


def _one_type(value: Any, tree: Any) -> Any:
    if tree == "empty" and value in ("", [], {}):
        return None
    if isinstance(value, list):
        return [_one_type(each, tree) for each in value]
    if tree == "text":
        return value if value is None or isinstance(value, str) else json.dumps(value)
    if isinstance(value, dict) and isinstance(tree, dict):
        for name in tree.keys() & value.keys():
            value[name] = _one_type(value[name], tree[name])
    return value


# Text that holds JSON


def holding_json(
    schema: pa.Schema, inside: Iterable[str], lists: Collection[str]
) -> list[str]:
    """Names of the text columns that should hold JSON.

    A text column should hold JSON if a path of `inside` leads into the column, or if
    `lists` contains its name.
    """
    found: dict[str, None] = {}
    for path in [*inside, *lists]:
        column = top(schema.names, path)
        if column is not None and (column != path or path in lists):
            kind = schema.field(column).type
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                found[column] = None
    return list(found)


class Parsed:
    """Parses a text column of JSON in batches, with the type of the first rows.

    Args:
        name: Name of the file, for error messages.
        column: Name of the text column.
    """

    def __init__(self, name: str, column: str) -> None:
        self._name, self._column = name, column
        self._odd: Odd = {}
        self._schema: pa.Schema | None = None

    def kind(self, text: pa.Array) -> pa.DataType | None:
        """Infers the type from the first rows; None if they hold no JSON."""
        there = text.drop_null()
        try:
            first = json.loads(there[0].as_py()) if len(there) else None
        except ValueError:
            return None
        if not isinstance(first, list | dict):
            return None
        self._schema = self(text, 0).schema
        return self._schema.field(0).type

    def __call__(self, text: pa.Array, start: int) -> pa.Table:
        """Parses rows to a table of one column; `start` is the first row's number.

        Raises:
            ValueError: A value is not JSON. The message names the file, the column and
                the row.
        """
        from pyarrow import json as arrow_json

        plain = pc.replace_substring_regex(text.cast(pa.string()), r"[\r\n]", " ")
        lines = pc.binary_join_element_wise(
            '{"value": ', plain.fill_null("null"), "}\n", ""
        )
        joined = "".join(lines.to_pylist()).encode()
        options = arrow_json.ParseOptions(
            explicit_schema=self._schema,
            unexpected_field_behavior="ignore" if self._schema else "infer",
        )
        while True:
            source: Any = io.BytesIO(joined)
            source = as_lines(source, self._name, self._odd) if self._odd else source
            try:
                table = arrow_json.read_json(
                    source,
                    arrow_json.ReadOptions(block_size=max(len(joined), 1) * 2),
                    parse_options=options,
                )
                if (
                    self._schema
                    or self._odd
                    or pa.float64() not in leaves(table.schema)
                ):
                    return table
                large = beyond(io.BytesIO(joined), self._name)
                self._odd.update(dict.fromkeys(large, "text"))
                if not self._odd:
                    return table
            except pa.ArrowInvalid as error:
                if not learnt(self._odd, error):
                    raise self._fault(plain, start) from error

    def _fault(self, text: pa.Array, start: int) -> ValueError:
        entry, what = 0, "is of another type than in the rows before"
        for number, value in enumerate(text.to_pylist()):
            try:
                json.loads(value or "null")
            except ValueError as error:
                entry, what = number, f"is not JSON ({error})"
                break
        return ValueError(
            f"{self._name}: column {printable(self._column)} {what}, at row "
            f"{start + entry}; repair it, or leave that row out"
        )
