"""Distils a ranker into boosted trees, which search engines and LightGBM can run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from debias.data import RankingData
from debias.models.trees import Trees, TreesConfig, grown
from debias.training.evaluation import score_items
from debias.training.results import Printed
from debias.training.trees import about_ten

MOST = 200_000  # items that take part
FEWEST = 20
HELD = 10  # one query of so many is held out
PAIRS = 100_000
# Labels without noise need no large leaves, and many trees follow the teacher better.
DEFAULT = TreesConfig(rounds=600, rate=0.1, leaves=31, items=20)


@dataclass(frozen=True)
class Distilled(Printed):
    """Trees that imitate a ranker, with their agreement on held-out items.

    Attributes:
        model: The trees.
        rounds: Number of trees.
        r2: Coefficient of determination of the teacher's scores on held-out items.
        pairs: Share of the pairs of held-out items of one query that the trees order as
            the teacher does. Pairs with equal scores of the trees count one half, and
            pairs with equal scores of the teacher do not count.
        history: R2 on held-out items after about ten selected rounds.
        items: Numbers of training and validation items.
        held_out_by: Unit of the split, "query" or "item".
    """

    model: Trees
    rounds: int
    r2: float
    pairs: float
    history: list[dict[str, Any]]
    items: dict[str, int]
    held_out_by: str

    @property
    def ranker(self) -> Trees:
        """The trees, as a ranker."""
        return self.model

    def sections(self) -> Any:
        yield "Rounds", self.history

    def words(self) -> str:
        count = f"{self.rounds} tree" + "s" * (self.rounds != 1)
        return (
            f"{count} order {self.pairs:.1%} of the pairs of held-out "
            f"items as the teacher does (R2 of its scores: {self.r2:.3f})."
        )


def distill(
    teacher: Any,
    data: RankingData,
    config: TreesConfig | None = None,
    progress: Callable[[int], None] = lambda rounds: None,
) -> Distilled:
    """Fits boosted trees to the scores of a ranker (knowledge distillation).

    The trees minimise the mean of (trees(x) - teacher(x))^2 over the items x. Clicks
    are not needed, so any items with the features of the teacher can take part. A tenth
    of the queries is held out to choose the number of trees. With fewer than ten
    queries, a tenth of the items is held out.

    Trees of a few noisy clicks can rank worse than trees that a debiased neural ranker
    teaches; see table `trees` of the benchmarks.

    Args:
        teacher: Ranker, or the result of `debias.fit`, `debias.select` or
            `debias.load`.
        data: Items with the features of the teacher. At most 200,000 random items take
            part.
        config: Settings of the trees. By default 600 trees of 31 leaves with learning
            rate .1, and at least 20 items in a leaf.
        progress: Function that receives the number of rounds completed since its last
            call.

    Raises:
        ValueError: There are fewer than 20 items, a feature is missing, or the teacher
            gives all items the same score or a score that is not finite.
        ModuleNotFoundError: The extra `trees` is not installed.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network",
    2015; Tang and Wang, "Ranking distillation", KDD 2018.

    >>> import simulators
    >>> data = simulators.generate(queries=20, seed=1)
    >>> teacher = lambda x: x[..., 0] + x[..., 1]
    >>> found = distill(teacher, data, TreesConfig(rounds=30, rate=0.3))
    >>> found.pairs > 0.8
    True
    """
    config = DEFAULT if config is None else config
    ranker = getattr(teacher, "ranker", teacher)
    if isinstance(ranker, Trees):
        raise ValueError("the teacher is a ranker of trees already: export it as it is")
    names, kinds = (
        getattr(ranker, "feature_names", None),
        getattr(ranker, "kinds", None),
    )
    data = data.arranged(names, kinds)
    rng = np.random.default_rng(config.seed)
    some = np.sort(rng.permutation(data.items)[:MOST])
    rows = np.asarray(data.features[some], np.float32)
    target = score_items(ranker, data.features[some]).astype(float)
    _check(target, some)
    query = np.repeat(np.arange(data.queries), data.sizes)[some]
    held, by = _held_out(query, rng)
    learned, judges = np.flatnonzero(~held), np.flatnonzero(held)
    spread = np.var(target[judges])
    base = float(target[learned].mean())

    def slopes(logit: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return logit - target[learned], np.ones(len(learned))

    def value(logit: np.ndarray, _: np.ndarray) -> float:
        error = np.square(logit[judges] - target[judges]).mean()
        return float(1 - error / max(spread, np.finfo(float).tiny))

    booster, _, history = grown(
        (rows, learned, base),
        slopes,
        lambda logit, places: places,
        value,
        np.zeros(0),
        config,
        progress,
    )
    best = int(np.argmax(history)) + 1
    names = data.feature_names if names is None else names
    trees = Trees(config.library, booster, base, None, 0, names, kinds)
    return Distilled(
        trees,
        best,
        history[best - 1],
        agreement(trees(rows[judges]), target[judges], query[judges], rng),
        about_ten(history, best, "r2"),
        {"train": len(learned), "validation": len(judges)},
        by,
    )


def agreement(
    score: np.ndarray, other: np.ndarray, query: np.ndarray, rng: np.random.Generator
) -> float:
    """Share of random pairs of items of one query that two scorings order alike.

    Args:
        score, other: (n,) scores. Pairs with equal `score` count one half. Pairs with
            equal `other` scores do not count.
        query: (n,) sorted query of each item.
        rng: Generator that draws 100,000 pairs.

    >>> scores, rng = np.arange(4.0), np.random.default_rng(0)
    >>> agreement(-scores, scores, np.array([0, 0, 1, 1]), rng)
    0.0
    """
    _, first, group, count = np.unique(
        query, return_index=True, return_inverse=True, return_counts=True
    )
    one = rng.integers(len(query), size=PAIRS)
    two = first[group[one]] + rng.integers(count[group[one]])
    wanted = np.sign(other[one] - other[two])
    ordered = (1 + np.sign(score[one] - score[two]) * wanted) / 2
    return float(ordered[wanted != 0].mean()) if (wanted != 0).any() else float("nan")


def _check(target: np.ndarray, items: np.ndarray) -> None:
    if len(target) < FEWEST:
        raise ValueError(f"distillation needs {FEWEST} items, got {len(target)}")
    if not np.isfinite(target).all():
        row = int(np.argmin(np.isfinite(target)))
        raise ValueError(
            f"the teacher gives item {items[row]} the score {target[row]}: give items "
            "whose features it can read"
        )
    if np.ptp(target) == 0:
        raise ValueError(
            f"the teacher gives all items the score {target[0]:g}, so there is no "
            "ranking to learn"
        )


def _held_out(query: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Mask (n,) of the held-out items, and the unit of the split."""
    units, unit = np.unique(query, return_inverse=True)
    by = "query" if len(units) >= HELD else "item"
    if by == "item":
        units, unit = query, np.arange(len(query))
    chosen = rng.permutation(len(units))[: max(1, len(units) // HELD)]
    return np.isin(unit, chosen), by
