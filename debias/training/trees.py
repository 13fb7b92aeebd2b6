"""Fitting trees to a log: the likelihood of its clicks, or its judgments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from debias.data import ClickLog, RankingData, Stream
from debias.data.kinds import column_names
from debias.models.trees import Counts, Trees, TreesConfig, boost, likelihood, places
from debias.propensity.cells import cells
from debias.propensity.choice import propensities
from debias.training.results import Printed
from debias.training.splits import held_out, with_vocabulary


@dataclass(frozen=True)
class FittedTrees(Printed):
    """What a fit of trees came to.

    Attributes:
        model: The trees, click model and ranker in one.
        log_likelihood: Mean over held-out sessions, in nats.
        test_log_likelihood: The same over sessions that nothing was chosen by.
        rounds: Trees kept.
        history: Held-out log-likelihood of an impression after each round.
        sessions: Counts of those to learn from, to judge by and to test on.
        held_out_by: "query" or "session".
    """

    model: Trees
    log_likelihood: float
    test_log_likelihood: float
    rounds: int
    history: list[dict[str, Any]]
    sessions: dict[str, int]
    held_out_by: str

    @property
    def ranker(self) -> Trees:
        """The trees."""
        return self.model

    def sections(self) -> Any:
        yield "Rounds", self.history

    def words(self) -> str:
        return (
            f"{self.rounds} trees: {self.log_likelihood:.5f} nats a validation session."
        )


def fit_trees(
    log: ClickLog | Stream,
    data: RankingData,
    config: TreesConfig | None = None,
    progress: Callable[[int], None] = lambda rounds: None,
) -> FittedTrees:
    """Fits a product model whose relevance is a sum of trees.

    Sessions are held out as by `debias.fit`. Examination starts from what the log tells
    of it, and takes a step of EM after each tree.

    Args:
        log: Sessions; one on disk is read into memory, where it is counted.
        data: Features of the items as they come.
        config: How trees grow.
        progress: Called with rounds done since the last call.

    Raises:
        ValueError: The log is too small to hold sessions out, or has no click.
        ModuleNotFoundError: The extra `trees` is not installed.

    >>> import simulators
    >>> data = simulators.generate(queries=60, seed=1)
    >>> policy = simulators.PlackettLuce(simulators.weak_ranker(data), 0.5)
    >>> log = simulators.simulate(data, policy, "pbm", sessions=500, seed=1)
    >>> fitted = fit_trees(log, data, TreesConfig(rounds=3))
    >>> fitted.ranker(data.features[:5]).shape
    (5,)
    """
    config = TreesConfig() if config is None else config
    if isinstance(log, Stream):
        log = ClickLog.concatenate(list(log.pieces()))
    log.check(data)
    parts, by = held_out(log, config.seed)
    train, validation, test = parts
    features, kinds = with_vocabulary(data.features, data.kinds, train)
    names = data.feature_names if kinds is None else column_names(kinds)
    # Only shown items take part, in rows of their own.
    shown = np.unique(np.concatenate([part.item[part.mask] for part in parts]))
    rows = np.asarray(features[shown], np.float32)
    count = 1 if log.device is None else int(log.device.max()) + 1
    counts = [_counts(part, shown, log.list_size) for part in parts]
    booster, base, theta, history = boost(
        rows, counts[0], counts[1], _start(train, count), config, progress
    )
    trees = Trees(config.library, booster, base, theta, log.list_size, names, kinds)
    logits = trees(rows).astype(float)
    means = [
        likelihood(logits, theta, each) / len(part)
        for each, part in zip(counts, parts, strict=True)
    ]
    every = max(1, len(history) // 10)
    best = int(np.argmax(history)) + 1
    kept = sorted({*range(every, len(history) + 1, every), best, len(history)})
    return FittedTrees(
        trees,
        float(means[1]),
        float(means[2]),
        best,
        [{"round": r, "log_likelihood_per_item": history[r - 1]} for r in kept],
        {"train": len(train), "validation": len(validation), "test": len(test)},
        by,
    )


def _counts(log: ClickLog, shown: np.ndarray, list_size: int) -> Counts:
    """Counts by item, whatever it was asked by, and place."""
    counted = cells(log, "all", places(log, list_size))
    assert counted.names is not None
    row = np.searchsorted(shown, counted.names.item)[counted.pair]
    return Counts(row, counted.rank, counted.shown, counted.clicked)


def _start(log: ClickLog, devices: int) -> np.ndarray:
    """(K,) examination of each place that the log tells; else by click rates."""
    clicks = log.click.sum(axis=0)
    shown = np.maximum(log.mask.sum(axis=0), 1)
    rate = np.maximum(clicks / shown, 1e-3)
    theta = rate / max(rate[0], 1e-3)
    if log.click[:, 0].any():
        told = propensities(log).examination
        theta = np.where(np.isfinite(told), told, theta)
    theta = np.clip(theta, 1e-3, 1.0)
    theta[0] = 1.0
    return np.tile(theta, devices)
