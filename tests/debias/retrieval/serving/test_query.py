"""Tests of debias.retrieval.serving.query."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from debias.retrieval.data.interactions import FeatureTable
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.serving import versions
from debias.retrieval.serving.query import allowed, retrieve
from debias.retrieval.serving.versions import codes
from tests.debias.retrieval import worlds


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("query")
    worlds.publish(folder / "root", folder)
    return versions.load(folder / "root")


def test_a_new_user_is_answered_from_features_and_history(version):
    answer = retrieve(version, {"id": "nobody", "age": 1.0}, ["1-1", "1-5"], k=3)
    # The vector is (1, 1.01 + 1.05, 0, 0); on axis 1 item 9 is left, on axis 0 item 8.
    assert answer.items == ["1-9", "1-8", "1-4"] and not answer.known
    np.testing.assert_allclose(answer.scores, [2.06 * 1.09, 1.08, 1.04], rtol=1e-6)


def test_a_user_of_whom_nothing_is_known_is_answered(version):
    answer = retrieve(version, k=2)
    assert answer == (["1-0", "1-1"], [0.0, 0.0], False, [])


def test_what_a_known_user_does_not_say_was_published(version):
    answer = retrieve(version, {"id": "ann"}, k=2)  # age .5; took item 1
    assert answer.items == ["1-9", "1-5"] and answer.known
    assert retrieve(version, {"id": "ann"}, [], k=1).items == ["1-8"]
    assert retrieve(version, {"id": "ann", "age": 0.0}, [], k=1).scores == [0.0]


def test_seen_items_return_only_if_they_are_asked_for(version):
    assert retrieve(version, history=["1-9"], k=1).items == ["1-5"]
    assert retrieve(version, history=["1-9"], k=1, repeat="allow").items == ["1-9"]
    assert len(retrieve(version, history=["1-9"], k=50).items) == 11


def test_only_the_latest_of_a_history_are_read_and_all_of_it_is_seen(version):
    answer = retrieve(version, history=["1-1", "1-5", "1-9", "1-0", "1-4"], k=12)
    assert answer.scores[0] == 0 and len(answer.items) == 7
    assert not {"1-0", "1-4", "1-9"} & set(answer.items)


@pytest.fixture(scope="module")
def modelled(tmp_path_factory):
    """Ann's history is item 1; she took 9 once, then 1 twice, then 5 once."""
    folder = tmp_path_factory.mktemp("modelled")
    taken = np.array([9, 1, 1, 5]), np.array([0, 4, 4])
    repeat = Repeat("model", (0.5, 1.0, -2.0, 0.0))
    worlds.publish(folder / "root", folder, taken=taken, repeat=repeat)
    return versions.load(folder / "root")


def test_all_that_a_known_user_took_is_left_out(modelled):
    asked = {"id": "ann"}  # the vector is (.5, 1.01, 0, 0)
    answer = retrieve(modelled, asked, k=20, repeat="exclude")
    assert answer.items[:3] == ["1-8", "1-4", "1-0"] and len(answer.items) == 9
    # What the request names is left out beside it, and asked of the tower instead.
    answer = retrieve(modelled, asked, ["1-8"], k=20, repeat="exclude")
    assert answer.items[0] == "1-4" and len(answer.items) == 8
    assert len(retrieve(modelled, {"id": "bob"}, k=20, repeat="exclude").items) == 12
    free = retrieve(modelled, asked, k=3, repeat="allow")
    assert free.items == ["1-9", "1-5", "1-1"]


def test_what_was_taken_has_its_bonus(modelled):
    answer = retrieve(modelled, {"id": "ann"}, k=20)
    assert len(answer.items) == 12 and answer.items[:3] == ["1-5", "1-1", "1-8"]
    twice = 1.01 * 1.01 + 0.5 + np.log(2) - 2 * np.log(2)
    expected = [1.01 * 1.05 + 0.5, twice, 0.5 * 1.08]
    np.testing.assert_allclose(answer.scores[:3], expected, rtol=1e-5)
    last = 1.01 * 1.09 + 0.5 - 2 * np.log(3)
    assert answer.items[-1] == "1-9"
    np.testing.assert_allclose(answer.scores[-1], last, rtol=1e-5)
    only = retrieve(modelled, {"id": "ann"}, k=20, where={"id": ["1-9", "1-8"]})
    assert only.items == ["1-8", "1-9"]
    # Of a request, 9 is the latest and stays one take; 1 is now third.
    later = retrieve(modelled, {"id": "ann"}, ["1-9"], k=20)
    scores = dict(zip(later.items, later.scores, strict=True))
    np.testing.assert_allclose(scores["1-9"], 1.09 * 1.09 + 0.5, rtol=1e-5)
    third = 1.09 * 1.01 + 0.5 + np.log(2) - 2 * np.log(3)
    np.testing.assert_allclose(scores["1-1"], third, rtol=1e-5)


