"""One trial: simulates a log, trains a row on its clicks, and measures it.

The protocol is the same for every row of a table:

1. Queries are split 60/20/20 into training, validation and test queries. If a data set
   has files for these splits, the files determine the split.
2. A weak production ranker is fitted on the grades of 1% of the training queries, but
   of at least 20 queries. It shows lists of ten items to a simulated population. A list
   is a Plackett-Luce draw from the scores of the production ranker, because production
   rankings change from day to day. Trials with `Logging` have another policy. In these
   trials, every query has ten random items, and an expert ranker shows all ten in the
   order of their grades, best or worst first. In a share of the sessions, the order is
   random.
3. A row reads features, layout and clicks of the training log.
   `debias.training.fit_prepared` fits the row, as in `debias.fit`. Training returns the
   averaged weights with the best click likelihood on the validation log. Training never
   reads grades.
4. Ranking metrics order all items of each test query by the relevance-only score, and
   evaluate this order by true grades. Click metrics use a log of the test queries by
   the same production ranker. `expected_clicks` is the exact expected number of clicks
   on the ten best items by the score of the row.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.ranking.settings import Drawn, Logging, Size, part_seed
from debias import metrics
from debias.data import ClickLog, RankingData
from simulators.clicks import item_attraction, simulate
from simulators.oracle import expected_clicks
from simulators.policies import (
    Deterministic,
    Interleaved,
    PlackettLuce,
    Policy,
    RandTopN,
    Ranker,
    expert,
    weak_ranker,
    worst_first,
)
from simulators.populations import Population, named

if TYPE_CHECKING:
    from debias.training import TrainingConfig

LIST_SIZE = 10
CUTOFFS = (1, 3, 5, 10)
TEMPERATURE = 0.5  # of the logging policy, in standard deviations of its scores


class Split(NamedTuple):
    """Queries with their standardised features, the production scores, and a log."""

    data: RankingData
    logging: np.ndarray  # (items,) scores of the production ranker
    log: ClickLog
    weight: np.ndarray | None = None  # (S, L) weight of each cell in training


class World(NamedTuple):
    """A simulated population, and the three splits with their simulated logs."""

    population: Population
    train: Split
    validation: Split
    test: Split
    attraction: str = "graded"  # function of the grade

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.validation, self.test


@lru_cache(maxsize=1)
def world(
    population: str,
    seed: int,
    data: str | None,
    size: Size,
    logging: Logging | None = None,
    drawn: Drawn | None = None,
) -> World:
    """The simulated world of one seed; the last result is cached."""
    parts = _split_queries(data, seed, size, drawn is not None)
    attraction = "graded" if drawn is None else drawn.attraction
    return world_of(parts, population, seed, size, logging, attraction)


def world_of(
    parts: list[RankingData],
    population: str,
    seed: int,
    size: Size,
    logging: Logging | None = None,
    attraction: str = "graded",
) -> World:
    """The simulated world of training, validation and test queries."""
    from debias.layers import Standardize

    production: Ranker = weak_ranker(parts[0], seed=seed)
    policy: Policy = PlackettLuce(production, TEMPERATURE)
    if logging is not None:
        rng = np.random.default_rng([seed, 61])
        parts = [_candidates(part, rng) for part in parts]
        production = expert if logging.best_first else worst_first
        ordered, random = Deterministic(production), RandTopN(production, LIST_SIZE)
        policy = Interleaved(((1 - logging.random, ordered), (logging.random, random)))
    scale = Standardize().adapt(parts[0].features)
    crowd = named(population)
    sessions = (size.sessions, size.sessions // 4, size.sessions // 4)
    splits = []
    for place, (part, count) in enumerate(zip(parts, sessions, strict=True)):
        log = simulate(
            part,
            policy,
            crowd,
            sessions=count,
            seed=part_seed(seed, place, len(parts)),
            list_size=LIST_SIZE,
            attraction=attraction,
        )
        features = np.asarray(scale(part.features))
        scaled = RankingData(
            features, part.labels, part.offsets, part.qid, part.max_grade
        )
        splits.append(Split(scaled, production(part), log))
    train, validation, test = splits
    return World(crowd, train, validation, test, attraction)


def _candidates(data: RankingData, rng: np.random.Generator) -> RankingData:
    """Draws `LIST_SIZE` items of each query at random."""
    shuffled = np.lexsort((rng.random(data.items), data.query_of_item()))
    place = np.arange(data.items) - np.repeat(data.offsets[:-1], data.sizes)
    kept = np.sort(shuffled[place < LIST_SIZE])
    offsets = np.cumsum([0, *np.minimum(data.sizes, LIST_SIZE)])
    assert data.labels is not None
    return RankingData(
        data.features[kept], data.labels[kept], offsets, data.qid, data.max_grade
    )


def _split_queries(
    data: str | None, seed: int, size: Size, drawn: bool = False
) -> list[RankingData]:
    rng = np.random.default_rng([seed, 60])
    if data is None:
        from simulators.queries import generate

        found = generate(size.queries, seed, world=seed if drawn else None)
        return list(found.split((0.6, 0.2, 0.2), rng))
    from debias.data import read_letor, read_letor_folder

    if not Path(data).is_dir():
        return list(read_letor(data).split((0.6, 0.2, 0.2), rng))
    files = read_letor_folder(data)
    if "train" not in files or "test" not in files:
        raise ValueError(f"{data}: expected files of train and test, got {list(files)}")
    if "vali" in files:
        return [files["train"], files["vali"], files["test"]]
    return [*files["train"].split((0.75, 0.25), rng), files["test"]]


# Metrics


def ranking_metrics(world: World, score: np.ndarray) -> dict[str, float]:
    """Ranking metrics and expected clicks of test items ordered by `score` (items,).

    `click_mrr` and `click_share@3` re-rank the lists of the test log. `click_mrr` is
    the mean reciprocal rank of the first click. `click_share@3` is the share of clicks
    on the first three items.
    """
    data, log = world.test.data, world.test.log
    assert data.labels is not None
    ndcg = metrics.ndcg(data.labels, score, CUTOFFS, offsets=data.offsets)
    found = {
        f"ndcg@{k}": metrics.estimate(ndcg[:, i]).mean for i, k in enumerate(CUTOFFS)
    }
    reciprocal = metrics.mrr(data.labels, score, offsets=data.offsets)
    found["mrr"] = metrics.estimate(reciprocal).mean
    found["expected_clicks"] = shown_clicks(world, score)
    shown = np.asarray(score)[log.item]
    found["click_mrr"] = metrics.click_mrr(log.click, shown, log.mask)
    found["click_share@3"] = float(metrics.click_share(log.click, shown, 3, log.mask))
    return found


def check_ndcg(data: RankingData, score: np.ndarray) -> None:
    """Compares NDCG with the NDCG of TensorFlow Ranking, if that is installed.

    The two implementations treat ties and queries without a relevant item differently.
    So ties are broken by the order of the items, and queries without a relevant item
    are left out.

    Raises:
        RuntimeError: The values differ by more than 1e-5.
    """
    import keras

    from debias import tfr

    if keras.backend.backend() != "tensorflow" or not find_spec("tensorflow_ranking"):
        return

    assert data.labels is not None
    place = data.padded()
    order = np.argsort(np.argsort(-np.asarray(score, float), kind="stable"))
    labels = np.where(place < 0, -1, data.labels[place]).astype(np.float32)
    labels, place = (each[labels.max(axis=1) > 0] for each in (labels, place))
    distinct = -order[place].astype(np.float32)
    for k in CUTOFFS:
        ours = metrics.ndcg(labels, distinct, k).mean()
        theirs = float(tfr.load().keras.metrics.NDCGMetric(topn=k)(labels, distinct))
        if abs(ours - theirs) > 1e-5:
            raise RuntimeError(
                f"NDCG@{k} of the logging policy is {ours}, TensorFlow Ranking has "
                f"{theirs}"
            )


def shown_clicks(world: World, score: np.ndarray) -> float:
    """Expected clicks on the test queries of a world, see `clicks_of`."""
    return clicks_of(world.population, world.test.data, score, world.attraction)


def clicks_of(
    population: Population,
    data: RankingData,
    score: np.ndarray,
    attraction: str = "graded",
) -> float:
    """Exact expected clicks on a list of the ten best items by `score`.

    Ties are broken at random, in the same way for every row.
    """
    tie_break = np.random.default_rng(0).permutation(data.items)
    order = np.lexsort((tie_break, -np.asarray(score, float), data.query_of_item()))
    place = data.padded(LIST_SIZE)
    gamma = item_attraction(data, attraction)[order[np.maximum(place, 0)]]
    mask = place >= 0
    return float(expected_clicks(population, np.where(mask, gamma, 0), mask).mean())


def click_metrics(log: ClickLog, logits: np.ndarray) -> dict[str, float]:
    """Likelihood and perplexity of the clicks of `log` under logits (S, L).

    `click_skill` is 1 - loss / (loss of a constant predictor). The constant predictor
    predicts the mean click rate for every cell.
    """
    likelihood = metrics.click_log_likelihood(log.click, logits, log.mask)
    rate = log.click[log.mask].mean()
    constant = rate * np.log(rate) + (1 - rate) * np.log1p(-rate)
    return {
        "click_log_likelihood": likelihood,
        "click_skill": float(1 - likelihood / constant),
        "perplexity": metrics.perplexity(log.click, logits, log.mask),
    }


# Training


def predicted_logits(model: Any, split: Split) -> np.ndarray:
    """(S, L) click logits of each cell given the clicks above it."""
    from debias.training.evaluation import conditional_logits

    return conditional_logits(model, None, split.log, split.data)


def prepared(world: World) -> Any:
    """Training and validation clicks for `debias.training`."""
    from debias.data.layout import layout_of
    from debias.training import Learners, Part, Prepared

    train, judges = world.train, world.validation
    return Prepared(
        Learners(train.log, train.data, train.weight),
        Part(judges.log, judges.data),
        None,
        "caller",
        layout_of(train.log),
        None,  # the features are scaled already
    )


def trained(
    world: World, build: Callable[[int], Any], config: "TrainingConfig"
) -> tuple[Any, float]:
    """Fits a model as `debias.fit` does; returns it and its validation likelihood.

    Args:
        world: Features and clicks for training and for validation.
        build: Function from a seed to a click model.
        config: Training configuration; its seed determines the initial weights.
    """
    import keras

    from debias.training import fit_prepared

    keras.utils.set_random_seed(config.seed)
    fitted = fit_prepared(build(config.seed), prepared(world), config)
    return fitted.model, fitted.log_likelihood


def chosen(world: World, config: "TrainingConfig", trees: bool = True) -> str:
    """Name of the model that `debias.select` chooses by validation clicks.

    Args:
        world: Features and clicks for training and for validation.
        config: Training configuration.
        trees: Whether trees are among the candidates.
    """
    from debias.training import candidates_of, try_all
    from debias.training.choice import BOOSTED

    ready = prepared(world)
    names = [n for n in candidates_of(ready) if trees or n not in BOOSTED]
    return try_all(ready, config, names).name


def scores(score: Callable[[Any], Any], data: RankingData) -> np.ndarray:
    """(items,) scores by a function of features only, computed in pieces."""
    from debias.training import score_items

    return score_items(score, data.features)
