"""Tests of benchmarks.questions.offline: scoreboards of rankings that are known."""

import numpy as np
import pytest

from benchmarks.questions.offline import (
    PREDICTING,
    SCOREBOARDS,
    Judged,
    agreement,
    by_clicks,
    guessed,
    online,
    tau,
)
from benchmarks.questions.worlds import logged, parts, stochastic
from simulators.clicks import item_attraction
from simulators.populations import named


@pytest.fixture(scope="module")
def found():
    three = parts(3, queries=60)
    scores = [part.production for part in three]
    return logged(named("pbm"), three, scores, stochastic, 8000, 3)


def test_correlation_by_hand():
    """Of the three pairs two agree and one does not."""
    one, other = {"a": 1, "b": 2, "c": 3}, {"a": 5, "b": 7, "c": 6}
    assert tau("abc", one, other) == pytest.approx(1 / 3)


def test_agreement_by_hand():
    names = (*PREDICTING, "listwise")
    clicks = dict(zip(names, (1.0, 1.1, 1.2, 1.3, 1.4, 2.0), strict=True))
    board = {name: -value for name, value in clicks.items()}
    found = agreement(Judged({"board": board}, clicks, board), "board")
    expected = {"tau_clicks": -1, "tau_ndcg": 1, "tau_clicks_five": -1}
    assert found == pytest.approx(expected | {"clicks_lost": 0.5})


def test_every_scoreboard_prefers_the_truth_to_its_reverse(found):
    truth = item_attraction(found.test.data).astype(float)
    log, data = found.train.log, found.test.data
    rate = log.click[log.mask].mean()
    boards = by_clicks(found, np.full((data.items, log.list_size), rate))
    assert {*boards, "log_likelihood"} == {*SCOREBOARDS}
    for name, board in boards.items():
        assert board(truth) > board(-truth), name


def test_live_traffic_prefers_the_truth(found):
    truth = item_attraction(found.test.data).astype(float)
    scores = {"production": found.test.logging, "truth": truth, "reverse": -truth}
    boards = online(found, scores, 3, 1000)
    for board in boards.values():
        assert board["truth"] > board["production"] > board["reverse"]
    assert boards["interleaving"]["production"] == 0


def test_guesses_are_those_of_the_model_at_each_rank():
    class Model:
        def logits_at(self, features, place):
            return features[:, 0] - place

    found = guessed(Model(), np.array([[1.0], [2.0]]), 2)
    sigmoid = [[0.5, 1 / (1 + np.e)], [1 / (1 + 1 / np.e), 0.5]]
    np.testing.assert_allclose(found, sigmoid)
