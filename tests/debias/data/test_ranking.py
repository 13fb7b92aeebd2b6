"""Tests of debias.data.ranking and its files."""

import os
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data import RankingData
from debias.data.kinds import Feature
from tests.debias.data.strategies import ranking_data, same

FEATURES = np.arange(10, dtype=np.float32).reshape(5, 2)
GOOD = {"features": FEATURES, "labels": [0, 4, 1, 2, 0], "offsets": [0, 2, 5]}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_kept_as_promised():
    data = RankingData(
        np.asfortranarray(FEATURES.astype(float)), [0, 4, 1, 2, 0], [0, 2, 5]
    )
    assert data.features.dtype == np.float32 and data.features.flags.c_contiguous
    assert data.labels.dtype == np.int8 and data.offsets.dtype == np.int64
    assert (data.queries, data.items, data.feature_count) == (2, 5, 2)
    fractional = RankingData(FEATURES, [0.0, 0.5, 1, 2, 0], [0, 2, 5])
    assert fractional.labels.dtype == np.float32


def test_features_of_the_right_type_are_not_copied():
    assert np.shares_memory(RankingData(**GOOD).features, FEATURES)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"features": FEATURES[0]}, "features must be numbers of shape"),
        ({"features": FEATURES[:, :0]}, "features must be numbers of shape"),
        ({"features": FEATURES.astype(str)}, "features must be numbers"),
        (
            {"features": FEATURES.astype(float) * 1e38},
            "got .*e\\+38 at item 2, feature 0",
        ),
        ({"features": np.where(FEATURES == 7, np.nan, 0)}, "nan at item 3, feature 1"),
        ({"labels": [0, 1]}, "labels .* shape"),
        ({"labels": [0, 5, 1, 2, 0]}, "labels must be in 0..4, got 5 at item 1"),
        ({"labels": [0, 1, -1, 2, 0]}, "got -1 at item 2"),
        ({"labels": [0, 1, 1, np.nan, 0]}, "got nan at item 3"),
        ({"labels": [0, 300, 1, 2, 0]}, "got 300 at item 1"),
        ({"max_grade": 3}, "labels must be in 0..3, got 4 at item 1"),
        ({"max_grade": 0}, "max_grade"),
        ({"offsets": [0, 2, 4]}, "offsets must run from 0 to the 5 items, got 0 to 4"),
        ({"offsets": [1, 2, 5]}, "offsets must run from 0"),
        ({"offsets": [0, 2, 2, 5]}, "query 1 without an item"),
        ({"offsets": [0, 4, 2, 5]}, "query 1 without an item"),
        ({"offsets": [0.0, 2.0, 5.0]}, "offsets must be whole"),
        ({"offsets": [0]}, "offsets must be whole"),
        ({"qid": [1]}, "qid must have shape"),
        ({"qid": [7, 7]}, "qid must name each query once, got 7"),
        ({"feature_names": ["a"]}, "feature_names must be 2 names"),
        ({"feature_names": ["a", 7]}, "feature_names must be 2 names"),
        ({"feature_names": ["a", "a"]}, "feature_names must differ, got a twice"),
    ],
)
def test_rejects(bad, message):
    with pytest.raises(ValueError, match=message):
        RankingData(**{**GOOD, **bad})


def test_a_fault_is_found_in_whatever_block_it_lies():
    features = np.zeros((70_000, 1), np.float32)
    features[69_999] = np.inf
    with pytest.raises(ValueError, match="item 69999, feature 0"):
        RankingData(features, None, [0, 70_000])


@settings(deadline=None)
@given(ranking_data(), st.integers(0, 9))
def test_select_gives_each_query_its_own_items(data, seed):
    queries = rng(seed).integers(0, data.queries, 5)
    chosen = data.select(queries)
    for new, old in enumerate(queries):
        here = slice(chosen.offsets[new], chosen.offsets[new + 1])
        there = slice(data.offsets[old], data.offsets[old + 1])
        assert (chosen.features[here] == data.features[there]).all()
        if data.labels is not None:
            assert (chosen.labels[here] == data.labels[there]).all()
        if data.qid is not None:
            assert chosen.qid[new] == data.qid[old]
    assert chosen.offsets[-1] == chosen.items


@settings(deadline=None)
@given(ranking_data())
def test_query_of_item_and_padded_agree_with_the_offsets(data):
    owner = data.query_of_item()
    item = data.padded()
    for query in range(data.queries):
        own = list(range(data.offsets[query], data.offsets[query + 1]))
        assert np.flatnonzero(owner == query).tolist() == own
        assert item[query][item[query] >= 0].tolist() == own
        assert data.padded(2)[query].tolist() == [*own, -1][:2]


def test_select_by_mask():
    data = RankingData(**GOOD)
    assert same(data.select([False, True]), data.select([1]))


