"""Judgments as files: each is read back by what it is for."""

import json

import numpy as np
import pyarrow.csv
import pytest

from debias.data import ClickLog, RankingData, read_letor
from debias.data.kinds import Feature
from debias.propensity import Propensities, judge, write_judgments

LOG = ClickLog(
    np.repeat([0, 1], 60),
    np.concatenate([np.tile([[0, 1], [1, 0]], (30, 1)), np.tile([[2, 3]], (60, 1))]),
    np.random.default_rng(0).random((120, 2)) < [0.5, 0.1],
)
FOUND = judge(LOG, Propensities.of([1.0, 0.5]))
ITEMS = np.array(["a\x1b[31m", "b", "c\nd", "007"])
QUERIES = np.array(["red dress", "hat\x07"])
DATA = RankingData([[1.0, 0.0], [0.0, 0.0], [3.0, 0.5], [4.0, 2.0]], None, [0, 2, 4])


def test_letor_is_read_by_this_library(tmp_path):
    path = tmp_path / "j.txt"
    write_judgments(FOUND, path, "letor", ITEMS, QUERIES, data=DATA)
    found = read_letor(path)
    order = FOUND.shuffled()  # rankers would break ties by the best first
    np.testing.assert_array_equal(found.features, DATA.features[FOUND.item[order]])
    np.testing.assert_array_equal(found.labels, FOUND.grades()[order])
    assert found.qid.tolist() == [1, 2]
    text = path.read_text()
    assert "# b red dress\n" in text and "\x1b" not in text and "c\\nd" in text


def test_letor_without_features_is_a_judgment_list(tmp_path):
    path = tmp_path / "j.txt"
    write_judgments(FOUND, path, "letor", ITEMS, QUERIES)
    lines = path.read_text().splitlines()
    assert lines[0] == "# qid:1: red dress" and lines[1] == "# qid:2: hat\\x07"
    grade, qid, *_ = lines[2].split()
    assert grade == str(FOUND.grades()[0]) and qid == "qid:1" and len(lines) == 6


def test_the_workbench_body(tmp_path):
    path = tmp_path / "j.json"
    write_judgments(FOUND, path, "srw", ITEMS, QUERIES, name="spring")
    body = json.loads(path.read_text())
    assert body["type"] == "IMPORT_JUDGMENT" and body["name"] == "spring"
    lists = body["judgmentRatings"]
    assert [each["query"] for each in lists] == QUERIES.tolist()
    first = lists[1]["ratings"][0]
    k = np.flatnonzero(FOUND.query == 1)[0]
    assert first["docId"] == ITEMS[FOUND.item[k]]
    assert float(first["rating"]) == pytest.approx(FOUND.attraction[k], abs=1e-6)


def test_a_table_has_all_numbers(tmp_path):
    path = tmp_path / "j.csv"
    write_judgments(FOUND, path, "csv", graded=True)
    table = pyarrow.csv.read_csv(path)
    assert table.column_names == [*FOUND.columns(), "grade"]
    np.testing.assert_allclose(table["attraction"], FOUND.attraction)
    np.testing.assert_array_equal(table["item"], FOUND.item)
    with pytest.raises(ValueError, match="format must be one of letor srw csv"):
        write_judgments(FOUND, path, "xml")


@pytest.mark.parametrize(
    "kind, value, words",
    [
        (Feature("brand", "category", ("x",)), 2.0, "brand holds categories"),
        (Feature("price"), np.nan, "price is sometimes missing"),
    ],
)
def test_letor_refuses_what_is_no_number(tmp_path, kind, value, words):
    kinds = (kind, Feature("age"))
    features = np.full((4, 2), value, np.float32)
    names = (kind.name, "age")
    data = RankingData(features, None, [0, 2, 4], feature_names=names, kinds=kinds)
    with pytest.raises(ValueError, match=f"{words}: leave it out of features="):
        write_judgments(FOUND, tmp_path / "j.txt", "letor", data=data)
    assert not list(tmp_path.iterdir())
