"""Measures models of the ranking tables on small worlds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.harness.memory import forget
from benchmarks.questions.settings import config, learning

if TYPE_CHECKING:
    from simulators.populations import Population

LOGGING = "production"  # the row that keeps the logging ranker


@dataclass(frozen=True)
class OnCrowd:
    """One row: a model trained on the clicks of one population.

    Attributes:
        row: Name of a row in `benchmarks.ranking.learners`, or `LOGGING` for the
            production ranker.
        population: Name of the population.
        crowds: Function that returns the population with a name.
        sessions: Number of training sessions, and of test sessions.
        list_size: Items per list.
    """

    row: str
    population: str
    crowds: "Callable[[str], Population]"
    sessions: int
    list_size: int = 10

    def settings(self) -> dict[str, Any]:
        return {"sessions": self.sessions, "list_size": self.list_size, **learning()}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.questions.worlds import logged, parts, stochastic
        from benchmarks.ranking.protocol import ranking_metrics
        from benchmarks.ranking.rows import measure

        forget()
        crowd, three = self.crowds(self.population), parts(seed)
        scores = [part.production for part in three]
        size = self.sessions, seed, self.list_size
        found = logged(crowd, three, scores, stochastic, *size)
        if self.row == LOGGING:
            return ranking_metrics(found, found.test.logging)
        return measure(self.row, found, config(seed))
