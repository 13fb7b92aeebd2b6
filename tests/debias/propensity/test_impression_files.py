"""Files of impressions, read back and trained on by the libraries they are for."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from debias.data import ClickLog, RankingData
from debias.data.kinds import Feature
from debias.data.records import read_record
from debias.propensity import Propensities, impressions, write_impressions

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

RNG = np.random.default_rng(0)
DATA = RankingData(
    np.round(RNG.normal(size=(40, 3)), 3) * (RNG.random((40, 3)) < 0.8),
    None,
    np.arange(0, 41, 8),
    feature_names=("price", "age", "stock"),
)
SHOWN = RNG.permuted(np.tile(np.arange(8), (200, 1)), axis=1)[:, :4]
QUERY = RNG.integers(0, 5, 200)
CLICK = RNG.random((200, 4)) < [0.6, 0.4, 0.2, 0.1]
LOG = ClickLog(QUERY, SHOWN + 8 * QUERY[:, None], CLICK)
FOUND = impressions(LOG, Propensities.of([1.0, 0.7, 0.4, 0.2]))
QUIET = {"verbose": -1, "num_leaves": 4, "min_data_in_leaf": 5, "num_threads": 1}


def folder(tmp_path, library, correction):
    path = tmp_path / correction
    write_impressions(FOUND, path, library, DATA, correction=correction)
    return path


@pytest.mark.parametrize("correction", ["weight", "position", "init_score"])
def test_lightgbm_reads_its_text_and_trains(tmp_path, correction):
    path = folder(tmp_path, "lightgbm", correction) / "rows.txt"
    rows = lightgbm.Dataset(str(path), params=QUIET, free_raw_data=False)
    model = lightgbm.train({**QUIET, "objective": "lambdarank"}, rows, 3)
    assert model.num_trees() == 3 and rows.num_feature() == 3
    assert rows.get_group().tolist() == [4] * 200
    np.testing.assert_array_equal(rows.get_label(), FOUND.label)
    if correction == "weight":
        np.testing.assert_allclose(rows.get_weight(), FOUND.weight, rtol=1e-6)
        assert rows.get_init_score() is None and rows.get_position() is None
    elif correction == "position":
        np.testing.assert_array_equal(rows.get_position(), FOUND.position - 1)
    else:
        np.testing.assert_allclose(rows.get_init_score(), FOUND.init_score, rtol=1e-6)


def test_lightgbm_trains_on_the_table_as_on_the_text(tmp_path):
    path = tmp_path / "rows.parquet"
    write_impressions(FOUND, path, "lightgbm", DATA)
    table = pq.read_table(path)
    names = list(DATA.feature_names)
    features = np.stack([table[name].to_numpy() for name in names], axis=1)
    of_table = lightgbm.Dataset(
        features,
        table["label"].to_numpy(),
        weight=table["weight"].to_numpy(),
        group=np.bincount(table["group"].to_numpy()),
        params=QUIET,
    )
    text = folder(tmp_path, "lightgbm", "weight") / "rows.txt"
    of_text = lightgbm.Dataset(str(text), params=QUIET)
    asked = {**QUIET, "objective": "lambdarank"}
    one, two = (lightgbm.train(asked, rows, 3) for rows in (of_table, of_text))
    np.testing.assert_allclose(one.predict(features), two.predict(features), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*Text file input has been deprecated")
def test_xgboost_reads_its_text_and_trains(tmp_path):
    path = folder(tmp_path, "xgboost", "weight")
    rows = xgboost.DMatrix(f"{path / 'rows.txt'}?format=libsvm")
    np.testing.assert_array_equal(rows.get_label(), FOUND.label)
    assert np.diff(rows.get_uint_info("group_ptr")).tolist() == [4] * 200
    rows.set_weight(np.loadtxt(path / "rows.txt.weight"))
    asked = {"objective": "rank:ndcg", "max_depth": 2, "nthread": 1}
    assert xgboost.train(asked, rows, 3).num_boosted_rounds() == 3
    margin = np.loadtxt(
        folder(tmp_path, "xgboost", "init_score") / "rows.txt.base_margin"
    )
    plain = xgboost.DMatrix(DATA.features[FOUND.item], FOUND.label, base_margin=margin)
    asked = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1}
    # A tree less than none predicts the bias logit itself.
    first = xgboost.train({**asked, "eta": 1e-9, "base_score": 0.5}, plain, 1)
    p = first.predict(plain)
    np.testing.assert_allclose(np.log(p / (1 - p)), FOUND.init_score, atol=1e-5)


def test_in_text_zeros_are_zeros_and_missing_values_are_missing(tmp_path):
    features = np.array([[0, np.nan, 7], [np.nan, 0, 0], [3, 2, np.nan]], "float32")
    features = np.tile(features, (20, 1))
    kinds = tuple(Feature(name) for name in "abc")
    data = RankingData(
        features, None, np.arange(0, 61, 3), feature_names=tuple("abc"), kinds=kinds
    )
    item = np.arange(60).reshape(20, 3)
    log = ClickLog(np.arange(20), item, (item % 3 == 0) | (item % 6 == 1))
    found = impressions(log, Propensities.of([1.0, 0.7, 0.4]))
    for library in ("lightgbm", "xgboost"):
        write_impressions(found, tmp_path / library, library, data)

    rows = xgboost.DMatrix(f"{tmp_path / 'xgboost' / 'rows.txt'}?format=libsvm")
    stored = rows.get_data()  # sparse: a value that is not stored is missing
    dense = np.full(features.shape, np.nan)
    dense[np.repeat(np.arange(60), np.diff(stored.indptr)), stored.indices] = (
        stored.data
    )
    np.testing.assert_array_equal(dense, features)

    text = lightgbm.Dataset(str(tmp_path / "lightgbm" / "rows.txt"), params=QUIET)
    asked = {**QUIET, "objective": "binary"}
    table = lightgbm.Dataset(
        features[found.item], found.label, weight=found.weight, params=QUIET
    )
    one, two = (
        lightgbm.train(asked, each, 3).predict(features) for each in (text, table)
    )
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert len(np.unique(one)) == 3


def test_tensorflow_ranking_parses_its_lists(tmp_path):
    import tensorflow as tf

    from debias import tfr

    path = tmp_path / "rows.tfrecord"
    write_impressions(FOUND, path, "tfr", DATA, queries=np.array(list("abcde")))
    names = (*DATA.feature_names, "label", "weight", "position")
    spec = {n: tf.io.FixedLenFeature([1], tf.float32, [-1.0]) for n in names}
    context = {"query": tf.io.FixedLenFeature([1], tf.string, [""])}
    some = list(tf.data.TFRecordDataset(str(path)).take(7).as_numpy_iterator())
    found = tfr.load().data.parse_from_example_list(tf.constant(some), 4, context, spec)
    first = slice(0, 28)
    np.testing.assert_array_equal(found["label"].numpy().ravel(), FOUND.label[first])
    np.testing.assert_allclose(
        found["price"].numpy().ravel(), DATA.features[FOUND.item[first], 0]
    )
    np.testing.assert_allclose(
        found["weight"].numpy().ravel(), FOUND.weight[first], rtol=1e-6
    )
    assert found["query"].numpy()[0, 0] == b"abcde"[QUERY[0] : QUERY[0] + 1]
    assert len(list(tf.data.TFRecordDataset(str(path)))) == 200


def test_lists_leave_out_missing_values(tmp_path):
    import tensorflow as tf

    from debias import tfr

    features = np.where(np.arange(80).reshape(40, 2) % 3 == 0, np.nan, 2.0)
    kinds = (Feature("a"), Feature("b"))
    data = RankingData(
        features, None, DATA.offsets, feature_names=("a", "b"), kinds=kinds
    )
    path = tmp_path / "rows.tfrecord"
    write_impressions(FOUND, path, "tfr", data)
    spec = {n: tf.io.FixedLenFeature([1], tf.float32, [-7.0]) for n in ("a", "b")}
    some = list(tf.data.TFRecordDataset(str(path)).take(7).as_numpy_iterator())
    found = tfr.load().data.parse_from_example_list(tf.constant(some), 4, {}, spec)
    read = np.concatenate([found[n].numpy().reshape(28, 1) for n in ("a", "b")], axis=1)
    np.testing.assert_array_equal(
        read, np.nan_to_num(features[FOUND.item[:28]], nan=-7)
    )


@pytest.mark.parametrize(
    ("name", "library", "correction", "message"),
    [
        ("a", "catboost", "weight", "library must be one of lightgbm xgboost tfr"),
        ("a", "xgboost", "position", "xgboost has no position correction"),
        (
            "a",
            "xgboost",
            "clip",
            "correction must be one of weight position init_score",
        ),
        ("a.csv", "lightgbm", "weight", "must end with .parquet, or have no ending"),
        ("a.csv", "tfr", "weight", "must end with .tfrecord"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, library, correction, message):
    with pytest.raises(ValueError, match=message):
        write_impressions(FOUND, tmp_path / name, library, DATA, correction=correction)
    assert not any(tmp_path.iterdir())


KINDS = (Feature("brand", "category", ("acme", "birch")), Feature("price"))
CODES = np.array([[2, 0.5], [3, 1.5], [0, 2.5], [1, 3.5]] * 10)
SHOP = RankingData(
    CODES, None, DATA.offsets, feature_names=("brand", "price"), kinds=KINDS
)
BRANDS = ["acme", "birch", None, "out of vocabulary"]


def test_categories_are_words_in_a_table(tmp_path):
    write_impressions(FOUND, tmp_path / "a.parquet", "lightgbm", SHOP)
    table = pq.read_table(tmp_path / "a.parquet")
    wanted = [BRANDS[item % 4] for item in FOUND.item]
    assert table["brand"].to_pylist() == wanted
    assert table.to_pandas()["brand"].dtype == "category"
    np.testing.assert_array_equal(table["price"], 0.5 + FOUND.item % 4)


def test_codes_come_with_a_legend(tmp_path):
    columns = [
        {
            "column": 0,
            "name": "brand",
            "kind": "category",
            "codes": {
                **{"0": "missing", "1": "out of vocabulary"},
                **{"2": "acme", "3": "birch"},
            },
        },
        {"column": 1, "name": "price", "kind": "number"},
    ]
    write_impressions(FOUND, tmp_path / "rows", "lightgbm", SHOP)
    write_impressions(FOUND, tmp_path / "lists.tfrecord", "tfr", SHOP)
    for path in (tmp_path / "rows" / "features.json", tmp_path / "lists.features.json"):
        assert read_record(path, ["features"])["features"] == columns


def test_a_feature_with_the_name_of_a_column_is_refused(tmp_path):
    taken = RankingData(
        DATA.features, None, DATA.offsets, feature_names=("weight", "b", "c")
    )
    with pytest.raises(ValueError, match="feature weight has the name of a column"):
        write_impressions(FOUND, tmp_path / "a.parquet", "lightgbm", taken)
