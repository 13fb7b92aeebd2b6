"""Tests of debias.retrieval.data.interactions."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.retrieval.data.interactions import (
    FeatureTable,
    Interactions,
    from_columns,
    leave_last_out,
    mutual_information,
    time_split,
)


def ids(count, prefix=""):
    return FeatureTable.build({"id": [f"{prefix}{row}" for row in range(count)]})


def log(events, users=3, items=5, weight=None):
    user, item, time = np.array(events, np.int64).reshape(-1, 3).T
    tables = ids(users, "u"), ids(items, "i")
    return Interactions(
        user.astype("int32"), item.astype("int32"), time, *tables, weight
    )


# user 0 takes items 1, 2, 3; user 1 only 4; the times are out of order.
LOG = log([[0, 3, 30], [0, 1, 10], [1, 4, 5], [0, 2, 20]])


def described(**names):
    """A log in which users, items or both have a feature of the given name."""
    tables = {side: {"id": ["x"], name: ["a"]} for side, name in names.items()}
    return from_columns(["x"], ["x"], [1], **tables)


def test_items_may_have_a_history():
    assert "history" in described(items="history").items.columns


def test_histories_are_the_items_before_most_recent_first():
    codes, before = LOG.histories(2)
    assert codes.tolist() == [[0, 0], [3, 0], [4, 3], [0, 0]]
    assert before.tolist() == [0, 1, 2, 0]


def test_histories_may_be_longer_than_the_log():
    codes, _ = LOG.histories(9)
    short, _ = LOG.histories(2)
    assert codes[:, :2].tolist() == short.tolist() and not codes[:, 2:].any()


def test_histories_of_now_and_of_a_user_without_events():
    codes, before = LOG.histories(2, np.array([0, 1, 2]))
    assert codes.tolist() == [[5, 4], [6, 0], [0, 0]]
    assert before.tolist() == [3, 1, 0]


def test_events_of_equal_time_keep_their_order():
    tied = log([[0, 4, 7], [0, 1, 7], [0, 3, 7]])
    assert tied.histories(3, np.array([0]))[0].tolist() == [[5, 3, 6]]


def test_seen_of_all_and_of_some_users():
    assert [part.tolist() for part in LOG.seen()] == [[1, 2, 3, 4], [0, 3, 4, 4]]
    rows, offsets = LOG.seen(np.array([1, 2, 0]))
    assert (rows.tolist(), offsets.tolist()) == ([4, 1, 2, 3], [0, 1, 1, 4])


def test_leave_last_out_keeps_users_of_one_event_in_training():
    rest, held_out = leave_last_out(LOG)
    assert sorted(rest.time.tolist()) == [5, 10, 20]
    assert held_out.item.tolist() == [3]
    before, validation = leave_last_out(rest)
    assert (before.time.tolist(), validation.time.tolist()) == ([10, 5], [20])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 3))),
    st.integers(1, 3),
)
def test_a_split_loses_nothing_and_holds_out_the_latest(events, last):
    whole = log(events)
    rest, out = leave_last_out(whole, last)
    assert len(rest) + len(out) == len(whole)
    for user in range(3):
        inside, outside = rest.time[rest.user == user], out.time[out.user == user]
        assert len(outside) in (0, last) and (len(inside) > 0 or len(outside) == 0)
        assert not len(outside) or inside.max() <= outside.min()


def test_time_split_puts_the_boundary_after():
    before, after = time_split(LOG, 20)
    assert (sorted(before.time.tolist()), sorted(after.time.tolist())) == (
        [5, 10],
        [20, 30],
    )


def test_core_drops_in_rounds_and_numbers_anew():
    # Item 3 has one event; without it user 1 has one, and so leaves too.
    events = [[0, 1, 1], [0, 2, 2], [2, 1, 3], [2, 2, 4], [1, 2, 5], [1, 3, 6]]
    part = log(events).core(2, 2)
    assert part.users.vocabularies["id"].tolist() == ["u0", "u2"]
    assert part.items.vocabularies["id"].tolist() == ["i1", "i2"]
    assert part.user.tolist() == [0, 0, 1, 1] and part.item.tolist() == [0, 1, 0, 1]
    assert part.items.columns["id"].tolist() == [2, 3]


def test_core_of_nothing_left_is_empty():
    assert len(log([[0, 1, 1]]).core(2, 2)) == 0


def test_codes_are_those_of_keras_string_lookup():
    keras = pytest.importorskip("keras")
    table = FeatureTable.build({"colour": ["red", "blue", "red", ""]})
    lookup = keras.layers.StringLookup(
        vocabulary=table.vocabularies["colour"].tolist(), mask_token=""
    )
    wanted = ["blue", "green", "", "red"]
    ours = table.encode({"colour": wanted})[0]["colour"]
    assert (
        ours.tolist() == np.asarray(lookup(np.array(wanted))).tolist() == [3, 1, 0, 2]
    )


def test_encode_counts_what_it_does_not_know_and_fills_what_it_lacks():
    table = FeatureTable.build(
        {"id": ["a", "b"], "tags": [["x"], ["y", "x"]], "price": [1.0, 2.0]}
    )
    columns, unknown = table.encode({"id": ["z", "b"], "price": [float("nan"), 3.0]})
    assert columns["id"].tolist() == [1, 3]
    assert columns["tags"].tolist() == [[0, 0], [0, 0]]  # without features: missing
    assert columns["price"].tolist() == [0.0, 3.0]
    assert unknown == {"id": 1, "tags": 0, "price": 1}


def test_empty_multivalued_field_and_unknown_values_in_it():
    table = FeatureTable.build({"tags": [["x", "y"], []]})
    columns, unknown = table.encode({"tags": [[], ["y", "q", "x"]]})
    assert columns["tags"].tolist() == [[0, 0, 0], [3, 1, 2]]
    assert unknown == {"tags": 1}


def test_rare_values_are_out_of_vocabulary_but_ids_never():
    table = FeatureTable.build({"id": ["a", "b"], "year": [1999, 2000]}, min_count=2)
    assert table.columns["year"].tolist() == [1, 1]
    assert table.columns["id"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: FeatureTable.build({"id": ["a", "a"]}), "'a'.*repeat"),
        (lambda: FeatureTable.build({"id": ["a"], "x": [1, 2]}), "equally many"),
        (lambda: FeatureTable.build({"x": [["a"], "b"]}), "mixes.*row 1"),
        (lambda: FeatureTable({"x": np.array([9])}, {"x": np.array(["a"])}), r"\[0, 3"),
        (lambda: FeatureTable({"x": np.array([1])}, {}), "no vocabulary"),
        (lambda: ids(2).encode({"colour": ["red"]}), "colour"),
        (lambda: ids(2).append({"colour": ["red"]}), "both must have.*'id'"),
        (lambda: ids(2).append({"id": ["new", "0"]}), "row 1 has '0'"),
        (lambda: ids(2).append({"id": ["new", "new"]}), "row 1 has 'new'"),
        (lambda: ids(2).append({"id": [""]}), "row 0 has ''"),
        (lambda: LOG.latest(0), "count"),
        (lambda: log([[0, 9, 1]]), "item.*got 9 at event 0"),
        (lambda: log([[-1, 0, 1]]), "user.*got -1"),
        (lambda: LOG.histories(0), "length"),
        (lambda: leave_last_out(LOG, 0), "last"),
        (lambda: LOG.distinct("middle"), "keep"),
        (lambda: from_columns(["u"], ["i"], [1], items={"id": ["j"]}), "'i'"),
        (lambda: from_columns(["u"], ["i"], [1], items={"x": ["j"]}), "'id'"),
        (lambda: described(users="history"), "users have a feature 'history', but"),
        (lambda: described(items="a/b"), "items have a feature 'a/b', but it contains"),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()


def test_a_core_keeps_what_was_taken_before_of_its_users_and_items():
    """User u took a, b and then twice c; v took c. The core of one event is all."""
    log = from_columns(list("uuuuvw"), list("abcccd"), [1, 2, 3, 4, 5, 6])
    short = log.latest(1)
    part = short.take(short.user != 2).core(1, 1)  # without w and d
    words = part.items.vocabularies["id"]
    assert words.tolist() == ["c"]  # a and b have no event left
    assert [words[row] for row in part.seen()[0]] == ["c", "c", "c"]
    assert part.seen()[1].tolist() == [0, 2, 3]


def test_missing_values_of_lists_and_decimals():
    table = FeatureTable.build(
        {
            "id": ["a", "b", "c"],
            "tags": [["x", None], ["x", None, "y"], [None]],
            "price": [Decimal("1.25"), None, Decimal("3")],
        }
    )
    assert table.vocabularies["tags"].tolist() == ["x", "y"]
    assert table.columns["tags"].tolist() == [[2, 0, 0], [2, 0, 3], [0, 0, 0]]
    assert table.columns["price"].tolist() == [1.25, 0.0, 3.0]
    coded, unknown = table.encode({"tags": [[None, "z"]], "price": [Decimal("2")]})
    assert coded["tags"].tolist() == [[0, 1]] and unknown == {
        "id": 0,
        "tags": 1,
        "price": 0,
    }
    assert coded["price"].tolist() == [2.0]


def test_times_keep_their_fractions_and_must_be_numbers():
    log = from_columns(["u", "u"], ["i", "j"], [1.75, 1.5])
    assert log.items.vocabularies["id"][log.histories(2)[0] - 2].tolist()[1][0] == "j"
    with pytest.raises(ValueError, match="time must be finite, got nan at event 1"):
        from_columns(["u", "u"], ["i", "j"], [1.0, float("nan")])


def test_mutual_information_by_hand():
    # b is a; c tells nothing of a; d = (a and c) is half known.
    table = FeatureTable.build(
        {"a": [0, 0, 1, 1], "c": [0, 1, 0, 1], "d": [[0], [0], [0], [1]]}
    )
    log2, h = np.log(2), -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    # H(d | a) = (0 + log 2) / 2.
    expected = [[log2, 0, h - log2 / 2], [0, log2, h - log2 / 2]]
    np.testing.assert_allclose(mutual_information(table)[:2], expected, atol=1e-12)
