"""Tests of benchmarks.rates.speed: that peers do the same work, not how fast."""

import os
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks.rates import speed
from benchmarks.rates.hand_written import Job, in_jax, in_tensorflow, initial
from benchmarks.rates.peer_process import PYTHON, Peer
from debias.layers import Features, Tower
from simulators.behaviours import EYE_TRACKING
from simulators.oracle import click_probability
from simulators.populations import named


def test_operations_by_hand():
    forward = 2 * 10 * (136 * 256 + 256 * 128 + 128 * 64 + 64)
    assert speed.operations_per_list() == 3 * forward - 2 * 10 * 136 * 256 == 3_854_080


def test_ratio_and_fraction():
    found = speed.compared(work=100, own=2.0, other=4.0, most=500)
    assert found == {"rate": 50, "peer_rate": 25, "ratio": 2, "floor_fraction": 0.1}


@pytest.mark.parametrize("population", speed.PLAIN)
def test_the_plain_simulator_draws_the_same_clicks(population):
    attraction = np.tile(np.linspace(0.1, 1, 10, dtype="float32"), (200_000, 1))
    plain = speed.PLAIN[population]
    _, click, *_ = plain(attraction, np.random.default_rng(0))
    expected = click_probability(named(population), attraction[:1])[0]
    np.testing.assert_allclose(click.mean(axis=0), expected, atol=0.0045)  # 4 s.e.


def clicking(rates):
    """Stands in for CLAX, whose clicks have these rates."""

    @contextmanager
    def stand_in(name, setup):
        assert name == "clax_simulate" and setup["theta"] == EYE_TRACKING
        yield rates if rates is None else Peer(rates, lambda: {"seconds": 2.0})

    return stand_in


def test_clax_is_held_to_the_population(monkeypatch):
    rates = [theta / 2 for theta in EYE_TRACKING]
    monkeypatch.setattr(speed, "peer", clicking(rates))
    with speed.clax("pbm", 0) as ask:
        assert ask() == 2.0
    rates[3] += 0.01
    with pytest.raises(RuntimeError, match="CLAX clicks"), speed.clax("pbm", 0):
        pass
    monkeypatch.setattr(speed, "peer", clicking(None))
    with speed.clax("pbm", 0) as absent:
        assert absent is None


@pytest.mark.skipif(PYTHON not in os.environ, reason="needs the peers")
@pytest.mark.parametrize("population", speed.PLAIN)
def test_clax_itself_clicks_as_the_population(population):
    with speed.clax(population, 0) as ask:
        assert ask() > 0


def test_rounds_take_turns_and_the_median_counts():
    order, spent = [], iter([9.0, 1.0, 2.0, 3.0, 4.0, 50.0])  # the first warms up

    def ours():
        order.append("ours")
        return next(spent)

    def other():
        order.append("other")
        return 6.0

    found = speed.beside(30, 100, ours, other, {"absent": None, "third": lambda: 12.0})
    pairs = list(zip(order[::2], order[1::2], strict=True))
    assert set(pairs) == {("ours", "other"), ("other", "ours")} and len(pairs) == 6
    expected = {"rate": 10, "peer_rate": 5, "ratio": 2, "floor_fraction": 0.1}
    assert found == pytest.approx({**expected, "third_ratio": 4})
    order.clear()
    speed.alternating(lambda: order.append("ours") or 1.0, times=2)
    assert order == ["ours"] * 3


def test_a_hand_written_loop_learns_what_fit_learns():
    """Whoever is shown in the lower half of a list is never clicked, and it says so.

    The loop in JAX takes the same steps, as the next test has it.
    """
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 3)).astype("float32")
    item = rng.integers(0, 50, (4096, 10), np.int32)
    click = (features[item, 0] > 0) & (np.arange(10) < 5)
    epoch = in_tensorflow(Job(features, item, click, (8,), 32, 0))
    for _ in range(5):
        weights = epoch()
    *tower, bias = weights
    assert bias[:5].min() > bias[5:].max() + 0.5
    hidden = np.maximum(features @ tower[0] + tower[1], 0)
    relevance = (hidden @ tower[2] + tower[3])[:, 0]
    assert np.corrcoef(relevance, features[:, 0])[0, 1] > 0.8


