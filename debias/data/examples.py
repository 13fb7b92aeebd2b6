"""Reads and writes TFRecord files of `tf.train.Example` as Arrow batches.

A feature becomes a column of lists if any of the first 1000 records holds several
values of the feature. Other features become columns of single values. TensorFlow is
loaded only when a TFRecord file is read or written.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from debias.data.arrays import is_list, plain
from debias.data.files import atomic_write
from debias.data.text import printable

_FIRST = 1000  # records that determine the type of a feature
_ROWS = 4096  # records parsed at once
_KINDS = {
    "bytes_list": pa.binary(),
    "float_list": pa.float32(),
    "int64_list": pa.int64(),
}


def records(path: str | Path) -> Iterator[Any]:
    """Yields the records of a TFRecord file as tensors of several records.

    The file may be plain or compressed (.gz).

    Raises:
        ValueError: The file is damaged or truncated. The message names the file.
    """
    import tensorflow as tf

    packed = "GZIP" if Path(path).suffix == ".gz" else ""
    try:
        yield from tf.data.TFRecordDataset(str(path), packed).batch(_ROWS)
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        text = printable(error.message.partition(" [")[0])
        raise ValueError(
            f"{path}: is not a complete TFRecord file; write or copy it again ({text})"
        ) from error


def schema_of(path: str | Path) -> pa.Schema:
    """Infers the schema of a file of examples from its first 1000 records.

    Raises:
        ValueError: The file is empty, is not a TFRecord file, or does not hold
            `tf.train.Example` records. The message names the file.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    found: dict[str, pa.DataType] = {}
    listed: set[str] = set()
    count = 0
    for raw in islice((raw for some in records(path) for raw in some.numpy()), _FIRST):
        try:
            example = tf.train.Example.FromString(raw)
        except DecodeError:
            example = tf.train.Example()
        features = example.features.feature
        if not features or not all(name.isprintable() for name in features):
            raise ValueError(
                f"{path}: record {count} is not a tf.train.Example with features; "
                "lists with a context (ELWC) are read by debias.read_elwc"
            )
        for name, feature in features.items():
            kind = feature.WhichOneof("kind")
            if kind is not None:
                found.setdefault(name, _KINDS[kind])
                if len(getattr(feature, kind).value) > 1:
                    listed.add(name)
        count += 1
    if not count:
        whole = Path(path).stat().st_size == 0
        raise ValueError(
            f"{path}: is empty; remove or fill it"
            if whole
            else f"{path}: is not a complete TFRecord file; write or copy it again"
        )
    kinds = {n: pa.list_(k) if n in listed else k for n, k in sorted(found.items())}
    return pa.schema(list(kinds.items()))


def batches_of(
    path: str | Path, schema: pa.Schema, columns: Sequence[str]
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yields the examples of a file as record batches, each with its size in bytes.

    Args:
        path, schema: The file, and its schema from `schema_of`.
        columns: Columns to read. A feature that an example lacks becomes NULL.

    Raises:
        ValueError: The file is damaged, or a feature has a different type or more
            values than in the first rows. The message names the file, the feature and
            the row.
    """
    start = 0
    for raw in records(path):
        yield _parsed(path, schema, columns, raw, start)
        start += len(raw)


def _parsed(
    path: str | Path, schema: pa.Schema, columns: Sequence[str], raw: Any, start: int
) -> tuple[pa.RecordBatch, int]:
    import tensorflow as tf

    kinds = {pa.binary(): tf.string, pa.float32(): tf.float32, pa.int64(): tf.int64}
    spec = {}
    for name in columns:
        kind = schema.field(name).type
        inner = kind.value_type if is_list(kind) else kind
        spec[name] = tf.io.RaggedFeature(kinds[inner])
    try:
        parsed = tf.io.parse_example(raw, spec)
    except tf.errors.InvalidArgumentError as error:
        text = printable(error.message.partition("[[")[0].strip())
        raise ValueError(
            f"{path}: at or after row {start}, an example has other types than the "
            f"first ones ({text}); write each feature as one type"
        ) from error
    arrays = []
    for name in columns:
        kind = schema.field(name).type
        values = pa.array(parsed[name].values.numpy())
        splits = parsed[name].row_splits.numpy()
        if is_list(kind):
            flat = values.cast(kind.value_type)
            arrays.append(pa.ListArray.from_arrays(pa.array(splits, pa.int32()), flat))
            continue
        sizes = np.diff(splits)
        if sizes.size and sizes.max() > 1:
            row = int(np.argmax(sizes > 1))
            raise ValueError(
                f"{path}: column {printable(name)} holds {sizes[row]} values at row "
                f"{start + row}, but the first rows hold one; write one everywhere, or "
                "lists everywhere"
            )
        place = pa.array(splits[:-1], mask=sizes == 0)
        arrays.append(values.cast(kind).take(place))
    size = int(tf.reduce_sum(tf.strings.length(raw))) + 16 * len(raw)
    return pa.RecordBatch.from_arrays(arrays, names=list(columns)), size


def write_examples(table: pa.Table, path: str | Path) -> None:
    """Writes a table atomically as a TFRecord file of `tf.train.Example`.

    The file is compressed if its name ends in .gz.

    Whole numbers and booleans become int64, other numbers become float, and text
    becomes bytes. Times become microseconds since 1970. NULL values are left out.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "events.tfrecord"
    >>> write_examples(pa.table({"user": ["u"], "item": [7], "time": [2.5]}), path)
    >>> [(field.name, str(field.type)) for field in schema_of(path)]
    [('item', 'int64'), ('time', 'float'), ('user', 'binary')]
    """
    columns = [_values(plain(each.combine_chunks())) for each in table.columns]
    made = (_example(table.column_names, row) for row in zip(*columns, strict=True))
    write_records((each.SerializeToString() for each in made), path)


def write_records(raw: Iterator[bytes], path: str | Path) -> None:
    """Writes serialized records atomically as a TFRecord file.

    The file is compressed if its name ends in .gz.
    """
    import tensorflow as tf

    packed = "GZIP" if Path(path).suffix == ".gz" else ""
    with (
        atomic_write(path) as aside,
        tf.io.TFRecordWriter(str(aside), packed) as writer,
    ):
        for each in raw:
            writer.write(each)


def _values(array: pa.Array) -> list[Any]:
    """Converts an array to Python values that an example can hold."""
    kind = array.type
    if is_list(kind):
        return [_values_of(each) if each.is_valid else None for each in array]
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    elif pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif pa.types.is_date(kind) or pa.types.is_uint64(kind):
        array = array.cast(pa.string())
    return array.to_pylist()


def _values_of(cell: pa.Scalar) -> list[Any]:
    return [value for value in _values(plain(cell.values)) if value is not None]


def _example(names: Sequence[str], row: Sequence[Any]) -> Any:
    import tensorflow as tf

    features = {
        name: feature_of(value)
        for name, value in zip(names, row, strict=True)
        if value is not None
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def feature_of(value: Any) -> Any:
    """Converts a value, or a list of values of one type, to a `tf.train.Feature`."""
    import tensorflow as tf

    values = value if isinstance(value, list) else [value]
    if all(isinstance(each, str | bytes) for each in values):
        raw = [each.encode() if isinstance(each, str) else each for each in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=raw))
    if all(isinstance(each, int) for each in values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, values)))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
