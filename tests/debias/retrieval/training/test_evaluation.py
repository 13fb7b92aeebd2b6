"""Tests of debias.retrieval.training.evaluation."""

import warnings

import numpy as np
import pytest

from debias.retrieval.data.events import Events
from debias.retrieval.data.interactions import from_columns, leave_last_out
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.training.evaluation import (
    dot_scores,
    evaluate,
    evaluate_scores,
    head_items,
    ndcg_by_query,
    ranks,
    recall_metrics,
    typical_user,
)
from tests.debias.retrieval.models.registry import LENGTH, LOG, MODELS


def nothing_seen(queries):
    return np.empty(0, int), np.zeros(queries + 1, int)


def by_hand(scores, query, target, seen):
    """The definition, one target and one item at a time."""
    rows, offsets = seen
    found = []
    for q, t in zip(query, target, strict=True):
        taken = set(rows[offsets[q] : offsets[q + 1]])
        if t in taken:
            found.append(np.inf)
            continue
        others = set(range(scores.shape[1])) - {t} - taken
        above = sum(scores[q, i] > scores[q, t] for i in others)
        tied = sum(scores[q, i] == scores[q, t] for i in others)
        found.append(1 + above + tied / 2)
    return found


@pytest.mark.parametrize("block", [1, 3, 512])
def test_ranks_against_the_definition(block):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (20, 15)).astype("float32")
    query = rng.integers(0, 20, 60)
    target = rng.integers(0, 15, 60)
    lengths = rng.integers(0, 6, 20)
    seen = rng.integers(0, 15, lengths.sum()), np.append(0, np.cumsum(lengths))
    rank, best = ranks(lambda q: scores[q], query, target, seen, block, top=4)
    assert rank.tolist() == by_hand(scores, query, target, seen)
    for q in range(20):
        unseen = np.setdiff1d(np.arange(15), seen[0][seen[1][q] : seen[1][q + 1]])
        top = np.sort(scores[q][unseen])[::-1][:4]
        assert scores[q][best[q]].tolist() == top.tolist()
        assert not set(best[q]) & set(seen[0][seen[1][q] : seen[1][q + 1]])


def test_ranks_by_policy():
    # One user took item 2 twice, then item 0 once.
    scores, seen = np.array([[1.0, 2.0, 3.0, 4.0]]), (np.array([2, 2, 0]), [0, 3])
    query, target = np.zeros(4, int), np.arange(4)

    def of(repeat):
        rank, best = ranks(lambda q: scores[q], query, target, seen, 512, 4, repeat)
        return rank.tolist(), best[0].tolist()

    inf = float("inf")
    assert of("exclude") == ([inf, 2, inf, 1], [3, 1, -1, -1])
    assert of("allow") == ([4, 3, 2, 1], [3, 2, 1, 0])
    # Item 0 is first, 1 + 5 = 6; item 2 second, 3 + 5 + log 2 - 7 log 2 = 3.84.
    model = Repeat("model", (5.0, 1.0, -7.0, 0.0))
    assert of(model) == ([1, 4, 3, 2], [0, 3, 2, 1])
    with pytest.raises(ValueError, match="'model' needs weights"):
        of("model")


