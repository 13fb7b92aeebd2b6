"""Tests of debias.metrics.ranking."""

from itertools import pairwise, permutations
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from debias.metrics import (
    dcg,
    estimate,
    hit_rate,
    mrr,
    ndcg,
    precision,
    ranking,
    recall,
)

RANKING = {
    "dcg": dcg,
    "ndcg": ndcg,
    "mrr": mrr,
    "hit_rate": hit_rate,
    "precision": precision,
    "recall": recall,
}
every_metric = pytest.mark.parametrize("metric", RANKING.values(), ids=RANKING.keys())
CUTOFFS = [1, 2, 3, 5, None]


def rng(seed=0):
    return np.random.default_rng(seed)


def lists(queries=40, size=12, levels=None, seed=0):
    """Labels, scores (tied if there are few levels) and a mask of ragged lengths."""
    chance = rng(seed)
    labels = chance.choice(5, (queries, size), p=[0.5, 0.3, 0.1, 0.06, 0.04])
    scores = chance.normal(size=(queries, size))
    if levels is not None:
        scores = chance.integers(levels, size=(queries, size)).astype(float)
    mask = np.arange(size) < chance.integers(0, size + 1, (queries, 1))
    return labels, scores, mask


def ragged(labels, scores, mask):
    return labels[mask], scores[mask], np.r_[0, mask.sum(axis=1).cumsum()]


# By hand, and by an oracle that walks one list at a time

LABELS, SCORES = [3, 0, 1, 2], [0.1, 0.4, 0.3, 0.2]  # shown in the order 0, 1, 2, 3


def test_dcg_and_ndcg_by_hand():
    gained = 0 / log2(2) + 1 / log2(3) + 3 / log2(4) + 7 / log2(5)
    best = 7 / log2(2) + 3 / log2(3) + 1 / log2(4)
    assert dcg([LABELS], [SCORES])[0] == pytest.approx(gained)
    assert ndcg([LABELS], [SCORES])[0] == pytest.approx(gained / best)
    cut = (1 / log2(3)) / (7 + 3 / log2(3))
    assert ndcg([LABELS], [SCORES], k=2)[0] == pytest.approx(cut)


def test_the_others_by_hand():
    assert mrr([LABELS], [SCORES], k=[1, None]).tolist() == [[0, 1 / 2]]
    assert mrr([LABELS], [SCORES], relevant=3)[0] == 1 / 4
    assert hit_rate([LABELS], [SCORES], k=[1, 2]).tolist() == [[0, 1]]
    assert precision([LABELS], [SCORES], k=[2, 3, 8]).tolist() == [
        [1 / 2, 2 / 3, 3 / 8]
    ]
    assert precision([LABELS], [SCORES], k=None)[0] == 3 / 4
    assert recall([LABELS], [SCORES], k=[2, 4]).tolist() == [[1 / 3, 1]]


def one_order(name, labels, k):
    """The metric of labels in rank order."""
    hits = [y >= 1 for y in labels]
    top = len(labels) if k is None else k
    if name == "mrr":
        return 1 / (hits.index(True) + 1) if any(hits[:top]) else 0.0
    if name == "hit_rate":
        return float(any(hits[:top]))
    if name == "precision":
        return sum(hits[:top]) / top
    if name == "recall":
        return sum(hits[:top]) / sum(hits)
    value, best = (
        sum((2**y - 1) / log2(r + 2) for r, y in enumerate(order[:top]))
        for order in (labels, sorted(labels, reverse=True))
    )
    return value if name == "dcg" else value / best


