"""Tests of benchmarks.speed: that peers do the same work, not how fast."""

import json
import os
import shutil

import numpy as np
import pytest

from benchmarks import speed
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


def peer(tmp_path, answer):
    """Stands in for the Python of CLAX's environment: answers every line alike."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nwhile read line; do echo '{answer}'; done\n")
    script.chmod(0o755)
    return str(script)


def test_clax_is_asked_for_rounds_and_held_to_the_population(tmp_path):
    rates = [theta / 2 for theta in EYE_TRACKING]
    with speed.clax(peer(tmp_path, json.dumps({"rates": rates})), "pbm", 0) as ask:
        assert ask() == ask() == {"rates": rates}
    rates[3] += 0.01
    wrong = peer(tmp_path, json.dumps({"rates": rates}))
    with pytest.raises(RuntimeError, match="CLAX clicks"), speed.clax(wrong, "pbm", 0):
        pass
    broken = shutil.which("false")
    with pytest.raises(RuntimeError, match="did not run"), speed.clax(broken, "pbm", 0):
        pass


@pytest.mark.skipif(speed.CLAX not in os.environ, reason="needs CLAX")
@pytest.mark.parametrize("population", speed.PLAIN)
def test_clax_itself_clicks_as_the_population(population):
    with speed.clax(os.environ[speed.CLAX], population, 0) as ask:
        ask()


def test_the_hand_written_loop_learns_what_fit_learns():
    """Half the places are never clicked, and its bias says so."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, speed.FEATURES)).astype("float32")
    item = rng.integers(0, 500, (speed.BATCH * 4, 10), np.int32)
    click = (features[item, 0] > 0) & (np.arange(10) < 5)
    closure = speed.hand_written(features, item, click, 0)
    cells = dict(zip(closure.__code__.co_freevars, closure.__closure__, strict=True))
    epoch = cells["epoch"].cell_contents
    for _ in range(4):
        epoch()
    # Of its variables of ten numbers, one is the bias and two are what Adam remembers.
    tens = [v for v in epoch.get_concrete_function().variables if v.shape == (10,)]
    assert any(v.numpy()[:5].min() > v.numpy()[5:].max() for v in tens)


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
    monkeypatch.setattr(speed, "LISTS", 200)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "copy_rate", lambda: 1e9)
    found = speed.evaluate(0)
    assert {"rate", "peer_rate", "ratio", "sklearn_ratio", "tfr_ratio"} <= set(found)
    assert found["floor_fraction"] == pytest.approx(found["rate"] / (1e9 / 80))


def test_a_peer_that_finds_another_ndcg_is_an_error(monkeypatch):
    monkeypatch.setattr(speed, "LISTS", 200)
    monkeypatch.setattr(speed, "copy_rate", lambda: 1e9)
    wrong = iter([("odd", lambda: 0.5)])
    monkeypatch.setattr(speed, "ndcg_peers", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="odd finds NDCG"):
        speed.evaluate(0)
