"""Tests of benchmarks.protocol and benchmarks.rows in a world small enough to fit."""

import gzip

import numpy as np
import pytest

from benchmarks import protocol
from benchmarks.experiments import ESTIMATORS, LEARNERS, Size
from benchmarks.protocol import LIST_SIZE, World, ranking_metrics, shown_clicks
from benchmarks.rows import known_context, measure
from simulators.clicks import item_attraction
from simulators.oracle import expected_clicks, expected_log_likelihood

ROWS = ("logging", *LEARNERS, *ESTIMATORS, "ceiling")
SCORES_ONLY = (
    *("dual_learning", "pair_debias", "softmax_naive"),
    *(row for row in ESTIMATORS if row.endswith("_softmax")),
)
BELIEFS = {"type_rand_index", "attention_correlation", "examination_error"}
TINY = Size(queries=60, sessions=600, batch_size=128, epochs=1, patience=1)


@pytest.fixture(scope="module")
def mixed() -> World:
    return protocol.world("mixed", 3, None, TINY)


@pytest.mark.parametrize("row", [*dict.fromkeys(ROWS)])
def test_every_row_yields_its_metrics(row, mixed):
    found = measure(row, mixed, TINY, 3, 0.01)
    ranking = {"ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "mrr", "expected_clicks"}
    clicks = {"click_log_likelihood", "perplexity"}
    silent = ("logging", "full_information", *SCORES_ONLY)
    expected = ranking | (set() if row in silent else clicks)
    assert set(found) - BELIEFS == expected
    assert np.isfinite(list(found.values())).all()


def test_nobody_predicts_clicks_better_than_the_crowd_itself(mixed):
    """The entropy of the clicks, within four standard errors of the test log."""
    log = mixed.test.log
    gamma = np.where(log.mask, item_attraction(mixed.test.data)[log.item], 0.0)
    exact = expected_log_likelihood(mixed.population, gamma, log.mask)
    found = measure("ceiling", mixed, TINY, 3, 0.01)
    error = 4 * 0.5 / np.sqrt(log.mask.sum())  # of cells whose nats vary by less
    assert abs(found["click_log_likelihood"] - exact.sum() / log.mask.sum()) < error
    assert found["ndcg@10"] == 1


def test_rows_read_a_grid_by_row_and_column():
    grid = protocol.world("grid", 3, None, TINY)
    assert grid.train.log.row.max() == 2 and grid.train.log.column.max() == 5
    assert "click_log_likelihood" in measure("xpa", grid, TINY, 3, 0.01)


def test_splits_share_no_query_and_no_session(mixed):
    sizes = [split.data.queries for split in mixed[1:]]
    assert sizes == [36, 12, 12]
    train, validation, test = (
        {row.tobytes() for row in split.data.features} for split in mixed[1:]
    )
    assert not train & validation and not train & test and not validation & test
    assert not np.array_equal(mixed.validation.log.click, mixed.test.log.click)


def test_a_seed_names_the_world_and_only_a_seed():
    again = protocol.world.__wrapped__("mixed", 3, None, TINY)
    other = protocol.world.__wrapped__("mixed", 4, None, TINY)
    first = protocol.world.__wrapped__("mixed", 3, None, TINY)
    assert (again.train.log.click == first.train.log.click).all()
    assert (other.train.log.item != first.train.log.item).any()


def test_true_grades_rank_best_and_reversed_grades_worst(mixed):
    labels = mixed.test.data.labels.astype(float)
    best, worst = (ranking_metrics(mixed, sign * labels) for sign in (1, -1))
    assert best["ndcg@10"] == 1 and best["mrr"] == 1
    assert worst["ndcg@10"] < 0.3
    assert best["expected_clicks"] > worst["expected_clicks"]


def test_shown_clicks_by_hand(mixed):
    data = mixed.test.data
    labels = data.labels.astype(float)
    total = 0.0
    for q in range(data.queries):
        own = item_attraction(data)[data.offsets[q] : data.offsets[q + 1]]
        top = np.sort(own)[::-1][:LIST_SIZE]
        total += expected_clicks(mixed.population, top[None])[0]
    np.testing.assert_allclose(shown_clicks(mixed, labels), total / data.queries, 1e-6)


def test_the_oracle_is_told_the_truth(mixed):
    """examination (low + (high - low) gamma) is the simulator's click probability."""
    log = mixed.train.log
    context = known_context(log, mixed.population.behaviours)
    examination, low, high = np.split(context, 3, axis=1)
    gamma = item_attraction(mixed.train.data)[np.maximum(log.item, 0)]
    expected = np.where(log.mask, log.examination * log.attraction, 0)
    found = np.where(log.mask, examination * (low + (high - low) * gamma), 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def letor(path, queries, open_=open):
    rng = np.random.default_rng(0)
    with open_(path, "wt") as file:
        for q in range(queries):
            for _ in range(12):
                x = rng.normal(size=3)
                grade = int(np.clip(x[0] + 1.5, 0, 4))
                file.write(f"{grade} qid:{q} 1:{x[0]:.4f} 2:{x[1]:.4f} 3:{x[2]:.4f}\n")


def test_letor_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pair").mkdir()
    letor(tmp_path / "pair" / "my.train", 40)
    letor(tmp_path / "pair" / "my.test", 10)
    pair = protocol.world.__wrapped__("mixed", 0, str(tmp_path / "pair"), TINY)
    assert [split.data.queries for split in pair[1:]] == [30, 10, 10]
    letor(tmp_path / "one.txt.gz", 50, gzip.open)
    one = protocol.world.__wrapped__("mixed", 0, str(tmp_path / "one.txt.gz"), TINY)
    assert [split.data.queries for split in one[1:]] == [30, 10, 10]
    (tmp_path / "odd").mkdir()
    letor(tmp_path / "odd" / "train.txt", 10)
    with pytest.raises(ValueError, match=r"odd: expected files of train and test"):
        protocol.world.__wrapped__("mixed", 0, str(tmp_path / "odd"), TINY)
