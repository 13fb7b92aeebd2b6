"""Tests of debias.training.splits: what is held out, and scaled features."""

import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.data.kinds import Feature
from debias.models import batches
from debias.training import held_out, held_out_of_stream, prepare
from debias.training.splits import not_learned
from tests.debias.training.worlds import DATA, FEATURES, LOG, SHOWN, written


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    return written(tmp_path_factory.mktemp("stream") / "log")


def test_a_prepared_log_is_scaled_and_parted():
    found = prepare(LOG, DATA, seed=0)
    assert found.held_out_by == "query" and found.layout.columns == {"position": 4}
    scaled = found.train.data.features
    assert found.train.data is found.validation.data
    log = found.train.log
    learned = scaled[np.unique(log.item[log.mask])]  # held-out items do not count
    assert len(learned) < len(scaled)
    np.testing.assert_allclose(learned.mean(axis=0), 0, atol=1e-4)
    wanted = np.asarray(found.preprocess(FEATURES[:5]))
    np.testing.assert_allclose(scaled[:5], wanted, rtol=1e-6)


def test_rare_values_are_recoded_piece_by_piece(monkeypatch):
    """As of one piece; what came is not changed."""
    names = ("acme", "rare", "birch")
    kinds = (Feature("brand", "category", names), Feature("price"))
    price = FEATURES[:, 0]
    brand = np.where(np.arange(len(price)) % 2, 2.0, 4.0)
    brand[-1] = 3  # once
    features = np.stack([brand, price], axis=1).astype(np.float32)
    data = RankingData(features, None, [0, len(features)], kinds=kinds)
    found = []
    for size in (10_000, 7):
        monkeypatch.setattr(batches, "PIECE", size)
        found.append(prepare(SHOWN, data, seed=0))
        assert found[-1].layout.kinds[0].values == ("acme", "birch")
    one, many = (each.train.data.features for each in found)
    np.testing.assert_allclose(one, many, rtol=1e-5)
    wanted = np.where(np.arange(len(price)) % 2, 2, 3)
    wanted[-1] = 1
    assert one[:, 0].tolist() == wanted.tolist()
    assert data.features[-1, 0] == 3


def test_queries_are_held_out_whole_unless_there_are_few():
    parts, by = held_out(SHOWN, seed=1)
    queries = [set(part.query.tolist()) for part in parts]
    assert by == "query" and sum(map(len, parts)) == len(SHOWN)
    assert not queries[0] & queries[1] and not queries[1] & queries[2]
    few = SHOWN.take(np.flatnonzero(SHOWN.query < 10))
    parts, by = held_out(few, seed=1)
    assert by == "session" and sum(map(len, parts)) == len(few)
    with pytest.raises(ValueError, match="too few to hold some out"):
        held_out(SHOWN.take([0, 1]), seed=1)


def test_shown_only_keeps_what_was_shown():
    item = LOG.item
    np.testing.assert_array_equal(
        FEATURES[SHOWN.item][LOG.mask], DATA.features[item][LOG.mask]
    )
    assert SHOWN.item.max() == len(FEATURES) - 1 == len(np.unique(item[item >= 0])) - 1


def test_a_stream_is_held_out_as_the_log_in_memory_is(on_disk):
    """Every query was asked, so that the parts are the same."""
    queries = int(SHOWN.query.max()) + 1
    assert queries == np.unique(SHOWN.query).size
    wanted, _ = held_out(SHOWN, 3)
    (learners, judges, tests), by = held_out_of_stream(on_disk, queries, 3)
    train = ClickLog.concatenate([learners.read(w, [0]) for w in range(3)])
    assert by == "query" and len(learners) == round(0.8 * len(SHOWN))
    for part, expected in zip((train, judges, tests), wanted, strict=True):
        rows = (np.c_[log.query, log.item, log.click] for log in (part, expected))
        ours, theirs = (found[np.lexsort(found.T)] for found in rows)
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"log: query must be below 50.*got"):
        held_out_of_stream(on_disk, 50, 3)


def test_sessions_of_few_queries_are_held_out_by_a_draw(on_disk):
    (learners, judges, tests), by = held_out_of_stream(on_disk, 10, 3)
    train = [learners.read(w, [0]) for w in range(3)]
    sizes = sum(map(len, train)), len(judges), len(tests)
    assert by == "session" and sum(sizes) == len(SHOWN)
    # Standard deviations: sqrt(900 .8 .2) = 12 and sqrt(900 .1 .9) = 9.
    assert abs(sizes[0] - 720) < 48 and abs(sizes[1] - 90) < 36


def test_what_was_not_learned_is_what_was_held_out():
    """Of 60 queries 12 are held out, of 40 sessions of one query 8."""
    for query in (np.repeat(np.arange(60), 3), np.zeros(40, int)):
        item = np.arange(2 * len(query)).reshape(-1, 2)
        log = ClickLog(query, item, item % 2 == 0)
        (train, _, _), _ = held_out(log, seed=5)
        kept = log.take(~not_learned(log, seed=5))
        np.testing.assert_array_equal(kept.item, train.item)


@pytest.mark.parametrize(
    "log, data, message",
    [
        (
            {"click": [1]},
            DATA,
            "log must be a ClickLog or a Stream, got dict; debias.r",
        ),
        (LOG, FEATURES, "data must be RankingData, got ndarray; debias.read_log"),
        (DATA, LOG, "log must be a ClickLog or a Stream, got RankingData"),
        (LOG.take(~LOG.click.any(axis=1)), DATA, "the log has no click"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(log, data, message):
    with pytest.raises(ValueError, match=message):
        prepare(log, data)
