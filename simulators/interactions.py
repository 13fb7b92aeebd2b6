"""Simulated interactions with known preferences and popularity.

With a known truth, this data answers questions that no public data set can. Does a
model rank by preference or by popularity? How much does a model lose without updates if
tastes drift and new items appear?
"""

from typing import NamedTuple

import numpy as np

from debias.retrieval.data.interactions import Interactions, from_columns


class Tastes(NamedTuple):
    """The truth of a simulated log."""

    preference: np.ndarray  # (users, items) float32 preference of each user
    popularity: np.ndarray  # (items,) float32, log of the exposure of each item
    group: np.ndarray  # (users,) int, taste group of each user
    genre: np.ndarray  # (items,) int, genre of each item


def generate_interactions(
    rng: np.random.Generator,
    users: int = 300,
    items: int = 200,
    events: int = 20,
    genres: int = 5,
    loyalty: float = 3.0,
    noise: float = 0.5,
    popularity: float = 1.0,
) -> tuple[Interactions, Tastes]:
    """Simulates users with a preferred genre, and items of unequal popularity.

    The preference of user u for item i is p_ui = loyalty [genre_i = group_u] + q_i,
    where the quality q_i is normal with standard deviation `noise`. Item i has a random
    popularity rank r_i, independent of its genre and quality. Users encounter item i
    with a probability proportional to r_i^-popularity. User u takes `events` distinct
    items at times 0, 1, ..., each with probability proportional to exp(p_ui)
    r_i^-popularity among the remaining items. All events of a user are drawn at once,
    by adding Gumbel noise to the logits.

    Args:
        events: Number of items that each user takes, at most `items`.
        popularity: Exponent of popularity; 0 means equal popularity, so the log shows
            only preferences.

    Returns:
        The log and the truth. In the log, items have the feature "genre", and users
        have the uninformative feature "age".

    >>> log, truth = generate_interactions(np.random.default_rng(0), 4, 10, events=3)
    >>> len(log), truth.preference.shape
    (12, (4, 10))
    """
    if not 1 <= events <= items:
        raise ValueError(f"events must be in 1..{items}, got {events}")
    if min(users, genres) < 1 or popularity < 0:
        raise ValueError(
            "users and genres must be positive and popularity not negative, got "
            f"{users}, {genres}, {popularity}"
        )
    group, genre = rng.integers(genres, size=users), rng.integers(genres, size=items)
    preference = loyalty * (genre == group[:, None]) + rng.normal(0.0, noise, items)
    log_met = -popularity * np.log(1.0 + rng.permutation(items))
    # Sorting perturbed logits draws items without replacement.
    perturbed = preference + log_met + rng.gumbel(size=(users, items))
    taken = np.argsort(-perturbed, axis=1)[:, :events]
    user, time = np.divmod(np.arange(users * events), events)
    log = _log(user, taken.ravel(), time, genre, rng.integers(1, 7, users))
    truth = Tastes(
        preference.astype(np.float32), log_met.astype(np.float32), group, genre
    )
    return log, truth


def drifting_interactions(
    rng: np.random.Generator,
    users: int = 300,
    items: int = 200,
    days: int = 10,
    events: int = 2,
    genres: int = 8,
    active: float = 0.5,
    drift: float = 0.05,
    loyalty: float = 3.0,
    noise: float = 0.5,
    fashion: float = 2.0,
    fading: float = 10.0,
) -> Interactions:
    """Simulates users with drifting tastes, and items that appear and fade.

    Each user joins, and each item appears, on day 0 with probability 1/2, and otherwise
    on a uniformly random day. Each day a user switches to a random genre with
    probability `drift`, and is active with probability `active`. An active user takes
    `events` available items that the user has not taken, with probability proportional
    to

        exp(loyalty [genre_i = genre_u] + q_i + fashion exp(-age_i / fading))

    where q_i is normal with standard deviation `noise`, and age_i is the number of days
    since the item appeared. Gumbel noise on the logits draws items without replacement.

    Args:
        events: Number of items that an active user takes per day. The user takes all
            remaining items if fewer are left.

    Returns:
        The log, sorted by time. Day d begins at time 1000 d. Items have the feature
        "genre", and users have the uninformative feature "age".

    >>> log = drifting_interactions(np.random.default_rng(0), 20, 30, days=3)
    >>> np.unique(log.time // 1000).tolist()
    [0, 1, 2]
    """
    if min(users, items, days, events, genres) < 1 or fading <= 0:
        raise ValueError(
            "users, items, days, events, genres and fading must be positive, got "
            f"{users}, {items}, {days}, {events}, {genres}, {fading}"
        )
    joins, appears = (
        np.where(rng.random(size) < 0.5, 0, rng.integers(days, size=size))
        for size in (users, items)
    )
    group, genre = rng.integers(genres, size=users), rng.integers(genres, size=items)
    quality = rng.normal(0.0, noise, items)
    closed = np.zeros((users, items), bool)  # items taken so far
    taken = []
    for day in range(days):
        moved = rng.random(users) < drift
        group = np.where(moved, rng.integers(genres, size=users), group)
        here = np.flatnonzero((joins <= day) & (rng.random(users) < active))
        age = day - appears
        worth = quality + fashion * np.exp(-np.maximum(age, 0) / fading)
        logit = loyalty * (genre == group[here, None]) + worth
        logit += rng.gumbel(size=logit.shape)
        logit[closed[here] | (age < 0)] = -np.inf
        best = np.argsort(-logit, axis=1)[:, :events]
        row, column = np.nonzero(np.take_along_axis(logit, best, axis=1) > -np.inf)
        user, item = here[row], best[row, column]
        closed[user, item] = True
        order = rng.permutation(len(user))  # users alternate in time
        time = 1000 * day + (np.arange(len(user)) * 1000) // max(len(user), 1)
        taken.append(np.stack([user[order], item[order], time]))
    user, item, time = np.concatenate(taken, axis=1)
    return _log(user, item, time, genre, rng.integers(1, 7, users))


def _log(
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    genre: np.ndarray,
    decade: np.ndarray,
) -> Interactions:
    """Interactions of users with an age (users,) in decades and items with a genre."""
    users = {"id": np.arange(len(decade)), "age": [f"{age}0s" for age in decade]}
    items = {"id": np.arange(len(genre)), "genre": genre}
    return from_columns(user, item, time, users=users, items=items)
