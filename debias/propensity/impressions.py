"""One row per impression, with corrections for rankers of other libraries.

| correction | column | used by |
|---|---|---|
| inverse propensity | `weight` | LightGBM, XGBoost, TensorFlow Ranking |
| a bias learned together with the trees | `position` | LightGBM's `position` |
| a known bias logit | `init_score` | `init_score`, XGBoost's `base_margin` |

All three columns correct the same bias, so use only one of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from debias.data import ClickLog
from debias.metrics import effective_sample_size
from debias.propensity.places import Labels, Propensities, known_places

SHARE = 0.5  # share of the clicks to keep as effective sample
MILD = 0.9  # from this share on, weights have little effect
MOST = 1e6  # larger weights mean nothing in a file of floats


@dataclass(frozen=True, eq=False)
class Impressions:
    """The R shown items of a log, session by session.

    Attributes:
        group: (R,) int64 index of the session, from 0. The rows of a session are
            consecutive.
        query, item: (R,) int64 index of the query, and index of the item, in the log.
        position: (R,) int64 rank from 1.
        label: (R,) int64, 1 for a click, else 0.
        weight: (R,) float64: min(clip, 1 / examination) for a click, else 1.
            Examination is divided by its largest value if this value is above 1.
        init_score: (R,) float64 logit of P(click) at the place of the row for an item
            with mean attraction.
        clip: Largest weight.
        effective: Effective number of clicks, (sum w)^2 / sum w^2, where w are the
            weights of clicks.
        unclipped: Effective number of clicks with unclipped weights.
        clicks: Number of clicks.
        left_out: Share of impressions at places with unknown examination, which are
            left out.
    """

    group: np.ndarray
    query: np.ndarray
    item: np.ndarray
    position: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    init_score: np.ndarray
    clip: float
    effective: float
    unclipped: float
    clicks: int
    left_out: float

    def __len__(self) -> int:
        return len(self.item)

    @property
    def group_sizes(self) -> np.ndarray:
        """(G,) int64 number of rows per session, for tree rankers."""
        return np.bincount(self.group)

    @property
    def group_weight(self) -> np.ndarray:
        """(G,) float64 weight of each session, for XGBoost's ranking.

        The weight of a session is the mean weight of its clicks, or 1 without clicks.
        """
        clicks = np.bincount(self.group, self.label)
        total = np.bincount(self.group, self.weight * self.label)
        return np.where(clicks > 0, total / np.maximum(clicks, 1), 1.0)

    def verdict(self) -> str:
        """A sentence on the effective number of clicks and its consequences.

        In a pairwise ranker, such as LambdaMART, a click with weight ten counts as much
        as ten clicks with weight one. The ranker compares the clicked item with items
        that perhaps nobody examined.
        """
        worth = (
            f"with weights, {self.clicks:,} clicks have an effective sample of "
            f"{self.effective:,.0f} (clip {self.clip:.3g})"
        )
        share = self.effective / self.clicks
        if share >= MILD:
            return f"{worth}: a ranker learns about as well as from raw clicks"
        if share < SHARE / 2:
            worth += ", and a few clicks dominate"
        return (
            f"{worth}: expect a noisier ranker, perhaps worse than one of raw clicks. "
            "Judgments (debias judge) are better, and debias train --model trees is "
            "better still. Or lower --clip, or exchange more items (debias plan)"
        )

    def pieces(self, rows: int) -> "Iterator[Impressions]":
        """Yields parts of about `rows` rows, without splitting a session."""
        ends = np.flatnonzero(np.diff(self.group, append=-1)) + 1
        start = 0
        while start < len(self):
            at = np.searchsorted(ends, min(start + rows, len(self)))
            end = int(ends[at])
            part = {n: getattr(self, n)[start:end] for n in _ROWS}
            yield replace(self, **part)
            start = end


_ROWS = ("group", "query", "item", "position", "label", "weight", "init_score")


def impressions(
    log: ClickLog,
    propensities: Propensities,
    *,
    names: Labels | None = None,
    clip: float | None = None,
) -> Impressions:
    """Lists the shown items of a log, with inverse propensity weights.

    Args:
        log: The click log.
        propensities: Estimated examination at each place of the log. Impressions at
            places with unknown examination are left out.
        names: For each column that defines places, the labels of the codes 1, 2 and so
            on. The propensities must use the same labels.
        clip: Largest weight, at least 1; None uses `choose_clip`.

    Raises:
        ValueError: No click is at a place with known examination; or `clip` is below 1.

    Source of the weights: Joachims et al., Unbiased Learning-to-Rank with Biased
    Feedback, WSDM 2017.

    >>> log = ClickLog([0, 0], [[4, 2], [2, -1]], [[0, 1], [0, 0]])
    >>> found = impressions(log, Propensities.of([1.0, 0.25]), clip=10)
    >>> found.weight.tolist(), found.group_sizes.tolist()
    ([1.0, 4.0, 1.0], [2, 1])
    """
    if clip is not None and not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    place = known_places(propensities, log, names)
    known, curve = place >= 0, propensities.examination
    most = np.nanmax(curve, initial=1.0)  # a rank below a banner, beside rank 1
    session, rank = np.nonzero(known)
    label, theta = log.click[known], (curve / most)[place[known]]
    inverse = np.minimum(1 / theta, MOST)
    largest = choose_clip(inverse[label]) if clip is None else float(clip)
    attraction = min(label.sum() / theta.sum(), 1.0)
    p = np.clip(theta * attraction, 1e-6, 1 - 1e-6)
    weight = np.where(label, np.minimum(inverse, largest), 1.0)
    return Impressions(
        np.cumsum(np.diff(session, prepend=session[0]) > 0),
        log.query[session].astype(np.int64),
        log.item[known].astype(np.int64),
        rank + 1,
        label.astype(np.int64),
        weight,
        np.log(p) - np.log1p(-p),
        largest,
        effective_sample_size(weight[label]),
        effective_sample_size(inverse[label]),
        int(label.sum()),
        float(1 - known.sum() / log.mask.sum()),
    )


def choose_clip(weights: np.ndarray, share: float = SHARE) -> float:
    """Finds the largest clip with a large enough effective number of weights.

    A lower clip adds bias and reduces variance. The effective number of the clipped
    weights v = min(w, clip) is (sum v)^2 / sum v^2. The effective number falls as the
    clip rises. If the effective number is large enough without a clip, the largest
    weight is returned.

    Args:
        weights: At least one weight. Weights are finite and above 0.
        share: Required effective number divided by the number of weights, in (0, 1].

    Raises:
        ValueError: There is no weight, a weight is not a finite number above 0, or
            `share` is not in (0, 1].

    >>> choose_clip(np.array([1.0, 2.0, 4.0]))
    4.0
    >>> found = choose_clip(np.array([1.0] * 99 + [1000.0]))
    >>> w = np.minimum([1.0] * 99 + [1000.0], found)
    >>> round(float(w.sum() ** 2 / (w**2).sum()))  # of 100
    50
    """
    w = np.sort(np.asarray(weights, float).ravel())
    if not w.size or not (w > 0).all() or not np.isfinite(w).all():
        raise ValueError("weights must be above 0 and finite, and not empty")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    wanted = share * len(w)
    if effective_sample_size(w) >= wanted:
        return float(w[-1])
    low, high = float(w[0]), float(w[-1])
    for _ in range(60):
        middle = (low + high) / 2
        enough = effective_sample_size(np.minimum(w, middle)) >= wanted
        low, high = (middle, high) if enough else (low, middle)
    return low
