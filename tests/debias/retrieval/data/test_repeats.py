"""Tests of debias.retrieval.data.repeats."""

import numpy as np
import pytest

from debias.retrieval.data.interactions import from_columns
from debias.retrieval.data.repeats import Repeat, infer_repeat


def log_of(*lists):
    user = [f"u{u}" for u, items in enumerate(lists) for _ in items]
    item = [item for items in lists for item in items]
    return from_columns(user, item, range(len(item)))


def test_last_events_tell_whether_a_log_repeats():
    # Last events: "aba" repeats, "abb" repeats, "abc" does not, "a" has no earlier one.
    found = infer_repeat(log_of("aba", "abb", "abc", "a"))
    assert found == ("model", 2, 3, 0.05)
    assert str(found) == (
        "--repeat model: in 2 of 3 last events (66.7%), the user had taken the item "
        "before, at least 5%"
    )
    assert infer_repeat(log_of("aba", "abb", "abc"), least=0.7).policy == "exclude"
    assert infer_repeat(log_of("ab", "bc")) == ("exclude", 0, 2, 0.05)
    nothing = infer_repeat(log_of("a"))
    assert nothing == ("exclude", 0, 0, 0.05) and "no event is held out" in str(nothing)


def test_events_held_out_by_the_caller_tell_as_well():
    log = log_of("ab", "ba", "cc")
    rest, held_out = log.take(log.time < 3), log.take(log.time >= 3)
    # u1 takes a after b; u2 takes c twice, before which it took nothing.
    assert infer_repeat(rest, held_out)[1:3] == (0, 3)


def test_the_bonus_is_a_power_of_count_and_recency():
    repeat = Repeat.of({"policy": "model", "weights": [0.5, 2.0, -1.0]})
    scores = np.zeros((2, 4))
    # The first user took 3 once, 1 twice, then 0; the second nothing.
    repeat.settle(scores, (np.array([3, 1, 1, 0]), np.array([0, 4, 4])))
    odds = np.exp(scores[0]) / np.exp([0.5, 0.5, 0, 0.5])
    np.testing.assert_allclose(odds, [1 / 1, 2**2 / 2, 1, 1 / 3], rtol=1e-6)
    assert not scores[1].any()


def test_scores_of_what_was_taken_count_less():
    half = Repeat.of({"policy": "model", "weights": [0.5, 0.0, 0.0, -0.5]})
    scores = np.array([[4.0, -2.0, 3.0]])
    half.settle(scores, (np.array([1, 0, 0]), np.array([0, 3])))  # 0 twice: once halved
    assert scores.tolist() == [[0.5 + 4 / 2, 0.5 - 2 / 2, 3.0]]


def test_a_linear_part_does_not_count_for_what_was_taken():
    """Vectors of two interests: one own coordinate, two of the linear part, a prior."""
    users = np.array([[[2.0, 3.0, 4.0, 1.0], [5.0, 3.0, 4.0, 1.0]]])
    items = np.array([[1.0, 10.0, 0.0, 0.5], [-1.0, 0.0, 10.0, 0.0]])
    scores = np.array([[5 + 30 + 0.5, -2.0 + 40]])
    repeat = Repeat("model", (0.0, 0.0, 0.0, 0.0), linear=2)
    repeat.own_scores(scores, users, items, (np.array([1, 1]), np.array([0, 2])))
    assert scores.tolist() == [[35.5, -2.0]]
    assert Repeat.of(repeat) == repeat == Repeat.of(repeat._asdict())
    older = {"policy": "model", "weights": [0, 0, 0]}
    assert Repeat.of(older) == repeat._replace(linear=0)


@pytest.mark.parametrize(
    "given, message",
    [
        ("maybe", "exclude allow model, got 'maybe'"),
        ("model", "needs weights"),
        ({"policy": "model", "weights": [1.0, float("nan"), 0.0]}, "needs weights"),
        (Repeat("model", (1.0, 2.0)), "needs weights, four numbers"),
        (Repeat("model", (1.0, 2.0, 3.0, 4.0, 5.0)), "needs weights, four numbers"),
    ],
)
def test_rejects(given, message):
    with pytest.raises(ValueError, match=message):
        Repeat.of(given)
    assert Repeat.of({"policy": "allow", "weights": None}) == Repeat("allow")
