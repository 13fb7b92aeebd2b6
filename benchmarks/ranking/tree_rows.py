"""Tree rankers of other libraries and of this library, on the same clicks.

`trees` and `trees_listwise` are the product and the listwise model with a sum of trees
as relevance, with the defaults of `debias.training.fit_trees`. `distilled` are trees
that imitate the neural model that `debias.select` chooses. All other rows are
LambdaMART with the same learning rate, number of trees and number of leaves.
`xgboost_unbiased` uses XGBoost, and the other LambdaMART rows use LightGBM. The rows
differ in labels, weights and corrections. The size of leaves was chosen on seed 1000.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ranking.settings import Size

ROUNDS, RATE, LEAVES = 100, 0.1, 15
IMPRESSIONS = 1_500  # in a leaf, if each row is an impression; about 100 items
FEW = 50  # impressions in a leaf of the row `position_few`
ITEMS = 20  # in a leaf, if each row is an item
REVISIONS = {"judgments": 3, "rates": 2, "trees": 2}
LIGHTGBM: Mapping[str, Any] = {
    "objective": "lambdarank",
    "learning_rate": RATE,
    "num_leaves": LEAVES,
    "min_data_in_leaf": IMPRESSIONS,
    "max_bin": 63,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
XGBOOST: Mapping[str, Any] = {
    "objective": "rank:ndcg",
    "eta": RATE,
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_depth": 0,
    "max_leaves": LEAVES,
    "max_bin": 63,
    "nthread": 1,
}


@dataclass(frozen=True)
class TreeTrial:
    """One row: a tree ranker trained on the clicks of one population."""

    row: str
    population: str
    size: Size

    def settings(self) -> dict[str, Any]:
        recipe = {"rounds": ROUNDS, "rate": RATE, "leaves": LEAVES}
        impressions = FEW if self.row == "position_few" else IMPRESSIONS
        leaf = {"impressions": impressions, "items": ITEMS}
        revision = REVISIONS.get(self.row, 1)
        return {**asdict(self.size), **recipe, **leaf, "revision": revision}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import ranking_metrics, world

        found = world(self.population, seed, data, self.size)
        if self.row == "logging":
            return ranking_metrics(found, found.test.logging)
        score = ROWS[self.row](found)
        return ranking_metrics(found, score(found.test.data.features))


Score = Callable[[np.ndarray], np.ndarray]


def _lambdamart(
    features: np.ndarray, label: np.ndarray, groups: np.ndarray, **more: Any
) -> Score:
    import lightgbm

    asked = {**LIGHTGBM, **more.pop("asked", {})}
    rows = lightgbm.Dataset(features, label, group=groups, params=asked, **more)
    booster = lightgbm.train(asked, rows, ROUNDS)
    return lambda x: np.asarray(booster.predict(x, num_threads=1))


def _rows(world: Any) -> Any:
    """The impressions of the training log, weighted by its own propensities."""
    from debias.propensity import impressions, propensities

    return impressions(world.train.log, propensities(world.train.log))


def lambdamart(world: Any) -> Score:
    """LambdaMART with clicks as labels, without correction."""
    found = _rows(world)
    return _lambdamart(
        world.train.data.features[found.item], found.label, found.group_sizes
    )


def position(world: Any, impressions: int = IMPRESSIONS) -> Score:
    """LightGBM's correction: position biases learned together with the trees."""
    found = _rows(world)
    features = world.train.data.features[found.item]
    at, asked = found.position - 1, {"min_data_in_leaf": impressions}
    return _lambdamart(
        features, found.label, found.group_sizes, position=at, asked=asked
    )


def weights(world: Any) -> Score:
    """LambdaMART with the weights of `debias weights`."""
    found = _rows(world)
    features = world.train.data.features[found.item]
    return _lambdamart(features, found.label, found.group_sizes, weight=found.weight)