def test_the_score_of_what_was_taken_counts_as_the_version_says(modelled):
    weights = [0.5, 1.0, -2.0]  # of a version that an earlier edition wrote

    def asked(weights, **how):
        manifest = {
            **modelled.manifest,
            "repeat": {"policy": "model", "weights": weights},
        }
        found = retrieve(
            replace(modelled, manifest=manifest), {"id": "ann"}, k=20, **how
        )
        return dict(zip(found.items, found.scores, strict=True))

    older, half = asked(weights), asked([*weights, -0.5])
    assert older == asked([*weights, 0.0]) and half["1-8"] == older["1-8"]
    for item, product in (("1-5", 1.05), ("1-1", 1.01), ("1-9", 1.09)):
        expected = older[item] - 0.5 * 1.01 * product
        np.testing.assert_allclose(half[item], expected, rtol=1e-5)
    only = asked([*weights, -0.5], where={"id": ["1-9", "1-8"]})
    assert only == {item: half[item] for item in ("1-8", "1-9")}


def test_a_linear_part_does_not_count_for_what_was_taken(modelled):
    """As if two of the four coordinates were those of a linear part."""
    manifest = dict(modelled.manifest)
    manifest["repeat"] = {**manifest["repeat"], "linear": 2}
    found = retrieve(replace(modelled, manifest=manifest), {"id": "ann"}, k=20)
    whole = retrieve(modelled, {"id": "ann"}, k=20)
    apart = dict(zip(found.items, found.scores, strict=True))
    for item, score in zip(whole.items, whole.scores, strict=True):
        # The vector is (.5, 1.01, 0, 0); of items taken, coordinates 1 and 2 are out.
        taken = {"1-1": 1.01, "1-5": 1.05, "1-9": 1.09}.get(item, 0.0)
        np.testing.assert_allclose(apart[item], score - 1.01 * taken, atol=1e-5)


def test_where_fewer_than_k_are_left_the_answer_is_short(modelled):
    every = [f"1-{j}" for j in range(12)]
    assert retrieve(modelled, {}, every[1:], k=5, repeat="exclude").items == ["1-0"]
    assert retrieve(modelled, {}, every, k=5, repeat="exclude").items == []
    odd = {"kind": "odd"}
    found = retrieve(modelled, {"id": "ann"}, k=9, repeat="exclude", where=odd)
    assert sorted(found.items) == ["1-11", "1-3", "1-7"]


def test_ids_that_the_catalogue_lacks_are_passed_over(version):
    answer = retrieve(version, history=["gone", 7, "1-1"], k=1)
    assert answer.items == ["1-9"] and answer.passed_over == ["gone", "7"]


def test_numbers_of_numpy_are_numbers(version):
    plain = retrieve(version, {"id": "7", "age": 1.0}, ["1-1"], k=2)
    assert retrieve(version, {"id": np.int64(7), "age": np.float32(1)}, ["1-1"], 2) == (
        plain
    )
    with pytest.raises(ValueError, match="'age' must be a finite number"):
        retrieve(version, {"age": np.float32("nan")})
    with pytest.raises(ValueError, match="'age' must be a finite number"):
        retrieve(version, {"age": np.True_})


@pytest.mark.parametrize(
    "where, rows",
    [
        ({"kind": ["odd"]}, range(1, 12, 2)),
        ({"kind": ["odd", "even", "new"]}, range(12)),
        ({"kind": []}, []),
        ({"tags": ["top"]}, range(6, 12)),
        ({"kind": "odd"}, range(1, 12, 2)),
        ({"tags": "top"}, range(6, 12)),
        ({"id": np.array(["1-3"])}, [3]),
        ({"price": np.array([3.0, 5.5])}, [3, 4, 5]),
        ({"id": ["1-3", "1-4"]}, [3, 4]),
        ({"price": [3, 5.5]}, [3, 4, 5]),
        ({"price": [None, 2]}, [0, 1, 2]),
        ({"price": [10, None], "kind": ["even"]}, [10]),
    ],
)
def test_a_filter_lets_pass_what_it_says(version, where, rows):
    assert np.flatnonzero(allowed(version, where)).tolist() == list(rows)
    answer = retrieve(version, {"age": 1.0}, [], k=12, where=where)
    assert sorted(answer.items) == sorted(f"1-{row}" for row in rows)


