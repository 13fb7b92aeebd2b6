"""Retrieval baselines that need no gradient steps.

Each baseline returns a `Scorer`, a function from B rows of users to scores (B, N) of
all N items. `tuned` chooses the settings of a baseline from `GRIDS` by held-out events,
so that towers are compared with tuned baselines.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from debias.retrieval.data.interactions import Interactions
from debias.retrieval.data.trend import late_events

Scorer = Callable[[np.ndarray], np.ndarray]


def taken(log: Interactions, decay: float = 1.0) -> Any:
    """(users, items) sparse float32 matrix of the items that users took.

    The entry of a user and a taken item is decay^k, where k is the number of items that
    the user took more recently. If `decay` is 1, the entries of all taken items are 1.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "u", "v"], ["i", "j", "j"], [1, 2, 3])
    >>> taken(log, 0.5).toarray().tolist()
    [[0.5, 1.0], [0.0, 1.0]]
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be above 0 and at most 1, got {decay}")
    latest = log.distinct("last")
    order, offsets = latest.by_user()
    back = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(latest))
    value = np.asarray(decay**back, np.float32)
    shape = (len(log.users), len(log.items))
    return sparse.csr_matrix((value, (latest.user[order], latest.item[order])), shape)


def _constant(scores: np.ndarray) -> Scorer:
    scores = scores.astype(np.float32)
    return lambda users: np.broadcast_to(scores, (len(users), len(scores)))


