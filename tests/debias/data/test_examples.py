"""TFRecord files of examples: as any other table, held to TensorFlow's own parser."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from debias.data import write_examples
from debias.data.read_log import read_log
from debias.data.tables import open_parts
from debias.retrieval.data.events import pending, read_events
from tests.debias.data.test_read_log import COLUMNS, FLAT, LISTED, LISTS, expected

EVENTS = pa.table({"user": ["u", "v", "u"], "item": [7, 8, 9], "time": [3, 4, 5]})


def read(path):
    (part,) = open_parts(path)
    batches = [batch for batch, _ in part.read(part.schema.names, ())]
    return pa.Table.from_batches(batches)


@pytest.mark.parametrize("suffix", ["tfrecord", "tfrecords", "tfrecord.gz"])
def test_a_log_of_examples_is_read_as_any_other(suffix, tmp_path):
    path = tmp_path / f"log.{suffix}"
    write_examples(FLAT, path)
    expected(read_log(path, COLUMNS))
    some = LISTS.take([0, 2])  # NULL within a list has no place in an example
    write_examples(some, path)
    assert read_log(path, LISTED).log.click.sum() == 1


def test_what_is_written_is_what_tensorflow_reads(tmp_path):
    table = pa.table(
        {
            "name": ["a", None, "ü"],
            "count": [1, -2, 2**62],
            "price": [0.5, 2.0, None],
            "tags": [["x", "y"], [], None],
            "fine": [True, False, True],
            "at": pa.array([1, 2, 3], pa.timestamp("s")),
        }
    )
    write_examples(table, tmp_path / "a.tfrecord")
    raw = list(tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord")))
    spec = {
        "name": tf.io.FixedLenFeature([], tf.string, "none"),
        "count": tf.io.FixedLenFeature([], tf.int64),
        "price": tf.io.FixedLenFeature([], tf.float32, -1.0),
        "tags": tf.io.RaggedFeature(tf.string),
        "fine": tf.io.FixedLenFeature([], tf.int64),
        "at": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(raw, spec)
    assert parsed["name"].numpy().tolist() == [b"a", b"none", "ü".encode()]
    assert parsed["count"].numpy().tolist() == [1, -2, 2**62]
    assert parsed["price"].numpy().tolist() == [0.5, 2.0, -1.0]
    assert parsed["tags"].to_list() == [[b"x", b"y"], [], []]
    assert parsed["fine"].numpy().tolist() == [1, 0, 1]
    assert parsed["at"].numpy().tolist() == [10**6, 2 * 10**6, 3 * 10**6]
    again = read(tmp_path / "a.tfrecord")
    assert again["name"].to_pylist() == [b"a", None, "ü".encode()]
    assert again["tags"].to_pylist() == [[b"x", b"y"], [], []]
    assert again["price"].to_pylist() == [0.5, 2.0, None]


def test_events_of_a_stream_of_examples(tmp_path):
    path = tmp_path / "events.tfrecord"
    write_examples(EVENTS, path)
    ((name, events),) = read_events(path)
    assert name == str(path)
    assert events.user.tolist() == ["u", "v", "u"]
    assert events.item.tolist() == ["7", "8", "9"] and events.time.tolist() == [3, 4, 5]
    (_, marks) = next(pending(path, {}, max_events=2))
    ((rest, _),) = pending(path, marks)
    assert rest.item.tolist() == ["9"]


def examples(*rows):
    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        many = value if isinstance(value, list) else [value]
        return tf.train.Feature(int64_list=tf.train.Int64List(value=many))

    for row in rows:
        features = {name: feature(value) for name, value in row.items()}
        made = tf.train.Example(features=tf.train.Features(feature=features))
        yield made.SerializeToString()


def write(path, raw):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in raw:
            writer.write(each)
    return path


def test_bad_records_name_the_file_and_the_row(tmp_path, monkeypatch):
    from debias.data import examples as module

    monkeypatch.setattr(module, "_FIRST", 2)
    rows = [{"a": 1}, {"a": 2}, {"a": [3, 4]}]
    path = write(tmp_path / "a.tfrecord", examples(*rows))
    with pytest.raises(ValueError, match=r"a\.tfrecord: column a holds 2 .* at row 2"):
        read(path)
    path = write(tmp_path / "b.tfrecord", examples({"a": 1}, {"a": 2}, {"a": b"x"}))
    with pytest.raises(ValueError, match=r"b\.tfrecord: at or after row 0, .* types"):
        read(path)
    whole = write(tmp_path / "c.tfrecord", examples(*[{"a": 1}] * 50)).read_bytes()
    for damaged in (whole[:-3], whole[:700] + b"x" + whole[701:], b"no records"):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"b\.tfrecord: is not a complete TFRecord file"
        ):
            read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.tfrecord: is empty"):
        read(path)
    write(path, [b"something else"])
    with pytest.raises(ValueError, match=r"record 0 is not a tf\.train\.Example"):
        read(path)


def test_numbers_keep_their_type_over_many_batches(tmp_path, monkeypatch):
    from debias.data import examples as module

    numbers = np.arange(100)
    write_examples(pa.table({"n": numbers}), tmp_path / "a.tfrecord")
    monkeypatch.setattr(module, "_ROWS", 7)
    again = read(tmp_path / "a.tfrecord")
    assert again["n"].type == pa.int64() and again["n"].to_pylist() == numbers.tolist()
