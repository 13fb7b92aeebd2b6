"""Tables of propensities: written, read back, and laid over a log."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from debias.data import ClickLog
from debias.propensity import Propensities, read_propensities


def table(**more):
    columns = {
        **{"rank": np.array([1, 2, 1, 2]), "n": np.array([9, 8, 7, 6])},
        "examination": np.array([1.0, 0.5, 1.0, np.nan]),
        "low": np.array([1.0, 0.4, 1.0, np.nan]),
        "high": np.array([1.0, 0.6, 1.0, np.nan]),
        "standard_error": np.array([0.0, 0.05, 0.0, np.nan]),
        "method": np.array(["pivot"] * 4),
        "verdict": np.array(["reference", "identified"] * 2),
        "by": {"device": np.array(["phone", "phone", "laptop", "laptop"])},
    }
    return Propensities(**{**columns, **more})


@pytest.mark.parametrize("end", ["csv", "parquet", "json"])
def test_written_and_read_back(tmp_path, end):
    path = tmp_path / f"p.{end}"
    table(trust=np.array([0.0, 0.01, 0.0, 0.02])).write(path)
    found = read_propensities(path)
    for name, value in table().columns().items():
        np.testing.assert_array_equal(found.columns()[name], value)
    assert found.trust.tolist() == [0.0, 0.01, 0.0, 0.02]


def test_a_table_of_rank_and_examination_alone_is_enough(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("position,examination\n1,1\n2,0.5\n3,\n")
    found = read_propensities(path)
    assert found.rank.tolist() == [1, 2, 3] and np.isnan(found.examination[2])
    assert found.verdict.tolist() == ["given"] * 3 and found.trust is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank,theta\n1,1\n", "no column examination"),
        ("place,examination\n1,1\n", "no column rank"),
        ("rank,examination\n0,1\n", "column rank must be a whole number .* at row 0"),
        ("rank,examination\n1,1\n2,-1\n", "must be above 0, .* got -1 at row 1"),
        ("rank,examination\n1,1\n2,inf\n", "must be above 0, .* got inf at row 1"),
        ("rank,examination\n1,high\n", "must be numbers, got 'high' at row 0"),
        ("rank,examination,trust\n1,1,1\n", r"trust must be in \[0, 1\), got 1 at row"),
        ("rank,examination\n", "holds no"),
    ],
)
def test_damaged_tables_are_refused_by_file_column_and_row(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_propensities(path)
    assert "p.csv" in str(error.value)


def test_json_that_is_no_table(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"rank": 1}))
    with pytest.raises(ValueError, match="list of one object per place"):
        read_propensities(path)
    path.write_text("[{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_propensities(path)


def test_rows_of_cells_by_rank_and_device():
    log = ClickLog([0, 0, 0], [[1, 2], [1, 2], [2, -1]], np.zeros((3, 2), bool))
    log = ClickLog(log.query, log.item, log.click, device=[2, 1, 0])
    names = {"device": ("laptop", "phone")}
    assert table().at(log, names).tolist() == [[0, 1], [2, 3], [-1, -1]]
    with pytest.raises(ValueError, match="has no column 'device'"):
        table().at(log.select(), names)


def test_longer_lists_and_doubled_places_are_refused():
    longer = ClickLog([0], [[1, 2, 3]], np.zeros((1, 3), bool))
    message = "propensities end at rank 2, but the log has 3"
    with pytest.raises(ValueError, match=message):
        Propensities.of([1.0, 0.5]).at(longer)
    twice = table(by={})
    with pytest.raises(ValueError, match="rank 1 twice"):
        twice.at(ClickLog([0], [[1, 2]], np.zeros((1, 2), bool)))
    with pytest.raises(ValueError, match="above 0"):
        Propensities.of([1.0, 0.0])


def test_a_curve_needs_one_row_for_each_rank():
    found = replace(Propensities.of([0.5, 1.0]), rank=np.array([2, 1]))
    assert found.by_rank()[0].tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="rank 3 where rank 2 is expected"):
        replace(found, rank=np.array([1, 3])).by_rank()
    with pytest.raises(ValueError, match="rank 1 where rank 2 is expected"):
        replace(found, rank=np.array([1, 1])).by_rank()
    with pytest.raises(ValueError, match=r"differ by device, .* without --by"):
        table().by_rank()


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end with \.parquet, \.csv or \.json"):
        table().write(tmp_path / "p.xlsx")
    table().write(tmp_path / "p.parquet")
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert pa.types.is_floating(schema.field("examination").type)
