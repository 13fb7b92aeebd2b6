"""Generated interactions whose users' preferences and items' popularity are known.

The truth beside the log lets a test ask what no public set can answer: does a model
rank by what users want, or by what is often shown?
"""

from typing import NamedTuple

import numpy as np

from debias.data.interactions import Interactions, from_columns


class Tastes(NamedTuple):
    """The truth behind a generated log."""

    preference: np.ndarray  # (users, items) float32, what each user would choose by
    popularity: np.ndarray  # (items,) float32, log of how often each item is met
    group: np.ndarray  # (users,) int, the taste that each user has
    genre: np.ndarray  # (items,) int, the genre that each item has


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
    """Users who like one genre choose among items that are met unequally often.

    User u prefers item i by p_ui = loyalty [genre_i = group_u] + q_i, with q_i normal
    of deviation `noise`. Item i, of a random rank r_i, is met in proportion to
    r_i^-popularity, independent of genre and quality. u takes `events` distinct items,
    one after the other, with chance proportional to exp(p_ui) r_i^-popularity among
    those not yet taken, at times 0, 1, ...: drawn at once by perturbing the logits with
    Gumbel noise.

    Args:
        events: How many items each user takes, at most `items`.
        popularity: 0: all items are met alike, and the log shows preference alone.

    Returns:
        The log, with features "genre" of items and "age" of users, which tells nothing;
        and the truth.

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
    # The items in order of perturbed logits are a draw without replacement.
    perturbed = preference + log_met + rng.gumbel(size=(users, items))
    taken = np.argsort(-perturbed, axis=1)[:, :events]
    log = from_columns(
        np.repeat(np.arange(users), events),
        taken.ravel(),
        np.tile(np.arange(events), users),
        users={
            "id": np.arange(users),
            "age": [f"{age}0s" for age in rng.integers(1, 7, users)],
        },
        items={"id": np.arange(items), "genre": genre},
    )
    truth = Tastes(
        preference.astype(np.float32), log_met.astype(np.float32), group, genre
    )
    return log, truth
