"""Tests of debias.data.log."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data import ClickLog
from debias.data.columns import COLUMNS
from tests.debias.data.strategies import click_logs, same

GOOD = {
    "query": [0, 1],
    "item": [[4, 2, -1], [5, -1, 7]],
    "click": [[True, False, False], [False, False, True]],
}
NAN = np.nan


def rng(seed=0):
    return np.random.default_rng(seed)


def test_columns_are_kept_in_their_types():
    ones = np.ones((2, 3), int)
    shown = [[1, 1, 0], [1, 0, 1]]
    every = {
        **GOOD,
        **{"row": shown, "column": shown, "device": [0, 2], "context": [[1], [2]]},
        **{"logging_propensity": ones, "swap": [[1, 2], [0, 0]], "user_type": [0, 1]},
        **{"examination": ones, "attraction": ones * 0, "satisfaction": ones},
    }
    log = ClickLog(**every)
    assert list(log.columns()) == list(every) == list(COLUMNS)
    for name, value in log.columns().items():
        assert value.dtype == COLUMNS[name].dtype


def test_arrays_of_the_right_type_are_not_copied():
    item = np.array([[4, 2]], np.int32)
    log = ClickLog([0], item, np.zeros((1, 2), bool))
    assert np.shares_memory(log.item, item)


def test_a_hole_keeps_its_rank():
    log = ClickLog(**GOOD)
    assert log.position.tolist() == [[1, 2, 0], [1, 0, 3]]
    assert log.position.dtype == np.int32
    assert log.mask.tolist() == [[True, True, False], [True, False, True]]


def test_list_propensity_is_the_product_over_what_was_shown():
    propensity = [[0.5, 0.25, NAN], [0.5, 0.0, 0.1]]
    log = ClickLog(**GOOD, logging_propensity=propensity)
    np.testing.assert_allclose(log.list_propensity, [0.125, 0.05])
    with pytest.raises(ValueError, match="logging_propensity"):
        _ = ClickLog(**GOOD).list_propensity


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"query": None}, "query must not be None"),
        ({"query": [0]}, r"query must have shape \(2\), got \(1,\)"),
        ({"query": [0, -1]}, "query must be at least 0, got -1 at row 1"),
        ({"query": [0.0, 1.0]}, "query must be int32, got float64"),
        ({"query": [0, 2**31]}, "query must fit int32, got 2147483648"),
        ({"item": [0, 1]}, "item must have shape"),
        ({"item": np.zeros((2, 0), int)}, "item must have shape"),
        ({"item": [["a"] * 3] * 2}, "item must be int32"),
        (
            {"item": [[4, 2], [5]]},
            r"item must be a rectangle: .* items with -1",
        ),
        ({"item": [[4, 2, -1], [5, -2, 7]]}, "item .*got -2 at row 1, column 1"),
        ({"item": [[4, 2, 1], [-1, -1, -1]], "click": [[0] * 3] * 2}, "at row 1"),
        ({"click": [[0, 0, 1], [0, 0, 0]]}, "click .*at padding.* row 0, column 2"),
        ({"click": [[0, 0], [0, 0]]}, r"click must have shape \(2, 3\), got \(2, 2\)"),
        ({"click": [[0, 2, 0], [0, 0, 0]]}, "click must fit bool, got 2"),
        ({"click": np.zeros((2, 3))}, "click must be bool, got float64"),
        ({"row": [[1, 2, 3], [1, 0, 1]]}, "row must be 0 at padding, got 3 at row 0"),
        ({"row": [[1, 0, 0], [1, 0, 1]]}, "row must be at least 1, got 0 at row 0"),
        ({"column": [[1, 2, 0], [1, 0, 70_000]]}, "column must fit int16, got 70000"),
        ({"device": [0, -1]}, "device must be at least 0, got -1 at row 1"),
        ({"context": [[0.0], [NAN]]}, "context must be finite, got nan at row 1"),
        ({"context": [[-np.inf], [0.0]]}, "context must be finite, got -inf at row 0"),
        ({"context": [[np.inf], [0.0]]}, "context must be finite, got inf at row 0"),
        ({"swap": [[1, 3], [0, 0]]}, r"swap .*got \[1, 3\] at row 0"),
        ({"swap": [[0, 0], [1, 1]]}, r"swap .*got \[1, 1\] at row 1"),
        ({"swap": [[0, 0], [0, 1]]}, r"swap .*got \[0, 1\] at row 1"),
        ({"swap": [[0, 0], [1, 4]]}, r"swap .*got \[1, 4\] at row 1"),
        ({"swap": [[0, 0], [-1, 1]]}, "swap must be at least 0, got -1"),
        ({"user_type": [0, -1]}, "user_type must be at least 0"),
    ],
)
def test_rejects(bad, message):
    with pytest.raises(ValueError, match=message):
        ClickLog(**{**GOOD, **bad})


@pytest.mark.parametrize(
    "name", ["logging_propensity", "examination", "attraction", "satisfaction"]
)
@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, np.inf, -np.inf])
def test_probabilities_are_held_to_their_range_where_an_item_is_shown(name, value):
    probability = np.full((2, 3), 0.5)
    probability[0, 2] = value  # padding
    ClickLog(**GOOD, **{name: probability})
    probability[1, 2] = value
    with pytest.raises(ValueError, match=f"{name} must be in .* at row 1, column 2"):
        ClickLog(**GOOD, **{name: probability})


def test_only_a_propensity_may_not_be_zero():
    zero = np.zeros((2, 3))
    ClickLog(**GOOD, examination=zero, attraction=zero)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], got 0.0 at row 0"):
        ClickLog(**GOOD, logging_propensity=zero)


def test_check_holds_items_against_ranking_data():
    log = ClickLog(**GOOD)
    assert log.check(items=8) is log
    with pytest.raises(ValueError, match="below 7, got 7 at row 1, column 2"):
        log.check(items=7)


@settings(deadline=None)
@given(click_logs(), st.integers(0, 99))
def test_take_takes_the_same_rows_of_every_column(log, seed):
    index = rng(seed).integers(0, log.sessions, 7)
    taken = log.take(index)
    for name, value in log.columns().items():
        assert np.array_equal(getattr(taken, name), value[index], equal_nan=True)
    assert same(log.take(slice(0, 1)), log.take([0]))
    assert same(log.take(np.arange(log.sessions) < 1), log.take([0]))
    assert log.take([]).sessions == 0


@settings(deadline=None)
@given(click_logs())
def test_parts_concatenate_to_the_whole(log):
    middle = log.sessions // 2
    parts = [log.take(slice(0, middle)), log.take(slice(middle, None))]
    assert same(ClickLog.concatenate(parts), log)


@settings(deadline=None)
@given(click_logs())
def test_a_derived_log_is_one_the_constructor_accepts(log):
    short = log.take([0])
    other = ClickLog.concatenate([short, log.take([-1])])
    assert same(ClickLog(**other.columns()), other)


def test_concatenate_pads_shorter_lists_as_the_constructor_wants_it():
    short = ClickLog([0], [[4]], [[1]], logging_propensity=[[0.5]], row=[[2]])
    long = ClickLog(
        [1], [[5, 6]], [[0, 1]], logging_propensity=[[0.5, 0.5]], row=[[1, 1]]
    )
    both = ClickLog.concatenate([short, long])
    assert both.item.tolist() == [[4, -1], [5, 6]]
    assert both.logging_propensity.prod(axis=1).tolist() == [0.5, 0.25]
    assert same(ClickLog(**both.columns()), both)


def test_concatenate_rejects_logs_of_other_columns():
    log = ClickLog(**GOOD)
    with pytest.raises(ValueError, match="log 1 has query item click device"):
        ClickLog.concatenate([log, ClickLog(**GOOD, device=[0, 0])])
    with pytest.raises(ValueError, match="at least one"):
        ClickLog.concatenate([])


def test_split_by_session_and_by_query():
    query = np.repeat(np.arange(10), 10)
    log = ClickLog(query, np.arange(100)[:, None], np.zeros((100, 1), bool))
    train, test = log.split((0.8, 0.2), rng())
    assert (train.sessions, test.sessions) == (80, 20)
    assert sorted([*train.item[:, 0], *test.item[:, 0]]) == list(range(100))
    train, test = log.split((0.8, 0.2), rng(), by="query")
    assert (train.sessions, test.sessions) == (80, 20)
    assert not set(train.query) & set(test.query)
    with pytest.raises(ValueError, match="by must be"):
        log.split((0.5, 0.5), rng(), by="item")


def test_select_keeps_what_is_named_and_what_every_log_has():
    log = ClickLog(**GOOD, device=[1, 2], user_type=[0, 1])
    assert list(log.select().columns()) == ["query", "item", "click"]
    assert list(log.select("device").columns()) == ["query", "item", "click", "device"]
    with pytest.raises(ValueError, match="no column context"):
        log.select("context")
    with pytest.raises(ValueError, match="unknown column 'devise'"):
        log.select("devise")


def test_ten_million_sessions_of_ten_take_half_a_gigabyte():
    log = ClickLog(np.zeros(10, int), np.ones((10, 10), int), np.zeros((10, 10), bool))
    bytes_a_session = sum(value.nbytes for value in log.columns().values()) / 10
    assert bytes_a_session == 4 + 10 * 4 + 10 * 1
    assert bytes_a_session * 10_000_000 < 0.55e9
