"""A summary is what is counted by hand, and the same however the log is cut."""

from collections import defaultdict
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data import ClickLog, Stream, log_files
from debias.data import stream as stream_module
from debias.data.summary import count, summarize


@st.composite
def logs(draw):
    """Small logs with holes, items of few numbers so that some move."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sessions, size = rng.integers(1, 30), rng.integers(1, 5)
    item = rng.integers(-1, 40, size=(sessions, size))
    item[:, rng.integers(size)] = rng.integers(40, size=sessions)  # no list is empty
    click = (rng.random(item.shape) < 0.3) & (item >= 0)
    return ClickLog(rng.integers(5, size=sessions), item, click)


@settings(max_examples=60, deadline=None)
@given(logs())
def test_a_summary_is_what_a_loop_counts(log):
    found = summarize(log)
    places = defaultdict(set)
    shown, clicked = [0] * log.list_size, [0] * log.list_size
    for items, clicks in zip(log.item.tolist(), log.click.tolist(), strict=True):
        for rank, (item, click) in enumerate(zip(items, clicks, strict=True)):
            if item >= 0:
                places[item].add(rank)
                shown[rank] += 1
                clicked[rank] += click
    assert (found.sessions, found.queries) == (len(log), len(set(log.query.tolist())))
    assert (found.items, found.impressions) == (len(places), sum(shown))
    assert found.shown.tolist() == shown and found.clicks == sum(clicked)
    rates = [c / n if n else np.nan for c, n in zip(clicked, shown, strict=True)]
    np.testing.assert_array_equal(found.ctr, rates)
    moved = [len(several) > 1 for several in places.values()]
    np.testing.assert_equal(found.moved, np.mean(moved) if moved else np.nan)
    problems = [not sum(clicked), sum(n > 0 for n in shown) == 1]
    assert len(found.problems) == sum(problems)


@settings(max_examples=40, deadline=None)
@given(logs(), st.integers(1, 5))
def test_parts_add_up(log, parts):
    cuts = np.array_split(np.random.default_rng(0).permutation(len(log)), parts)
    counts = [count(log.take(cut)) for cut in cuts]
    np.testing.assert_equal(reduce(add, counts).summary(), summarize(log))


def test_a_log_on_disk_is_summarised_as_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "ROW_GROUP", 50)
    monkeypatch.setattr(stream_module, "BATCH", 20)
    rng = np.random.default_rng(0)
    item = rng.integers(0, 400, (230, 3))
    log = ClickLog(rng.integers(0, 9, 230), item, item % 3 == 0, device=item[:, 0] % 2)
    log.write(tmp_path / "log", shards=2)
    shares = []
    counts = count(Stream(tmp_path / "log"), shares.append)
    np.testing.assert_equal(counts.summary(), summarize(log))
    assert shares == [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0]
    with pytest.raises(ValueError, match=r"same columns.*device and query item click$"):
        counts + count(log.select())


def test_a_log_of_fixed_order_is_warned_of_and_no_other():
    lists = np.arange(12).reshape(4, 3)
    query = np.repeat(np.arange(4), 5)
    click = np.random.default_rng(0).random((20, 3)) < 0.4
    fixed = ClickLog(query, lists[query], click)
    assert any("the same order" in each for each in summarize(fixed).warnings)
    once = fixed.take(np.arange(0, 20, 5))  # of which nobody knows
    moved = ClickLog(query, np.r_[lists[query[:19]], [[10, 9, 11]]], click)
    for log in (once, moved):
        assert not any("the same order" in each for each in summarize(log).warnings)
