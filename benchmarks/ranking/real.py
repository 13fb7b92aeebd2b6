"""Rankers on real features, with every query tested once per seed.

The queries of a LETOR file or folder are divided into five folds, the same for every
seed. The models that are tested on a fold are trained on clicks of three other folds,
and validated on clicks of the remaining fold. A seed determines the production ranker,
the clicks and the initial weights. Every query is tested once per seed, so intervals
are over queries and seeds together; see `benchmarks.harness.bootstrap`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import UNIT, Table
from benchmarks.ranking import tree_rows
from benchmarks.ranking.settings import Size, identity, part_seed
from benchmarks.ranking.tables import ANEW, CROWDS, FEWER, TOLD
from benchmarks.ranking.trials import REVISIONS
from debias.training.config import TrainingConfig

if TYPE_CHECKING:
    from debias.data import RankingData

FOLDS = 5
SESSIONS = 20_000
METRIC, CUTOFF = "ndcg@5", 5
DIGITS = 4  # decimals of the values of single queries


@dataclass(frozen=True)
class RealTrial:
    """One row on the clicks of one population, over all folds."""

    row: str
    population: str
    size: Size
    config: TrainingConfig

    def settings(self) -> dict[str, Any]:
        revision = {**REVISIONS, **REVISED}.get(self.row, 1)
        folds = {"folds": FOLDS, "revision": revision}
        return {"sessions": self.size.sessions, **identity(self.config), **folds}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """NDCG@5 by query and over all queries; after divergence, only `diverged`."""
        from benchmarks.harness.tables import DIVERGED
        from benchmarks.ranking.rows import test_scores
        from debias import metrics
        from debias.training.fitting import Diverged

        if data is None:
            raise ValueError("rankers on real features need graded data: --data")
        every = read(data)
        found: dict[str, float] = {}
        for fold, folds in enumerate(dealt(every.queries)):
            forget()
            place = part_seed(seed, fold, FOLDS)
            world = _world(data, self.population, seed, fold, self.size)
            test = world.test.data
            try:
                if self.row in BY_TREES:
                    score = tree_rows.ROWS[self.row](world)(test.features)
                else:
                    config = replace(self.config, seed=place)
                    score = test_scores(self.row, world, config)
            except Diverged:
                return {DIVERGED: 1.0}
            each = metrics.ndcg(test.labels, score, CUTOFF, offsets=test.offsets)
            for query, value in zip(folds[2], each.tolist(), strict=True):
                if np.isfinite(value):  # otherwise, the query has no relevant item
                    found[f"{METRIC}{UNIT}{query}"] = round(value, DIGITS)
        return {METRIC: sum(found.values()) / len(found), **found}


def dealt(queries: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Training, validation and test queries of each fold.

    >>> train, validation, test = dealt(10)[0]
    >>> len(train), len(validation), len(test)
    (6, 2, 2)
    """
    order = np.random.default_rng(0).permutation(queries)
    folds = [np.sort(each) for each in np.array_split(order, FOLDS)]
    found = []
    for number in range(FOLDS):
        turned = folds[number:] + folds[:number]
        found.append((np.sort(np.concatenate(turned[2:])), turned[1], turned[0]))
    return found


@lru_cache(maxsize=1)
def read(data: str) -> "RankingData":
    """All queries of a LETOR file, or of all splits in a folder."""
    from debias.data import read_letor, read_letor_folder

    if Path(data).is_dir():
        return joined([*read_letor_folder(data).values()])
    return read_letor(data)


def joined(parts: Sequence["RankingData"]) -> "RankingData":
    """Concatenates the queries of all parts, which must have the same features."""
    from debias.data import RankingData

    sizes = np.concatenate([part.sizes for part in parts])
    labels = [part.labels for part in parts if part.labels is not None]
    return RankingData(
        np.concatenate([part.features for part in parts]),
        np.concatenate(labels),
        np.concatenate([[0], np.cumsum(sizes)]),
        max_grade=max(part.max_grade for part in parts),
    )


@lru_cache(maxsize=FOLDS)
def _world(data: str, crowd: str, seed: int, fold: int, size: Size) -> Any:
    """The world of a fold; the worlds of a seed are cached for the next row."""
    from benchmarks.ranking.protocol import world_of

    every = read(data)
    parts = [every.select(some) for some in dealt(every.queries)[fold]]
    return world_of(parts, crowd, part_seed(seed, fold, FOLDS), size)


REVISED = {"auto": 3, **dict.fromkeys(("lambdamart", "position", "trees"), 2)}
TREES = ("lambdamart", "position", "xgboost_unbiased", "judgments", "trees")
ROWS = (*FEWER, "product_linear", "listwise_linear", *TREES, "auto")
BY_TREES = (*TREES, "trees_listwise")
TRUSTING = ("logging", "softmax_naive", *BY_TREES, "ceiling")  # rows for `trust`
CELLS = (
    *((row, crowd) for crowd in CROWDS for row in ("logging", *ROWS, *TOLD, "ceiling")),
    *((row, "trust") for row in TRUSTING),
)
TABLE = Table(
    name="main-real",
    title="Rankers on real features, by model and population",
    experiments=tuple(
        RealTrial(row, crowd, Size(sessions=SESSIONS), TrainingConfig())
        for row, crowd in CELLS
    ),
    metrics=(METRIC,),
    clicks="",
    bounds=("logging", *TOLD, "ceiling"),
    seeds=3,
    dataset="lightgbm_rank",
    needs_data=True,
    **ANEW,
)