@pytest.mark.parametrize("bad", [[], [2], [-1], [0.0], [True], [[0]]])
def test_select_rejects(bad):
    with pytest.raises(ValueError, match="queries"):
        RankingData(**GOOD).select(bad)


def test_split_parts_the_queries():
    data = RankingData(np.arange(20)[:, None], None, range(0, 21, 2), qid=range(10))
    train, test = data.split((0.7, 0.3), rng())
    assert (train.queries, test.queries) == (7, 3)
    assert sorted([*train.qid, *test.qid]) == list(range(10))
    assert (train.features[::2, 0] == 2 * train.qid).all()
    with pytest.raises(ValueError, match="empty"):
        data.split((0.99, 0.01), rng())


@settings(deadline=None)
@given(data=ranking_data())
def test_parquet_round_trip(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranking") / "data.parquet"
    data.write_parquet(path)
    assert same(RankingData.read_parquet(path), data)


def test_parquet_keeps_the_highest_grade(tmp_path):
    data = RankingData(FEATURES, [0, 1, 1, 0, 0], [0, 2, 5], max_grade=1)
    data.write_parquet(tmp_path / "a.parquet")
    assert RankingData.read_parquet(tmp_path / "a.parquet").max_grade == 1


@pytest.mark.parametrize("names", [None, ("price", "é [0]")])
def test_names_of_features_stay_with_them(names, tmp_path):
    data = RankingData(**GOOD, feature_names=names)
    data.write_parquet(tmp_path / "a.parquet")
    for kept in (
        data.select([1]),
        data.split((0.5, 0.5), rng())[0],
        RankingData.read_parquet(tmp_path / "a.parquet"),
    ):
        assert kept.feature_names == names


def test_features_are_arranged_by_name():
    data = RankingData(**GOOD, feature_names=("a", "b"))
    turned = data.arranged(["b", "a"])
    assert turned.features.tolist() == FEATURES[:, ::-1].tolist()
    assert turned.feature_names == ("b", "a") and turned.labels is data.labels
    assert same(turned.arranged(("a", "b")), data)
    assert data.arranged(["b"]).features.tolist() == FEATURES[:, 1:].tolist()
    kinds = (Feature("a"), Feature("b"))
    assert RankingData(**GOOD, kinds=kinds).arranged(["b"]).kinds is None
    assert data.arranged(None) is data
    bare = RankingData(**GOOD)
    assert bare.arranged(["x", "y"]) is bare  # nobody named them: by number
    with pytest.raises(
        ValueError, match="3 features are requested, but the items have 2"
    ):
        bare.arranged(["x", "y", "z"])
    with pytest.raises(ValueError, match="no feature c; there are a b"):
        data.arranged(["a", "c"])
    with pytest.raises(ValueError, match="must differ, got a twice"):
        data.arranged(["a", "a"])


def test_a_fingerprint_is_that_of_features_and_offsets(tmp_path):
    data = RankingData(**GOOD)
    data.write_parquet(tmp_path / "a.parquet")
    again = RankingData.read_parquet(tmp_path / "a.parquet")
    assert again.fingerprint == data.fingerprint and len(data.fingerprint) == 32
    others = [
        RankingData(FEATURES + (FEATURES == 9), None, [0, 2, 5]),
        RankingData(FEATURES, None, [0, 3, 5]),
        RankingData(FEATURES.reshape(10, 1), None, [0, 2, 10]),
        RankingData(FEATURES[::-1], None, [0, 2, 5]),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def values_of(data):
    """Everything of ranking data, as Python has it."""
    values = {field.name: getattr(data, field.name) for field in fields(data)}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_refused_or_change_nothing(seed, tmp_path):
    data = RankingData(**GOOD, qid=["a", "b"], feature_names=("x", "y"))
    path = tmp_path / "a.parquet"
    data.write_parquet(path)
    whole = path.read_bytes()
    refused = 0
    for place in rng(seed).choice(len(whole), 200, replace=False):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng(place).integers(8))
        path.write_bytes(changed)
        try:
            found = values_of(RankingData.read_parquet(path))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            # Where all metadata is lost, so are the names: features go by number.
            found["feature_names"] = data.feature_names
            assert found == values_of(data), place
    assert refused > 100


def test_pages_have_checksums_and_what_describes_them_a_hash(tmp_path):
    path = tmp_path / "a.parquet"
    data = RankingData(**GOOD, feature_names=("x", "y"))
    data.write_parquet(path)
    table = pq.read_table(path)
    for changed in (
        table.set_column(2, "features", [FEATURES[::-1].tolist()]),
        table.set_column(1, "label", [[0, 1, 1, 2, 0]]),
        table.set_column(0, "query", [[0, 0, 0, 1, 1]]),
        table.replace_schema_metadata(
            {**table.schema.metadata, b"feature_names": b'["y", "x"]'}
        ),
        table.replace_schema_metadata({**table.schema.metadata, b"max_grade": b"5"}),
    ):
        pq.write_table(changed, path)
        with pytest.raises(
            ValueError, match=r"a\.parquet: is damaged: its content has changed"
        ):
            RankingData.read_parquet(path)
    pq.write_table(table, path)
    assert same(RankingData.read_parquet(path), data)


def test_checksums_of_other_programs_are_verified(tmp_path):
    path = tmp_path / "a.parquet"
    bare = pa.table({"qid": [1] * 500, "f0": np.arange(500.0)})
    options = {"use_dictionary": False, "compression": "none"}
    pq.write_table(bare, path, write_page_checksum=True, **options)
    whole = path.read_bytes()
    place = whole.index(np.float64(250).tobytes())
    path.write_bytes(whole[:place] + np.float64(251).tobytes() + whole[place + 8 :])
    with pytest.raises(ValueError, match=r"a\.parquet: .*(?i:crc|checksum)"):
        RankingData.read_parquet(path)


def test_names_of_queries_of_any_layout(tmp_path):
    for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        ids = pa.array(["u", "u", "v"]).cast(kind)
        pq.write_table(table(qid=ids), tmp_path / "a.parquet")
        assert RankingData.read_parquet(tmp_path / "a.parquet").qid.tolist() == [
            "u",
            "v",
        ]
    pq.write_table(table(qid=[b"\xe9"] * 3), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: .*UTF8"):
        RankingData.read_parquet(tmp_path / "a.parquet")


def test_half_a_surrogate_pair_is_no_id(tmp_path):
    data = RankingData(**GOOD, qid=["a", "b\ud800"])
    with pytest.raises(
        ValueError, match=r"a\.parquet: the id b.ud800 cannot be written"
    ):
        data.write_parquet(tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_damaged_files_and_no_files_name_themselves(tmp_path):
    path = tmp_path / "a.parquet"
    RankingData(**GOOD).write_parquet(path)
    whole = path.read_bytes()
    for kept in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(
            ValueError, match=r"a\.parquet: is not a complete Parquet file"
        ):
            RankingData.read_parquet(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        RankingData.read_parquet(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: must be a file"):
        RankingData.read_parquet(tmp_path / "pipe")


def table(**columns):
    start = {"qid": [7, 7, 3], "label": [0, 1, 2], "f0": [1, 2, 3], "f1": [4.0, 5, 6]}
    merged = {**start, **columns}
    return pa.table({name: v for name, v in merged.items() if v is not None})


def test_reads_plain_feature_columns_of_another_program(tmp_path):
    pq.write_table(table(), tmp_path / "a.parquet")
    data = RankingData.read_parquet(tmp_path / "a.parquet")
    assert data.features.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert data.qid.tolist() == [7, 3] and data.offsets.tolist() == [0, 2, 3]
    assert data.feature_names == ("f0", "f1")


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"qid": [7, 3, 7]}, "query 7 appears again at item 2"),
        ({"qid": None}, "qid"),
        ({"f0": None}, "must run from f0"),
        ({"f0": None, "f1": None}, "no column features"),
        ({"clicks": [0, 0, 0]}, "unknown column clicks"),
        ({"label": [0, 1, None]}, "label is NULL at row 2"),
        ({"label": ["0", "1", "2"]}, "label must be numbers, got string"),
        ({"f1": ["0", "1", "2"]}, "f1 must be numbers, got string"),
        ({"label": [0, 1, 9]}, "got 9 at item 2"),
        ({"features": [[1, 2], [3], [4, 5]], "f0": None, "f1": None}, "1 at row 1"),
        ({n: [] for n in ("qid", "label", "f0", "f1")}, "no item"),
    ],
)
def test_a_wrong_table_names_the_file(tmp_path, columns, message):
    pq.write_table(table(**columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=f"a.parquet: .*{message}"):
        RankingData.read_parquet(tmp_path / "a.parquet")


def test_ids_of_items_are_written_and_read(tmp_path):
    ids = np.array(["a", "ü", ""])
    data = RankingData([[0.5], [2.0], [1.0]], [0, 4, 1], [0, 2, 3], item_id=ids)
    data.write_parquet(tmp_path / "items.parquet")
    again = RankingData.read_parquet(tmp_path / "items.parquet")
    assert again.item_id.tolist() == ids.tolist()
    assert again.select([1]).item_id.tolist() == [""]
    with pytest.raises(ValueError, match=r"item_id must have shape \(3,\), got \(2,\)"):
        RankingData([[0.5], [2.0], [1.0]], None, [0, 3], item_id=["a", "b"])
