"""Long horizons: rankers that are trained on their own logs.

Protocol, fixed before any result was seen:

1. There are ten rounds. In each round, the production ranker shows lists of ten items
   to position-based users: 4,000 sessions of training queries and 1,000 sessions of
   validation queries. A new model is trained only on the clicks of this round, with the
   defaults of `debias.fit` except for batches of 128 sessions. This model is the
   production ranker of the next round. The first production ranker is ridge regression
   on the grades of 20 queries.
2. There are two populations. In `fixed`, a list always shows the best ten items in
   order. In `explored`, each position shows a random remaining item with probability .1
   (epsilon-greedy).
3. After each round, the ranker is evaluated on test queries, which are never logged.
   The metrics are NDCG@5 with true grades and the exact expected number of clicks on
   the ranker's best ten items. `clicks_earned` is the exact expected number of clicks
   of a logged session, averaged over the ten rounds, so it includes the cost of
   exploration.
4. Two correlations show whether rankings converge, and whether they converge to the
   truth. `own_tau` is Kendall's correlation of the rankings of the last two rounds.
   `truth_tau` is Kendall's correlation of the last ranking with the true attraction.
5. The seeds are 100 to 109. The baseline is `softmax_naive`. Holm's correction covers
   all differences of the table.

Two rows are bounds. `production` keeps the first production ranker in all rounds.
`full_information_softmax` is the relevance tower of the other rows, trained on the true
attraction of every item.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import Table
from benchmarks.questions.settings import config, learning
from benchmarks.ranking.settings import part_seed

ROUNDS, SESSIONS = 10, 4_000
CROWD = "pbm"
EXPLORED: Mapping[str, float] = {"fixed": 0.0, "explored": 0.1}
LEARNERS = ("softmax_naive", "product", "listwise")
BOUNDS = ("production", "full_information_softmax")


@dataclass(frozen=True)
class Horizon:
    """One row: ten rounds of logging, training and deployment."""

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        size = {"rounds": ROUNDS, "sessions": SESSIONS, "crowd": CROWD}
        epsilon = EXPLORED[self.population]
        return {**size, "epsilon": epsilon, **learning()}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.questions.worlds import logged, parts
        from benchmarks.ranking.judgments import taus
        from simulators.clicks import item_attraction
        from simulators.policies import EpsilonGreedy
        from simulators.populations import named

        forget()
        crowd, three = named(CROWD), parts(seed)
        test, epsilon = three[2].data, EXPLORED[self.population]
        scores = [part.production for part in three]
        found, earned, own = worth(crowd, test, scores[2], 0), [], 1.0
        for turn in range(1, ROUNDS + 1):
            served = logged(
                crowd,
                three,
                scores,
                lambda ranker: EpsilonGreedy(ranker, epsilon),
                SESSIONS,
                part_seed(seed, turn - 1, ROUNDS),
            )
            earned.append(given(served))
            before = scores[2]
            if self.row not in BOUNDS or (turn == 1 and self.row != "production"):
                scores = self.next_scores(served, three, seed)
            found |= worth(crowd, test, scores[2], turn)
            own = taus(test.query_of_item(), scores[2], before)[0]
        truth = taus(test.query_of_item(), scores[2], item_attraction(test))[0]
        return found | {
            "ndcg@5": found[f"ndcg@5-round-{ROUNDS}"],
            "expected_clicks": found[f"clicks-round-{ROUNDS}"],
            "clicks_earned": float(np.mean(earned)),
            "own_tau": own,
            "truth_tau": truth,
        }

    def next_scores(self, served: Any, three: Any, seed: int) -> list[np.ndarray]:
        """Scores of all items by a model trained on the clicks of one round."""
        from benchmarks.ranking.protocol import scores
        from benchmarks.ranking.rows import fit

        model = fit(self.row, served, config(seed)).model
        return [scores(model.score, part.data) for part in three]


def worth(crowd: Any, data: Any, score: np.ndarray, turn: int) -> dict[str, float]:
    """NDCG@5 and expected clicks of a ranking after a round."""
    from benchmarks.ranking.protocol import clicks_of
    from debias import metrics

    ndcg = metrics.ndcg(data.labels, score, (5,), offsets=data.offsets)
    return {
        f"ndcg@5-round-{turn}": metrics.estimate(ndcg[:, 0]).mean,
        f"clicks-round-{turn}": clicks_of(crowd, data, score),
    }


def given(served: Any) -> float:
    """Exact expected number of clicks per training session."""
    from simulators.clicks import item_attraction
    from simulators.oracle import expected_clicks

    log, gamma = served.train.log, item_attraction(served.train.data)
    shown = np.where(log.mask, gamma[log.item], 0.0)
    return float(expected_clicks(served.population, shown, log.mask).mean())


TABLE = Table(
    name="horizons",
    title="Ten rounds of logging, training and deploying, by model and exploration",
    experiments=tuple(
        Horizon(row, population)
        for population in EXPLORED
        for row in (*LEARNERS, *BOUNDS)
    ),
    metrics=("ndcg@5", "expected_clicks", "clicks_earned", "own_tau", "truth_tau"),
    baseline="softmax_naive",
    paired=("ndcg@5", "expected_clicks", "clicks_earned"),
    clicks="",
    bounds=BOUNDS,
    first_seed=100,
    holm=True,
)
