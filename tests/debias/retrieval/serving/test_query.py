"""Tests of debias.retrieval.serving.query."""

from types import SimpleNamespace

import numpy as np
import pytest

from debias.retrieval.serving import versions
from debias.retrieval.serving.query import allowed, retrieve
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
    assert retrieve(version, history=["1-9"], k=1, seen=True).items == ["1-9"]
    assert len(retrieve(version, history=["1-9"], k=50).items) == 11


def test_only_the_latest_of_a_history_are_read_and_all_of_it_is_seen(version):
    answer = retrieve(version, history=["1-1", "1-5", "1-9", "1-0", "1-4"], k=12)
    assert answer.scores[0] == 0 and len(answer.items) == 7
    assert not {"1-0", "1-4", "1-9"} & set(answer.items)


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
            for name in ("users", "items", "index", "histories", "user_codes")
        },
        item_codes=version.item_codes,
    )
    retrieve(spied, {"id": "bob", "likes": ["rum", "gin"]}, ["1-3"], k=1)
    retrieve(spied, {"id": "eve", "likes": []}, k=1)
    assert given == [
        {"id": [3], "age": [0.0], "likes": [[3, 1]], "history": [[5, 0]]},
        {"id": [1], "age": [0.0], "likes": [[0]], "history": [[0, 0]]},
    ]


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
        ({"where": {"price": [3]}}, "'price' must be .least, most. of numbers"),
        ({"where": {"price": 3}}, "'price' must be .least, most. of numbers, got 3"),
        ({"where": {"price": "12"}}, "'price' must be .least, most. of numbers"),
        ({"where": {"price": ["a", "b"]}}, "'price' must be .least, most. of numbers"),
        ({"where": {"price": [float("nan"), 3]}}, "'price' must be .least, most."),
        ({"where": {"kind": [1.5]}}, "kind must be strings or integers"),
        ({"k": 0}, "k must be at least 1"),
    ],
)
def test_rejects(version, asked, message):
    with pytest.raises(ValueError, match=message):
        retrieve(version, **asked)
