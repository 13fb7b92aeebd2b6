"""Tests of debias.training.selection: which candidate is taken, and why."""

import re

import numpy as np
import pytest

from debias import training
from debias.data import ClickLog, RankingData
from debias.training import TrainingConfig
from debias.training.choice import Verdict
from debias.training.splits import not_learned
from tests.debias.training.worlds import DATA, LOG, prepared, stepped, written

pytestmark = pytest.mark.usefixtures("eagerly")
FAST = TrainingConfig(epochs=1, batch_size=64, min_steps=0)


def test_selecting_fits_the_chosen_model(tmp_path, monkeypatch):
    monkeypatch.setattr("debias.training.choice.LEAST", 0)  # the log is small
    found = training.select(LOG, DATA, candidates=["naive", "product"], config=FAST)
    tried = {row["model"] for row in found.choice.table}
    assert tried == {"naive", "product", "softmax_naive"} and found.choice.name in tried
    assert found.choice.name in str(found) and "<table>" in found._repr_html_()
    assert "nats per validation session" in found.words()
    found.report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    parts = (
        *("Candidates, on held-out clicks", "Examination by rank", "the model"),
        *("Predicted clicks by position", "A list before and after"),
    )
    for part in parts:
        assert part in text, part
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 4
    assert found.ranker is found.fitted.ranker
    assert training.evaluate(found).clicks == training.evaluate(found.fitted).clicks


def test_what_was_tried_with_the_naive_ranker_is_not_tried_again(tmp_path, monkeypatch):
    tried = training.try_all(prepared(), FAST, ["product"], tmp_path)
    assert {row["model"] for row in tried.table} == {"product", "softmax_naive"}
    monkeypatch.setattr("debias.training.selection.fit_prepared", pytest.fail)
    assert training.try_all(prepared(), FAST, ["product"], tmp_path) == tried


def test_halving_keeps_the_best_few_and_the_naive_ranker(monkeypatch):
    """Verdicts of a stand-in: what is preferred is worse in the first rung."""
    asked = []

    def verdict(self, name):
        asked.append((name, len(self.trial.train.log)))
        rank = ["softmax_naive", "naive", "additive", "product", "xpa"].index(name)
        return Verdict(np.full(30, 5.0 + rank), np.full(30, 10.0))

    monkeypatch.setattr("debias.training.selection._Trying.verdict", verdict)
    monkeypatch.setattr("debias.training.selection.RUNGS", (100, 200))
    names = ["naive", "additive", "product", "xpa"]
    found = training.try_all(prepared(), FAST, names)
    first, second = ([n for n, size in asked if size == s] for s in (100, 200))
    assert first == [*names, "softmax_naive"]
    assert second == ["product", "xpa", "softmax_naive"]
    assert found.name == "xpa" and found.by == "ranking"
    assert [row["sessions_trained_on"] for row in found.table] == [200] * 3 + [100] * 5


@pytest.mark.parametrize(("by", "name"), [("clicks", "listwise"), ("ranking", "best")])
def test_candidates_are_known_and_predict_clicks_where_these_decide(by, name):
    with pytest.raises(ValueError, match=f"candidates must be.*got '{name}'"):
        training.try_all(prepared(), FAST, [name], by=by)
    with pytest.raises(ValueError, match=f"candidates must be.*got '{name}'"):
        training.try_all(prepared(), FAST, name, by=by)  # not its letters


def test_rules_have_names():
    with pytest.raises(ValueError, match="by must be one of ranking clicks"):
        training.try_all(prepared(), FAST, by="luck")


def test_choice_by_clicks_takes_a_click_model():
    found = training.try_all(prepared(), FAST, ["naive", "product"], by="clicks")
    assert set(found.table[0]) == {
        *("model", "log_likelihood", "below_best", "standard_error"),
    }


def test_linear_towers_are_candidates_where_queries_are_few(monkeypatch):
    few = training.candidates_of(prepared())
    monkeypatch.setattr("debias.training.selection.FEW_QUERIES", 1)
    many = training.candidates_of(prepared())
    assert set(few) - set(many) == {"listwise_linear", "product_linear"}
    assert not {"dot", "bilinear", "position_feature"} & set(few)


