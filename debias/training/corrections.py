"""Corrections of clicks by propensities from a log or a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from debias.data import ClickLog, Stream
from debias.data.layout import Layout
from debias.data.text import one_of
from debias.metrics import effective_sample_size
from debias.models import ClickModel
from debias.presets import CORRECTIONS
from debias.propensity import Propensities, choose_clip, propensities

SOME = 200_000  # sessions of a log on disk from which propensities are estimated


@dataclass(frozen=True)
class Correction:
    """A correction and its propensities, as a model for `debias.fit`.

    Attributes:
        name: A name in `debias.presets.CORRECTIONS`.
        alpha: (K,) examination of each rank; empty if the correction does not use
            examination.
        beta: (K,) click probability, at each rank, of an item with attraction 0. None
            means that these probabilities are 0.
        clip: Largest weight.
        clicks: Number of weighted clicks; 0 if the correction uses no weights.
        effective: Effective number of clicks, (sum w)^2 / sum w^2.
        unclipped: Effective number of clicks without a clip.
    """

    name: str
    alpha: tuple[float, ...] = ()
    beta: tuple[float, ...] | None = None
    clip: float = 10.0
    clicks: int = 0
    effective: float = 0.0
    unclipped: float = 0.0

    def build(self, layout: Layout, seed: int) -> ClickModel:
        """Builds a new model for a layout; `seed` sets its initial weights.

        Raises:
            ValueError: The layout has more ranks than `alpha`.
        """
        from debias.models.corrections import Known

        ranks = layout.columns["position"]
        if CORRECTIONS[self.name].needs and ranks > len(self.alpha):
            raise ValueError(
                f"propensities end at rank {len(self.alpha)}, but the log has {ranks} "
                "ranks"
            )
        module, _, name = CORRECTIONS[self.name].path.rpartition(".")
        known = Known(self.alpha, self.beta, self.clip)
        model: ClickModel = getattr(import_module(module), name)(layout, seed, known)
        return model

    @property
    def words(self) -> str:
        """One sentence about the weights; "" if the correction has no weights."""
        if not self.clicks:
            return ""
        return (
            f"{self.clicks:,} clicks, effective sample {self.effective:,.0f} with clip "
            f"{self.clip:.3g}, {self.unclipped:,.0f} without a clip"
        )


def correction(
    name: str,
    log: ClickLog | Stream,
    known: Propensities | str | Sequence[float] | np.ndarray = "auto",
    *,
    clip: float | None = None,
    features: np.ndarray | None = None,
) -> Correction:
    """Makes a correction of a log's clicks, for `debias.fit`.

    Args:
        name: A name in `debias.presets.CORRECTIONS`.
        log: The training log.
        known: Propensities, examination of each rank, or the name of an estimator.
        clip: Largest weight. None means the largest value for which the effective
            sample size is at least half of the clicks; see
            `debias.propensity.choose_clip`.
        features: Features (items, F) of the ranking data, for estimators that read
            features.

    Raises:
        ValueError: The correction is unknown, the log has no click, the propensities
            lack a required value, or they depend on more than the rank.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [0, 1]])
    >>> found = correction("ips", log, [1.0, 0.25])
    >>> found.alpha, found.clip, found.words
    ((1.0, 0.25), 4.0, '2 clicks, effective sample 1 with clip 4, 1 without a clip')
    """
    if name not in CORRECTIONS:
        raise ValueError(one_of("model", CORRECTIONS, name))
    if clip is not None and not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    needs = CORRECTIONS[name].needs
    if not needs:
        return Correction(name, clip=10.0 if clip is None else clip)
    if isinstance(log, Stream):
        log = log.sample(min(SOME, len(log)), [0])
    if isinstance(known, str):
        known = propensities(log, known, features=features)
    elif not isinstance(known, Propensities):
        known = Propensities.of(known)
    alpha, beta = _by_rank(name, known, log.list_size)
    inverse = (1 / alpha)[np.nonzero(log.click)[1]]
    if not inverse.size:
        raise ValueError("log has no click to weigh")
    largest = choose_clip(inverse) if clip is None else float(clip)
    return Correction(
        name,
        tuple(alpha.tolist()),
        None if beta is None else tuple(beta.tolist()),
        max(largest, 1.0),
        inverse.size,
        effective_sample_size(np.minimum(inverse, largest)),
        effective_sample_size(inverse),
    )


def _by_rank(
    name: str, known: Propensities, ranks: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Examination and trust of each rank."""
    if known.by:
        raise ValueError(
            f"propensities differ by {' '.join(known.by)}, but {name} needs one per "
            "rank: estimate them without --by"
        )
    order = np.argsort(known.rank)
    if known.rank[order].tolist()[:ranks] != list(range(1, ranks + 1)):
        raise ValueError(f"propensities must have each rank from 1 to {ranks} once")
    alpha: Any = known.examination[order][:ranks]
    lost = np.flatnonzero(~np.isfinite(alpha))
    if lost.size:
        raise ValueError(
            f"{name} needs the examination of every rank, and that of rank "
            f"{lost[0] + 1} is not identified: give propensities that have it, keep "
            "fewer ranks (--list-size), or randomise (debias plan)"
        )
    if "trust" in CORRECTIONS[name].needs and known.trust is None:
        raise ValueError(
            f"{name} needs a column trust in the propensities: the click probability "
            "of an item without attraction at each rank; without it, use ips"
        )
    return alpha, None if known.trust is None else known.trust[order][:ranks]
