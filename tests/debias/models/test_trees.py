"""Trees as the relevance of a click model: the objective, and both libraries."""

import numpy as np
import pytest
from scipy.special import expit

from debias.data import ClickLog
from debias.models.trees import (
    Counts,
    Trees,
    TreesConfig,
    boost,
    examined,
    likelihood,
    places,
    slopes,
)

pytest.importorskip("lightgbm")
pytest.importorskip("xgboost")
RNG = np.random.default_rng(0)
THETA = np.array([1.0, 0.6, 0.3])
COUNTS = Counts(
    np.array([0, 0, 1, 2, 2]),
    np.array([0, 1, 2, 0, 2]),
    np.array([40.0, 30.0, 20.0, 10.0, 50.0]),
    np.array([20.0, 9.0, 1.0, 2.0, 3.0]),
)
LOGIT = np.array([0.3, -1.0, -0.4])


def counted(rows=300, seed=0):
    """Items whose attraction steps with their first feature, shown at three places."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    attraction = np.where(x[:, 0] > 0, 0.6, 0.2) + 0.1 * (x[:, 1] > 0.5)
    row, place = np.divmod(np.arange(3 * rows), 3)
    shown = rng.integers(20, 60, 3 * rows).astype(float)
    clicked = rng.binomial(shown.astype(int), attraction[row] * THETA[place])
    return x, attraction, Counts(row, place, shown, clicked.astype(float))


def test_slopes_are_those_of_the_likelihood():
    gradient, _ = slopes(LOGIT, THETA, COUNTS)
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        up, down = (likelihood(LOGIT + s, THETA, COUNTS) for s in (step, -step))
        assert gradient[k] == pytest.approx(-(up - down) / 2e-5, rel=1e-6)


def test_the_curvature_is_that_of_expected_clicks():
    p = THETA[COUNTS.place] * expit(LOGIT)[COUNTS.row]
    expected = COUNTS._replace(clicked=COUNTS.shown * p)
    gradient, curvature = slopes(LOGIT, THETA, expected)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)
    for k in range(3):
        step = 1e-4 * np.eye(3)[k]
        up, down = (slopes(LOGIT + s, THETA, expected)[0][k] for s in (step, -step))
        assert curvature[k] == pytest.approx((up - down) / 2e-4, rel=1e-5)


def test_a_step_of_em_is_arithmetic_and_never_falls():
    one = Counts(np.array([0]), np.array([1]), np.array([10.0]), np.array([2.0]))
    found = examined(np.zeros(1), np.array([1.0, 0.5]), one)
    # Of 8 without a click, .5 (1 - .5) / (1 - .25) = 1/3 were examined.
    assert found.tolist() == [1.0, pytest.approx((2 + 8 / 3) / 10)]
    theta = np.array([1.0, 0.9, 0.9])
    values = []
    for _ in range(20):
        values.append(likelihood(LOGIT, theta, COUNTS))
        theta = examined(LOGIT, theta, COUNTS)
    assert (np.diff(values) >= -1e-9).all() and theta[0] == 1


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_both_libraries_find_attraction_and_examination(library):
    x, _, counts = counted()
    judges = counted(seed=1)
    features = np.concatenate([x, judges[0]])
    held = judges[2]._replace(row=judges[2].row + len(x))
    config = TreesConfig(library=library, rounds=80, rate=0.2, leaves=4, patience=10)
    start = np.array([1.0, 0.9, 0.9])
    booster, base, theta, history = boost(features, counts, held, start, config)
    np.testing.assert_allclose(theta, THETA, atol=0.04)
    trees = Trees(library, booster, base, theta, 3)
    found = expit(trees(judges[0]).astype(float))
    assert np.abs(found - judges[1]).mean() < 0.04
    rounds = int(np.argmax(history)) + 1
    every = trees(features).astype(float)
    # The booster is cut at its best round.
    value = likelihood(every, theta, held) / held.shown.sum()
    assert value == pytest.approx(history[rounds - 1], abs=1e-6)
    again = boost(features, counts, held, start, config)
    np.testing.assert_array_equal(again[2], theta)


def test_held_out_clicks_choose_the_size_of_leaves(monkeypatch):
    x, _, counts = counted()
    judges = counted(seed=1)
    features = np.concatenate([x, judges[0]])
    held = judges[2]._replace(row=judges[2].row + len(x))
    monkeypatch.setattr("debias.models.trees.SIZES", (2, 15))
    each = [TreesConfig(rounds=30, rate=0.2, leaves=4, items=n) for n in (None, 2, 15)]
    chosen, *fixed = (boost(features, counts, held, THETA, one)[3] for one in each)
    values = [max(history) for history in fixed]
    assert values[0] != values[1] and max(chosen) == max(values)
    assert len(each[0].tried(300)) == 2 and len(each[0].tried(30)) == 1


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_written_and_read(tmp_path, library):
    x, _, counts = counted(60)
    config = TreesConfig(library=library, rounds=5, leaves=3, items=5)
    booster, base, theta, _ = boost(x, counts, counts, THETA, config)
    trees = Trees(library, booster, base, theta, 3, ("a", "b", "c"))
    path = tmp_path / "ranker.trees"
    trees.write(path)
    found = Trees.read(path)
    np.testing.assert_array_equal(found(x), trees(x))
    assert found.feature_names == ("a", "b", "c") and found.list_size == 3
    assert found(x.reshape(2, 30, 3)).shape == (2, 30)
    assert found(np.zeros((2, 0, 3))).shape == (2, 0)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        Trees.read(path)
    path.write_text(text.replace(f'"{library}"', '"catboost"', 1))
    with pytest.raises(ValueError, match="unknown library 'catboost'"):
        Trees.read(path)
    with pytest.raises(ValueError, match=r"must end with \.trees"):
        trees.write(tmp_path / "ranker.json")


def test_click_logits_are_of_the_place():
    x, _, counts = counted(60)
    config = TreesConfig(rounds=5, leaves=3, items=5)
    booster, base, _, _ = boost(x, counts, counts, THETA, config)
    theta = np.array([1.0, 0.6, 0.3, 0.9, 0.5, 0.2])
    trees = Trees("lightgbm", booster, base, theta, 3)
    log = ClickLog(
        [0, 0], [[1, 2, 3], [4, 5, -1]], np.zeros((2, 3), bool), device=[0, 1]
    )
    logits = trees.place_logits(log, x)
    attraction = expit(trees(x).astype(float))
    assert expit(logits[0, 1]) == pytest.approx(0.6 * attraction[2])
    assert expit(logits[1, 0]) == pytest.approx(0.9 * attraction[4])
    assert places(log, 3).tolist() == [[0, 1, 2], [3, 4, -1]]
    with pytest.raises(ValueError, match="the bias of 2 devices, but the log has more"):
        other = ClickLog([0], [[1, 2, 3]], np.zeros((1, 3), bool), device=[2])
        trees.place_logits(other, x)
    with pytest.raises(ValueError, match="lists of 4 positions"):
        places(ClickLog([0], [[1, 2, 3, 4]], np.zeros((1, 4), bool)), 3)
    with pytest.raises(ValueError, match="does not predict clicks"):
        Trees("lightgbm", booster).place_logits(log, x)


@pytest.mark.parametrize(
    "wrong", [{"library": "catboost"}, {"rate": 0.0}, {"leaves": 1}, {"rounds": 0}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TreesConfig(**wrong)