def oracle(name, labels, scores, k):
    """The mean over every order that the scores allow."""
    if not any(y >= 1 for y in labels):
        return np.nan
    values = [
        one_order(name, [labels[i] for i in order], k)
        for order in permutations(range(len(labels)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    return np.mean(values)


@pytest.mark.parametrize("levels", [None, 1, 2, 3])
@pytest.mark.parametrize("name", RANKING)
def test_equals_the_mean_over_all_orders_of_ties(name, levels):
    labels, scores, mask = lists(25, 6, levels, seed=levels or 9)
    expected = [
        [oracle(name, list(y[m]), list(s[m]), k) for k in CUTOFFS]
        for y, s, m in zip(labels, scores, mask, strict=True)
    ]
    value = RANKING[name](labels, scores, CUTOFFS, mask=mask)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 3, 40])
@every_metric
def test_counting_and_sorting_agree(metric, levels, monkeypatch):
    labels, scores, mask = lists(50, 30, levels)
    counted = metric(labels, scores, CUTOFFS, mask=mask)
    monkeypatch.setattr(ranking, "_COUNTED_LENGTH", 0)
    np.testing.assert_allclose(
        metric(labels, scores, CUTOFFS, mask=mask), counted, rtol=1e-12
    )


@pytest.mark.parametrize("size", [5, 90])
@pytest.mark.parametrize("levels", [None, 4])
def test_ndcg_equals_scikit_learn(size, levels):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, scores, _ = lists(60, size, levels)
    labels[:, 0] = 2  # scikit-learn calls a list without relevant items 0
    for k in [1, 3, 10, None]:
        expected = sklearn.ndcg_score(2.0**labels - 1, scores, k=k)
        assert ndcg(labels, scores, k).mean() == pytest.approx(expected, rel=1e-12)


# Layouts, padding and policies


@pytest.mark.parametrize("size", [7, 60])
@pytest.mark.parametrize("levels", [None, 3])
@every_metric
def test_layouts_agree(metric, levels, size):
    labels, scores, mask = lists(80, size, levels)
    by_mask = metric(labels, scores, CUTOFFS, mask=mask)
    by_label = metric(np.where(mask, labels, -1), scores, CUTOFFS)
    y, s, offsets = ragged(labels, scores, mask)
    by_offsets = metric(y, s, CUTOFFS, offsets=offsets)
    np.testing.assert_allclose(by_label, by_mask, rtol=1e-12)
    np.testing.assert_allclose(by_offsets, by_mask, rtol=1e-12)
    assert np.isnan(by_mask[~mask.any(axis=1)]).all()


@every_metric
def test_ragged_lists_of_one_length_agree_with_padded(metric):
    labels, scores, _ = lists(30, 8, 5)
    flat = metric(labels.ravel(), scores.ravel(), 3, offsets=np.arange(0, 241, 8))
    np.testing.assert_array_equal(flat, metric(labels, scores, 3))


@every_metric
def test_blocks_do_not_show(metric, monkeypatch):
    labels, scores, mask = lists(50, 9, 4)
    whole = metric(labels, scores, [2, 5], mask=mask)
    monkeypatch.setattr(ranking, "_BLOCK", 40)
    np.testing.assert_array_equal(metric(labels, scores, [2, 5], mask=mask), whole)
    y, s, offsets = ragged(labels, scores, mask)
    np.testing.assert_allclose(metric(y, s, [2, 5], offsets=offsets), whole)


@given(
    labels=hnp.arrays(np.int8, (3, 6), elements=st.integers(0, 4)),
    scores=hnp.arrays(np.float32, (3, 6), elements=st.sampled_from([0, 1, 2.5, -3])),
    padding=st.integers(0, 3),
    padded=st.floats(width=32),
)
@settings(max_examples=40, deadline=None)
def test_padding_and_the_order_of_items_do_not_matter(labels, scores, padding, padded):
    for metric in RANKING.values():
        value = metric(labels, scores, [1, 4])
        shape = ((0, 0), (0, padding))
        more = metric(
            np.pad(labels, shape, constant_values=-1),
            np.pad(scores, shape, constant_values=padded),
            [1, 4],
        )
        np.testing.assert_allclose(more, value, rtol=1e-12)
        np.testing.assert_allclose(
            metric(labels[:, ::-1], scores[:, ::-1], [1, 4]), value, rtol=1e-12
        )
        defined = value[~np.isnan(value)]
        assert (defined >= 0).all()
        assert metric is dcg or (defined <= 1 + 1e-12).all()


def test_a_collapsed_model_gets_chance_level():
    labels = np.zeros((1, 100))
    labels[0, 37] = 1
    assert hit_rate(labels, np.zeros((1, 100)), 10)[0] == pytest.approx(0.1)
    harmonic = sum(1 / r for r in range(1, 101))
    assert mrr(labels, np.zeros((1, 100)))[0] == pytest.approx(harmonic / 100)


@every_metric
def test_lists_that_say_nothing_are_nan(metric):
    value = metric([[0, 0], [1, 0], [-1, -1]], np.zeros((3, 2)), 1)
    assert np.isnan(value).tolist() == [True, False, True]
    assert metric(np.zeros((0, 4)), np.zeros((0, 4)), [1, 2]).shape == (0, 2)
    assert np.isnan(metric(np.zeros((2, 0)), np.zeros((2, 0)))).all()
    assert np.isnan(metric([], [], offsets=[0, 0])).all()
    found = estimate(value)
    assert (found.n, found.left_out) == (1, 2)


def test_padding_is_never_relevant():
    found = precision([[0, 0, -1, -1]], np.zeros((1, 4)), k=4, relevant=0)
    assert found.tolist() == [2 / 4]


@pytest.mark.parametrize("counted", [0, 32])
def test_only_lists_with_ties_pay_for_them(counted, monkeypatch):
    monkeypatch.setattr(ranking, "_COUNTED_LENGTH", counted)
    scores = np.array([[3, 1, 2, np.nan], [3, 3, 2, np.nan], [np.nan] * 4]).T
    lists = ranking._Lists(np.zeros((4, 3)), scores, np.array([3, 3, 0]), np.arange(3))
    assert ranking._ranks(lists).tied.tolist() == [1]


def test_labels_of_any_kind():
    scores = [[3.0, 1.0, 2.0]]
    for labels in ([[0.5, 2.5, 0.0]], [[30, 31, 0]], [[8, 7, 0]]):
        gains = 2.0 ** np.array(labels[0]) - 1
        best = sum(sorted(gains)[::-1] / np.log2([2, 3, 4]))
        value = (gains[[0, 2, 1]] / np.log2([2, 3, 4])).sum() / best
        assert ndcg(labels, scores)[0] == pytest.approx(value)
    np.testing.assert_array_equal(
        ndcg(np.array([[True, False, True]]), scores), ndcg([[1, 0, 1]], scores)
    )


def test_a_list_longer_than_a_byte_counts():
    found = ndcg(np.ones((1, 300)), np.arange(300.0)[None], None)
    assert found == pytest.approx(1.0)


REFUSED = {  # a list of two, and what of it is not fine
    "padding other than -1": ([-0.5, 1], [1.0, 2.0], "labels"),
    "negative whole": ([-2, 1], [1.0, 2.0], "labels"),
    "label nan": ([np.nan, 1], [1.0, 2.0], "labels"),
    "label infinite": ([np.inf, 1], [1.0, 2.0], "labels"),
    "score nan": ([0, 1], [1.0, np.nan], "scores"),
    "score infinite": ([0, 1], [1.0, -np.inf], "scores"),
}


@pytest.mark.parametrize("case", REFUSED)
@every_metric
def test_what_cannot_be_ranked_is_refused_in_every_layout(metric, case):
    labels, scores, what = REFUSED[case]
    y, s = np.array([[1, 0], labels], float), np.array([[1.0, 2.0], scores])
    more = np.pad(y, ((0, 0), (0, 1)), constant_values=-1), np.pad(s, ((0, 0), (0, 1)))
    uneven = np.r_[y.ravel(), 1], np.r_[s.ravel(), 1]
    for arguments in (
        {"labels": y, "scores": s},
        {"labels": y, "scores": s, "mask": np.ones((2, 2), bool)},
        {"labels": more[0], "scores": more[1]},
        {"labels": uneven[0], "scores": uneven[1], "offsets": [0, 2, 4, 5]},
    ):
        with pytest.raises(ValueError, match=f"^{what} of list 1 are not all finite"):
            metric(**arguments)


@pytest.mark.parametrize("metric", [dcg, ndcg])
def test_grades_are_finite_in_gain_or_refused(metric):
    near = metric([[1023.0, 0.0]], [[1.0, 2.0]])[0]
    rank = 1 / log2(3)
    assert near == (rank if metric is ndcg else 2.0**1023 * rank)
    with pytest.raises(ValueError, match="list 1 must be below 1024"):
        metric([[1, 0], [0, 1024]], np.zeros((2, 2)))
    assert mrr([[0, 1024]], [[1.0, 2.0]]) == 1.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([[-1, 0]], [[1.0, 2.0]], 1, [[True, True]]), "labels of list 0"),
        (([[1, 0]], [[1.0]]), "same shape"),
        (([1, 0], [1.0, 2.0]), "with offsets"),
        (([[1, 0]], [[1.0, 2.0]], 0), "k must be"),
        (([[1, 0]], [[1.0, 2.0]], [1, 2.5]), "k must be"),
        (([[1, 0]], [[1.0, 2.0]], 1, [[True]]), "mask must have"),
        (([1, 0], [1.0, 2.0], 1, None, [0, 1]), "increase from 0 to 2"),
        (([1, 0], [1.0, 2.0], 1, None, [1, 2]), "increase from 0 to 2"),
        (([1, 0], [1.0, 2.0], 1, None, [0, 2, 1, 2]), "increase from 0 to 2"),
        (([1, 0], [1.0, 2.0], 1, None, [0.0, 2.0]), "offsets must be integers"),
        (([1, 0], [1.0, 2.0], 1, [True, True], [0, 2]), "give only one"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        ndcg(*arguments)
