"""Tests of debias.training.evaluation: what the scoreboards count."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.training import TrainingConfig, evaluation, fit
from tests.debias.training.worlds import DATA, LOG


class Constant:
    """Predicts one click probability for all."""

    predicts_clicks = True


def test_clicks_by_position_are_compared_with_their_predictions(monkeypatch):
    item = np.array([[0, 1, 2], [1, 0, -1], [2, 1, -1]])
    click = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], bool)
    log = ClickLog(np.zeros(3, int), item, click)
    logits = np.full(item.shape, np.log(0.2 / 0.8))
    monkeypatch.setattr(evaluation, "conditional_logits", lambda *_: logits)
    found = evaluation.click_scoreboard(Constant(), None, log, None, np.zeros(3))
    # Three, three and one item shown; two, one and none clicked.
    assert found["click_rate_per_rank"] == pytest.approx([2 / 3, 1 / 3, 0])
    assert found["predicted_per_rank"] == pytest.approx([0.2] * 3)
    told = evaluation.Evaluation("naive", "all sessions", 3, found)
    title, rows = list(told.sections())[1]
    assert title == "Clicks by position, observed and predicted"
    assert list(rows[2]) == ["position", "click_rate", "predicted", "perplexity"]
    assert rows[2]["position"] == 3 and rows[2]["click_rate"] == 0


def test_a_ranker_is_evaluated_with_its_click_model_and_scaling():
    fitted = fit("naive", LOG, DATA, config=TrainingConfig(epochs=1))
    found = evaluation.evaluate(fitted.ranker, LOG, DATA)
    assert found == evaluation.evaluate(fitted, LOG, DATA)


def test_a_model_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"model must be a click model.* got Constant"):
        evaluation.evaluate(Constant(), LOG, DATA)
