"""One row per impression, with what a ranker of another library corrects clicks by.

| correction | column | goes to |
|---|---|---|
| inverse propensity | `weight` | LightGBM, XGBoost, TensorFlow Ranking |
| a bias learned beside the trees | `position` | LightGBM's `position` |
| a bias logit that is known | `init_score` | `init_score`, XGBoost's `base_margin` |

They correct the same thing: use one of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from debias.data import ClickLog
from debias.metrics import effective_sample_size
from debias.propensity.places import Labels, Propensities

SHARE = 0.5  # of the clicks that weights are to be worth
MILD = 0.9  # from this share on, weights change little
MOST = 1e6  # weight without clipping: beyond it a file of floats says nothing


@dataclass(frozen=True, eq=False)
class Impressions:
    """R shown items of a log, session by session.

    Attributes:
        group: (R,) int64 number of the session, 0, 1 and so on; rows of one follow each
            other.
        query, item: (R,) int64 numbers in the log.
        position: (R,) int64 rank from 1.
        label: (R,) int64, 1 where it was clicked.
        weight: (R,) float64: min(clip, 1 / examination) of a click, 1 of what was not
            clicked.
        init_score: (R,) float64 logit of a click on the mean item at this place.
        clip: Largest weight.
        effective: Clicks that the weighted ones are worth, (sum w)^2 / sum w^2.
        unclipped: The same without a clip.
        clicks: How many there are.
        left_out: Share of the impressions that stand at places of unknown examination.
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
        """(G,) int64 rows of each session, as rankers of trees want them."""
        return np.bincount(self.group)

    @property
    def group_weight(self) -> np.ndarray:
        """(G,) float64, one weight a session for XGBoost's ranking.

        It is the mean weight of the session's clicks, and 1 without clicks.
        """
        clicks = np.bincount(self.group, self.label)
        total = np.bincount(self.group, self.weight * self.label)
        return np.where(clicks > 0, total / np.maximum(clicks, 1), 1.0)

    def verdict(self) -> str:
        """What the weights leave of the clicks, and what that means, in words.

        Rankers that pair items, such as LambdaMART, let a click with a weight of ten
        outshout ten others, and set it against skips that nobody may have examined.
        """
        worth = (
            f"weights leave {self.effective:,.0f} of {self.clicks:,} clicks' worth "
            f"(clip {self.clip:.3g})"
        )
        share = self.effective / self.clicks
        if share >= MILD:
            return f"{worth}: a ranker learns about as from raw clicks"
        if share < SHARE / 2:
            worth += ", and a few clicks decide all"
        return (
            f"{worth}: expect a noisier ranker, perhaps below one of raw clicks. "
            "Judgments (debias judge) pay more, debias train --model trees more still; "
            "or take a lower --clip, or exchange more items (debias plan)"
        )

    def pieces(self, rows: int) -> "Iterator[Impressions]":
        """The same in parts of about so many rows; no session is cut."""
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
    """The shown items of a log with weights that undo examination.

    Args:
        log: The click log.
        propensities: Of its places; what stands at a place of unknown examination is
            left out.
        names: Labels of codes 1, 2 and so on, by column, as in the propensities.
        clip: Largest weight, at least 1; None chooses it by `choose_clip`.

    Raises:
        ValueError: No click stands at a place of known examination; `clip` is below 1.

    Source of the weights: Joachims et al., Unbiased Learning-to-Rank with Biased
    Feedback, WSDM 2017.

    >>> log = ClickLog([0, 0], [[4, 2], [2, -1]], [[0, 1], [0, 0]])
    >>> found = impressions(log, Propensities.of([1.0, 0.25]), clip=10)
    >>> found.weight.tolist(), found.group_sizes.tolist()
    ([1.0, 4.0, 1.0], [2, 1])
    """
    if clip is not None and not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    place = propensities.at(log, names)
    theta = np.append(propensities.examination, np.nan)[place]
    known = (place >= 0) & np.isfinite(theta)
    if not (known & log.click).any():
        raise ValueError(
            "no click stands at a rank of known examination: the propensities must "
            "tell some. `debias plan` says what to exchange where the log tells none"
        )
    session, rank = np.nonzero(known)
    label, theta = log.click[known], theta[known]
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
    """The largest clip at which weights are worth a share of their number.

    A clip trades bias for variance: min(w, clip) is worth (sum w)^2 / sum w^2 equal
    weights, which falls as the clip rises. Where all are worth enough, the largest
    weight.

    Args:
        weights: Above 0, at least one.
        share: In (0, 1].

    Raises:
        ValueError: A weight is not above 0 and finite, there is none, or `share` is out
            of range.

    >>> choose_clip(np.array([1.0, 2.0, 4.0]))
    4.0
    >>> found = choose_clip(np.array([1.0] * 99 + [1000.0]))
    >>> w = np.minimum([1.0] * 99 + [1000.0], found)
    >>> round(float(w.sum() ** 2 / (w**2).sum()))  # of 100
    50
    """
    w = np.sort(np.asarray(weights, float).ravel())
    if not w.size or not (w > 0).all() or not np.isfinite(w).all():
        raise ValueError("weights must be above 0 and finite, at least one")
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
