"""Tests of benchmarks.retrieval.recipes: figures of the table are the command's."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from typer.testing import CliRunner

from benchmarks.retrieval import recipes
from benchmarks.retrieval.recipes import ROWS, SETS, TABLE, RecipeExperiment
from debias.__main__ import app
from debias.data.records import read_record
from debias.retrieval.data.interactions import ID, from_columns, leave_last_out
from debias.retrieval.training import selection

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:the model is worse than popularity"),
]


def world():
    """60 users who take 8 of 40 items; of 20 of them the last one is drawn by lot."""
    rng = np.random.default_rng(3)
    item = np.concatenate([rng.choice(40, 8, replace=False) for _ in range(60)])
    user = np.repeat([f"u{u}" for u in range(60)], 8)
    time = np.tile([1, 2, 3, 4, 5, 6, 7, 8], (60, 1))
    time[::3, -1] = 7
    return from_columns(user, item, time.ravel())


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(selection, "MAX_PASSES", 2)
    monkeypatch.setattr(recipes, "split", lambda name: leave_last_out(world()))
    recipes._TRIALS.clear()
    yield
    recipes._TRIALS.clear()


def test_train_and_evaluate_at_the_prompt_give_the_figure_of_the_table(tmp_path):
    measured = RecipeExperiment("fm", "movielens-100k").measure(1)
    log = world()
    columns = {
        "user": log.users.vocabularies[ID][log.user],
        "item": log.items.vocabularies[ID][log.item],
        "time": log.time,
    }
    pyarrow.csv.write_csv(pa.table(columns), tmp_path / "all.csv")
    given = ["retrieval", "train", str(tmp_path / "all.csv"), "-o", str(tmp_path / "m")]
    given += ["--model", "fm", "--seed", "1", "--hold-out", "--repeat", "exclude"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    report = read_record(tmp_path / "m" / "report.json", ["held_out", "choice"])
    for name in ("hr@10", "hr@50", "ndcg@10", "mrr"):
        assert report["held_out"][name] == measured[name]
    assert report["choice"]["passes"] == measured["passes"]


def test_auto_is_the_best_of_its_towers_by_what_was_held_out(monkeypatch):
    monkeypatch.setattr(recipes, "TOWERS", ("fm", "youtube"))
    rows = {
        row: RecipeExperiment(row, "drifting").measure(0)
        for row in ("fm", "youtube", "auto")
    }
    best = max(("fm", "youtube"), key=lambda row: rows[row]["held_ndcg@50"])
    for name, value in rows["auto"].items():
        if name != "train_seconds":
            assert value == rows[best][name]


def test_a_transformer_is_a_tower_of_the_recipe_that_auto_does_not_try():
    (found,) = recipes.tried("transformer", 5)
    assert (found.tower, found.history, found.seed) == ("dssm", "transformer", 5)
    assert found.config == recipes.recipe(5).config
    assert found not in recipes.tried("auto", 5) and len(recipes.tried("dat", 5)) == 2
    measured = RecipeExperiment("transformer", "drifting").measure(0)
    assert measured["passes"] in (1, 2) and 0 < measured["hr@50"] <= 1


def test_baselines_are_tuned_on_held_out_events_alone():
    train, _ = recipes.split("drifting")
    for row in ("popularity", "ease"):
        found = RecipeExperiment(row, "drifting").measure(0)
        assert 0 <= found["held_ndcg@50"] <= 1 and 0 <= found["hr@50"] <= 1
    score, facts = recipes.measure_baseline("popularity", "drifting", 0)
    np.testing.assert_array_equal(score(np.array([0]))[0], train.popularity())
    held = selection.hold_out(train)
    assert len(held.known) + len(held.held) == len(train) and "hr@50" not in facts


def test_the_table_has_all_rows_on_all_sets():
    assert len(TABLE.experiments) == len(ROWS) * len(SETS)
    assert {"auto", "fm", "ease", "wals", "item_knn", "popularity"} <= set(ROWS)
