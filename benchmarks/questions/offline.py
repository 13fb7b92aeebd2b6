"""Agreement of offline evaluation metrics with the truth.

Protocol, fixed before any result was seen:

1. Each small world compares ten rankers. Seven rankers are models (`naive`,
   `position_feature`, `additive`, `product`, `xpa`, `softmax_naive`, `listwise`). The
   models are trained on 5,000 sessions that the production ranker logged. Their
   training settings are the defaults of `debias.fit`, except for batches of 128
   sessions and at most four passes. The other three rankers are ridge regressions on
   grades: of 20 queries (the production ranker), of 72 queries, and of all training
   queries.
2. A scoreboard is a metric that gives each ranker a number. All scoreboards except
   `interleaving` and `ab_test` are computed from 5,000 sessions of test queries, which
   the production ranker logged:

| scoreboard | number |
|---|---|
| `log_likelihood` | log-likelihood of clicks; only for models that predict clicks |
| `concordance` | share of correctly ordered pairs (click, skip) at a query and rank |
| `click_ndcg` | NDCG@10 of the re-ranked logged lists, with clicks as relevance |
| `click_ndcg_ips` | DCG@10 of re-ranked logged lists, clicks divided by examination |
| `examination_ips` | expected clicks, weighted by examination (`off_policy`) |
| `placement_ips` | expected clicks, weighted by expected examination, weights <= 10 |
| `policy_ips` | expected clicks, by logged propensities, self-normalised and clipped |
| `policy_dr` | `policy_ips`, doubly robust with the predictions of `product` |
| `interleaving` | wins minus losses against production in 5,000 team drafts |
| `ab_test` | mean clicks of 5,000 sessions that show the ranker's best ten items |

   Examination is estimated from the training log. `interleaving` and `ab_test` need
   separate traffic for each ranker. So they are online metrics and are shown
   separately.
3. A ranker has two true values on the test queries: the exact expected number of clicks
   on its ten best items, and NDCG@10 with true grades. `tau_clicks` is Kendall's
   correlation of a scoreboard with the expected clicks, over the rankers. `tau_ndcg` is
   Kendall's correlation with NDCG@10. `tau_clicks_five` is `tau_clicks` over only the
   five models that predict clicks. `clicks_lost` is the loss of expected clicks if the
   scoreboard chooses the ranker, relative to the best ranker that the scoreboard can
   evaluate.
4. The populations are position-based, mixed, and trusting users. The seeds are 100 to
   109. The baseline is `click_ndcg`. Holm's correction covers all differences of the
   table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import Table
from benchmarks.questions.settings import config
from benchmarks.ranking.settings import identity, part_seed

SESSIONS, PASSES = 5_000, 4
CROWDS = ("pbm", "mixed", "trust")
PREDICTING = ("naive", "position_feature", "additive", "product", "xpa")
FITTED = (*PREDICTING, "softmax_naive", "listwise")
GRADED: Mapping[str, float] = {"production": 0.01, "ridge_30": 0.3, "ridge_100": 1.0}
SCOREBOARDS = (
    *("log_likelihood", "concordance", "click_ndcg", "click_ndcg_ips"),
    *("examination_ips", "placement_ips", "policy_ips", "policy_dr"),
)
ONLINE = ("interleaving", "ab_test")

Numbers = Mapping[str, float]  # by ranker


class Judged(NamedTuple):
    """The values of all scoreboards for all rankers of one world, and the truth."""

    boards: Mapping[str, Numbers]
    clicks: Numbers
    ndcg: Numbers


@dataclass(frozen=True)
class Scoreboard:
    """One row: a scoreboard of rankers, on one population."""

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        rankers = {"rankers": [*FITTED, *GRADED], "sessions": SESSIONS}
        return {**rankers, **identity(replace(config(), epochs=PASSES))}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        return agreement(judged(self.population, seed), self.row)


def agreement(found: Judged, board: str) -> dict[str, float]:
    """Correlations of a scoreboard with the truth, and clicks lost by its choice."""
    numbers = found.boards[board]
    names = list(numbers)
    best = max(names, key=numbers.__getitem__)
    most = max(found.clicks[name] for name in names)
    return {
        "tau_clicks": tau(names, numbers, found.clicks),
        "tau_ndcg": tau(names, numbers, found.ndcg),
        "tau_clicks_five": tau(PREDICTING, numbers, found.clicks),
        "clicks_lost": 1 - found.clicks[best] / most,
    }


def tau(names: Any, one: Numbers, other: Numbers) -> float:
    """Kendall's correlation, over rankers, of two values of each ranker.

    >>> found = tau("abc", {"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 30, "c": 20})
    >>> round(found, 3)
    0.333
    """
    from scipy.stats import kendalltau

    pair = ([of[name] for name in names] for of in (one, other))
    return float(kendalltau(*pair).statistic)


@lru_cache(maxsize=1)
def judged(crowd: str, seed: int) -> Judged:
    """Evaluates all rankers of one world; the last world is cached."""
    from benchmarks.questions.worlds import world
    from benchmarks.ranking.protocol import clicks_of
    from debias import metrics

    found = world(crowd, seed, SESSIONS)
    scores, likely, guess = rankers(found, seed)
    data, log, labels = found.test.data, found.test.log, found.test.data.labels
    assert labels is not None
    boards: dict[str, dict[str, float]] = {
        name: {ranker: board(score) for ranker, score in scores.items()}
        for name, board in by_clicks(found, guess).items()
    }
    boards["log_likelihood"] = likely
    boards |= online(found, scores, seed, len(log))

    def ndcg(score: np.ndarray) -> float:
        value = metrics.ndcg(labels, score, (10,), offsets=data.offsets)
        return metrics.estimate(value[:, 0]).mean

    return Judged(
        boards,
        {n: clicks_of(found.population, data, score) for n, score in scores.items()},
        {n: ndcg(score) for n, score in scores.items()},
    )


def rankers(
    found: Any, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    """Scores and click likelihoods by ranker on the test split, and predicted clicks.

    The predicted clicks, (items, L), are the click probabilities of the model `product`
    for each item at each rank.
    """
    from benchmarks.questions.worlds import parts
    from benchmarks.ranking.protocol import click_metrics, predicted_logits, scores
    from benchmarks.ranking.rows import fit

    every: dict[str, np.ndarray] = {}
    likely: dict[str, float] = {}
    guess = np.zeros((found.test.data.items, found.test.log.list_size))
    forget()
    for name in FITTED:
        model = fit(name, found, replace(config(seed), epochs=PASSES)).model
        every[name] = scores(model.score, found.test.data)
        if name in PREDICTING:
            logits = predicted_logits(model, found.test)
            value = click_metrics(found.test.log, logits)
            likely[name] = value["click_log_likelihood"]
        if name == "product":
            guess = guessed(model, found.test.data.features, guess.shape[1])
    for name, labels in GRADED.items():
        every[name] = parts(seed, labels)[2].production
    return every, likely, guess


def guessed(model: Any, features: np.ndarray, ranks: int) -> np.ndarray:
    """(items, ranks) click probabilities of a model, at each rank."""
    from scipy.special import expit

    places = range(1, ranks + 1)
    logits = [np.asarray(model.logits_at(features, place)) for place in places]
    return expit(np.stack(logits, axis=1).astype(float))


def by_clicks(
    found: Any, guess: np.ndarray
) -> dict[str, Callable[[np.ndarray], float]]:
    """Offline metrics, as functions of scores (items,); they only need the test log.

    Args:
        found: The world.
        guess: (items, L) predicted click probabilities, for `policy_dr`.
    """
    from benchmarks.ranking.learners import estimated_examination
    from benchmarks.ranking.protocol import TEMPERATURE
    from debias import metrics
    from debias.propensity import off_policy, slates
    from debias.training.choice import strata

    log, data = found.test.log, found.test.data
    theta = np.array(estimated_examination(found))
    theta = (theta / theta.max()).clip(1e-3)
    number = strata(log, ())
    clicks = log.click.astype(np.int8)

    def concordance(score: np.ndarray) -> float:
        return metrics.click_concordance(log.click, score[log.item], number, log.mask)

    def click_ndcg(score: np.ndarray) -> float:
        value = metrics.ndcg(clicks, score[log.item], (10,), mask=log.mask)
        return metrics.estimate(value[:, 0]).mean

    def click_ndcg_ips(score: np.ndarray) -> float:
        order = np.argsort(-score[log.item], axis=1, kind="stable")
        gain = np.take_along_axis(log.click / theta, order, axis=1)
        return float((gain / np.log2(2 + np.arange(log.list_size))).sum(axis=1).mean())

    def examination_ips(score: np.ndarray) -> float:
        return off_policy.examination_ips(log, score, theta, None).value

    def placement_ips(score: np.ndarray) -> float:
        target = slates.placements(data, score, TEMPERATURE, log.list_size)
        return slates.pbm_ips(log, target, theta).value

    def policy_ips(score: np.ndarray) -> float:
        chance = off_policy.plackett_luce(log, data, score, TEMPERATURE)
        return off_policy.cascade_ips(log, chance, None).value

    def policy_dr(score: np.ndarray) -> float:
        chance = off_policy.plackett_luce(log, data, score, TEMPERATURE)
        both = slates.guesses(log, data, score, TEMPERATURE, guess)
        return slates.cascade_dr(log, chance, *both, None).value

    return {
        "concordance": concordance,
        "click_ndcg": click_ndcg,
        "click_ndcg_ips": click_ndcg_ips,
        "examination_ips": examination_ips,
        "placement_ips": placement_ips,
        "policy_ips": policy_ips,
        "policy_dr": policy_dr,
    }


def online(
    found: Any, scores: Mapping[str, np.ndarray], seed: int, sessions: int
) -> dict[str, dict[str, float]]:
    """Online metrics: interleaving with the production ranker, and an A/B test."""
    from simulators.clicks import simulate
    from simulators.interleaving import interleave
    from simulators.policies import Deterministic

    data, crowd = found.test.data, found.population
    drafts: dict[str, float] = {}
    means: dict[str, float] = {}
    for number, (name, score) in enumerate(scores.items()):
        own = part_seed(seed, number, len(scores))

        def ranker(data: Any, score: np.ndarray = score) -> np.ndarray:
            return score

        shown = simulate(data, Deterministic(ranker), crowd, sessions, own)
        means[name] = float(shown.click.sum(axis=1).mean())
        against = interleave(
            data, ranker, lambda data: scores["production"], crowd, sessions, own
        )
        drafts[name] = 0.0 if name == "production" else against.preference
    return {"interleaving": drafts, "ab_test": means}


TABLE = Table(
    name="offline",
    title="Agreement of offline metrics with the true order of rankers, by population",
    experiments=tuple(
        Scoreboard(row, crowd) for crowd in CROWDS for row in (*SCOREBOARDS, *ONLINE)
    ),
    metrics=("tau_clicks", "tau_ndcg", "tau_clicks_five", "clicks_lost"),
    baseline="click_ndcg",
    paired=("tau_clicks", "tau_ndcg"),
    clicks="",
    bounds=ONLINE,
    lower=("clicks_lost",),
    first_seed=100,
    holm=True,
)
