"""Presentation columns and further targets: read, kept, written, split."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from debias.data import ClickLog, Stream
from debias.data.kinds import Feature
from debias.data.layout import layout_of
from debias.data.presentation import Scale, codes_of, scale_of
from debias.data.read_log import Columns, read_log
from debias.data.summary import summarize

ROWS = {
    "session": ["s", "s", "t", "t", "u"],
    "query": ["q"] * 5,
    "item": ["a", "b", "b", "a", "a"],
    "click": [0, 1, 0, 0, 1],
    "badge": ["new", None, "sale", "new", "sale"],
    "height": [120.0, 160.0, 120.0, 120.0, None],
    "skin": ["dark", "dark", "light", "light", "dark"],
    "cart": [0, 2, None, 0, 1],
    "dwell": [0.0, 3.5, 0.0, 0.0, 1.25],
}
COLUMNS = Columns(presentation=("badge", "height", "skin"), target=("cart", "dwell"))
BADGE = [[1, 0], [2, 1], [2, 0]]


@pytest.mark.parametrize("form", ["memory", "csv", "parquet"])
def test_columns_of_any_name_by_cell_and_by_list(form, tmp_path):
    table = pa.table(ROWS)
    source = table if form == "memory" else tmp_path / f"log.{form}"
    if form == "csv":
        pyarrow.csv.write_csv(table, source)
    if form == "parquet":
        pq.write_table(table, source)
    found = read_log(source, COLUMNS)
    assert found.log.presentation["badge"].tolist() == BADGE
    assert found.log.presentation["height"].tolist() == [[1, 2], [1, 1], [0, 0]]
    assert found.log.presentation["skin"].tolist() == [1, 2, 1]
    assert found.log.targets["cart"].tolist() == [[0, 2], [0, 0], [1, 0]]
    assert found.log.targets["dwell"].tolist() == [[0, 3.5], [0, 0], [1.25, 0]]
    assert found.scales["badge"] == Scale(("new", "sale"))
    assert found.scales["height"] == Scale(("120", "160"))
    again = read_log(source, COLUMNS, scales={"badge": Scale(("sale", "old"))})
    assert again.log.presentation["badge"].tolist() == [[0, 0], [1, 0], [1, 0]]


def test_a_row_a_session_has_them_once_or_in_lists():
    table = pa.table(
        {
            "query": ["q", "q"],
            "item": [["a", "b"], ["b"]],
            "click": [[0, 1], [0]],
            "badge": [["new", None], ["sale"]],
            "skin": ["dark", "light"],
            "cart": [[0, 1], [2]],
        }
    )
    columns = Columns(presentation=("badge", "skin"), target="cart", session=None)
    log = read_log(table, columns).log
    assert log.presentation["badge"].tolist() == [[1, 0], [2, 0]]
    assert log.presentation["skin"].tolist() == [1, 2]
    assert log.targets["cart"].tolist() == [[0, 1], [2, 0]]


def log_with():
    return ClickLog(
        query=[0, 0, 1],
        item=[[0, 1], [1, 0], [2, -1]],
        click=[[0, 1], [0, 0], [1, 0]],
        presentation={"badge": BADGE, "skin": [1, 2, 1]},
        targets={"cart": [[0, 2], [0, 0], [1, 0]]},
    )


def test_a_log_keeps_them_in_every_way_it_is_made_anew(tmp_path):
    log = log_with()
    assert list(log.columns())[-3:] == ["badge", "skin", "cart"]
    assert log.take([2]).presentation["badge"].tolist() == [[2, 0]]
    joined = ClickLog.concatenate([log, log.take([0])])
    assert joined.targets["cart"].tolist() == [[0, 2], [0, 0], [1, 0], [0, 2]]
    assert log.select("skin").presentation.keys() == {"skin"}
    log.write(tmp_path / "log", shards=2)
    for back in (
        ClickLog.open(tmp_path / "log"),
        ClickLog.open(tmp_path / "log", memory=0, cache=tmp_path / "cache"),
        ClickLog.from_arrow(log.to_arrow()),
        Stream(tmp_path / "log").sample(9, [0]),
    ):
        for name, value in log.columns().items():
            np.testing.assert_array_equal(back.columns()[name], value)
            assert back.columns()[name].dtype == value.dtype
    some = ClickLog.open(tmp_path / "log", ["badge"])
    assert some.presentation.keys() == {"badge"} and some.targets is None
    assert Stream(tmp_path / "log").others == {
        "badge": "presentation",
        "skin": "presentation",
        "cart": "target",
    }
    assert "badge" in summarize(log).columns


def test_the_layout_has_the_largest_code_and_the_usual_place():
    layout = layout_of(log_with())
    assert layout.columns == {"position": 2, "badge": 2, "skin": 2}
    assert layout.cross == (("position", "badge"), ("position", "skin"))
    assert layout.places == [
        {"position": 1, "badge": 1, "skin": 1},
        {"position": 2, "badge": 1, "skin": 1},
    ]


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"presentation": {"device": [1, 1]}},
            "'device' has the name of a standard column",
        ),
        (
            {"presentation": {"mask": [1, 1]}},
            "'mask' has the name of a standard column",
        ),
        ({"presentation": {"b": [0.5, 1]}}, "presentation b must be codes, whole"),
        ({"presentation": {"b": [[1, 0]] * 2}, "targets": {"b": [[1, 0]] * 2}}, "both"),
        ({"presentation": {"b": [[1, 1], [1, 1]]}}, "b must be 0 at padding.*row 1"),
        ({"presentation": {"b": [1, 2, 3]}}, r"b must have shape \(2\), got \(3,\)"),
        ({"presentation": {"b": [-1, 2]}}, "b must be at least 0, got -1 at row 0"),
        ({"targets": {"t": [[np.inf, 0]] * 2}}, "t must be finite, got inf at row 0"),
    ],
)
def test_what_is_wrong_with_them_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        ClickLog([0, 0], [[0, 1], [1, -1]], [[0, 0], [0, 0]], **given)


def test_text_is_no_target_and_lists_are_no_presentation():
    table = pa.table({**ROWS, "tags": [["x"], [], [], [], []]})
    with pytest.raises(ValueError, match=r"badge .target. must be numbers, got text"):
        read_log(table, Columns(target="badge"))
    with pytest.raises(ValueError, match=r"tags .presentation. holds several values"):
        read_log(table, Columns(presentation="tags"))
    with pytest.raises(ValueError, match="no column badg for presentation: did you"):
        read_log(table, Columns(presentation="badg"))


def test_many_numbers_are_cut_into_bins_of_equally_many():
    values = np.append(np.arange(80.0), np.nan)
    scale = scale_of(Feature("height"), values)
    codes = codes_of(Feature("height"), values, scale)
    assert len(scale.labels) == 8 and np.bincount(codes).tolist() == [1] + [10] * 8
    assert scale.labels[0] == "below 9.875" and scale.labels[-1] == "from 69.12"
    assert codes_of(Feature("height"), np.array([-5.0, 1e9]), scale).tolist() == [1, 8]
    booleans = scale_of(Feature("flag", "boolean"), np.array([1.0, 0.0]))
    assert booleans.labels == ("false", "true")