def test_trees_are_candidates_where_they_can_be_compared(monkeypatch, tmp_path):
    """With their library, a log in memory and whole queries held out."""
    monkeypatch.setattr("debias.training.selection.is_installed", lambda name: True)
    assert "trees" not in training.candidates_of(prepared())  # too few sessions
    monkeypatch.setattr("debias.training.selection.LEAST_FOR_TREES", 100)
    assert training.candidates_of(prepared())[-1] == "trees"
    assert "trees" not in training.candidates_of(prepared(), by="clicks")
    assert "trees" not in training.candidates_of(prepared(written(tmp_path / "log")))
    by_session = prepared()._replace(held_out_by="session")
    assert "trees" not in training.candidates_of(by_session)
    sessions = training.trial_sessions(prepared(), FAST)
    monkeypatch.setattr("debias.training.selection.is_installed", lambda name: False)
    assert "trees" not in training.candidates_of(prepared())
    assert training.trial_sessions(prepared(), FAST) == sessions


def test_trees_that_describe_held_out_clicks_better_are_chosen(tmp_path):
    pytest.importorskip("lightgbm")
    log, data = stepped()
    found = training.select(log, data, candidates=["product", "trees"], config=FAST)
    assert found.choice.name == "trees" and found.choice.by == "ranking"
    assert re.match("trees gives held-out clicks a higher .* product", found.choice.why)
    assert found.words().startswith("trees gives")  # names the model once
    first = found.choice.table[0]
    assert first["model"] == "trees" and first["pairs_in_order"] > 0.75
    assert all(row.keys() == first.keys() for row in found.choice.table)
    # What was chosen was compared on the raw features of the log, and is fitted to all.
    assert found.ranker(data.features).shape == (data.items,)
    by_grade = {
        row["metric"]: row for row in training.evaluate(found, log, data).ranking
    }
    assert by_grade["ndcg@5"]["mean"] > 0.9
    held = training.evaluate(found)
    assert held.sessions == found.fitted.sessions["test"] and not held.ranking
    assert held.of == "the sessions held out by query"
    found.report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Candidates, on held-out clicks" in text and "Rounds" in text


def test_trees_are_compared_after_the_others_and_only_once(tmp_path, monkeypatch):
    pytest.importorskip("lightgbm")
    log, data = stepped()
    ready = training.prepare(log, data)
    names = ["trees", "product"]
    tried = training.try_all(ready, FAST, names, tmp_path)
    assert tried.name == "trees"
    monkeypatch.setattr("debias.training.selection.fit_prepared", pytest.fail)
    monkeypatch.setattr("debias.training.selection.trial_trees", pytest.fail)
    assert training.try_all(ready, FAST, names, tmp_path) == tried
    # A layer of the user's own would be lost to trees, so they are then no candidate.
    asked = []
    monkeypatch.setattr(
        "debias.training.selection.try_all",
        lambda ready, config, names, **more: asked.append(names) or tried,
    )
    monkeypatch.setattr("debias.training.selection.fit_trees", lambda *given: None)
    monkeypatch.setattr("debias.training.selection.LEAST_FOR_TREES", 0)
    training.select(log, data, config=FAST, preprocess=ready.preprocess)
    assert asked[0] and "trees" not in asked[0]
    with pytest.raises(ValueError, match="trees do not use preprocess"):
        training.select(log, data, candidates="trees", preprocess=ready.preprocess)


def test_trees_that_cannot_grow_leave_the_choice_as_it_was():
    pytest.importorskip("lightgbm")
    log, data = stepped()
    flat = RankingData(np.ones_like(data.features), data.labels, data.offsets)
    ready = training.prepare(log, flat)
    tried = training.try_all(ready, FAST, ["product", "trees"])
    assert tried.name != "trees"
    assert {row["model"] for row in tried.table} == {"product", "softmax_naive"}


def test_trees_are_compared_on_devices_that_no_training_session_has():
    pytest.importorskip("lightgbm")
    log, data = stepped()
    other = not_learned(log, FAST.seed).astype(int)
    told = ClickLog(log.query, log.item, log.click, device=other)
    tried = training.try_all(training.prepare(told, data), FAST, ["naive", "trees"])
    rows = {row["model"]: row for row in tried.table}
    # Trees need `product`, which differs from them in the relevance function only.
    assert rows.keys() == {"naive", "trees", "product", "softmax_naive"}
    row = rows["trees"]
    assert row["log_likelihood"] < 0 and row["pairs_in_order"] > 0.75
