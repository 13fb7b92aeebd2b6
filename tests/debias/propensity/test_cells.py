"""Tests of debias.propensity.cells."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data import ClickLog, Stream
from debias.propensity import cells as cells_module
from debias.propensity.cells import (
    cells,
    components,
    count_cells,
    distinct,
    incidence,
    pairs,
)


@st.composite
def logs(draw, own_items=None):
    """Small logs, with holes; items may belong to one query or to several."""
    seed = draw(st.integers(0, 2**32 - 1))
    own = draw(st.booleans()) if own_items is None else own_items
    rng = np.random.default_rng(seed)
    sessions, size = rng.integers(1, 12), rng.integers(1, 5)
    query = rng.integers(3, size=sessions)
    item = rng.integers(4, size=(sessions, size)) + (4 * query[:, None] if own else 0)
    hole = rng.random(item.shape) < 0.3
    hole[np.arange(sessions), rng.integers(size, size=sessions)] = False
    item[hole] = -1
    return ClickLog(query, item, (rng.random(item.shape) < 0.5) & ~hole)


def impressions(log):
    for s, (query, items) in enumerate(zip(log.query, log.item, strict=True)):
        for k, item in enumerate(items):
            if item >= 0:
                yield s, k, (int(query), int(item)), bool(log.click[s, k])


@settings(max_examples=60, deadline=None)
@given(logs())
def test_pairs_and_cells_against_a_count(log):
    known, counted = pairs(log), cells(log)
    names = list(zip(known.query.tolist(), known.item.tolist(), strict=True))
    assert sorted(names) == sorted({pair for _, _, pair, _ in impressions(log)})
    shown = Counter((pair, k) for _, k, pair, _ in impressions(log))
    clicked = Counter((pair, k) for _, k, pair, c in impressions(log) if c)
    found = {
        (names[p], int(k)): (n, c)
        for p, k, n, c in zip(
            counted.pair, counted.rank, counted.shown, counted.clicked, strict=True
        )
    }
    assert found == {key: (n, clicked[key]) for key, n in shown.items()}
    for s, k, pair, _ in impressions(log):
        cell = counted.index[s, k]
        assert (names[counted.pair[cell]], counted.rank[cell]) == (pair, k)
    assert (counted.index[~log.mask] == len(counted.rank)).all()
    np.testing.assert_array_equal(incidence(counted).sum(axis=1), counted.shown)


@settings(max_examples=40, deadline=None)
@given(logs(), logs())
def test_pairs_of_another_log_are_found_or_unknown(log, other):
    known = pairs(log)
    names = list(zip(known.query.tolist(), known.item.tolist(), strict=True))
    index = known.index(other)
    for s, k, pair, _ in impressions(other):
        want = names.index(pair) if pair in names else len(known)
        assert index[s, k] == want
    assert (index[~other.mask] == len(known)).all()


@settings(max_examples=40, deadline=None)
@given(logs())
def test_components_against_a_search(log):
    tied = defaultdict(set)
    for _, k, pair, _ in impressions(log):
        tied[pair].add(k)
    label = list(range(log.list_size))
    for _ in label:
        for ranks in tied.values():
            least = min(label[k] for k in ranks)
            for k in ranks:
                label[k] = least
    found = components(cells(log))
    same = np.equal.outer(label, label)
    np.testing.assert_array_equal(np.equal.outer(found, found), same)
    first = [int(np.argmax(found == c)) for c in range(found.max() + 1)]
    assert first == sorted(first)


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(31, 5000))
def test_distinct_as_unique(values, size):
    key = np.array(values)
    for one, other in zip(
        distinct(key, size), np.unique(key, return_inverse=True), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def assert_same_cells(one, other):
    for name in ("pair", "rank", "shown", "clicked", "pairs", "ranks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.names.query, other.names.query)
    np.testing.assert_array_equal(one.names.item, other.names.item)


@settings(max_examples=60, deadline=None)
@given(logs(), logs())
def test_counts_of_two_logs_add_up_to_those_of_both(log, other):
    both = ClickLog.concatenate([log, other])
    found = count_cells(log) + count_cells(other)
    assert_same_cells(found, cells(both))
    assert found.index is None
    assert_same_cells(
        found + count_cells(log), cells(ClickLog.concatenate([both, log]))
    )


def test_a_log_on_disk_is_counted_by_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(cells_module, "PIECE", 7)
    rng = np.random.default_rng(0)
    query = rng.integers(3, size=60)
    item = rng.integers(4, size=(60, 2)) + 4 * query[:, None]
    log = ClickLog(query, item, rng.random(item.shape) < 0.5)
    log.write(tmp_path / "log", shards=3)
    assert_same_cells(count_cells(Stream(tmp_path / "log")), cells(log))


def test_swaps_compare_an_item_with_where_it_would_have_been():
    # Item 0 is first by right, and item 1 for another reason in the third session.
    log = ClickLog(
        [0, 0, 0],
        [[0, 1], [1, 0], [1, 0]],
        [[1, 0], [0, 1], [1, 0]],
        swap=[[0, 0], [1, 2], [0, 0]],
    )
    counted = cells(log, source="swap")
    strata = counted.pair[counted.index]
    assert strata[0, 0] == strata[1, 1] != strata[2, 1]  # item 0
    assert strata[0, 1] == strata[1, 0] != strata[2, 0]  # item 1
    assert counted.pairs == 4


def test_rejects():
    log = ClickLog([0], [[1, 2]], [[0, 1]])
    with pytest.raises(ValueError, match="marks swaps"):
        cells(log, source="swap")
    with pytest.raises(ValueError, match="source must be"):
        cells(log, source="random")
    swapped = ClickLog([0], [[1, 2]], [[0, 1]], swap=[[1, 2]])
    with pytest.raises(ValueError, match="only counts by"):
        cells(swapped, source="swap") + cells(log)
    with pytest.raises(ValueError, match="at least one session"):
        cells(log.take([]))
