"""Tests of benchmarks.ranking.selection."""

import pytest

from benchmarks.harness import store, tables
from benchmarks.ranking.selection import SOURCES, TABLE, derive
from benchmarks.ranking.tables import MAIN, MIXED_USERS


def record(table, population, row, seed, value):
    (of,) = [e for e in table.experiments if (e.row, e.population) == (row, population)]
    metrics = {"ndcg@5": value, "ndcg@1": value / 2}
    config = dict(of.settings())
    return store.Record(
        table.name, row, "generated", population, seed, metrics, 1.0, config, {}
    )


def crowd(table, population, values):
    """Records of rows by seed from 100 on; None leaves one out."""
    return [
        record(table, population, row, 100 + number, value)
        for row, each in values.items()
        for number, value in enumerate(each)
        if value is not None
    ]


VALUES = {
    "listwise": (0.6, 0.7),
    "product": (0.65, 0.6),
    "mixture": (None, 0.9),  # not measured at all seeds
    "ceiling": (1.0, 1.0),
    "softmax_naive": (0.55, 0.5),
    "auto": (0.65, 0.7),
}


def views(found):
    by_name = {MAIN.name: [], MIXED_USERS.name: []}
    for each in found:
        by_name[each.table].append(each)
    return {v.population: v for v in tables.views(TABLE, TABLE.records(by_name))}


def test_the_choice_is_held_against_the_row_of_the_best_mean():
    (mixed,) = views(crowd(MAIN, "mixed", VALUES)).values()
    assert mixed.population == "mixed"
    assert mixed.values["best"]["ndcg@5"] == {100: 0.6, 101: 0.7}  # listwise, .65
    assert mixed.values["auto"]["chose_best"] == {100: 1.0, 101: 1.0}
    assert mixed.paired("auto", "ndcg@5").mean == pytest.approx(0.025)
    assert mixed.paired("softmax_naive", "ndcg@5").mean == pytest.approx(-0.125)


def test_crowds_without_a_choice_or_a_baseline_are_left_out():
    for absent in ("auto", "softmax_naive"):
        some = {row: each for row, each in VALUES.items() if row != absent}
        assert views(crowd(MAIN, "mixed", some)) == {}


def test_all_crowds_together_are_the_mean_at_the_seeds_of_all():
    each = {}
    for number, (table, name) in enumerate(SOURCES.values()):
        seeds = 1 if number == 0 else 2
        values = (0.1 * number, 0.9)[:seeds]
        each[number] = crowd(
            table, name, dict.fromkeys(("auto", "softmax_naive", "listwise"), values)
        )
    found = views([record for part in each.values() for record in part])
    assert [*found] == [*SOURCES, "all"]
    expected = sum(0.1 * number for number in range(8)) / 8
    assert found["all"].values["auto"]["ndcg@5"] == {100: pytest.approx(expected)}
    some = [record for number, part in each.items() if number for record in part]
    assert "all" not in views(some)


def test_records_of_other_settings_count_for_nothing():
    old = [
        r.__class__(**{**r.__dict__, "config": {"epochs": 6}})
        for r in crowd(MAIN, "mixed", VALUES)
    ]
    assert derive({MAIN.name: old, MIXED_USERS.name: []}) == []
