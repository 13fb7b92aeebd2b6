"""Tests of debias.retrieval.serving.update: what moves, what stays.

And what a kill leaves.
"""

import multiprocessing
import shutil
from contextlib import nullcontext
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pyarrow import fs

from debias.retrieval.data.events import Events, read_events
from debias.retrieval.models.ids import checksum, dense_weights, id_tables
from debias.retrieval.serving import versions
from debias.retrieval.serving.query import retrieve
from debias.retrieval.serving.storage import storage
from debias.retrieval.serving.update import (
    LEARNERS,
    full_update,
    incremental_update,
    publish_full,
    publish_increment,
    update,
)
from debias.retrieval.training import learner as learners
from debias.retrieval.training.learner import load, save
from tests.debias.data.test_stores import server  # noqa: F401 (a fixture)
from tests.debias.retrieval.streams import (
    BUILD,
    CONFIG,
    LOG,
    RAW_ITEMS,
    follow,
    stream,
    trained,
)

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with the state of a trained learner, and one where it is published."""
    folder = tmp_path_factory.mktemp("first")
    learner = trained()
    save(learner, folder / "learner")
    publish_full(folder / "root", learner, {})
    return folder


@pytest.fixture
def learner(first):
    return load(first / "learner", BUILD, CONFIG)


@pytest.fixture
def root(first, tmp_path):
    return shutil.copytree(first / "root", tmp_path / "root")


@pytest.fixture
def events(tmp_path):
    return stream(tmp_path / "events.csv")


def of(path):
    ((_, found),) = read_events(path)
    return found


def values(learner):
    return [np.array(variable) for variable in learner.variables]


def now(root):
    about = versions.manifest(root)["extra"]
    return load(root / LEARNERS / about["learner"], BUILD, CONFIG)


def assert_same(one, other):
    assert one.log.item.tolist() == other.log.item.tolist()
    assert one.log.user.tolist() == other.log.user.tolist()
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_increment_moves_ids_only_and_tells_all_that_moved(learner, events):
    before = learner.model.item_vectors(learner.log.items.columns)
    dense = [np.array(weight) for weight in dense_weights(learner.model)]
    step = incremental_update(learner, of(events), items=RAW_ITEMS)
    for old, new in zip(dense, dense_weights(learner.model), strict=True):
        np.testing.assert_array_equal(old, np.array(new))
    after = learner.model.item_vectors(learner.log.items.columns)
    np.testing.assert_allclose(step.vectors, after[step.items], atol=1e-6)
    rest = np.setdiff1d(np.arange(len(before)), step.items)
    # But for the rounding of products of matrices of another number of rows.
    np.testing.assert_allclose(before[rest], after[rest], atol=1e-6)
    touched = {int(item) for item in of(events).item}
    names = learner.log.items.vocabularies["id"]
    assert {int(names[row]) for row in step.items} == touched
    users = learner.log.users.vocabularies["id"][step.users]
    assert set(users) == set(of(events).user)
    new = step.appended
    assert new.users == 3 and new.items == 4 and new.bare == 3  # of users: no age
    old = step.items[step.items < 20]
    assert (before[old] != after[old]).any(axis=1).all()


def test_a_dense_weight_that_moves_stops_the_increment(learner, events, monkeypatch):
    monkeypatch.setattr(learners, "frozen", lambda weights: nullcontext())
    config = learner.config._replace(averaging=None)  # one optimiser is as the other
    learner = learners.new_learner(learner.build, learner.log, config)
    learner.id_optimizer = learner.optimizer
    with pytest.raises(RuntimeError, match="changed a dense weight"):
        incremental_update(learner, of(events))


def test_new_ids_start_at_the_mean_without_moments_and_make_room(learner, events):
    tables = id_tables(learner.model)
    assert [table.size for table in (*tables.users, *tables.items)] == [32, 32]
    known = np.array(tables.users[0].table)[2:31]
    learners.add_events(learner, of(events), items=RAW_ITEMS)
    grown = id_tables(learner.model)
    assert [table.size for table in (*grown.users, *grown.items)] == [64, 32]
    table = np.array(grown.users[0].table)
    np.testing.assert_array_equal(table[2:31], known)
    np.testing.assert_allclose(
        table[31:34], np.tile(known.mean(axis=0), (3, 1)), rtol=1e-5
    )
    rows = [v for v in learner.optimizer.variables if v.shape == (64, 4)]
    moments = [v for v in rows if not v.path.endswith("average")]
    assert len(moments) == 2
    for moment in moments:
        assert np.array(moment)[2:31].any() and not np.array(moment)[31:].any()


def test_a_full_update_replaces_the_increments(first, root, events, learner):
    for _ in update(root, events, BUILD, CONFIG, max_events=30, items=RAW_ITEMS):
        pass
    increments = now(root)
    (report,) = update(root, events, BUILD, CONFIG, full=True, items=RAW_ITEMS)
    full_update(learner, of(events), items=RAW_ITEMS)
    assert_same(now(root), learner)  # as if there had been no increment
    assert report.kind == "full" and report.moved_items == 24
    same = (
        checksum(dense_weights(increments.model)),
        checksum(dense_weights(learner.model)),
    )
    assert same[0] != same[1]
    assert list(update(root, events, BUILD, CONFIG, full=True)) == []


def test_what_is_published_is_what_was_learned(root, events):
    old = versions.load(root)
    reports = list(update(root, events, BUILD, CONFIG, max_events=30, items=RAW_ITEMS))
    assert [(each.version, each.events) for each in reports] == [
        ("000002", 30),
        ("000003", 18),
    ]
    new, learner = versions.load(root), now(root)
    rows = np.arange(len(learner.log.users))
    expected = learner.model.user_vectors(learner.user_features(rows))
    np.testing.assert_allclose(
        new.tower(learner.user_features(rows)), expected, atol=1e-5
    )
    vectors = learner.model.item_vectors(learner.log.items.columns)
    np.testing.assert_allclose(new.index.vectors, vectors, atol=1e-6)
    answer = retrieve(new, {"id": "31"}, k=5)
    assert answer.known and len(answer.items) == 5
    assert not retrieve(old, {"id": "31"}, k=5).known


def test_what_users_took_is_no_answer_however_short_the_windows(root, events):
    """The tower reads 4 items, the learner keeps 3 events; users took 6 and more."""
    config = CONFIG._replace(window_events=3)
    known = Events.of(LOG)
    for full in (False, True):
        list(update(root, events, BUILD, config, full, max_events=30, items=RAW_ITEMS))
        log = now(root).log
        assert np.bincount(log.user).max() == 3
        version = versions.load(root)
        names = set(version.items.vocabularies["id"].tolist())
        users = np.append(known.user, of(events).user)
        items = np.append(known.item, of(events).item)
        for user in ("0", "5", "31"):
            answer = retrieve(version, {"id": user}, k=100)
            assert set(answer.items) == names - set(items[users == user])
        version.items.vocabularies["id"][log.seen()[0]]  # all are rows of the version


def test_only_tables_of_ids_differ_between_towers(root, tmp_path):
    old = versions.load(root).path / "tower.onnx"
    few = stream(tmp_path / "few.csv", rows=10)  # whose new ids have room
    list(update(root, few, BUILD, CONFIG))
    new = versions.load(root).path / "tower.onnx"
    pairs = zip(
        onnx.load(old).graph.initializer, onnx.load(new).graph.initializer, strict=True
    )
    changed = [
        tuple(a.dims)
        for a, b in pairs
        if not np.array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
    ]
    assert changed == [(32, 4), (32, 4)]  # of users, and of the items of histories


def test_a_stream_that_lacks_applied_events_cannot_replace_them(root, tmp_path):
    one, other = stream(tmp_path / "1.csv", 10), stream(tmp_path / "2.csv", 5, 20)
    list(update(root, one, BUILD, CONFIG))
    with pytest.raises(
        ValueError, match=r"1\.csv: incremental updates have applied 10"
    ):
        list(update(root, other, BUILD, CONFIG, full=True))


def test_one_update_at_a_time(root, events):
    with versions.alone(root / LEARNERS), pytest.raises(ValueError, match="another"):
        list(update(root, events, BUILD, CONFIG))


def test_a_stream_updates_what_lies_in_a_store(root, events, server, monkeypatch):  # noqa: F811
    fs.copy_files(str(root), "logs/updated", destination_filesystem=server.files)
    url = server.url("updated")
    monkeypatch.setenv("DEBIAS_CACHE", str(root / "cache"))
    for at in (url, root):
        assert len(list(update(at, events, BUILD, CONFIG, max_events=30, keep=1))) == 2
    one, other = versions.load(url), versions.load(root)
    sums = [each.manifest["files"] for each in (one, other)]
    for each in sums:
        del each["tower.onnx"]  # an export numbers its layers through the process
    assert sums[0] == sums[1] and one.manifest["extra"] == other.manifest["extra"]
    kept = storage(url).folders(LEARNERS)
    assert kept == storage(root).folders(LEARNERS) == ["000001", "000003"]


def test_nothing_published_is_an_error_that_says_so(tmp_path, events):
    with pytest.raises(ValueError, match="no published version"):
        list(update(tmp_path, events, BUILD, CONFIG))


def test_training_states_of_dropped_versions_are_removed(root, events):
    list(update(root, events, BUILD, CONFIG, max_events=10, keep=2))
    kept = {path.name for path in (root / LEARNERS).iterdir() if path.is_dir()}
    assert kept == {"000001", "000005", "000006"}  # of the full one, and of both kept


def test_a_killed_update_neither_loses_nor_repeats_an_event(first, tmp_path):
    # Preloaded once, so that a process costs what it does and not what it imports.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.debias.retrieval.streams"])

    def run(root, at):
        process = context.Process(target=follow, args=(root, events, 16, at))
        process.start()
        process.join()
        return process.exitcode

    events = stream(tmp_path / "events.csv")
    whole = shutil.copytree(first / "root", tmp_path / "whole")
    assert run(whole, 0) == 0
    touches = int(events.with_suffix(".touches").read_text())
    root = shutil.copytree(first / "root", tmp_path / "root")
    rng = np.random.default_rng(5)
    for at in rng.integers(1, touches, 4):
        if run(root, int(at)) == 0:
            break
        versions.load(root)  # whole, whatever was under way
    assert run(root, 0) == 0
    assert_same(now(root), now(whole))
    assert (
        versions.manifest(root)["extra"]["applied"]
        == (versions.manifest(whole)["extra"]["applied"])
    )
    assert len(now(root).log) == len(LOG) + 48


def test_ids_that_share_rows_are_published_and_updated_in_full_alone(tmp_path):
    build = partial(BUILD, compress="quotient_remainder", rows=8)
    learner = learners.new_learner(build, LOG, CONFIG)
    publish_full(tmp_path / "root", learner, {})
    version = versions.load(tmp_path / "root")
    rows = np.arange(len(LOG.users))
    features = learner.user_features(rows)
    wanted = learner.model.user_vectors(features)
    np.testing.assert_allclose(version.tower(features), wanted, atol=1e-5)
    ((_, events),) = read_events(stream(tmp_path / "events.csv"))
    with pytest.raises(ValueError, match=r"share rows .*: make full updates"):
        incremental_update(learner, events)
    assert full_update(learner, events).users == 3


def test_fashion_stands_still_between_full_updates(learner, events, tmp_path):
    """Else items that an increment touched would have priors of another time."""
    learner.config = learner.config._replace(trend=(0.5, 0.2), linear=(8.0, 10.0, 0.9))
    learner.add_extra()
    served = publish_full(tmp_path / "root", learner, {})
    before = np.array(served.index.vectors)
    step = incremental_update(learner, of(events))
    after = publish_increment(tmp_path / "root", learner, step, {}, served)
    now, known = np.array(after.index.vectors), len(before)
    prior, own = learner.trend_prior(), learner.model.user.dim
    assert known < len(now) and (prior[:known] != before[:, -1]).any()
    np.testing.assert_array_equal(now[:known, own:], before[:, own:])
    np.testing.assert_allclose(now[known:, -1], prior[known:], atol=1e-6)
    assert not now[known:, own:-1].any() and before[:, own:-1].any()
    assert (now[:known, :own] != before[:, :own]).any()
    version = versions.load(tmp_path / "root")
    np.testing.assert_allclose(version.stranger, learner.typical_user(), atol=1e-6)
    rows = np.arange(len(learner.log.users))
    asked = version.tower(learner.user_features(rows))
    np.testing.assert_allclose(asked, learner.user_vectors(rows), atol=1e-5)
    learners.save(learner, tmp_path / "saved")
    loaded = learners.load(tmp_path / "saved", learner.build, learner.config)
    np.testing.assert_array_equal(loaded.item_vectors(), learner.item_vectors())
    np.testing.assert_array_equal(loaded.user_vectors(rows), learner.user_vectors(rows))
