"""Joins impressions and actions into lists of shown items."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from debias.data.events.flat import CLICK, IMPRESSION, NO_TIME, QUERY, First

_NO_PLACE = -1


class Events(NamedTuple):
    """n flat events.

    Codes count from 0, and the code -1 stands for a missing value.

    Attributes:
        kind: (n,) int8 kind of each event (see `debias.data.events.flat`).
        key: (n,) int64 code of the session, or of the user if sessions have no id.
        item: (n,) int64 code of the item.
        place: (n,) int64 rank in the source; -1 for events without a rank.
        time: (n,) int64 time in microseconds; `NO_TIME` for events without a time.
        row: (n,) int64 row in the file, with the number of the file in the upper bits.
        query: (n,) int64 code of the query.
    """

    kind: np.ndarray
    key: np.ndarray
    item: np.ndarray
    place: np.ndarray
    time: np.ndarray
    row: np.ndarray
    query: np.ndarray


class How(NamedTuple):
    """Rules that group impressions into lists and assign actions to impressions.

    Attributes:
        by: Rule that groups impressions into lists. "key" groups impressions with the
            same key and, if queries are known, the same query. "row" groups the
            impressions of one event. "gap" groups impressions with the same key and
            query, and starts a new list after each pause longer than `gap`.
        shown: Kind of the rows that show items, which is IMPRESSION or SHOWN.
        first: Number of the first rank in the source.
        gap: Longest pause within a list, in microseconds.
        window: Longest time in microseconds from an impression to an action; None means
            no limit.
        targets: Number of targets besides clicks.
    """

    by: str
    shown: int = IMPRESSION
    first: int = 1
    gap: int = 1_800_000_000
    window: int | None = None
    targets: int = 0


@dataclass
class Counts(First):
    """Counts of the lists, impressions and actions that `join` handles.

    The counts of several groups of events can be added.

    Attributes:
        lists, impressions: Number of lists and of impressions.
        clicked: Number of shown items with a click.
        duplicates: Repeated impressions of an item within a list.
        reranked: Lists with repeated ranks, or with ranks for only some items.
        holes: Lists with gaps in their ranks.
        joined: Actions that were joined to an impression, by kind.
        orphans: Actions that could not be joined to an impression of their item.
        early: Actions that were joined to a later impression.
        late: Actions that followed their impression by more than `window`, and were
            left out.
        parted: Number of lists minus number of sessions. A session with several queries
            becomes several lists.
        copies: Events that repeat the id of an earlier event.
        unshown: Queries in sessions without shown items.
    """

    lists: int = 0
    impressions: int = 0
    clicked: int = 0
    duplicates: int = 0
    reranked: int = 0
    holes: int = 0
    joined: list[int] = field(default_factory=list)
    orphans: int = 0
    early: int = 0
    late: int = 0
    unshown: int = 0
    parted: int = 0
    copies: int = 0


class Lists(NamedTuple):
    """Lists of shown items, in order of first appearance.

    Attributes:
        ends: (lists + 1,) offsets of the lists in `cell`, `rank` and `made`.
        cell: (cells,) index of the event that shows each cell, sorted by list and rank.
        rank: (cells,) rank of each cell, from 1.
        made: (cells, 1 + targets) int64 number of clicks on each cell, followed by the
            number of actions of each target.
    """

    ends: np.ndarray
    cell: np.ndarray
    rank: np.ndarray
    made: np.ndarray


def join(events: Events, how: How) -> tuple[Lists, Counts]:
    """Groups impressions into lists, and counts the actions on their items.

    If a list shows an item twice, only the first impression counts. A list with
    repeated ranks is sorted by time, rank and row. A list with an item without a rank
    is sorted by time and row. An action belongs to the last impression of the same item
    and key that is not later than the action. If `by` is "key", an action before all
    impressions of its item belongs to the first impression, because clocks may differ.
    With the other rules, such an action is left out.

    >>> zero, one = np.zeros(3, int), np.ones(3, int)
    >>> events = Events(np.array([0, 0, 2]), zero, np.array([5, 6, 6]),
    ...                 np.array([1, 2, -1]), np.array([1, 1, 9]), np.arange(3), zero)
    >>> lists, counts = join(events, How("key"))
    >>> lists.rank.tolist(), lists.made.ravel().tolist(), counts.orphans
    ([1, 2], [0, 1], 0)
    """
    counts = Counts()
    shown = np.flatnonzero(events.kind == how.shown)
    number = _numbered(events, shown, how)
    if how.by == "key":
        keys = np.unique(events.key[shown])
        counts.parted = len(np.unique(number)) - len(keys)
    shown, number = _once(events, shown, number, counts)
    shown, number, rank = _ranked(events, shown, number, how, counts)
    ends = np.concatenate([np.flatnonzero(np.diff(number, prepend=-1)), [len(number)]])
    lists = Lists(ends, shown, rank, _made(events, shown, how, counts))
    counts.lists, counts.impressions = len(ends) - 1, len(shown)
    counts.clicked = int(np.count_nonzero(lists.made[:, 0]))
    if how.by == "key":
        bare = np.flatnonzero(events.kind == QUERY)
        bare = bare[~np.isin(events.key[bare], events.key[shown])]
        counts.unshown = counts.note("unshown", events.row[bare])
    return lists, counts


def _numbered(events: Events, shown: np.ndarray, how: How) -> np.ndarray:
    """(shown,) number of the list of each impression, in no particular order."""
    if how.by == "key":
        asked, key = events.query[shown], events.key[shown]
        some = np.flatnonzero(asked >= 0)[::-1]
        of_key = np.full(key.max(initial=0) + 1, -1)
        of_key[key[some]] = asked[some]  # the first query, for events without one
        asked = np.where(asked < 0, of_key[key], asked)
        return key * (asked.max(initial=0) + 2) + asked
    if how.by == "row":
        return events.row[shown]
    key, query, time = (each[shown] for each in (events.key, events.query, events.time))
    order = np.lexsort((events.row[shown], time, query, key))
    new = np.ones(len(order), bool)
    for values in (key, query):
        new[1:] &= values[order][1:] == values[order][:-1]
    new[1:] &= np.diff(time[order]) <= how.gap
    new[:1] = False
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(~new)
    return number


def _once(
    events: Events, shown: np.ndarray, number: np.ndarray, counts: Counts
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the first impression of each item in a list, in row order."""
    item, time = events.item[shown], events.time[shown]
    order = np.lexsort((np.arange(len(shown)), time, item, number))
    again = np.zeros(len(order), bool)
    again[1:] = (np.diff(number[order]) == 0) & (np.diff(item[order]) == 0)
    counts.duplicates = counts.note("duplicates", events.row[shown[order[again]]])
    stay = np.sort(order[~again])
    return shown[stay], number[stay]


