"""Estimates of the clicks that a new ranking would get."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from scipy.special import expit

from debias.data import ClickLog, RankingData
from debias.engine.scoring import Scorer, scored_by
from debias.models import ClickModel
from debias.models.batches import applied
from debias.models.trees import Trees
from debias.propensity import off_policy, slates

ITEMS = 2_000_000  # items of ranking data up to which each click is predicted
WORK = 20_000_000  # most items drawn to count placements
FEWEST = 8  # fewest lists drawn per query

Guess = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class NewPolicy:
    """A new ranking policy, and settings for estimating its clicks."""

    temperature: float = 0.5
    clip: float | None = None
    examination: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value}")


def clicks_to_expect(
    log: ClickLog,
    data: RankingData,
    scores: np.ndarray,
    policy: NewPolicy,
    guess: Guess | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Estimates the clicks per session under a new ranking.

    The second result is the reason why the log's propensities give no estimate, or None
    if they do.

    The entry "ranking" of each estimate describes the new ranking in words.

    Args:
        log: Sessions in memory.
        data: All items of the queries. Estimators that need unshown items are left out
            if the data does not group items by query.
        scores: (items,) scores of the new ranking.
        policy: The new policy.
        guess: Function that takes item numbers (n,) and returns the predicted P(click)
            at each rank (n, L). None means that the doubly robust estimate is left out.
    """
    drawn = (
        "items drawn by score from all items of the query (Plackett-Luce, temperature "
        f"{policy.temperature:g})"
    )
    estimates: list[tuple[str, off_policy.OffPolicy]] = []
    note = None
    chances = log.logging_propensity
    if chances is None:
        note = "the log has no propensities"
    elif (chances[log.mask] >= 1).all():
        note = "all propensities are 1: the logging policy never varied its rankings"
    else:
        chance = off_policy.plackett_luce(log, data, scores, policy.temperature)
        estimates += [
            (
                drawn,
                off_policy.cascade_ips(log, chance, policy.clip, normalised=normalised),
            )
            for normalised in (True, False)
        ]
        if guess is not None and data.items <= ITEMS:
            robust = _robust(log, data, scores, policy, chance, guess)
            estimates.append((drawn, robust))
    if policy.examination is not None:
        theta = list(policy.examination)
        by_rank = off_policy.examination_ips(log, scores, theta, policy.clip)
        estimates.append(("each shown list ordered by score", by_rank))
        if log.query.max() < data.queries:
            asked, ranks = np.unique(log.query), log.list_size
            draws = _draws(int(data.sizes[asked].sum()))
            share = slates.placements(
                data, scores, policy.temperature, ranks, draws, log=log
            )
            by_place = slates.pbm_ips(log, share, theta, clip=policy.clip)
            estimates.append((drawn, by_place))
    return [{"ranking": what, **each._asdict()} for what, each in estimates], note


def _robust(
    log: ClickLog,
    data: RankingData,
    scores: np.ndarray,
    policy: NewPolicy,
    chance: np.ndarray,
    guess: Guess,
) -> off_policy.OffPolicy:
    """The doubly robust estimate, with predictions for the queries of the log."""
    asked = np.flatnonzero(np.isin(data.query_of_item(), log.query))
    click = np.zeros((data.items, log.list_size))
    click[asked] = guess(asked)
    temperature, draws = policy.temperature, _draws(len(asked))
    told = slates.guesses(log, data, scores, temperature, click, draws)
    return slates.cascade_dr(log, chance, *told, clip=policy.clip)


def _draws(items: int) -> int:
    return int(np.clip(WORK // max(items, 1), FEWEST, slates.DRAWS))


def guessed_by(
    model: ClickModel | Trees,
    preprocess: keras.layers.Layer | None,
    data: RankingData,
    ranks: int,
) -> Guess | None:
    """Function that predicts an item's click probability at each rank, or None.

    Args:
        model: A click model. The result is None for trees and for models that do not
            predict clicks.
        preprocess: Layer that preprocesses the features.
        data: The items, with raw features.
        ranks: L, the number of ranks.
    """
    if isinstance(model, Trees) or not model.predicts_clicks:
        return None

    # The rank is an array, so that one compiled function serves all.
    at = scored_by(lambda rank, x: model.logits_at(x, {"position": rank}))

    def guess(items: np.ndarray) -> np.ndarray:
        features = applied(preprocess, data.features[items])
        every = np.arange(1, ranks + 1, dtype="int32")
        logits = [Scorer(partial(at, rank))(features) for rank in every]
        found: np.ndarray = expit(np.stack(logits, axis=1).astype(float))
        return found

    return guess