def test_hand_written_loops_start_alike_and_step_alike():
    """One batch, so that its order does not matter; Adam's first step is its rate."""
    rng = np.random.default_rng(0)
    item = rng.integers(0, 20, (16, 10), np.int32)
    drawn = rng.normal(size=(20, 3)).astype("float32"), item, rng.random((16, 10)) < 0.3
    one, other = (loop(Job(*drawn, (8,), 16, 3))() for loop in (in_tensorflow, in_jax))
    for a, b, start in zip(one, other, initial((3, 8, 1), 10, 3), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
        assert np.abs(a - start).max() == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize("what", speed.READ)
def test_readers_read_the_same(what, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "ROWS", 100)
    monkeypatch.setattr(speed, "SHOWN", 100)
    monkeypatch.setattr(speed, "copy_rate", lambda: 1e9)
    assert speed.READ[what](tmp_path, 0)["ratio"] > 0


def test_the_plain_pass_is_the_pass_of_the_library():
    from debias.data import ClickLog
    from debias.propensity.click_models.timing import prepared_pass

    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(6), (200, 1)), axis=1)[:, :4]
    log = ClickLog(np.zeros(200, int), item, rng.random(item.shape) < 0.4)
    plain = speed.plain_position_based_pass(log.item, log.click)()
    ours = prepared_pass(log, "pbm")()
    for one, other in zip(plain, ours, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_everybody_finds_the_same_ndcg(monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.setattr(speed, "LISTS", 200)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "copy_rate", lambda: 1e9)
    found = speed.evaluate(0)
    assert {"rate", "peer_rate", "ratio", "sklearn_ratio", "tfr_ratio"} <= set(found)
    assert found["floor_fraction"] == pytest.approx(found["rate"] / (1e9 / 80))


def test_a_peer_that_finds_another_ndcg_is_an_error(monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.setattr(speed, "LISTS", 200)
    monkeypatch.setattr(speed, "copy_rate", lambda: 1e9)
    wrong = iter([("odd", lambda: 0.5)])
    monkeypatch.setattr(speed, "ndcg_peers", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="odd finds NDCG"):
        speed.evaluate(0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux holds to cores")
def test_one_core_is_one_core_and_leaves_this_process_its_own():
    before = os.sched_getaffinity(0)
    # A function of this file would have the process import it, and TensorFlow.
    assert len(speed.on_one_core(os.sched_getaffinity, 0)) == 1
    assert os.sched_getaffinity(0) == before


def test_only_a_category_puts_a_layer_before_the_default_tower(monkeypatch):
    seen = []

    def noted(model, features, *_, kinds=None):
        seen.append((model.relevance, features, kinds))
        return lambda: 1.0

    rows = np.ones((30, speed.FEATURES), "float32")
    drawn = rows, np.zeros((speed.BATCH, speed.LIST_SIZE), int), None
    monkeypatch.setattr(speed, "sessions_of", lambda *_: drawn)
    monkeypatch.setattr(speed, "trained", noted)
    monkeypatch.setattr(speed, "matrix_rate", lambda: 1e9)
    for kind in ("number", "category"):
        assert speed.train_kinds(kind, 0, 1)["ratio"] == 1
    (number, *_), bare, (category, codes, kinds), _ = seen
    assert type(number) is type(bare[0]) is Tower
    assert isinstance(category.layers[0], Features)
    assert codes[:, 0].max() < kinds[0].size and (codes[:, 1:] == 1).all()
    assert (bare[1] == rows).all() and len(kinds) == speed.FEATURES


def test_milvus_is_searched_with_and_without_us():
    vectors = np.eye(40, 8, dtype=np.float32) + np.arange(40)[:, None] / 100
    searcher, plain = speed.in_milvus(vectors, vectors[:3], 5)
    np.testing.assert_array_equal(searcher.rows(vectors[:3], 5), plain())
