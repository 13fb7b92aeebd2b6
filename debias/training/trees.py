"""Fits boosted trees to a log, by click likelihood or by judgments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from debias.data import ClickLog, RankingData, Stream
from debias.data.kinds import column_names, recoded
from debias.data.text import one_of
from debias.engine.extras import installed
from debias.models.tree_lists import boost_lists, list_likelihood, lists_of
from debias.models.trees import (
    Counts,
    Objective,
    Trees,
    TreesConfig,
    boost,
    likelihood,
    places,
)
from debias.propensity.cells import cells
from debias.propensity.choice import propensities
from debias.propensity.judgments import judge
from debias.training.results import Printed
from debias.training.splits import Learners, Part, check_types, held_out, vocabulary


@dataclass(frozen=True)
class FittedTrees(Printed):
    """Trees fitted to a log, with the result of the fit.

    Attributes:
        model: The trees, which are both click model and ranker.
        log_likelihood: Held-out log-likelihood, in nats per session. For the objective
            "listwise", only sessions with a click count, and the likelihood is that of
            a softmax over the list.
        test_log_likelihood: Log-likelihood of the test sessions, in nats per session.
        rounds: Number of trees in the model.
        history: Held-out log-likelihood per impression after about ten selected rounds.
            For LambdaMART, NDCG@10 replaces the log-likelihood.
        sessions: Numbers of training, validation and test sessions.
        held_out_by: Unit of the split, "query" or "session".
        test: The test sessions, with raw features of all items.
    """

    model: Trees
    log_likelihood: float
    test_log_likelihood: float
    rounds: int
    history: list[dict[str, Any]]
    sessions: dict[str, int]
    held_out_by: str
    test: Part

    @property
    def ranker(self) -> Trees:
        """The trees, as a ranker."""
        return self.model

    def sections(self) -> Any:
        yield "Rounds", self.history

    def words(self) -> str:
        return (
            f"{self.rounds} trees: {self.log_likelihood:.5f} nats per validation "
            "session."
        )


def fit_trees(
    log: ClickLog | Stream,
    data: RankingData,
    config: TreesConfig | None = None,
    progress: Callable[[int], None] = lambda rounds: None,
    *,
    objective: Objective = "product",
) -> FittedTrees:
    """Fits a ranker of boosted trees to clicks.

    The objective "product" fits a product model whose relevance is a sum of trees.
    Examination starts at an estimate from the log, and an EM step updates it after each
    tree. "listwise" fits relevance + bias with a softmax over the list, see
    `debias.models.tree_lists`. "judgments" trains LightGBM's LambdaMART on grades from
    `debias.propensity.judge`. Grades from few impressions are shrunk towards their
    prior, so grades need no weights. Only "product" predicts clicks. Sessions are held
    out as in `debias.fit`.

    Args:
        log: Sessions. A log on disk is read into memory.
        data: Raw features of the items.
        config: Settings of the trees.
        progress: Function that receives the number of rounds completed since its last
            call.
        objective: "product", "listwise" or "judgments".

    Raises:
        ValueError: The log is too small to hold sessions out, has no click, or has no
            feature that differs between items; or `objective` is unknown. "judgments"
            also needs a log that identifies examination.
        ModuleNotFoundError: The extra `trees` is not installed.

    >>> import simulators
    >>> data = simulators.generate(queries=60, seed=1)
    >>> policy = simulators.PlackettLuce(simulators.weak_ranker(data), 0.5)
    >>> log = simulators.simulate(data, policy, "pbm", sessions=500, seed=1)
    >>> fitted = fit_trees(log, data, TreesConfig(rounds=3))
    >>> fitted.ranker(data.features[:5]).shape
    (5,)
    """
    if objective not in get_args(Objective):
        raise ValueError(one_of("objective", get_args(Objective), objective))
    config = TreesConfig() if config is None else config
    check_types(log, data)
    if isinstance(log, Stream):
        log = ClickLog.concatenate(list(log.pieces()))
    log.check(data)
    parts, by = held_out(log, config.seed)
    train = parts[0]
    features, kinds = data.features, vocabulary(data.features, data.kinds, train)
    if data.kinds is not None and kinds is not None:
        features = recoded(features, data.kinds, kinds)
    names = data.feature_names if kinds is None else column_names(kinds)
    # Only shown items take part, with rows of their own.
    shown = np.unique(np.concatenate([part.item[part.mask] for part in parts]))
    rows = np.asarray(features[shown], np.float32)
    _check_learnable(train, rows, shown)
    sizes = dict(zip(("train", "validation", "test"), map(len, parts), strict=True))
    test = Part(parts[2], replace(data, labels=None))
    if objective == "judgments":
        booster, rounds, history = _lambdamart(rows, shown, parts, config, progress)
        kind = Trees("lightgbm", booster, 0.0, None, log.list_size, names, kinds)
        nan = float("nan")
        passes = about_ten(history, rounds, "ndcg@10")
        return FittedTrees(kind, nan, nan, rounds, passes, sizes, by, test)
    count = 1 if log.device is None else int(log.device.max()) + 1
    if objective == "listwise":
        booster, means, history = _listwise(rows, shown, parts, count, config, progress)
        best = int(np.argmax(history)) + 1
        kind = Trees(config.library, booster, 0.0, None, log.list_size, names, kinds)
        passes = about_ten(history, best, "log_likelihood")
        return FittedTrees(kind, means[0], means[1], best, passes, sizes, by, test)
    counts = [counts_of(part, shown, log.list_size) for part in parts]
    trees, history = _product(rows, counts, train, count, config, progress)
    trees = replace(trees, feature_names=names, kinds=kinds)
    assert trees.theta is not None
    logits = trees(rows).astype(float)
    means = [
        likelihood(logits, trees.theta, each) / len(part)
        for each, part in zip(counts, parts, strict=True)
    ]
    best = int(np.argmax(history)) + 1
    passes = about_ten(history, best, "log_likelihood_per_item")
    return FittedTrees(trees, means[1], means[2], best, passes, sizes, by, test)


def _product(
    rows: np.ndarray,
    counts: Sequence[Counts],
    train: ClickLog,
    devices: int,
    config: TreesConfig,
    progress: Callable[[int], None] = lambda rounds: None,
) -> tuple[Trees, list[float]]:
    """Trees of the objective "product", and their history; see `boost`."""
    start = start_of(train, devices)
    booster, base, theta, history = boost(
        rows, counts[0], counts[1], start, config, progress
    )
    theta = _filled(theta, counts[0], devices)
    return Trees(config.library, booster, base, theta, train.list_size), history


def trial_trees(
    train: Part | Learners, judges: Part, devices: int = 1, seed: int = 0
) -> Trees:
    """Trees of the objective "product", fitted for a comparison with other models.

    Args:
        train: Sessions to learn from, in memory.
        judges: Held-out sessions, which choose the number of trees.
        devices: Number of devices in all logs that the trees will predict.
        seed: Random seed of the trees.
    """
    rows, shown, logs = shown_rows(train, judges)
    counts = [counts_of(log, shown, log.list_size) for log in logs]
    return _product(rows, counts, logs[0], devices, TreesConfig(seed=seed))[0]


def shown_rows(
    train: Part | Learners, judges: Part
) -> tuple[np.ndarray, np.ndarray, list[ClickLog]]:
    """Features (R, F) and numbers (R,) of the shown items, and both logs.

    If the parts have different ranking data, the items of `judges` are numbered after
    those of `train`.
    """
    assert isinstance(train.log, ClickLog)
    after, table = judges.log, train.data.features
    if judges.data is not train.data:
        moved = np.where(after.mask, after.item + train.data.items, -1)
        after = replace(after, item=moved)
        table = np.concatenate([table, judges.data.features])
    logs = [train.log, after]
    shown = np.unique(np.concatenate([log.item[log.mask] for log in logs]))
    return np.asarray(table[shown], np.float32), shown, logs


def _check_learnable(train: ClickLog, rows: np.ndarray, shown: np.ndarray) -> None:
    """Raises ValueError unless there are clicks and the items' features differ."""
    if not train.click.any():
        raise ValueError(
            f"none of {len(train)} sessions to learn from has a click: log longer"
        )
    learned = rows[np.searchsorted(shown, np.unique(train.item[train.mask]))]
    same = (learned == learned[0]) | (np.isnan(learned) & np.isnan(learned[0]))
    if same.all():
        raise ValueError(
            "every feature has one value for all items, so that no ranker can tell "
            "them apart: give features that differ"
        )