def xgboost_unbiased(world: Any) -> Score:
    """XGBoost's correction: position bias ratios, as in Unbiased LambdaMART.

    XGBoost assumes that the rows of a group are in the order in which they were shown.
    """
    import xgboost

    found = _rows(world)
    rows = xgboost.DMatrix(
        world.train.data.features[found.item], found.label, qid=found.group
    )
    asked = {**XGBOOST, "lambdarank_unbiased": True, "lambdarank_pair_method": "topk"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        booster = xgboost.train(asked, rows, ROUNDS)
    return lambda x: booster.inplace_predict(x)


def rates(world: Any) -> Score:
    """LambdaMART with raw click rates of (query, item) pairs as grades."""
    return _judged(world, "ctr")


def judgments(world: Any) -> Score:
    """LambdaMART with the grades of `debias judge`, which need no weights."""
    return _judged(world, "attraction")


def _judged(world: Any, name: str) -> Score:
    from debias.propensity import judge, propensities

    log = world.train.log
    found, weight = judge(log, propensities(log)), None
    if name == "ctr":
        found = replace(found, attraction=found.ctr)
        weight = found.impressions / found.impressions.mean()
    groups = np.unique(found.query, return_counts=True)[1]
    # LightGBM breaks ties by the order of the rows, which is by attraction here.
    order = found.shuffled()
    features = world.train.data.features[found.item[order]]
    weight = None if weight is None else weight[order]
    asked = {"min_data_in_leaf": ITEMS}
    grades = found.grades()[order]
    return _lambdamart(features, grades, groups, weight=weight, asked=asked)


def trees(world: Any) -> Score:
    """The product model with trees as relevance, as in `debias train --model trees`."""
    from benchmarks.ranking.protocol import prepared
    from debias.training.trees import trial_trees

    return trial_trees(*prepared(world)[:2])


def trees_listwise(world: Any) -> Score:
    """The listwise model with trees as relevance."""
    from benchmarks.ranking.protocol import prepared
    from debias.models.tree_lists import boost_lists, lists_of
    from debias.models.trees import Trees, TreesConfig
    from debias.training.trees import shown_rows, start_of

    features, shown, logs = shown_rows(*prepared(world)[:2])
    size = logs[0].list_size
    lists, judges = (lists_of(log, shown, size) for log in logs)
    bias = np.log(start_of(logs[0], 1))
    booster, _, _ = boost_lists(features, lists, judges, bias, size, TreesConfig())
    return Trees("lightgbm", booster)


def _network(world: Any) -> Callable[[Any], Any]:
    """Scores of the neural model that `debias.select` chooses by validation clicks."""
    from benchmarks.ranking.protocol import chosen
    from benchmarks.ranking.rows import fit
    from debias.training import TrainingConfig

    config = TrainingConfig()
    row = chosen(world, config, trees=False)
    score: Callable[[Any], Any] = fit(row, world, config).model.score
    return score


def distilled(world: Any) -> Score:
    """Trees that imitate the best neural model, as `debias distill` makes them."""
    from debias.data import RankingData
    from debias.training import distill

    parts = (world.train.data, world.validation.data)
    features = np.concatenate([part.features for part in parts])
    sizes = np.concatenate([part.sizes for part in parts])
    items = RankingData(features, None, np.concatenate([[0], np.cumsum(sizes)]))
    return distill(_network(world), items).ranker


def full_information(world: Any) -> Score:
    """LambdaMART with the true grades of the training queries."""
    data = world.train.data
    asked = {"min_data_in_leaf": ITEMS}
    return _lambdamart(data.features, data.labels, data.sizes, asked=asked)


ROWS: Mapping[str, Callable[[Any], Score]] = {
    "lambdamart": lambdamart,
    "rates": rates,
    "position": position,
    "position_few": partial(position, impressions=FEW),
    "xgboost_unbiased": xgboost_unbiased,
    "weights": weights,
    "judgments": judgments,
    "trees": trees,
    "trees_listwise": trees_listwise,
    "distilled": distilled,
    "full_information": full_information,
}