def test_codes_reach_the_tower(version):
    """Known, unknown and absent values, one and several of them."""
    given = []
    tower = SimpleNamespace(length=3, __call__=None)

    def spy(features):
        given.append({k: v.tolist() for k, v in features.items()})
        return np.zeros((1, 4), np.float32)

    tower = type("Spy", (), {"length": 2, "__call__": lambda self, x: spy(x)})()
    spied = SimpleNamespace(
        tower=tower,
        **{
            name: getattr(version, name)
            for name in ("users", "items", "index", "histories", "taken", "repeat")
        },
        item_codes=version.item_codes,
        user_codes=version.user_codes,
    )
    retrieve(spied, {"id": "bob", "likes": ["rum", "gin"]}, ["1-3"], k=1)
    retrieve(spied, {"id": "eve", "likes": []}, k=1)
    assert given == [
        {"id": [3], "age": [0.0], "likes": [[3, 1]], "history": [[5, 0]]},
        {"id": [1], "age": [0.0], "likes": [[0]], "history": [[0, 0]]},
    ]


@pytest.mark.parametrize("words", [(True, False), ("true", "false")])
def test_true_and_false_are_values_of_a_feature(words):
    """Tables in Parquet and CSV spell them differently; JSON has one spelling."""
    table = FeatureTable.build({"id": ["a", "b", "c"], "new": [*words, None]})
    given = []
    reads = {"length": 2, "__call__": lambda self, x: [given.append(x)]}
    version = SimpleNamespace(
        tower=type("Spy", (), reads)(),
        users=table,
        items=table,
        user_codes=codes(table),
        item_codes=codes(table),
        index=SimpleNamespace(search=lambda *asked: (np.arange(0), np.zeros(0))),
        histories=None,
        taken=None,
        repeat=Repeat.of("allow"),
    )
    for value, row in ((True, 0), (False, 1)):
        passing = allowed(version, {"new": value})
        assert np.flatnonzero(passing).tolist() == [row]
        assert np.array_equal(allowed(version, {"new": [value]}), passing)
        retrieve(version, {"new": value})
        assert given.pop()["new"] == table.columns["new"][row]
    with pytest.raises(ValueError, match="id must be strings or integers, got True"):
        allowed(version, {"id": True})


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"user": {"shoe": 3}}, r"unknown features \['shoe'\]"),
        ({"user": {"age": "old"}}, "'age' must be a finite number, got 'old'"),
        ({"user": {"age": float("nan")}}, "'age' must be a finite number, got nan"),
        ({"user": {"age": 10**400}}, "'age' must be a finite number"),
        ({"user": {"age": True}}, "'age' must be a finite number"),
        ({"user": {"id": 1.5}}, "id must be strings or integers, got 1.5"),
        ({"user": {"id": ["a"]}}, "id must be strings or integers"),
        ({"history": [float("nan")]}, "history must be strings or integers, got nan"),
        ({"where": {"shoe": ["3"]}}, "unknown feature 'shoe'"),
        ({"where": {"price": [3]}}, "'price' must be .least, most., each a number"),
        (
            {"where": {"price": 3}},
            "'price' must be .least, most., each a number or null, got 3",
        ),
        ({"where": {"price": "12"}}, "'price' must be .least, most., each a number"),
        (
            {"where": {"price": ["a", "b"]}},
            "'price' must be .least, most., each a number",
        ),
        ({"where": {"price": [float("nan"), 3]}}, "'price' must be .least, most."),
        ({"where": {"price": [5, 3]}}, "must be .least, most., got .5, 3."),
        ({"where": {"kind": ["odd", None]}}, "'kind' holds categories, and null is"),
        ({"where": {"kind": [1.5]}}, "kind must be strings or integers"),
        ({"k": 0}, "k must be at least 1"),
        ({"repeat": "often"}, "one of exclude allow model, got 'often'"),
        ({"repeat": "model"}, "version 000001 was published with 'exclude'"),
    ],
)
def test_rejects(version, asked, message):
    with pytest.raises(ValueError, match=message):
        retrieve(version, **asked)


def test_who_is_a_stranger_gets_the_answer_that_was_published_for_one(tmp_path):
    """Neither id nor history nor feature; a word of any of them asks the tower."""
    vectors = worlds.vectors(1)
    stranger = -vectors[3]
    worlds.publish(tmp_path / "root", tmp_path, stranger=stranger)
    version = versions.load(tmp_path / "root")
    best = np.argsort(-(vectors @ stranger), kind="stable")[:3]
    names = version.items.vocabularies["id"][best].tolist()
    for user in (None, {"id": "nobody"}, {"id": "nobody", "age": None}):
        assert retrieve(version, user, k=3).items == names
    for asked in (
        {"user": {"age": 1.0}},
        {"history": [names[0]]},
        {"user": {"id": "ann"}},
    ):
        assert retrieve(version, **asked, k=3).items != names
    with pytest.raises(ValueError, match=r"stranger must be \(4,\).*got \(3,\)"):
        worlds.publish(tmp_path / "root", tmp_path, 2, stranger=np.zeros(3))
