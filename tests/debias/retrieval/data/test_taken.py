"""Tests of debias.retrieval.data.taken, against one event at a time."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from debias.retrieval.data.interactions import FeatureTable, Interactions
from debias.retrieval.data.taken import Taken, is_taken

HISTORIES = st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=4)


def ragged(lists):
    sizes = [len(each) for each in lists]
    rows = np.array([row for each in lists for row in each], int)
    return rows, np.append(0, np.cumsum(sizes)).astype(int)


def by_hand(lists):
    found = []
    for events in lists:
        distinct = list(dict.fromkeys(reversed(events)))
        found.append([(row, events.count(row)) for row in distinct])
    return found


def as_lists(taken):
    pairs = list(zip(taken.rows.tolist(), taken.counts.tolist(), strict=True))
    bounds = taken.offsets.tolist()
    return [pairs[a:b] for a, b in pairwise(bounds)]


@given(HISTORIES)
def test_each_item_stands_once_the_latest_first(lists):
    taken = Taken.of(*ragged(lists))
    assert as_lists(taken) == by_hand(lists)
    places = [place for each in by_hand(lists) for place in range(1, len(each) + 1)]
    assert taken.places.tolist() == places
    assert as_lists(Taken.of(*taken.with_repetition())) == as_lists(taken)
    users = [len(lists) + 2, *range(len(lists))][::-1]
    chosen = [by_hand(lists)[u] if u < len(lists) else [] for u in users]
    assert as_lists(taken.select(users)) == chosen
    for user, each in enumerate(by_hand(lists)):
        assert list(zip(*map(list, taken.part(user)), strict=True)) == each


@given(HISTORIES)
def test_membership(lists):
    query, item = np.divmod(np.arange(8 * len(lists)), 8)
    found = is_taken(query, item, ragged(lists))
    assert found.tolist() == [
        i in lists[q] for q, i in zip(query.tolist(), item.tolist(), strict=True)
    ]


@given(HISTORIES, st.integers(1, 3), st.integers(1, 3))
def test_what_a_window_drops_stays_taken(lists, first, then):
    """Events come in two halves, after each of which only the latest are kept."""
    rows, offsets = ragged(lists)
    user = np.repeat(np.arange(len(lists)), np.diff(offsets))
    users = FeatureTable.build({"id": np.arange(len(lists))})
    items = FeatureTable.build({"id": np.arange(7)})
    log = Interactions(user, rows, np.arange(len(rows)), users, items)
    kept = log.latest(first + then).latest(first)
    assert len(kept) == sum(min(len(each), first) for each in lists)
    assert as_lists(Taken.of(*kept.seen())) == by_hand(lists)
    assert as_lists(Taken.of(*kept.seen(np.array([0])))) == by_hand(lists)[:1]