def _ranked(
    events: Events, shown: np.ndarray, number: np.ndarray, how: How, counts: Counts
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts cells by list and rank; lists are numbered by first appearance."""
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    by_first = np.empty(len(first), np.int64)
    by_first[np.argsort(first, kind="stable")] = np.arange(len(first))
    number = by_first[number]
    place = events.place[shown]
    order = np.lexsort((place, number))
    same = np.zeros(len(order), bool)
    same[1:] = np.diff(number[order]) == 0
    repeats = np.zeros(len(order), bool)
    repeats[1:] = same[1:] & (np.diff(place[order]) == 0)
    bad = repeats | (place[order] == _NO_PLACE)
    odd = np.zeros(len(first), bool)
    odd[number[order[bad]]] = True
    placed = np.zeros(len(first), bool)
    placed[number[place != _NO_PLACE]] = True
    fault = order[placed[number[order]] & bad]
    counts.reranked = int(np.count_nonzero(odd & placed))
    counts.note("reranked", events.row[shown[fault]])
    anew = odd[number]
    holes = np.zeros(len(first), bool)
    holes[number[place == _NO_PLACE]] = True
    within = np.where(holes[number], 0, place)  # some ranks missing: row order
    time = np.where(anew, events.time[shown], 0)
    order = np.lexsort((np.arange(len(shown)), within, time, number))
    shown, number, place, anew = shown[order], number[order], place[order], anew[order]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    sizes = np.diff(starts, append=len(number))
    counted = np.arange(len(number)) - np.repeat(starts, sizes)
    rank = np.where(anew, counted, place - how.first) + 1
    ends = starts + sizes - 1
    holed = ends[rank[ends] > sizes]
    counts.holes = counts.note("holes", events.row[shown[holed]])
    return shown, number, rank


def _made(events: Events, cells: np.ndarray, how: How, counts: Counts) -> np.ndarray:
    """(cells, 1 + targets) number of actions of each kind on each cell."""
    acts = np.flatnonzero(events.kind >= CLICK)
    cell, early = _cell_of(events, cells, acts)
    if how.by != "key":
        cell = np.where(early, -1, cell)
        early &= False
    orphan = cell < 0
    counts.orphans = counts.note("orphans", events.row[acts[orphan]])
    late = np.zeros(len(acts), bool)
    if how.window is not None and len(cells):
        times, since = events.time[acts], events.time[cells[cell]]
        known = (times != NO_TIME) & (since != NO_TIME) & ~orphan
        late = known & (
            np.where(known, times, 0) - np.where(known, since, 0) > how.window
        )
    counts.late = counts.note("late", events.row[acts[late]])
    fine = ~(orphan | late)
    counts.early = counts.note("early", events.row[acts[early & fine]])
    kind = events.kind[acts[fine]].astype(np.int64) - CLICK
    width = 1 + how.targets
    counts.joined = np.bincount(kind, minlength=width).tolist()
    flat = np.bincount(cell[fine] * width + kind, minlength=len(cells) * width)
    return flat.reshape(len(cells), width)


def _cell_of(
    events: Events, cells: np.ndarray, acts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(acts,) cell of each action, -1 for none, and whether the action came early.

    An action belongs to the last impression of the same key and item that is not later
    than the action. If every impression is later, the action belongs to the first
    impression and is early.
    """
    both = np.concatenate([cells, acts])
    pair = events.key[both] * (events.item.max(initial=0) + 1) + events.item[both]
    act = np.arange(len(both)) >= len(cells)
    order = np.lexsort((act, events.time[both], pair))
    pair, act = pair[order], act[order]
    place = np.arange(len(order))
    before = np.maximum.accumulate(np.where(act, -1, place))
    after = np.minimum.accumulate(np.where(act, len(order), place)[::-1])[::-1]
    low, high = before.clip(0), after.clip(max=len(order) - 1)
    at_or_before = (before >= 0) & (pair[low] == pair)
    behind = (after < len(order)) & (pair[high] == pair) & ~at_or_before
    found = np.where(at_or_before, low, np.where(behind, high, -1))
    cell = np.where(found >= 0, order[found], -1)
    result, early = np.empty(len(acts), np.int64), np.empty(len(acts), bool)
    result[order[act] - len(cells)] = cell[act]
    early[order[act] - len(cells)] = behind[act]
    timeless = events.time[acts] == NO_TIME
    return result, early & ~timeless
