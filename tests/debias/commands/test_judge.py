"""`debias propensities` and `debias judge` at a prompt."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from debias.commands.judge import _fresh
from debias.data import ClickLog
from debias.propensity import read_propensities
from tests.debias.commands.prompt import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two logs of 600 sessions: items that change places, and items that never do."""
    folder = tmp_path_factory.mktemp("judge")
    rng = np.random.default_rng(0)
    still = np.tile(np.arange(3), (600, 1))
    for name, item in (("moved", rng.permuted(still, axis=1)), ("still", still)):
        p = np.array([0.8, 0.5, 0.2])[item] * [1, 0.6, 0.3]
        columns = {
            "session": np.repeat(np.arange(600), 3),
            "query": np.repeat(["red", "blue"], 900),
            "item": item.ravel(),
            "position": np.tile([1, 2, 3], 600),
            "click": (rng.random(p.shape) < p).ravel().astype(int),
            "badge": np.where(rng.random(1800) < 0.3, "sponsored", "plain"),
            "device": np.repeat(np.where(np.arange(600) < 590, "phone", "watch"), 3),
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_propensities_as_a_file_and_on_the_screen(folder, tmp_path):
    out = tmp_path / "p.csv"
    done = run("propensities", folder / "moved.parquet", "-o", out, "--strict")
    assert "reference" in done.output and "not identified" in done.output
    found = read_propensities(out)
    assert found.rank.tolist() == [1, 2, 3] and found.examination[0] == 1
    assert (
        "--force"
        in run("propensities", folder / "moved.parquet", "-o", out, code=1).output
    )
    again = ["-o", out, "--force", "--by", "device", "--json"]
    record = json.loads(run("propensities", folder / "moved.parquet", *again).stdout)
    assert {row["device"] for row in record["places"]} == {"phone", "watch"}
    assert record["notes"] == [
        "device=watch has 30 impressions, too few to estimate from"
    ]


def test_a_badge_is_a_place_of_its_own(folder, tmp_path):
    out, log = tmp_path / "p.csv", folder / "moved.parquet"
    column = ["-c", "presentation=badge"]
    run("propensities", log, "-o", out, *column, "--by", "badge")
    found = read_propensities(out)
    assert sorted(set(found.by["badge"])) == ["plain", "sponsored"] and len(found) == 6
    told = ["--propensities", out, "--json"]
    judged = run("judge", log, "-o", tmp_path / "j.csv", *column, *told)
    assert json.loads(judged.stdout)["left_out"] == 0
    said = run("judge", log, "-o", tmp_path / "k.csv", *told, code=1).output
    assert "no column 'badge'" in said


def test_a_log_that_moved_nothing_exits_with_3_where_that_is_asked(folder, tmp_path):
    out = tmp_path / "p.json"
    done = run("propensities", folder / "still.parquet", "-o", out)
    assert "debias plan" in done.output
    rows = json.loads(out.read_text())
    assert {row["verdict"] for row in rows} == {"not identified"}
    assert {row["examination"] for row in rows} == {None}
    strict = ["-o", out, "--force", "--strict"]
    run("propensities", folder / "still.parquet", *strict, code=3)


def test_judgments_by_estimator_and_by_file(folder, tmp_path):
    out = tmp_path / "j.csv"
    done = run("judge", folder / "moved.parquet", "-o", out, "--grades")
    assert "rank correlation with coec" in done.output
    table = pyarrow.csv.read_csv(out)
    assert (
        table["query"].to_pylist()[:3] == ["red"] * 3 and "grade" in table.column_names
    )
    assert table["item"].to_pylist()[:3] == [0, 1, 2]
    given = tmp_path / "p.csv"
    given.write_text("rank,examination\n1,1\n2,0.6\n3,0.3\n")
    arguments = ["--propensities", given, "--format", "srw", "--json"]
    record = json.loads(
        run(
            "judge", folder / "moved.parquet", "-o", tmp_path / "j.json", *arguments
        ).stdout
    )
    assert record["pairs"] == 6 and record["propensities"] == "given"
    body = json.loads((tmp_path / "j.json").read_text())
    assert body["name"] == "moved.parquet" and len(body["judgmentRatings"]) == 2


def test_what_cannot_be_judged_leaves_no_file(folder, tmp_path):
    out = tmp_path / "j.csv"
    said = run("judge", folder / "still.parquet", "-o", out, code=1).output
    assert "no click is at a rank with known examination" in said
    log = folder / "moved.parquet"
    for arguments, message in (
        (["--propensities", "nowhere.csv"], "must be a file or an estimator"),
        (["--format", "xml"], "--format must be one of letor srw csv"),
        (["--by", "badge"], "no column 'badge'"),
        (["--model", "nowhere"], "nowhere: no such folder"),
    ):
        assert message in run("judge", log, "-o", out, *arguments, code=1).output
    assert not out.exists()


@pytest.mark.parametrize(
    ("trained", "queries", "said", "split"),
    [
        ({"contents": {"log": "other"}}, 60, "", False),
        ({}, 60, "", True),
        ({}, 49, "fewer than 50 queries", True),
        ({"streamed": True}, 60, "streamed from disk", False),
        ({"contents": {"log": "a", "items": "b"}}, 60, "train with the same", False),
    ],
)
def test_which_clicks_are_new_to_a_model(
    trained, queries, said, split, tmp_path, monkeypatch
):
    asked = {"contents": {"log": "a"}, "streamed": False, "settings": {"seed": 0}}
    (tmp_path / "train.json").write_text(json.dumps({**asked, **trained}))
    source = SimpleNamespace(contents=lambda: {"log": "a"})
    query = np.arange(600) % queries
    log = ClickLog(query, query[:, None], np.ones((600, 1), bool))
    notes = []

    def say(text, err):  # not to standard output, which may be JSON
        notes.append(text if err else "")

    monkeypatch.setattr("debias.commands.judge.say", say)
    found = _fresh(tmp_path, source, log)
    assert (found is not None) == split
    if split:  # a fifth, as `debias train` holds out
        assert found.mean() == pytest.approx(0.2, abs=0.03)
    assert [said in note for note in notes] == [True] * bool(said)