def popularity(log: Interactions, share: float = 1.0) -> Scorer:
    """Popularity: the number of events of each item in the latest `share` of the log.

    Items with equal counts are ordered by their counts in the whole log.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "v", "u", "v"], ["i", "i", "j", "k"], [1, 2, 3, 4])
    >>> popularity(log)(np.array([0]))[0].tolist()
    [2.0, 1.0, 1.0]
    >>> popularity(log, 0.5)(np.array([0]))[0].round(2).tolist()
    [0.5, 1.25, 1.25]
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    counts = log.popularity()
    if share == 1:
        return _constant(counts)
    recent = late_events(log, round(share * len(log))).popularity()
    return _constant(recent + counts / max(len(log), 1))


class Ease:
    """EASE: item weights B = -P / diag(P), P = (X'X + lambda I)^-1, diagonal 0.

    The scores of a user are x B, where x is the user's row of `taken`. If `decay` is
    below 1, recent items have more weight. EASE needs two matrices of size items x
    items, in float64 and float32. The matrix inversion takes about items^3 operations.
    The weights B are stored, and the next call with the same lambda reuses them.

    Source: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "u", "v"], ["i", "j", "j"], [1, 2, 3])
    >>> scores = Ease(log)(1.0)(np.array([1]))  # P = [[3, -1], [-1, 2]] / 5
    >>> scores.astype(float).round(3).tolist()
    [[0.333, 0.0]]
    """

    def __init__(self, log: Interactions):
        self.log = log
        self._last: tuple[float, np.ndarray] | None = None

    def __call__(self, regularisation: float, decay: float = 1.0) -> Scorer:
        if self._last is None or self._last[0] != regularisation:
            self._last = None  # frees the old one first
            self._last = regularisation, ease_weights(taken(self.log), regularisation)
        weight, asked = self._last[1], taken(self.log, decay)
        return lambda users: asked[users] @ weight


def ease_weights(seen: Any, regularisation: float) -> np.ndarray:
    """(items, items) float32 matrix B of `Ease`.

    Raises:
        ValueError: The regularisation is not positive.
    """
    if not regularisation > 0:
        raise ValueError(f"regularisation must be above 0, got {regularisation}")
    gram = (seen.T @ seen).toarray(order="F").astype(np.float64)
    gram[np.diag_indices_from(gram)] += regularisation
    # By Cholesky, in place. Both steps only fill the upper triangle.
    factor, wrong = lapack.dpotrf(gram, lower=0, overwrite_a=1)
    if wrong:
        raise ValueError(
            f"regularisation {regularisation:g} is too small, X'X + lambda I is "
            "singular: give a larger value"
        )
    inverse, _ = lapack.dpotri(factor, lower=0, overwrite_c=1)
    scale = -1 / np.diag(inverse)
    upper = np.triu(inverse, 1).astype(np.float32)
    weight: np.ndarray = (upper + upper.T) * scale.astype(np.float32)
    return weight


class ItemKNN:
    """Item kNN: the score of an item is its total similarity to the user's items.

    The similarity is s_ij = n_ij / (sqrt(n_i n_j) + shrink), where n_i users took item
    i and n_ij users took both items. For each item j, only the `neighbours` most
    similar items i count. The user's items have the same weights as in `Ease`.

    Source: Deshpande and Karypis, Item-Based Top-N Recommendation Algorithms, ACM TOIS
    2004. The shrinkage is from Ferrari Dacrema et al., Are We Really Making Much
    Progress?, RecSys 2019.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "u", "v"], ["i", "j", "j"], [1, 2, 3])
    >>> scores = ItemKNN(log)(1, 0.0)(np.array([1]))  # 1 / sqrt(1 x 2)
    >>> scores.astype(float).round(3).tolist()
    [[0.707, 0.0]]
    """

    def __init__(self, log: Interactions):
        self.log, seen = log, taken(log)
        self.counts = np.asarray(seen.sum(axis=0)).ravel()
        self.both = (seen.T @ seen).tocoo()

    def __call__(
        self, neighbours: int, shrink: float = 10.0, decay: float = 1.0
    ) -> Scorer:
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        row, column, counts = self.both.row, self.both.col, self.counts
        similar = self.both.data / (np.sqrt(counts[row] * counts[column]) + shrink)
        similar[row == column] = 0.0
        # The `neighbours` largest entries of each column.
        order = np.lexsort((-similar, column))
        first = np.searchsorted(column[order], np.arange(self.both.shape[1]))
        place = np.arange(len(order)) - first[column[order]]
        kept = order[place < neighbours]
        parts = similar[kept], (row[kept], column[kept])
        weight = sparse.csr_matrix(parts, self.both.shape)
        asked = taken(self.log, decay)
        return lambda users: (asked[users] @ weight).toarray()


def own_repeats(log: Interactions, decay: float = 0.9) -> Scorer:
    """Repeats: ranks the user's own items by recency, then other items by popularity.

    The score of an item is the sum of decay^k over the user's events with the item,
    plus the item's share of all events. For each event, k is the number of later events
    of the same user.

    Source: the repeat baseline of Hu et al., Modeling Personalized Item Frequency
    Information for Next-basket Recommendation, SIGIR 2020.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "u", "u", "v"], ["i", "j", "i", "k"], [1, 2, 3, 4])
    >>> own_repeats(log, 0.5)(np.array([0])).tolist()
    [[1.75, 0.75, 0.25]]
    """
    order, offsets = log.by_user()
    back = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(log))
    shape = (len(log.users), len(log.items))
    own = sparse.csr_matrix((decay**back, (log.user[order], log.item[order])), shape)
    share = log.popularity() / max(len(log), 1)
    return lambda users: own[users].toarray() + share


# By name: a function of the log that returns a function of the settings. Both share
# results.
BASELINES: Mapping[str, Callable[[Interactions], Callable[..., Scorer]]] = {
    "popularity": lambda log: partial(popularity, log),
    "recent_popularity": lambda log: partial(popularity, log),
    "item_knn": ItemKNN,
    "ease": Ease,
    "own_repeats": lambda log: partial(own_repeats, log),
}
GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "popularity": {},
    "recent_popularity": {"share": (0.02, 0.05, 0.1, 0.2, 0.5)},
    "item_knn": {
        "neighbours": (20, 100, 500),
        "shrink": (0.0, 10.0, 100.0),
        "decay": (0.4, 0.6, 0.8, 0.95, 1.0),
    },
    "ease": {
        "regularisation": (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
        "decay": (0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0),
    },
    "own_repeats": {"decay": (0.8, 0.9, 0.95, 1.0)},
}


class Tuned(NamedTuple):
    """A baseline with settings chosen by held-out events.

    Attributes:
        name: A name in `BASELINES`.
        settings: Best settings in the grid of the baseline.
        value: Result of `judge` for these settings.
        fit: Function that fits the baseline with the best settings to another log.
    """

    name: str
    settings: dict[str, float]
    value: float
    fit: Callable[[Interactions], Scorer]


def tuned(name: str, log: Interactions, judge: Callable[[Scorer], float]) -> Tuned:
    """Finds the best settings of a baseline by coordinate search over its grid.

    While the first setting is chosen, each other setting has the last value of its
    list. The first setting is then fixed, and the next setting is chosen in the same
    way.

    Args:
        name: A name in `BASELINES`.
        log: The training events.
        judge: Function from a scorer to its quality on held-out events, where higher is
            better. If several settings have the same quality, the first one in the grid
            is chosen.
    """
    make, grid = BASELINES[name](log), GRIDS[name]
    settings = {setting: values[-1] for setting, values in grid.items()}
    best = -np.inf if grid else judge(make())
    for setting, values in grid.items():
        worth = {v: judge(make(**settings | {setting: v})) for v in values}
        settings[setting] = max(worth, key=lambda v: worth[v])
        best = worth[settings[setting]]
    return Tuned(name, settings, best, lambda other: BASELINES[name](other)(**settings))
