"""Tests of simulators.interactions."""

import numpy as np
import pytest

from simulators.interactions import drifting_interactions, generate_interactions


def rng(seed=0):
    return np.random.default_rng(seed)


def test_first_choices_follow_preference_times_popularity():
    # One user group, one genre: the first item of each user is a draw from a softmax.
    log, truth = generate_interactions(rng(), 20_000, 6, events=1, genres=1)
    logit = truth.preference[0] + truth.popularity
    expected = np.exp(logit) / np.exp(logit).sum()
    share = log.popularity() / len(log)
    error = 4.5 * np.sqrt(expected * (1 - expected) / len(log))
    assert (np.abs(share - expected) < error).all()


def test_nobody_takes_an_item_twice_and_all_take_as_many():
    log, _ = generate_interactions(rng(), 50, 30, events=10)
    pairs = set(zip(log.user.tolist(), log.item.tolist(), strict=True))
    assert len(pairs) == len(log) == 500
    assert (np.bincount(log.user) == 10).all()


def test_loyal_users_take_their_genre():
    log, truth = generate_interactions(rng(), 200, 100, 5, loyalty=8.0, popularity=0.0)
    assert (truth.genre[log.item] == truth.group[log.user]).mean() > 0.95


def test_popularity_is_independent_of_preference():
    _, truth = generate_interactions(rng(), 50, 5000, events=1)
    correlation = np.corrcoef(truth.preference[0], truth.popularity)[0, 1]
    assert abs(correlation) < 4.5 / np.sqrt(5000)


def test_a_seed_names_a_log():
    logs = [generate_interactions(rng(seed), 20, 30, 5)[0].item for seed in (1, 1, 2)]
    assert (logs[0] == logs[1]).all() and (logs[0] != logs[2]).any()


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"events": 31}, "events"),
        ({"genres": 0}, "genres"),
        ({"popularity": -1.0}, "pop"),
    ],
)
def test_rejects(bad, message):
    with pytest.raises(ValueError, match=message):
        generate_interactions(rng(), **{"users": 5, "items": 30, "events": 3, **bad})


def test_drifting_users_take_nothing_twice_and_nothing_that_is_not_there_yet():
    log = drifting_interactions(np.random.default_rng(3), 80, 60, days=12, events=3)
    pairs = log.user.astype(int) * len(log.items) + log.item
    assert len(np.unique(pairs)) == len(pairs)
    assert (np.diff(log.time) >= 0).all() and log.time.max() < 12_000
    late = len(log.items) - len(np.unique(log.item[log.time < 1000]))
    assert late > 0.3 * len(log.items)  # half of the items appear on a later day
    counts = np.unique((log.time // 1000, log.user), axis=1, return_counts=True)[1]
    assert counts.max() == 3


def test_drift_moves_what_a_user_takes():
    def kept(drift):
        """How often a user's last item is of the genre of its first."""
        log = drifting_interactions(
            np.random.default_rng(0), 300, 200, days=20, drift=drift, loyalty=6.0
        )
        order, offsets = log.by_user()
        both = np.diff(offsets) > 1
        genre = log.items.columns["genre"][log.item[order]]
        return (genre[offsets[:-1][both]] == genre[offsets[1:][both] - 1]).mean()

    assert kept(0.0) > 0.8  # but for a user who runs out of its genre
    assert kept(0.5) < 0.4  # one of eight genres by chance


def test_drifting_rejects_a_world_of_nothing():
    with pytest.raises(ValueError, match=r"days.*positive"):
        drifting_interactions(np.random.default_rng(0), days=0)
