"""Tests of debias.retrieval.training.batches."""

import keras
import numpy as np
import pytest

from debias.retrieval.data.interactions import from_columns
from debias.retrieval.data.negatives import Listed, Queue, Weighted, uniform
from debias.retrieval.training import batches
from debias.retrieval.training.batches import Batches
from simulators.interactions import generate_interactions

LOG, _ = generate_interactions(np.random.default_rng(0), 30, 25, events=6)
KNOWN = np.zeros((30, 25), bool)
KNOWN[LOG.user, LOG.item] = True


def make(**options):
    return Batches(LOG, **{"batch_size": 16, "history": 4, **options})


def rows(table):
    return table["id"] - 2


def test_an_epoch_holds_every_event_and_all_batches_have_one_shape():
    data = make()
    found = []
    for index in range(len(data)):
        batch, positive = data[index]
        assert batch["user"]["history"].shape == (16, 4) and len(positive) == 16
        found += zip(rows(batch["user"]), rows(batch["item"]), strict=True)
    assert len(data) == 12 and len(found) == 192
    assert set(found) == set(zip(LOG.user, LOG.item, strict=True))


def test_a_history_is_what_came_before_and_never_holds_the_target():
    data = make(batch_size=180)
    batch, _ = data[0]
    for user, item, history in zip(
        rows(batch["user"]), rows(batch["item"]), batch["user"]["history"], strict=True
    ):
        own = LOG.item[LOG.user == user]  # the generated times are in order
        before = own[: list(own).index(item)][::-1][:4]
        assert [code - 2 for code in history if code] == before.tolist()


@pytest.mark.parametrize("cells", [1 << 28, 0], ids=["dense", "sparse"])
def test_known_positives_are_excluded_and_the_positive_is_not(cells, monkeypatch):
    monkeypatch.setattr(batches, "DENSE", cells)
    batch, positive = make(negatives=7)[0]
    user, item = rows(batch["user"]), rows(batch["item"])
    assert item.shape == (23,) and batch["excluded"].shape == (16, 23)
    expected = KNOWN[user][:, item]
    expected[np.arange(16), positive] = False
    assert (batch["excluded"] == expected).all()


@pytest.mark.parametrize("cells", [1 << 28, 0], ids=["dense", "sparse"])
def test_catalogue_and_own_candidates(cells, monkeypatch):
    monkeypatch.setattr(batches, "DENSE", cells)
    batch, positive = make(candidates="catalogue")[0]
    user = rows(batch["user"])
    assert rows(batch["item"]).tolist() == list(range(25)) and "log_q" not in batch
    expected = KNOWN[user]
    assert expected[np.arange(16), positive].all()
    expected[np.arange(16), positive] = False
    assert (batch["excluded"] == expected).all()
    batch, positive = make(candidates="own", negatives=5)[0]
    assert batch["own"]["id"].shape == (16, 6) and (positive == 0).all()
    expected = KNOWN[rows(batch["user"])[:, None], rows(batch["own"])]
    expected[:, 0] = False
    assert (batch["excluded"] == expected).all() and "item" not in batch


def test_hard_negatives_stand_beside_the_batch():
    only = Listed(np.repeat(7, 30), np.arange(31), uniform(25))
    batch, _ = make(own_negatives=2, own_sampler=only, exclude_known=False)[0]
    assert (rows(batch["own"]) == 7).all() and batch["excluded"].shape == (16, 18)
    hit = batch["excluded"][:, 16:]
    assert (hit == (rows(batch["item"]) == 7)[:, None]).all()


def test_log_q_is_the_share_of_events_and_a_mixture_with_a_sampler():
    share = LOG.popularity() / len(LOG)
    batch, _ = make()[0]
    np.testing.assert_allclose(np.exp(batch["log_q"]), share[rows(batch["item"])], 1e-5)
    weight = np.arange(25.0)
    batch, _ = make(negatives=48, sampler=Weighted(weight))[0]
    drawn = weight / weight.sum()
    item = rows(batch["item"])
    expected = (16 * share[item] + 48 * drawn[item]) / 64
    np.testing.assert_allclose(np.exp(batch["log_q"]), expected, rtol=1e-4)


