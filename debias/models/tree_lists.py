"""Boosted trees with the softmax loss over the list, as in the listwise model.

In a session, p_k = exp(f(x_k) + b_k) / sum_j exp(f(x_j) + b_j), where f is a sum of
trees, x_k are the features of the item at place k, and b_k is the bias of this place.
The log-likelihood of the session is the sum of log p_k over its clicks. Each round adds
a tree that fits the gradient of the log-likelihood. After each round, a Newton step
updates b. A model with this loss ranks, but does not predict clicks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from debias.data import ClickLog
from debias.models.trees import TreesConfig, grown, places

LARGEST = 1.0  # change of a bias in one round


class Lists(NamedTuple):
    """Sessions with at least one click.

    Attributes:
        row: (S, L) row of each item in the feature matrix; 0 at padding.
        place: (S, L) zero-based place of each item; -1 at padding. See
            `debias.models.trees.places`.
        click: (S, L) float, 1 for clicked items.
    """

    row: np.ndarray
    place: np.ndarray
    click: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(S, L) False at padding."""
        return self.place >= 0


def lists_of(log: ClickLog, shown: np.ndarray, list_size: int) -> Lists:
    """The sessions of a log that have a click.

    Args:
        log: Sessions.
        shown: (R,) sorted items of the rows of the feature matrix.
        list_size: Number of ranks per device.
    """
    clicked = log.take(np.flatnonzero(log.click.any(axis=1)))
    row = np.where(clicked.mask, np.searchsorted(shown, clicked.item), 0)
    return Lists(row, places(clicked, list_size), clicked.click.astype(float))


def list_probabilities(logit: np.ndarray, bias: np.ndarray, lists: Lists) -> np.ndarray:
    """Softmax probabilities p (S, L) of the cells; 0 at padding.

    Args:
        logit: (R,) logit f of each row.
        bias: (K,) bias of each place.
        lists: Sessions.
    """
    total = logit[lists.row] + bias[np.maximum(lists.place, 0)]
    found: np.ndarray = softmax(np.where(lists.mask, total, -np.inf), axis=1)
    return found


def list_likelihood(logit: np.ndarray, bias: np.ndarray, lists: Lists) -> float:
    """Log-likelihood of the clicks, the sum of log p over all clicked items.

    >>> one = Lists(np.array([[0, 1]]), np.array([[0, 1]]), np.array([[1.0, 0.0]]))
    >>> round(list_likelihood(np.zeros(2), np.zeros(2), one), 6)  # log 1/2
    -0.693147
    """
    p = list_probabilities(logit, bias, lists)[lists.click > 0]
    return float(np.log(np.maximum(p, 1e-30)).sum())


def list_slopes(
    logit: np.ndarray, bias: np.ndarray, lists: Lists
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and curvature of minus `list_likelihood` in f, `(R,)` each.

    With n clicks in the session and c = 1 for a click, the gradient of a cell is
    n p - c, and its curvature n p (1 - p). Each result is the sum over the cells of a
    row.
    """
    rows, p = len(logit), list_probabilities(logit, bias, lists)
    expected = lists.click.sum(axis=1, keepdims=True) * p
    at = lists.row.ravel()
    gradient = np.bincount(at, (expected - lists.click).ravel(), rows)
    curvature = np.bincount(at, (expected * (1 - p)).ravel(), rows)
    return gradient, np.maximum(curvature, 1e-6)


def newton_biases(
    logit: np.ndarray, bias: np.ndarray, lists: Lists, list_size: int
) -> np.ndarray:
    """Biases (K,) after a Newton step of `list_likelihood`.

    A softmax ignores constants, so the bias of the first rank of each device stays the
    same.
    """
    p = list_probabilities(logit, bias, lists)
    clicks = lists.click.sum(axis=1, keepdims=True)
    device = lists.place[:, 0] // list_size
    found = bias.copy()
    for number in np.unique(device):
        own = device == number
        expected = clicks[own] * p[own]
        slope = (lists.click[own] - expected).sum(axis=0)[1:]
        curvature = np.diag(expected.sum(axis=0)) - p[own].T @ expected
        ridge = 1e-6 * len(p) * np.eye(len(slope))  # for ranks without items
        step = np.linalg.solve(curvature[1:, 1:] + ridge, slope)
        first = number * list_size + 1
        found[first : first + len(step)] += np.clip(step, -LARGEST, LARGEST)
    return found


def boost_lists(
    features: np.ndarray,
    lists: Lists,
    judges: Lists,
    bias: np.ndarray,
    list_size: int,
    config: TreesConfig,
    progress: Callable[[int], None] = lambda rounds: None,
) -> tuple[Any, np.ndarray, list[float]]:
    """Grows trees until the likelihood of held-out clicks stops increasing.

    Args:
        features: (R, F) features of the items in `lists` or `judges`.
        lists: Training sessions.
        judges: Held-out sessions.
        bias: (K,) initial bias of each place, such as log(examination).
        list_size: Number of ranks per device.
        config: Settings.
        progress: Function that is called after each round with 1.

    Returns:
        The booster with the best number of trees, the biases at this number, and a
        history. The history has the mean log-likelihood per held-out session with a
        click, after each round.

    Raises:
        ValueError: No held-out session has a click.
    """
    if not len(judges.row):
        raise ValueError("no held-out session has a click: log longer")
    learned = np.unique(lists.row[lists.mask])
    row = np.where(lists.mask, np.searchsorted(learned, lists.row), 0)
    own = lists._replace(row=row)
    return grown(
        (features, learned, 0.0),
        lambda logit, bias: list_slopes(logit, bias, own),
        lambda logit, bias: newton_biases(logit, bias, own, list_size),
        lambda logit, bias: list_likelihood(logit, bias, judges) / len(judges.row),
        bias,
        config,
        progress,
    )
