"""Text columns that hold only numbers, as in CSV files."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from debias.data.tables import Part, kind_of

# Numbers as programs write them. Text with more digits than its type holds, or with a
# leading zero, is an id or a code, and stays text.
WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
REAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?$"


def types_of(parts: Sequence[Part]) -> dict[str, pa.DataType]:
    """Finds the CSV columns that hold only numbers, and their types; reads all rows.

    The result is empty for other file formats, whose columns already have types.
    """
    forms: dict[str, int] = {}  # bits: has a value, has a non-integer, has a non-number
    for part in parts:
        if part.file is None or kind_of(part.file) != "csv":
            return {}
        for batch, _ in part.read(part.schema.names, ()):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                forms[name] = forms.get(name, 0) | _form(column)
    types = {1: pa.int64(), 3: pa.float64()}
    return {name: types[form] for name, form in forms.items() if form in types}


def _form(column: pa.Array) -> int:
    if column.null_count == len(column):
        return 0
    whole, real = (
        pc.all(pc.match_substring_regex(column, form)).as_py() for form in (WHOLE, REAL)
    )
    return 1 | (0 if whole else 2) | (0 if whole or real else 4)


def typed(rows: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Converts text columns to the number types found by `types_of`.

    >>> rows = pa.RecordBatch.from_pydict({"n": ["1", None], "id": ["007", "1"]})
    >>> typed(rows, {"n": pa.int64()}).to_pydict()
    {'n': [1, None], 'id': ['007', '1']}
    """
    columns = {
        name: column.cast(types.get(name, column.type))
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    }
    return pa.RecordBatch.from_pydict(columns)
