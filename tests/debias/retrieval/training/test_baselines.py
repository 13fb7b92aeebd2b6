"""Tests of debias.retrieval.training.baselines against arithmetic written out."""

import numpy as np
import pytest

from debias.retrieval.training.baselines import (
    BASELINES,
    GRIDS,
    Ease,
    ItemKNN,
    own_repeats,
    popularity,
    taken,
    tuned,
)
from tests.debias.retrieval.models.registry import LOG

EVERYBODY = np.arange(len(LOG.users))


def test_ease_is_a_ridge_regression_of_each_item_on_the_others():
    x, strength = taken(LOG).toarray().astype(float), 7.0
    wanted = np.zeros((x.shape[1], x.shape[1]))
    for item in range(x.shape[1]):
        others = np.delete(x, item, axis=1)
        gram = others.T @ others + strength * np.eye(others.shape[1])
        weights = np.linalg.solve(gram, others.T @ x[:, item])
        wanted[:, item] = np.insert(weights, item, 0.0)
    scores = Ease(LOG)(strength)(EVERYBODY)
    np.testing.assert_allclose(scores, x @ wanted, atol=1e-4)


def test_recent_items_say_more_in_the_query_alone():
    recent = Ease(LOG)(7.0, decay=0.5)(EVERYBODY)
    weights = Ease(LOG)(7.0)(EVERYBODY)
    assert not np.allclose(recent, weights)
    order, offsets = LOG.by_user()
    mine = LOG.item[order[offsets[3] : offsets[4]]][::-1]
    row = taken(LOG, 0.5)[3].toarray()[0]
    np.testing.assert_allclose(row[mine], 0.5 ** np.arange(len(mine)))


def test_item_knn_keeps_the_nearest_neighbours_of_each_item():
    x, shrink, k = taken(LOG).toarray(), 2.0, 3
    count, wanted = x.sum(axis=0), np.zeros((x.shape[1], x.shape[1]))
    for j in range(x.shape[1]):
        similar = {}
        for i in range(x.shape[1]):
            both = (x[:, i] * x[:, j]).sum()
            if i != j and both:
                similar[i] = both / (np.sqrt(count[i] * count[j]) + shrink)
        top = sorted(similar.values(), reverse=True)[:k]
        for i, s in similar.items():
            wanted[i, j] = s if s > top[-1] + 1e-9 or s in top else 0.0
    scores = ItemKNN(LOG)(k, shrink)(EVERYBODY)
    # Where neighbours tie, which of them counts is open: compare items without ties.
    free = [
        j
        for j in range(x.shape[1])
        if (wanted[:, j] > 0).sum() == min(k, ((x.T @ x)[:, j] > 0).sum() - 1)
    ]
    assert len(free) > 5
    np.testing.assert_allclose(scores[:, free], (x @ wanted)[:, free], rtol=1e-5)


def test_popularity_of_late_looks_at_the_end_of_the_log():
    counts = np.bincount(LOG.item, minlength=len(LOG.items))
    np.testing.assert_array_equal(popularity(LOG)(np.array([2]))[0], counts)
    late = LOG.item[LOG.time > np.quantile(LOG.time, 0.75)]
    found = popularity(LOG, 0.25)(np.array([2, 5]))
    whole = np.bincount(late, minlength=len(LOG.items))
    np.testing.assert_array_equal(np.floor(found[1]), whole)  # ties by all events


def test_own_repeats_put_what_a_user_took_first():
    scores = own_repeats(LOG)(np.array([4]))[0]
    mine = np.zeros(len(LOG.items), bool)
    mine[LOG.item[LOG.user == 4]] = True
    assert scores[mine].min() > scores[~mine].max()


@pytest.mark.parametrize("name", BASELINES)
def test_tuning_takes_what_judges_best_and_fits_it_to_another_log(name):
    asked = []

    def judge(score):
        asked.append(score(np.array([0]))[0])
        return float(len(asked))  # the later the better

    best = tuned(name, LOG, judge)
    assert len(asked) == max(sum(map(len, GRIDS[name].values())), 1)
    assert best.settings == {k: v[-1] for k, v in GRIDS[name].items()}
    assert best.value == len(asked)
    assert best.fit(LOG)(EVERYBODY).shape == (len(LOG.users), len(LOG.items))


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: taken(LOG, 0.0), "decay must be above 0 and at most 1, got 0.0"),
        (lambda: popularity(LOG, 2.0), "share must be above 0 and at most 1, got 2.0"),
        (lambda: Ease(LOG)(0.0), "regularisation must be above 0, got 0.0"),
        (lambda: ItemKNN(LOG)(0), "neighbours must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
