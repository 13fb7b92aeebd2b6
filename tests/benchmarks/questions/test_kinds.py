"""Tests of benchmarks.questions.kinds: who is in a crowd, and what is chosen."""

import pytest

from benchmarks.questions import kinds
from benchmarks.questions.kinds import (
    FITTED,
    MOST,
    TRUE,
    Kinds,
    Result,
    builder,
    crowd,
)
from benchmarks.questions.worlds import logged, parts, stochastic
from simulators.populations import named


@pytest.mark.parametrize("name", TRUE)
def test_crowds_have_the_kinds_that_they_are_said_to_have(name):
    shares = [share for share, _ in crowd(name).types]
    assert len(shares) == TRUE[name]
    assert max(shares) == pytest.approx(0.9 if name == "uneven" else 1 / TRUE[name])


def test_models_have_as_many_components_as_their_names():
    three = parts(3, queries=60)
    scores = [part.production for part in three]
    found = logged(named("pbm"), three, scores, stochastic, 200, 3)
    counts = [len(getattr(builder(r, found)(0), "components", (0,))) for r in FITTED]
    assert counts[:MOST] == [1, 2, 3, 4]
    assert len(builder("averaged", found)(0).parts) == 3


def test_the_likeliest_is_chosen(monkeypatch):
    likely = dict(zip(FITTED, (-3.0, -1.0, -2.0, -2.5, 0.0), strict=True))
    results = {row: Result(value, {"ndcg@5": value}) for row, value in likely.items()}
    monkeypatch.setattr(kinds, "results", lambda population, seed: results)
    found = Kinds("chosen", "two").measure(0, None)
    assert found == {"ndcg@5": -1.0, "kinds": 2.0, "right": 1.0}
    assert Kinds("kinds_3", "two").measure(0, None)["right"] == 0
    assert Kinds("averaged", "two").measure(0, None) == {"ndcg@5": 0.0}
