"""Tests of simulators.clicks."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from simulators import writer
from simulators.behaviours import (
    BottomUp,
    Chain,
    DynamicBayesian,
    Grid,
    Independent,
    RankCTR,
)
from simulators.clicks import (
    ATTRACTIONS,
    BLOCK,
    SATISFACTIONS,
    item_attraction,
    item_satisfaction,
    prepare,
    simulate,
)
from simulators.oracle import click_probability
from simulators.policies import (
    Deterministic,
    EpsilonGreedy,
    PlackettLuce,
    RandPair,
    expert,
)
from simulators.populations import POPULATIONS, Observed, Population, Situation, named


def small(queries=30, least=3, most=15, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(least, most + 1, queries))])
    items = offsets[-1]
    labels = rng.integers(0, 5, items)
    return RankingData(rng.normal(size=(items, 2)), labels, offsets)


DATA = small()
BY_LOT = PlackettLuce(lambda data: data.features[:, 0], 1.0)
EVERY = pytest.mark.parametrize("crowd", POPULATIONS.values(), ids=POPULATIONS)


@EVERY
def test_logs_are_valid_and_their_truth_is_calibrated(crowd):
    """The sum of clicks less their stated probabilities is a martingale."""
    log = simulate(DATA, BY_LOT, crowd, 30_000, seed=1)
    ClickLog(**log.columns()).check(DATA.items)  # the validating constructor
    p = (log.examination * log.attraction).astype(float)
    assert (p[~log.mask] == 0).all() and (log.logging_propensity[~log.mask] == 1).all()
    error = np.sqrt((p * (1 - p)).sum(axis=0))
    assert (np.abs((log.click - p).sum(axis=0)) <= 4 * error + 1e-6).all()


@EVERY
def test_logs_click_as_the_oracle_says(crowd):
    log = simulate(DATA, BY_LOT, crowd, 30_000, seed=2)
    gamma = np.where(log.mask, item_attraction(DATA)[np.maximum(log.item, 0)], 0.0)
    observed = Observed(log.query, log.device, log.context)
    p = click_probability(crowd, gamma, log.mask, observed=observed)
    error = np.sqrt((p * (1 - p)).sum(axis=0))
    assert (np.abs((log.click - p).sum(axis=0)) <= 4 * error + 1e-6).all()


def columns_equal(one, other):
    assert one.columns().keys() == other.columns().keys()
    for name, value in one.columns().items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


@pytest.mark.parametrize(
    ("policy", "crowd"),
    [
        (BY_LOT, "mixed"),
        (RandPair(expert), "context"),
        (EpsilonGreedy(expert, 0.3), "grid"),
        (Deterministic(expert), "device"),
    ],
)
def test_a_session_depends_on_seed_and_number_alone(policy, crowd):
    ready = prepare(DATA, policy, crowd, seed=3)
    whole = ready.sessions(0, 3 * BLOCK + 5)
    cuts = [0, 1, 700, BLOCK - 1, BLOCK + 3, 2 * BLOCK, 3 * BLOCK + 5]
    pieces = [ready.sessions(a, b) for a, b in pairwise(cuts)]
    columns_equal(ClickLog.concatenate(pieces), whole)
    columns_equal(simulate(DATA, policy, crowd, 700, 3), whole.take(slice(0, 700)))
    with ThreadPoolExecutor(4) as pool:  # in another order, at the same time
        found = list(
            pool.map(lambda n: ready.sessions(n, n + 500), range(3000, 0, -500))
        )
    columns_equal(ClickLog.concatenate(found[::-1]), whole.take(slice(500, 3500)))


def test_blocks_and_seeds_share_no_chance():
    def clicks(seed, start):
        ready = prepare(small(1, 10, 10), Deterministic(expert), "document-ctr", seed)
        return ready.sessions(start, start + BLOCK).click.ravel().astype(float)

    first = clicks(0, 0)
    for other in (clicks(0, BLOCK), clicks(1, 0)):
        assert (first != other).mean() > 0.1


def test_the_same_in_another_process():
    code = (
        "import hashlib, numpy as np\n"
        "from simulators import EpsilonGreedy, generate, simulate, weak_ranker\n"
        "data = generate(20, 1)\n"
        "policy = EpsilonGreedy(weak_ranker(data), 0.2)\n"
        "log = simulate(data, policy, 'mixed', 2000, 7)\n"
        "total = hashlib.sha256()\n"
        "for value in log.columns().values():\n"
        "    total.update(np.ascontiguousarray(value).tobytes())\n"
    )
    here: dict = {}
    exec(code, here)
    there = subprocess.run(
        [sys.executable, "-c", code + "print(total.hexdigest())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here["total"].hexdigest()


def test_lists_of_every_length_are_padded_at_the_end():
    log = simulate(small(least=1, most=12), BY_LOT, "cascade", 5000, 0)
    size = log.mask.sum(axis=1)
    assert size.min() == 1 and size.max() == 10
    assert (log.mask == (np.arange(10) < size[:, None])).all()
    assert not log.click[~log.mask].any()


def test_a_reader_from_below_starts_at_the_last_item_and_not_at_padding():
    data = small(20, 3, 9)
    crowd = Population(((1.0, BottomUp(DynamicBayesian(0.5))),))
    log = simulate(data, Deterministic(expert), crowd, 2000, 0)
    last = log.mask.sum(axis=1) - 1
    assert (log.examination[np.arange(2000), last] == 1).all()


def test_queries_are_drawn_evenly():
    log = simulate(DATA, Deterministic(expert), "pbm", 60_000, 0)
    counts = np.bincount(log.query, minlength=30)
    assert (np.abs(counts - 2000) < 4.5 * np.sqrt(2000)).all()


def test_layout_device_and_context_are_logged_where_there_are_any():
    plain = simulate(DATA, Deterministic(expert), "pbm", 100, 0)
    for name in ("row", "column", "device", "context", "swap"):
        assert getattr(plain, name) is None
    crowd = Population(
        ((1.0, Grid(columns=4)),),
        (Situation(0.5, 1, (0.5, 1.0)), Situation(0.5, 2, (0.0, 2.0))),
    )
    log = simulate(small(5, 10, 10), RandPair(expert), crowd, 400, 0)
    assert log.row[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    assert log.column[0].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert (log.context[log.device == 1] == [0.5, 1.0]).all()
    assert 130 < (log.device == 2).sum() < 270
    assert (log.swap[:, 1] == log.swap[:, 0] + 1).all()


@pytest.mark.parametrize("name", ATTRACTIONS)
def test_attraction_rises_with_the_grade(name):
    data = RankingData(np.zeros((5, 1)), [0, 1, 2, 3, 4], [0, 5])
    values = item_attraction(data, name)
    assert (np.diff(values) >= 0).all() and values[-1] > values[0]
    assert values.dtype == np.float32


def test_attraction_by_hand():
    data = RankingData(np.zeros((3, 1)), [0, 1, 2], [0, 3], max_grade=2)
    np.testing.assert_allclose(
        item_attraction(data, "linear"), [0, 0.5, 1]
    )  # stretched
    five = RankingData(np.zeros((5, 1)), range(5), [0, 5])
    found = item_attraction(five, "graded").round(2)
    np.testing.assert_allclose(found, [0.1, 0.16, 0.28, 0.52, 1.0], rtol=1e-6)
    np.testing.assert_allclose(item_attraction(five, lambda y: y / 8)[4], 0.5)
    np.testing.assert_allclose(item_attraction(five, np.full(5, 0.3)), 0.3, rtol=1e-6)


def test_noise_moves_attraction_once_and_for_all():
    data = small(200)
    quiet, noisy = (item_attraction(data, "linear", noise, 1) for noise in (0.0, 0.5))
    assert (noisy == item_attraction(data, "linear", 0.5, 1)).all()
    assert (noisy != item_attraction(data, "linear", 0.5, 2)).any()
    middle = quiet == 0.5
    logit = np.log(noisy[middle] / (1 - noisy[middle]))
    assert abs(logit.mean()) < 4 * 0.5 / np.sqrt(middle.sum())
    assert 0.4 < logit.std() < 0.6


@pytest.mark.parametrize(
    ("user", "crowd"),
    [
        ("navigational", "navigational"),
        ("informational", "informational"),
        ("graded-dbn", "dbn-graded"),
    ],
)
def test_presets_of_attraction_and_satisfaction_are_of_one_user(user, crowd):
    """Satisfaction by grade and as a line over attraction is the same user."""
    log, own = (
        simulate(DATA, BY_LOT, crowd, 3000, 5, attraction=user, satisfaction=satisfies)
        for satisfies in (None, user)
    )
    np.testing.assert_array_equal(own.click, log.click)
    np.testing.assert_allclose(own.examination, log.examination, atol=1e-6)
    assert own.attraction.dtype == own.satisfaction.dtype == np.float32
    assert log.satisfaction is None


def test_items_may_attract_all_and_satisfy_some():
    data = small(20, 10, 10)
    ones, satisfies = np.ones(data.items), np.arange(data.items) % 2.0
    crowd = Population(((0.5, DynamicBayesian(1.0)), (0.5, RankCTR())))
    log = simulate(
        data, BY_LOT, crowd, 4000, 0, attraction=ones, satisfaction=satisfies
    )
    dbn = log.user_type == 0
    before = np.cumsum(satisfies[log.item], axis=1) - satisfies[log.item]
    np.testing.assert_array_equal(log.examination[dbn], (before == 0)[dbn])
    np.testing.assert_array_equal(log.satisfaction, satisfies[log.item])
    assert item_satisfaction(DATA, lambda y: y / 8).max() == 0.5
    assert SATISFACTIONS.keys() <= ATTRACTIONS.keys()


@dataclass(frozen=True)
class Eager(Independent):
    """A behaviour of a user's own: the root of attraction, at two ranks of three."""

    def perceive(self, attraction):
        return attraction**0.5

    def examine(self, attraction):
        return np.full(attraction.shape[-1], 2 / 3, attraction.dtype)


