"""The gain of debiasing by strength of the production ranker.

Protocol, fixed before any result was seen:

1. The production ranker of a small world is ridge regression on the grades of 1%, 10%
   or 100% of the training queries (3, 24 or 240). The training log has 1,000, 10,000 or
   100,000 sessions, and the validation log has a quarter of this number. Populations
   are named USERS-LABELS-SESSIONS, such as `pbm-100-1e3`. The users `mixed` also have
   logs of 1,000,000 sessions, with only the rows of `LARGE`.
2. The rows are `softmax_naive`, click models (`product`, `listwise`, `mixture`) and
   corrections (`ips_estimated_softmax`, `dual_learning`, `upe`). They are trained as by
   `debias.fit` with its defaults, except for batches of 128. `auto` is the model that
   `debias.select` chooses. `production` is the production ranker itself.
3. The metrics on the test queries are NDCG@5 by grades and the exact expected clicks.
   The figure shows the difference of every row from `softmax_naive` in each population,
   paired by seed.
4. There are five seeds from 100 on. Holm's correction is over all differences of the
   table.

Niu et al., SIGIR 2025, find that corrections often fail to outperform naive learning if
the production ranker is strong and sessions are few.
"""

from dataclasses import dataclass
from typing import Any

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import Table
from benchmarks.questions.settings import config, learning

CROWDS = ("pbm", "mixed", "trust")
LABELS = (1, 10, 100)  # percent
SESSIONS = ("1e3", "1e4", "1e5")
MODELS = ("product", "listwise", "mixture")
CORRECTIONS = ("ips_estimated_softmax", "dual_learning", "upe")
DEBIASED = (*MODELS, *CORRECTIONS)
LEARNERS = ("softmax_naive", *DEBIASED, "auto")
BOUNDS = ("production",)
LARGE = ("softmax_naive", "product", "listwise", *BOUNDS)  # rows with 1e6 sessions
FEWEST = 2  # queries whose grades the weakest production ranker has seen


@dataclass(frozen=True)
class Learned:
    """One row: a model trained on the log of a production ranker of given strength."""

    row: str
    crowd: str
    labels: int
    sessions: str

    @property
    def population(self) -> str:
        return f"{self.crowd}-{self.labels}-{self.sessions}"

    def settings(self) -> dict[str, Any]:
        size = {"labels": self.labels, "sessions": int(float(self.sessions))}
        return {**size, **learning(), "fewest": FEWEST}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.questions.worlds import world
        from benchmarks.ranking.protocol import ranking_metrics
        from benchmarks.ranking.rows import test_scores

        forget()
        sessions = int(float(self.sessions))
        found = world(self.crowd, seed, sessions, self.labels / 100, FEWEST)
        if self.row == "production":
            return ranking_metrics(found, found.test.logging)
        return ranking_metrics(found, test_scores(self.row, found, config(seed)))


TABLE = Table(
    name="production",
    title="Whether debiasing pays, by strength of the production ranker and sessions",
    experiments=tuple(
        Learned(row, crowd, labels, sessions)
        for crowd in CROWDS
        for labels in LABELS
        for sessions in (*SESSIONS, *(["1e6"] if crowd == "mixed" else []))
        for row in (LARGE if sessions == "1e6" else (*LEARNERS, *BOUNDS))
    ),
    metrics=("ndcg@5", "ndcg@10", "expected_clicks"),
    baseline="softmax_naive",
    paired=("ndcg@5", "expected_clicks"),
    clicks="",
    bounds=BOUNDS,
    first_seed=100,
    seeds=5,
    holm=True,
)