def test_a_queue_is_fed_with_the_batches():
    queue = Queue(20, uniform(25), items=25)
    data = make(negatives=8, sampler=queue)
    first = rows(data[0][0]["item"])[:16]
    assert queue.held.tolist() == first.tolist()
    later = rows(data[1][0]["item"])
    assert set(later[16:]) <= set(first) and len(queue.held) == 20


def test_self_items_are_uniform_over_the_catalogue():
    data = make(self_items=200)
    drawn = np.concatenate([rows(data[i][0]["self"]) for i in range(12)])
    share = np.bincount(drawn, minlength=25) / len(drawn)
    assert np.abs(share - 1 / 25).max() < 4.5 * np.sqrt(1 / 25 / len(drawn))


def test_a_seed_names_the_batches_and_epochs_differ():
    one, same, other = (make(negatives=3, seed=seed) for seed in (1, 1, 2))
    ids = [rows(data[2][0]["item"]).tolist() for data in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    one.on_epoch_end()
    assert rows(one[2][0]["item"]).tolist() != ids[0]


def test_more_than_the_events_are_cut_and_young_users_left_out():
    assert make(batch_size=10_000).batch_size == 180
    data = make(batch_size=10_000, min_history=2)
    assert data.batch_size == 120
    assert (data[0][0]["user"]["history"][:, 1] > 0).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"candidates": "all"},
        {"batch_size": 0},
        {"candidates": "own"},
        {"own_negatives": 1},
        {"min_history": 99},
    ],
)
def test_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad)).split("_")[0][:3]):
        make(**bad)


def test_only_chosen_events_are_learned_and_the_others_are_what_came_before():
    late = LOG.time >= 4  # the last two of each user's six
    data = make(learned=late, batch_size=60)
    batch, _ = data[0]
    pairs = set(zip(rows(batch["user"]), rows(batch["item"]), strict=True))
    assert len(data) == 1
    assert pairs == set(zip(LOG.user[late], LOG.item[late], strict=True))
    assert ((batch["user"]["history"] > 0).sum(axis=1) == 4).all()
    # The chance of an item in the batch is its share of these events, not of all.
    share = np.bincount(LOG.item[late], minlength=25)[rows(batch["item"])] / 60
    np.testing.assert_allclose(np.exp(batch["log_q"]), share, rtol=1e-5)
    with pytest.raises(ValueError, match="no event is left to learn from"):
        make(learned=np.zeros(len(LOG), bool))


@pytest.mark.parametrize("options", [{}, {"negatives": 30}, {"log_q": False}], ids=str)
def test_a_packed_batch_says_the_same_of_every_event(options):
    (plain, place), (packed, zeros) = (
        make(**options)[0],
        make(packed=True, **options)[0],
    )
    columns = rows(packed["item"])
    filled = packed["log_count"] == -1e9
    assert len(np.unique(columns[~filled])) == (~filled).sum() and not zeros.any()
    count = np.exp(packed["log_count"][~filled])
    item = rows(plain["item"])
    assert count.round(4).tolist() == [(item == c).sum() for c in columns[~filled]]
    assert (columns[packed["positive"]] == item[place]).all()
    np.testing.assert_array_equal(packed["user"]["history"], plain["user"]["history"])
    for event, column in np.ndindex(16, len(columns)):
        same = item == columns[column]  # columns of the plain batch that hold the item
        if filled[column]:
            continue
        known = KNOWN[rows(plain["user"])[event], columns[column]]
        assert packed["excluded"][event, column] == known
        if "log_q" in plain:
            assert (plain["log_q"][same] == packed["log_q"][column]).all()


