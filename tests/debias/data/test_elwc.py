"""Lists of examples with a context: round trips, and TensorFlow Ranking's parser."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

import debias.tfr
from debias.commands.inputs import ranking_data
from debias.data import RankingData, read_elwc, write_elwc
from debias.data.kinds import Feature

DATA = RankingData(
    [[0.5, 7.0], [2.0, 8.0], [1.0, 9.0]],
    [0, 4, 1],
    [0, 2, 3],
    qid=np.array(["shoes", "hats"]),
    feature_names=("price", "age"),
    item_id=np.array(["a", "b", "c"]),
)


@pytest.mark.parametrize("suffix", ["tfrecord", "tfrecord.gz"])
def test_what_is_written_is_read(suffix, tmp_path):
    path = tmp_path / f"train.{suffix}"
    write_elwc(DATA, path)
    for again in (read_elwc(path), ranking_data(path)):
        assert again.feature_names == ("age", "price")  # of a map, by name
        assert (
            again.arranged(("price", "age")).features.tolist() == DATA.features.tolist()
        )
        assert again.labels.tolist() == [0, 4, 1] and again.labels.dtype == np.int8
        assert again.qid.tolist() == ["shoes", "hats"]
        assert again.offsets.tolist() == [0, 2, 3]
        assert again.item_id.tolist() == ["a", "b", "c"]
    few = read_elwc(path, features=("pri*",), label=None)
    assert few.feature_names == ("price",) and few.labels is None


def test_tensorflow_ranking_parses_it(tmp_path):
    write_elwc(DATA, tmp_path / "train.tfrecord")
    raw = list(tf.data.TFRecordDataset(str(tmp_path / "train.tfrecord")))
    tfr = debias.tfr.load()
    one = {
        name: tf.io.FixedLenFeature([1], tf.float32, [-1.0])
        for name in ("price", "age")
    }
    one["relevance"] = tf.io.FixedLenFeature([1], tf.float32, [-1.0])
    parsed = tfr.data.parse_from_example_list(
        tf.constant([each.numpy() for each in raw]),
        list_size=2,
        context_feature_spec={"qid": tf.io.FixedLenFeature([1], tf.string)},
        example_feature_spec=one,
    )
    assert parsed["price"].numpy()[..., 0].tolist() == [[0.5, 2.0], [1.0, -1.0]]
    assert parsed["age"].numpy()[..., 0].tolist() == [[7.0, 8.0], [9.0, -1.0]]
    assert parsed["relevance"].numpy()[..., 0].tolist() == [[0.0, 4.0], [1.0, -1.0]]
    assert parsed["qid"].numpy().ravel().tolist() == [b"shoes", b"hats"]


def test_features_of_any_kind_and_what_is_missing(tmp_path):
    kinds = (Feature("brand", "category", ("acme", "birch")), Feature("price"))
    features = [[2, 0.5], [0, np.nan], [3, 1.0]]
    data = RankingData(features, None, [0, 2, 3], kinds=kinds)
    write_elwc(data, tmp_path / "a.tfrecord")
    again = read_elwc(tmp_path / "a.tfrecord", label=None)
    assert again.arranged(None, kinds).features.tolist()[::2] == [[2, 0.5], [3, 1.0]]
    missing = again.arranged(None, kinds).features[1]
    assert missing[0] == 0 and np.isnan(missing[1])
    assert again.qid is None and again.labels is None


def lists(*given):
    """ELWC by TensorFlow's own classes: contexts, and examples of numbers."""
    for context, *items in given:
        made = input_pb2.ExampleListWithContext()
        for target, values in (
            (made.context, context),
            *zip([made.examples.add() for _ in items], items, strict=True),
        ):
            for name, value in values.items():
                feature = target.features.feature[name]
                if isinstance(value, bytes):
                    feature.bytes_list.value.append(value)
                else:
                    feature.float_list.value.extend(np.atleast_1d(value))
        yield made.SerializeToString()


def write(path, raw):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in raw:
            writer.write(each)
    return path


def test_contexts_vectors_and_empty_lists(tmp_path):
    path = write(
        tmp_path / "a.tfrecord",
        lists(
            ({"qid": b"x", "hour": 9.0}, {"relevance": 1.0, "v": [1.0, 2.0]}),
            ({"qid": b"y", "hour": 5.0},),  # nothing was shown
            ({"qid": b"x", "hour": 7.0}, {"relevance": 0.0, "v": [3.0, 4.0]}),
        ),
    )
    data = read_elwc(path)
    assert data.feature_names == ("hour", "v[0]", "v[1]")
    assert data.features.tolist() == [[9, 1, 2], [7, 3, 4]]
    assert data.qid is None and data.queries == 2  # two records share an id


def test_bad_files_name_themselves(tmp_path):
    path = write(tmp_path / "a.tfrecord", lists(({}, {"relevance": 1.0, "f": 2.0})))
    with pytest.raises(
        ValueError, match=r"a\.tfrecord: no feature grade for the label"
    ):
        read_elwc(path, label="grade")
    with pytest.raises(ValueError, match=r"a\.tfrecord: no feature g\*: "):
        read_elwc(path, features=("g*",))
    write(path, lists(({}, {"relevance": -1.0, "f": 2.0})))
    with pytest.raises(ValueError, match=r"a\.tfrecord: .*must be a grade in 0"):
        read_elwc(path)
    write(
        path, lists(({}, {"relevance": 1.0, "f": 2.0}, {"relevance": 1.0, "f": b"x"}))
    )
    with pytest.raises(ValueError, match=r"a\.tfrecord: the feature f mixes types"):
        read_elwc(path)
    write(path, [])
    with pytest.raises(ValueError, match="has no examples"):
        read_elwc(path)
    with pytest.raises(FileNotFoundError, match=r"b\.tfrecord: no such file"):
        read_elwc(tmp_path / "b.tfrecord")