def about_ten(values: list[float], best: int, name: str) -> list[dict[str, Any]]:
    """Values of about ten rounds, including the best and the last round."""
    every = max(1, len(values) // 10)
    kept = sorted({*range(every, len(values) + 1, every), best, len(values)})
    return [{"round": each, name: values[each - 1]} for each in kept]


def _listwise(
    rows: np.ndarray,
    shown: np.ndarray,
    parts: Sequence[ClickLog],
    devices: int,
    config: TreesConfig,
    progress: Callable[[int], None],
) -> tuple[Any, list[float], list[float]]:
    """A booster, held-out and test likelihood per session with a click, and history."""
    size = parts[0].list_size
    train, judges, tests = (lists_of(part, shown, size) for part in parts)
    bias = np.log(start_of(parts[0], devices))
    booster, bias, history = boost_lists(
        rows, train, judges, bias, size, config, progress
    )
    logits = Trees(config.library, booster)(rows).astype(float)
    means = [
        list_likelihood(logits, bias, each) / max(len(each.row), 1)
        for each in (judges, tests)
    ]
    return booster, means, history


def _lambdamart(
    rows: np.ndarray,
    shown: np.ndarray,
    parts: Sequence[ClickLog],
    config: TreesConfig,
    progress: Callable[[int], None],
) -> tuple[Any, int, list[float]]:
    """Trains on judgments of the first part, with early stopping on the second part."""
    lightgbm = installed("lightgbm", "trees")
    known = propensities(parts[0])
    asked = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "learning_rate": config.rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.least(len(rows)),
        "seed": config.seed,
        "num_threads": config.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    sets: list[Any] = []
    for part in parts[:2]:
        found = judge(part, known)
        order = found.shuffled(config.seed)
        sets.append(
            lightgbm.Dataset(
                rows[np.searchsorted(shown, found.item[order])],
                found.grades()[order],
                group=np.unique(found.query, return_counts=True)[1],
                params=asked,
                reference=sets[0] if sets else None,
            )
        )
    history: dict[str, Any] = {}
    booster = lightgbm.train(
        asked,
        sets[0],
        config.rounds,
        valid_sets=[sets[1]],
        callbacks=[
            lightgbm.early_stopping(config.patience, verbose=False),
            lightgbm.record_evaluation(history),
            lambda state: progress(1),
        ],
    )
    values = [float(v) for v in history["valid_0"]["ndcg@10"]]
    best = int(np.argmax(values)) + 1
    text = booster.model_to_string(num_iteration=best)
    return lightgbm.Booster(model_str=text), best, values


def counts_of(log: ClickLog, shown: np.ndarray, list_size: int) -> Counts:
    """Impressions and clicks by item and place (rank and device), over all queries."""
    counted = cells(log, "all", places(log, list_size))
    assert counted.names is not None
    row = np.searchsorted(shown, counted.names.item)[counted.pair]
    return Counts(row, counted.rank, counted.shown, counted.clicked)


def start_of(log: ClickLog, devices: int) -> np.ndarray:
    """Initial examination (K,) of each place (rank and device), from the log.

    At ranks whose examination the log does not identify, click rates replace it.
    Examination is 1 at rank 1, unless another rank is examined significantly more, such
    as a rank below a banner. Each device starts from the same curve, scaled by the
    relative click rate of the device.
    """
    clicks = log.click.sum(axis=0)
    shown = np.maximum(log.mask.sum(axis=0), 1)
    rate = np.maximum(clicks / shown, 1e-3)
    theta, top = rate / max(rate[0], 1e-3), 0
    if log.click[:, 0].any():
        known = propensities(log)
        theta = np.where(np.isfinite(known.examination), known.examination, theta)
        top = int(np.argmax(np.where(known.low > 1.0, theta, 1.0)))
    theta = np.clip(theta / theta[top], 1e-3, 1.0)
    theta[top] = 1.0
    if devices == 1 or log.device is None:
        return theta
    found = np.bincount(log.device, log.click.sum(axis=1), devices)
    expected = np.bincount(log.device, log.mask @ theta, devices)
    height = np.maximum(found, 1.0) / np.maximum(expected, 1.0)
    height = np.where(expected > 0, height / height[expected > 0].max(), 1.0)
    return np.outer(height, theta).clip(1e-3, 1.0).ravel()


def _filled(theta: np.ndarray, counts: Counts, devices: int) -> np.ndarray:
    """Sets `theta` (K,) of devices without impressions to the mean at each rank."""
    curves = theta.reshape(devices, -1)
    shown = np.bincount(counts.place, counts.shown, len(theta)).reshape(curves.shape)
    mean = (shown * curves).sum(axis=0) / np.maximum(shown.sum(axis=0), 1.0)
    return np.where(shown.any(axis=1, keepdims=True), curves, mean).ravel()
