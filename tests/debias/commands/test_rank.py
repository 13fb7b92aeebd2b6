"""What `debias rank` ranks within, and what it was told in training."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from debias.commands.rank import rank_rows, trained_columns
from debias.data.kinds import Feature
from debias.data.records import write_record

# Query a is asked twice, in sessions 1 and 3.
SHOWN = pa.table(
    {
        "sid": [1, 1, 2, 3, 3, 3],
        "q": ["a", "a", "b", "a", "a", "a"],
        "f": [1.0, 2.0, 5.0, 3.0, 1.0, 2.0],
    }
)


class Scorer:
    """A ranker whose score is the feature."""

    feature_names = ("f",)
    kinds = None

    def __call__(self, features):
        return np.asarray(features)[:, 0]


def ranks(table, column, tmp_path):
    pq.write_table(table, tmp_path / "table.parquet")
    out = tmp_path / "out.parquet"
    rank_rows(str(tmp_path / "table.parquet"), out, Scorer(), 1, column)
    ranked = pq.read_table(out)
    return ranked["rank"].to_pylist() if "rank" in ranked.column_names else None


def test_a_query_may_come_back_in_another_session(tmp_path):
    asked = ["session=sid", "query=q"]
    assert ranks(SHOWN, asked, tmp_path) == [2, 1, 1, 1, 3, 2]
    with pytest.raises(
        ValueError, match=r"column q \(query\): 'a' starts again .*row 3"
    ):
        ranks(SHOWN, ["query=q", "session="], tmp_path)
    again = SHOWN.take([0, 2, 1])
    with pytest.raises(ValueError, match=r"column sid \(session\): 1 starts .* row 2"):
        ranks(again, asked, tmp_path)


def test_candidates_without_a_session_are_ranked_within_the_query(tmp_path):
    some = SHOWN.slice(0, 3).drop(["sid"])
    assert ranks(some, ["query=q"], tmp_path) == [2, 1, 1]
    assert ranks(some.drop(["q"]), [], tmp_path) is None
    with pytest.raises(ValueError, match="no column sid for session"):
        ranks(some, ["session=sid", "query=q"], tmp_path)


def test_lists_of_a_log_are_ranked_row_by_row(tmp_path):
    table = pa.table(
        {
            "session": ["s", "t", "s"],
            "item": [["a", "b"], ["c"], ["a", None, "d"]],
            "f": [[1.0, 2.0], [5.0], [3.0, 9.0, 4.0]],
        }
    )
    assert ranks(table, [], tmp_path) == [[2, 1], [1], [2, 0, 1]]
    scores = pq.read_table(tmp_path / "out.parquet")["score"].to_pylist()
    assert scores == [[1.0, 2.0], [5.0], [3.0, None, 4.0]]
    for wrong, message in (
        ([[1.0], [5.0], [3.0, 9.0, 4.0]], "column f .features. has 1 entries for 2 it"),
        ([[1.0, 2.0], [np.inf], [3.0, 9.0, 4.0]], "list 1: column f .*finite, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            ranks(table.set_column(2, "f", [wrong]), [], tmp_path)


def test_lists_in_a_csv_are_ranked_as_lists(tmp_path):
    text = 'session,item,f\ns,"[4, 7]","[1.0, 2.0]"\nt,"[9]","[5.0]"\n'
    (tmp_path / "table.csv").write_text(text)
    out = tmp_path / "out.parquet"
    rank_rows(str(tmp_path / "table.csv"), out, Scorer(), 1, [])
    assert pq.read_table(out)["rank"].to_pylist() == [[2, 1], [1]]


def test_what_training_was_told_holds_where_nothing_else_is_said(tmp_path):
    columns = ["session=sid", "query=q", "features=f_*", "item=doc"]
    plan = {"source": {"column": columns}}
    write_record(tmp_path / "train.json", plan)
    for name, table in (("log", SHOWN), ("candidates", SHOWN.drop(["sid"]))):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    log, candidates = (str(tmp_path / f"{n}.parquet") for n in ("log", "candidates"))
    assert trained_columns(tmp_path, log) == columns[:3]
    assert trained_columns(tmp_path, candidates) == columns[1:3]
    assert trained_columns(tmp_path, log, ["query=other"]) == [
        "features=f_*",
        "session=",
    ]
    assert trained_columns(tmp_path, log, ["session=s"]) == columns[1:3]


def test_numbers_of_a_csv_are_written_as_numbers(tmp_path):
    (tmp_path / "table.csv").write_text("q,sku,price,f\na,007,1.50,1\na,12,2,2\n")
    out = tmp_path / "out.parquet"
    rank_rows(str(tmp_path / "table.csv"), out, Scorer(), 1, ["query=q"])
    ranked = pq.read_table(out)
    assert ranked.drop(["score"]).to_pydict() == {
        "q": ["a", "a"],
        "sku": ["007", "12"],  # no number is written so
        "price": [1.5, 2.0],
        "f": [1, 2],
        "rank": [2, 1],
    }


def test_scores_as_csv(tmp_path):
    pq.write_table(SHOWN.slice(0, 3), tmp_path / "table.parquet")
    source, out = str(tmp_path / "table.parquet"), tmp_path / "out.csv"
    rank_rows(source, out, Scorer(), 1, ["session=sid"])
    assert out.read_text().splitlines() == [
        '"sid","q","f","score","rank"',
        '1,"a",1,1,2',
        '1,"a",2,2,1',
        '2,"b",5,5,1',
    ]
    lists = pa.table({"f": [1.0], "tags": [["new", "red"]]})
    pq.write_table(lists, tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=r"CSV cannot hold column 'tags' \(list"):
        rank_rows(source, tmp_path / "lists.csv", Scorer(), 1, ["session="])
    assert not (tmp_path / "lists.csv").exists()


def test_a_table_that_grows_while_it_is_ranked_is_refused(tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    path.write_text('{"f": 1.0}\n' * 2)

    class Growing(Scorer):
        def __call__(self, features):
            with path.open("a") as file:
                file.write('{"f": 2.0}\n')
            return super().__call__(features)

    with pytest.raises(ValueError, match=r"rows\.jsonl: changed while it was read"):
        rank_rows(str(path), out, Growing(), 1, ["query="])
    assert not out.exists()


def test_features_without_a_known_value_are_said(tmp_path, capsys):
    class Both(Scorer):
        feature_names = ("brand", "f")
        kinds = (Feature("brand", "category", ("acme",)), Feature("f"))

    def said(brands, numbers):
        table = pa.table({"brand": brands, "f": pa.array(numbers, pa.float64())})
        pq.write_table(table, tmp_path / "t.parquet")
        rank_rows(str(tmp_path / "t.parquet"), tmp_path / "o.parquet", Both(), 2)
        return capsys.readouterr().err

    assert said(["acme", "new"], [None, 1.0]) == ""
    found = said(["new", None], [None, None])
    assert "t.parquet: column brand has no value that training saw\n" in found
    assert "t.parquet: column f has no number\n" in found