@dataclass(frozen=True)
class Hasty(Chain):
    """Another one, that knows nothing of satisfaction: goes on three times in four."""

    def perceive(self, attraction):
        return attraction**0.5

    def after(self, attraction):
        on = np.full_like(attraction, 0.75)
        return on, on


@pytest.mark.parametrize("own", [Eager(), Hasty(), BottomUp(Hasty())])
def test_a_behaviour_of_ones_own_meets_items_with_a_satisfaction(own, tmp_path):
    crowd = Population(((0.6, own), (0.4, DynamicBayesian(0.9))))
    data = small(20, 4, 9)  # some lists are padded
    args = data, BY_LOT, crowd, 30_000, 3, 6, "graded", 0.0, "navigational"
    log = simulate(*args)
    shown = log.mask
    assert not shown.all()
    for name in ("attraction", "examination", "satisfaction"):
        value = getattr(log, name)
        assert value.dtype == np.float32 and (value[~shown] == 0).all()
    given = item_satisfaction(data, "navigational")[log.item]
    np.testing.assert_array_equal(log.satisfaction[shown], given[shown])
    truth = (log.examination * log.attraction)[shown]
    error = np.sqrt((truth * (1 - truth)).sum())
    assert abs(log.click[shown].sum() - truth.sum()) < 4 * error
    ready = prepare(*args[:3], 3, *args[5:])
    writer.write(ready, tmp_path / "log", 1000)
    again = ClickLog.open(tmp_path / "log")
    np.testing.assert_array_equal(again.satisfaction, log.satisfaction[:1000])
    np.testing.assert_array_equal(again.attraction, log.attraction[:1000])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"satisfaction": "navi"}, "satisfaction must be one of .*got 'navi': did you"),
        (
            {"satisfaction": np.full(DATA.items, -0.1)},
            r"satisfaction must be in \[0, 1",
        ),
        ({"satisfaction": np.zeros(3)}, "satisfaction must be one value for each of"),
        ({"population": "mixd"}, "got 'mixd': did you mean mixed"),
        ({"attraction": "gradd"}, "attraction must be one of .*: did you mean gr"),
        ({"attraction": np.full(DATA.items, 1.5)}, r"in \[0, 1\], got 1.5 at \(0,\)"),
        ({"attraction": np.zeros(3)}, "one value for each of"),
        ({"attraction": lambda y: y - 1.0}, r"attraction must be in \[0, 1\]"),
        ({"noise": -1.0}, "noise must be at least 0"),
        ({"sessions": 0}, "sessions must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"list_size": 0}, "list_size|positions"),
        (
            {"list_size": 11},
            "PositionBased has parameters for 10 positions, got a list of 11",
        ),
    ],
)
def test_bad_input(wrong, message):
    arguments = {"population": "pbm", "sessions": 5, "seed": 0, **wrong}
    with pytest.raises(ValueError, match=message):
        simulate(DATA, Deterministic(expert), **arguments)


def test_a_short_table_will_do_for_short_lists():
    crowd = Population(((1.0, RankCTR((1.0, 0.5))),))
    log = simulate(small(5, 1, 2), Deterministic(expert), crowd, 10, 0, list_size=4)
    assert log.list_size == 4


def test_ranges():
    ready = prepare(DATA, Deterministic(expert), named("pbm"), 0)
    for start, stop in ((-1, 3), (3, 3), (5, 2)):
        with pytest.raises(ValueError, match="0 <= start < stop"):
            ready.sessions(start, stop)


def test_the_log_of_a_seed_stays_the_same():
    """A change of this number changes every log ever simulated: think twice."""
    log = simulate(DATA, Deterministic(expert), "mixed", 1000, 0)
    total = hashlib.sha256(log.item.tobytes() + log.click.tobytes())
    assert total.hexdigest()[:16] == "47b21b2a09408afe"