def test_users_without_histories_are_packed_too():
    plain, _ = make(history=0, batch_size=90)[0]
    packed, _ = make(history=0, batch_size=90, packed=True)[0]
    users = rows(packed["user"])
    assert packed["event"].shape == (90,) and "history" not in packed["user"]
    assert (users[packed["event"]] == rows(plain["user"])).all()
    of_events = np.unique(packed["event"])
    assert len(np.unique(users[of_events])) == len(of_events) <= 30
    expected = KNOWN[users[of_events]][:, rows(packed["item"])]
    real = packed["log_count"] > -1e9
    np.testing.assert_array_equal(
        packed["excluded"][of_events][:, real], expected[:, real]
    )
    # The positive, which hangs on the event, is all that is excluded then.
    free, _ = make(history=0, batch_size=90, packed=True, exclude_known=False)[0]
    assert "excluded" not in free
    np.testing.assert_array_equal(free["event"], packed["event"])


def test_packed_batches_are_as_wide_as_the_widest_so_far():
    data = make(history=0, batch_size=90, packed=True, negatives=90)
    first = data[0][0]["log_count"]
    assert len(first) == 32 and data.width == {"user": 32, "item": 32}
    data.width["item"] = 64
    wider, _ = data[0]
    np.testing.assert_array_equal(wider["log_count"][:32], first)
    assert (wider["log_count"][32:] == -1e9).all()
    # What fills up is in the batch anyway, so that no other row is touched.
    assert set(rows(wider["item"])[32:]) <= set(rows(wider["item"])[:32])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_pieces_are_the_batches_of_epochs_to_come(packed):
    data, other = make(packed=packed, negatives=3), make(packed=packed, negatives=3)
    found = list(data.pieces(5, epochs=2))
    assert [count for _, count in found] == [5, 5, 2] * 2 and data.epoch == 0
    for number, ((inputs, target), count) in enumerate(found):
        epoch, piece = divmod(number, 3)
        if other.epoch < epoch:
            other.on_epoch_end()
        assert len(target) == 5  # the last of an epoch is filled up
        for place in range(count):
            batch, positive = other[5 * piece + place]
            np.testing.assert_array_equal(target[place], positive)
            for name in ("positive", "log_q"):
                np.testing.assert_array_equal(inputs[name][place], batch[name])
            np.testing.assert_array_equal(
                rows(inputs["item"])[place], rows(batch["item"])
            )


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("history", [0, 4])
def test_tensorflow_is_handed_the_same_batches(packed, history, monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 5)  # 12 batches are two chunks and a rest
    options = {"packed": packed, "history": history, "negatives": 3, "self_items": 7}
    data = make(**options)
    found = list(data.dataset())
    assert len(found) == len(data) == len(data.dataset()) == 12
    for index, (batch, target) in enumerate(found):
        expected, place = data[index]
        np.testing.assert_array_equal(target, place)
        if not packed:
            keras.tree.map_structure(np.testing.assert_array_equal, expected, batch)
            continue
        # A chunk is filled up to the largest of its batches.
        for name in ("item", "user"):
            some = len(expected[name]["id"])
            np.testing.assert_array_equal(
                expected[name]["id"], batch[name]["id"][:some]
            )
        some = len(expected["log_count"])
        assert (np.asarray(batch["log_count"])[some:] == -1e9).all()
    data.on_epoch_end()
    other = next(iter(data.dataset()))[0]
    assert not np.array_equal(other["item"]["id"], found[0][0]["item"]["id"])


def test_packed_batches_have_shared_candidates_alone():
    for bad in (
        {"candidates": "catalogue"},
        {"candidates": "own", "negatives": 2},
        {"own_negatives": 2, "own_sampler": uniform(25)},
    ):
        with pytest.raises(
            ValueError, match="packed batches have only shared candidates"
        ):
            make(packed=True, **bad)


def test_what_a_window_dropped_is_no_negative():
    log = from_columns(["u"] * 4 + ["v"], list("abcda"), [1, 2, 3, 4, 5])
    short = log.latest(2)
    for packed in (False, True):
        known = Batches(short, 3, packed=packed, history=0).known
        assert np.asarray(known).astype(int).tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
