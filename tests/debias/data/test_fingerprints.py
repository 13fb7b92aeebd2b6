"""Tests of debias.data.fingerprints, and of the note that a log keeps of its items."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from debias.data import ClickLog, RankingData, Stream, files, fingerprint, read_batches
from debias.data.read_log import Columns, read_log

LOG = ClickLog(range(20), np.arange(40).reshape(20, 2), np.zeros((20, 2), bool))
DATA = RankingData(np.arange(40)[:, None], None, [0, 20, 40])


@pytest.fixture(params=[True, False], ids=["whole", "sampled"])
def whole(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(files, "_WHOLE", 512)
        monkeypatch.setattr(files, "_BLOCK", 64)


@pytest.mark.usefixtures("whole")
def test_a_copy_or_a_link_is_the_same_log_and_a_changed_one_is_not(tmp_path):
    LOG.write(tmp_path / "a", shards=2)
    known = fingerprint(tmp_path / "a")
    assert len(known) == 32 and known == fingerprint(str(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert known == fingerprint(tmp_path / "b") == fingerprint(tmp_path / "c")
    assert known == fingerprint(sorted((tmp_path / "a").iterdir()))
    assert known == fingerprint(Stream(tmp_path / "b"))
    LOG.take(slice(0, 19)).write(tmp_path / "d", shards=2)
    assert fingerprint(tmp_path / "d") != known


def test_a_file_of_any_kind_has_one(tmp_path):
    (tmp_path / "items.txt").write_text("1 qid:1 1:0.5")
    (tmp_path / "copy").write_text("1 qid:1 1:0.5")
    assert fingerprint(tmp_path / "items.txt") == fingerprint(str(tmp_path / "copy"))


def test_a_single_click_more_is_another_log(tmp_path):
    LOG.write(tmp_path / "a.parquet")
    replace(LOG, click=LOG.item == 38).write(tmp_path / "b.parquet")
    assert fingerprint(tmp_path / "a.parquet") != fingerprint(tmp_path / "b.parquet")


def test_every_byte_counts_of_a_small_file_and_those_of_the_sample_of_a_large_one(
    tmp_path, monkeypatch
):
    def seen(size):
        """Which bytes of a file the fingerprint depends on."""
        path = tmp_path / "a.csv"
        plain = bytearray(size)
        path.write_bytes(plain)
        known = fingerprint(path)
        found = []
        for place in range(size):
            plain[place] = 1
            path.write_bytes(plain)
            plain[place] = 0
            if fingerprint(path) != known:
                found.append(place)
        return found

    monkeypatch.setattr(files, "_WHOLE", 40)
    monkeypatch.setattr(files, "_BLOCK", 10)
    assert seen(40) == list(range(40))
    # blocks of 10 at every 20th byte, 80 / 40 blocks' lengths apart, and the last 10
    assert seen(80) == [
        *range(0, 10),
        *range(20, 30),
        *range(40, 50),
        *range(60, 80),
    ]


def test_the_order_and_the_bounds_of_files_count(tmp_path):
    seen = set()
    for texts in (("ab", "c"), ("a", "bc"), ("c", "ab")):
        for name, text in zip("ab", texts, strict=True):
            (tmp_path / f"{name}.csv").write_text(text)
        seen.add(fingerprint(tmp_path))
    assert len(seen) == 3


def test_what_is_in_memory_has_a_fingerprint_of_its_values():
    assert fingerprint(LOG) == fingerprint(LOG.take(slice(None)))
    assert fingerprint(LOG) != fingerprint(LOG.take(slice(1, None)))
    assert fingerprint(LOG) != fingerprint(replace(LOG, device=[0] * 20))
    assert fingerprint(DATA) == DATA.fingerprint
    table = pa.table({"a": [1, 2, 3]})
    halves = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert fingerprint(table) == fingerprint(halves)
    assert fingerprint(table) != fingerprint(pa.table({"a": [1, 2, 4]}))


def test_a_log_keeps_the_note_of_its_items(tmp_path):
    log = LOG.of_items(DATA)
    log.write(tmp_path / "a.parquet")
    log.write(tmp_path / "b", shards=3)
    kept = [
        log.take([3, 4]),
        log.select(),
        *log.split((0.5, 0.5), np.random.default_rng(0)),
        ClickLog.concatenate([log, log.take([0])]),
        ClickLog.from_arrow(log.to_arrow()),
        ClickLog.open(tmp_path / "a.parquet"),
        ClickLog.open(tmp_path / "b"),
        ClickLog.open(tmp_path / "b", memory=0, cache=tmp_path / "cache"),
        next(read_batches(tmp_path / "b")),
        Stream(tmp_path / "b").read(0, [1]),
        next(Stream(tmp_path / "a.parquet").pieces()),
    ]
    assert {each.items_fingerprint for each in kept} == {DATA.fingerprint}
    assert ClickLog.concatenate([log, LOG]).items_fingerprint is None
    other = LOG.of_items(RankingData(np.ones((40, 1)), None, [0, 40]))
    with pytest.raises(ValueError, match="must have the same items"):
        ClickLog.concatenate([log, other])


def test_a_log_is_not_read_against_other_items(tmp_path):
    log = LOG.of_items(DATA)
    graded = RankingData(DATA.features, [1] * 40, DATA.offsets, max_grade=2)
    assert log.check(graded) is log and LOG.check(DATA) is LOG
    other = RankingData(DATA.features[::-1], None, DATA.offsets)
    log.write(tmp_path / "a.parquet")
    stream = Stream(tmp_path / "a.parquet")
    assert stream.check(DATA) is stream
    for read in (log, stream):
        with pytest.raises(ValueError, match="belongs to other items"):
            read.check(other)
    assert LOG.check(other) is LOG  # nobody noted its items
    with pytest.raises(ValueError, match="item must be below 39"):
        LOG.check(RankingData(np.ones((39, 1)), None, [0, 39]))


def test_what_was_read_of_a_table_knows_names_and_items():
    table = pa.table(
        {
            "session": [7, 7, 8],
            "query": ["a", "a", "b"],
            "item": ["x", "y", "x"],
            "click": [0, 1, 0],
            "f_b": [2.0, 3.0, 2.0],
            "vec": [[0.0, 1.0]] * 3,
            "f_a": [5, 6, 7],
        }
    )
    reading = read_log(table, Columns(features=("vec", "f_*")))
    assert reading.data.feature_names == ("vec[0]", "vec[1]", "f_b", "f_a")
    assert reading.log.items_fingerprint == reading.data.fingerprint
    asked = table.select(["session", "query", "item", "click"])
    joined = read_log(asked, Columns(features=("f_a", "f_b")), items=table)
    assert joined.data.feature_names == ("f_a", "f_b")
    assert joined.data.features.tolist() == [[5, 2], [6, 3], [7, 2]]
