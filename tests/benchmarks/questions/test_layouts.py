"""Tests of benchmarks.questions.layouts: how layouts are read."""

import numpy as np

from benchmarks.questions.layouts import ROWS, SIZES, crowd
from benchmarks.questions.worlds import logged, parts, stochastic
from benchmarks.ranking.learners import LEARNERS


def test_every_row_can_be_built():
    assert set(ROWS) <= set(LEARNERS)


def test_logs_have_the_rows_and_columns_of_their_layout():
    three = parts(3, queries=30)
    scores = [part.production for part in three]
    ends = {}
    for name, size in SIZES.items():
        log = logged(crowd(name), three, scores, stochastic, 8, 3, size).train.log
        ends[name] = int(log.row.max()), int(log.column.max())
    layouts = {"list": (10, 1), "2x5": (2, 5), "5x2": (5, 2), "3x4": (3, 4)}
    assert ends == {**layouts, "carousel": (2, 5)}


def test_neighbours_draw_attention_but_not_on_the_carousel():
    alone, among = np.eye(10)[:1], np.ones((1, 10))
    for name in SIZES:
        reader = crowd(name).behaviours[0]
        one, all_ = (reader.click_probability(a)[0, 0] for a in (alone, among))
        assert bool(one > 1.1 * all_) is (name != "carousel")
