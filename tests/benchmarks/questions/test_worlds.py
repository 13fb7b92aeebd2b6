"""Tests of benchmarks.questions.worlds."""

import numpy as np

from benchmarks.questions.worlds import ITEMS, logged, parts, stochastic
from benchmarks.ranking.protocol import LIST_SIZE
from debias import metrics
from simulators.populations import named


def quality(part) -> float:
    data = part.data
    ndcg = metrics.ndcg(data.labels, part.production, (5,), offsets=data.offsets)
    return metrics.estimate(ndcg[:, 0]).mean


def test_splits_and_items():
    three = parts(3, queries=60)
    assert [part.data.queries for part in three] == [36, 12, 12]
    sizes = np.concatenate([part.data.sizes for part in three])
    assert sizes.min() >= LIST_SIZE and sizes.max() <= ITEMS["max_items"]
    assert abs(three[0].data.features.mean()) < 0.01


def test_a_ranker_that_has_seen_more_grades_ranks_better():
    weak, strong = (parts(3, labels, 2)[2] for labels in (0.01, 1.0))
    assert quality(strong) > quality(weak) + 0.05


def test_logs_are_of_the_scores_that_are_given():
    three = parts(3, queries=60)
    best = [part.data.labels.astype(float) for part in three]
    found = logged(named("pbm"), three, best, stochastic, 400, 3)
    assert [split.log.sessions for split in found.splits] == [400, 100, 400]
    log, labels = found.train.log, found.train.data.labels
    grade = labels[log.item].mean(axis=0)
    assert grade[0] > grade[9] + 1 and found.train.logging is best[0]