def test_a_target_that_is_given_twice_counts_once():
    twice = recall_metrics([1, 1], [0, 0], [1, 10])
    assert twice["ndcg@1"] == twice["ndcg@10"] == twice["recall@10"] == 1.0
    assert ndcg_by_query(np.array([3.0, 3.0]), np.array([0, 0]), 9).tolist() == [0.5]
    # Two targets of one rank are two where their names say so: of 1.5, both or none.
    tied = np.array([1.5, 1.5]), np.array([0, 0])
    both = recall_metrics(*tied, [10], target=np.array([4, 7]))
    expected = 2 / np.log2(2.5) / (1 + 1 / np.log2(3))
    assert both["ndcg@10"] == pytest.approx(expected) and expected < 1
    scores = np.array([[0.0, 1.0, 2.0]])
    given = np.array([0, 0]), np.array([1, 1]), nothing_seen(1), np.ones(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that popularity, all alike, is above
        found = evaluate_scores(lambda q: scores[q], *given, [10])
    assert found["ndcg@10"] == pytest.approx(1 / np.log2(3))


def test_a_collapsed_model_is_at_chance_not_at_the_top():
    n = 101
    target = np.arange(n)
    rank, _ = ranks(
        lambda q: np.ones((len(q), n)), np.arange(n), target, nothing_seen(n)
    )
    assert (rank == 51).all()
    assert recall_metrics(rank, np.arange(n), [10])["hr@10"] == 0.0


def test_metrics_by_hand_with_several_targets():
    # Query 0 finds one of two targets, at rank 2; query 1 its only one at rank 11.
    rank, query = np.array([2.0, 40.0, 11.0]), np.array([0, 0, 1])
    metrics = recall_metrics(rank, query, [10, 20])
    assert metrics["hr@10"] == 0.5 and metrics["recall@10"] == 0.25
    ideal = 1 + 1 / np.log2(3)
    expected = (1 / np.log2(3) / ideal + 0) / 2
    assert metrics["ndcg@10"] == pytest.approx(expected)
    expected = (1 / np.log2(3) / ideal + 1 / np.log2(12)) / 2
    assert metrics["ndcg@20"] == pytest.approx(expected)
    assert metrics["mrr"] == pytest.approx((1 / 2 + 1 / 11) / 2)
    assert metrics["mrr/10"] == pytest.approx((1 / 1 + 1 / 2) / 2)


def test_a_cutoff_beyond_the_catalogue_lists_the_catalogue():
    scores = np.array([[1.0, 3.0, 2.0]])
    rank, best = ranks(
        lambda q: scores[q], np.array([0]), np.array([0]), nothing_seen(1), top=50
    )
    assert best.tolist() == [[1, 2, 0]]
    assert recall_metrics(rank, np.array([0]), [50])["hr@50"] == 1.0


def test_places_without_unseen_items_are_empty():
    seen = np.array([0, 1]), np.array([0, 2])
    _, best = ranks(
        lambda q: np.ones((len(q), 3)), np.array([0]), np.array([2]), seen, top=3
    )
    assert best.tolist() == [[2, -1, -1]]


def test_several_interests_score_by_their_best_and_empty_ones_by_nothing():
    users = np.array([[[1.0, 0.0], [0.0, 0.5]], [[-1.0, 0.0], [0.0, 0.0]]])
    items = np.array([[1.0, 0.0], [0.2, 1.0]])
    assert dot_scores(users, items).tolist() == [[1.0, 0.5], [-1.0, -0.2]]


def test_head_tail_and_coverage():
    # Ten items; the two most popular are the head. Each query is shown one item.
    popularity = np.array([9, 8, 1, 1, 1, 1, 1, 1, 1, 1])
    assert head_items(popularity).sum() == 2
    scores = np.eye(10)[[0, 2, 2]]
    metrics = evaluate_scores(
        lambda q: scores[q],
        np.arange(3),
        np.array([0, 2, 3]),
        nothing_seen(3),
        popularity,
        cutoffs=[1],
    )
    assert metrics["head_hr@1"] == 1.0 and metrics["tail_hr@1"] == 0.5
    assert metrics["hr@1"] == pytest.approx(2 / 3)
    assert metrics["coverage@1"] == 0.2


def test_scores_of_any_kind_are_judged_by_the_policy():
    """One user took item 1 and takes it again; both rank it first where they may."""
    given = np.array([0]), np.array([1]), (np.array([1]), np.array([0, 1]))
    scores, counts = np.array([[0.0, 9.0, 1.0]]), np.array([1, 3, 2])
    for repeat, hit, listed in (
        ("exclude", 0.0, 1 / 3),
        ("allow", 1.0, 1 / 3),
        (Repeat("model", (-10.0, 0.0, 0.0, 0.0)), 0.0, 1 / 3),
    ):
        with warnings.catch_warnings(record=True, action="always") as noticed:
            found = evaluate_scores(
                lambda q: scores[q], *given, counts, [1], repeat=repeat
            )
        assert (found["hr@1"], found["coverage@1"]) == (hit, pytest.approx(listed))
        # Popularity, which competes with the plain counts, is then ahead of the model.
        assert bool(noticed) == isinstance(repeat, Repeat)


def test_warns_below_popularity_and_only_there():
    popularity = np.arange(20, 0, -1)
    arguments = (np.arange(5), np.zeros(5, int), nothing_seen(5), popularity, [1])
    with pytest.warns(
        UserWarning, match=r"worse than popularity: hr@1 0\.0000 < 1\.0000"
    ):
        evaluate_scores(lambda q: np.tile(np.arange(20.0), (len(q), 1)), *arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_scores(lambda q: np.tile(-np.arange(20.0), (len(q), 1)), *arguments)


def test_no_target_in_the_tail_is_not_a_number():
    metrics = evaluate_scores(
        lambda q: np.tile(-np.arange(20.0), (len(q), 1)),
        np.array([0]),
        np.array([0]),
        nothing_seen(1),
        np.arange(20, 0, -1),
        [1],
    )
    assert np.isnan(metrics["tail_hr@1"])


@pytest.mark.parametrize(
    "score, query, message",
    [
        (lambda q: np.full((len(q), 3), np.nan), [0], "NaN for query 0"),
        (lambda q: np.ones(3), [0], "score must return"),
        (lambda q: np.ones((len(q), 3)), [7], "query"),
        (lambda q: np.ones((len(q), 3)), [], "at least one target"),
    ],
)
def test_rejects(score, query, message):
    query = np.array(query, int)
    with pytest.raises(ValueError, match=message):
        evaluate_scores(score, query, query * 0, nothing_seen(2), np.ones(3))


@pytest.mark.parametrize("name", ["fm", "mind", "dat", "bare"])
def test_evaluation_ranks_what_a_user_has_not_taken_and_misses_what_is_unknown(name):
    rest, _ = leave_last_out(LOG)
    model = MODELS[name]()
    history, _ = rest.histories(LENGTH, np.array([3, 5]))
    features = {**rest.users.take(np.array([3, 5])), "history": history}
    vectors = model.item_vectors(rest.items.columns)
    scores = dot_scores(model.user_vectors(features), vectors)
    names = rest.items.vocabularies["id"]
    free = [np.setdiff1d(np.arange(40), rest.item[rest.user == u]) for u in (3, 5)]
    best = [items[np.argmax(scores[q, items])] for q, items in enumerate(free)]
    ids = rest.users.vocabularies["id"][[3, 5]]
    events = Events(
        np.array([ids[0], ids[1], "stranger"]),
        np.array([names[best[0]], "nothing", names[0]]),
        np.zeros(3, int),
    )
    found = evaluate(model, rest, events, [1, 40])
    # User 3's best is first, user 5's item is unknown; the stranger's is in 40.
    assert found["hr@40"] == pytest.approx(2 / 3)
    assert found["hr@1"] in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (found["unknown_users"], found["unknown_items"]) == (1, 1)
    assert (found["users"], found["events"]) == (3, 3)


def test_events_of_a_log_are_those_of_its_ids():
    rest, last = leave_last_out(LOG)
    model = MODELS["fm"]()
    shares: list[float] = []
    found = evaluate(model, rest, last, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert found == evaluate(model, rest, Events.of(last))
    assert found["users"] == found["events"] == 60
    with pytest.raises(ValueError, match="at least one event"):
        evaluate(model, rest, last.take(np.zeros(60, bool)))


class Counter:
    """A model without TensorFlow: item i scores i for everybody."""

    class user:
        history = None

    def user_vectors(self, features):
        return np.ones((len(features["id"]), 1), np.float32)

    def item_vectors(self, features):
        return features["id"][:, None].astype(np.float32)


TAKES = from_columns(
    ["u", "u", "v", "w"], ["a", "c", "c", "b"], [1, 2, 3, 4], items={"id": list("abc")}
)


def test_repeats_are_judged_as_they_are_served():
    # User v took nothing but c, and takes it again; u takes b, and a again.
    names = np.array(["v", "u", "u", "u"]), np.array(["c", "b", "a", "a"])
    later = Events(*names, np.array([7, 8, 9, 10]))
    found = evaluate(Counter(), TAKES, later, [1, 3])
    assert (found["users"], found["events"], found["repeated"]) == (2, 4, 3)
    # u has b left and nothing else: one of its two targets, first. v has missed.
    assert found["hr@1"] == 0.5 and found["recall@3"] == 0.25
    free = evaluate(Counter(), TAKES, later, [1, 3], repeat="allow")
    assert free["hr@1"] == 0.5 and free["recall@3"] == 1.0  # v's c is first
    late = Repeat("model", (9.0, 0.0, 0.0, 0.0))
    assert evaluate(Counter(), TAKES, later, [1], repeat=late)["hr@1"] == 0.5
    assert evaluate(Counter(), TAKES, later, [2], repeat=late)["hr@2"] == 1.0


def test_events_of_the_training_are_no_evaluation():
    with pytest.warns(UserWarning, match="may have learned from 2 of these 3 events"):
        evaluate(
            Counter(),
            TAKES,
            Events(
                np.array(["u", "v", "u"]),
                np.array(["c", "c", "c"]),
                np.array([2, 3, 9]),
            ),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(Counter(), *leave_last_out(TAKES))


def test_a_user_of_whom_nothing_is_known_is_as_all_users_are():
    """Products with the mean vector are the mean products."""
    model = MODELS["fm"]()
    log = LOG.take(LOG.user != 5)
    vector = typical_user(model, log)
    some = np.unique(log.user)
    history, _ = log.histories(LENGTH, some)
    users = model.user_vectors({**log.users.take(some), "history": history})
    np.testing.assert_allclose(vector, users.mean(axis=0), atol=1e-6)
    items = model.item_vectors(log.items.columns)
    target = int(np.argmax(items @ vector))
    name = log.items.vocabularies["id"][target]
    later = Events(np.array(["stranger"]), np.array([name]), np.array([99.0]))
    found = evaluate(model, log, later)
    assert found["mrr"] == 1.0 and found["unknown_users"] == 1
