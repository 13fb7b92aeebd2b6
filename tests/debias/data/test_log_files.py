"""Tests of debias.data.log_files."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data import ClickLog, count_sessions, log_files, read_batches, stream
from debias.data.stream import shuffled_batches
from tests.debias.data.strategies import click_logs, same

no_deadline = settings(deadline=None, max_examples=40)


def rng(seed=0):
    return np.random.default_rng(seed)


def numbered(sessions, list_size=3):
    """A log whose item numbers say the session: no two sessions are alike."""
    item = np.arange(sessions * list_size).reshape(sessions, list_size)
    return ClickLog(np.arange(sessions), item, item % 5 == 0, user_type=item[:, 0] % 3)


@pytest.fixture
def small_groups(monkeypatch):
    """Files of many row groups without millions of sessions."""
    monkeypatch.setattr(log_files, "ROW_GROUP", 10)


@no_deadline
@given(click_logs())
def test_arrow_round_trip(log):
    assert same(ClickLog.from_arrow(log.to_arrow()), log)
    assert same(ClickLog.from_arrow(log.to_arrow().to_batches()[0]), log)


def test_arrow_shares_the_memory_of_numbers():
    log = numbered(4)
    there_and_back = ClickLog.from_arrow(log.to_arrow())
    assert np.shares_memory(there_and_back.item, log.item)
    assert np.shares_memory(there_and_back.query, log.query)


@no_deadline
@given(log=click_logs(), shards=st.none() | st.integers(1, 12))
def test_file_round_trip(log, shards, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log"
    shards = None if shards is None else min(shards, log.sessions)
    log.write(path, shards)
    assert same(ClickLog.open(path), log)
    assert same(ClickLog.concatenate(list(read_batches(path, 2))), log)
    assert count_sessions(path) == log.sessions


@no_deadline
@given(log=click_logs())
def test_a_log_larger_than_memory_is_mapped(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    log.write(folder / "log", 1)
    for _ in range(2):
        mapped = ClickLog.open(folder / "log", memory=0, cache=folder / "cache")
        assert same(mapped, log)
        for value in mapped.columns().values():
            assert isinstance(value.base, np.memmap) and not value.flags.writeable


def test_a_mapped_copy_is_made_once_and_anew_for_another_log(tmp_path, monkeypatch):
    opened = {"memory": 0, "cache": tmp_path / "cache"}
    path = tmp_path / "log.parquet"
    numbered(4).write(path)
    ClickLog.open(path, **opened)
    numbered(5).write(path)
    assert ClickLog.open(path, columns=(), **opened).user_type is None
    assert same(ClickLog.open(path, **opened), numbered(5))
    monkeypatch.setattr(log_files, "read_pieces", pytest.fail)
    assert ClickLog.open(path, **opened).sessions == 5


def test_only_the_columns_asked_for(tmp_path):
    numbered(4).write(tmp_path / "log")
    bare = ClickLog.open(tmp_path / "log", columns=())
    assert list(bare.columns()) == ["query", "item", "click"]
    (batch,) = read_batches(tmp_path / "log", columns=["user_type"])
    assert same(batch, numbered(4))


def test_files_are_what_other_programs_read(tmp_path):
    numbered(4).write(tmp_path / "log.parquet")
    table = pq.read_table(tmp_path / "log.parquet")
    assert table.schema.field("item").type == pa.list_(
        pa.field("item", pa.int32(), nullable=False), 3
    )
    assert table.column("item").to_pylist()[1] == [3, 4, 5]
    assert table.column("click").to_pylist()[0] == [True, False, False]


def test_the_same_log_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        numbered(40).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shards_are_equal_and_in_order(tmp_path):
    numbered(10).write(tmp_path / "log", shards=3)
    files = sorted((tmp_path / "log").iterdir())
    assert [file.name for file in files] == [f"part-0000{i}.parquet" for i in range(3)]
    assert [count_sessions(file) for file in files] == [3, 3, 4]


def test_hidden_files_are_no_shards(tmp_path):
    numbered(10).write(tmp_path / "log", shards=2)
    for name in (".a.parquet", "_a.parquet", "manifest.json", ".x.parquet.1.part"):
        (tmp_path / "log" / name).write_text("nothing")
    assert count_sessions(tmp_path / "log") == 10


@pytest.mark.usefixtures("small_groups")
def test_batches_never_exceed_their_size_and_keep_the_order(tmp_path):
    numbered(47).write(tmp_path / "log", shards=2)
    batches = list(read_batches(tmp_path / "log", 4))
    assert max(batch.sessions for batch in batches) == 4
    assert same(ClickLog.concatenate(batches), numbered(47))


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("buffer", [8, 25, 1000])
def test_shuffled_batches_hold_every_session_once_in_batches_of_equal_size(
    tmp_path, buffer
):
    log = numbered(107)
    log.write(tmp_path / "log", shards=4)
    batches = list(shuffled_batches(tmp_path / "log", rng(), 8, buffer=buffer))
    assert [batch.sessions for batch in batches] == [8] * 13 + [3]
    shuffled = ClickLog.concatenate(batches)
    assert (shuffled.query != log.query).mean() > 0.9
    assert (np.diff(shuffled.query) == 1).mean() < 0.5  # also within a row group
    assert same(shuffled.take(np.argsort(shuffled.query)), log)


@pytest.mark.usefixtures("small_groups")
def test_shuffling_mixes_shards_and_obeys_its_generator(tmp_path):
    numbered(400).write(tmp_path / "log", shards=4)

    def order(seed):
        batches = shuffled_batches(tmp_path / "log", rng(seed), 10, buffer=200)
        return [batch.query for batch in batches]

    first = np.concatenate(order(0)[:20])
    assert (np.bincount(first // 100, minlength=4) > 10).all()  # of all four shards
    assert np.array_equal(order(1), order(1))
    assert not np.array_equal(order(1), order(2))


def test_a_log_that_fits_the_buffer_is_shuffled_uniformly(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "ROW_GROUP", 1)
    numbered(3).write(tmp_path / "log")
    generator = rng()
    orders = [
        tuple(next(shuffled_batches(tmp_path / "log", generator, 3, buffer=3)).query)
        for _ in range(240)
    ]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    # chi-squared of five degrees of freedom: 20.5 is exceeded once in a thousand
    assert len(counts) == 6 and ((counts - 40) ** 2 / 40).sum() < 20.5


@pytest.mark.usefixtures("small_groups")
def test_a_reader_holds_a_row_group_at_a_time(tmp_path, monkeypatch):
    numbered(100).write(tmp_path / "log")
    read = []
    inner = log_files.read_group
    for module in (log_files, stream):
        monkeypatch.setattr(
            module, "read_group", lambda *args: read.append(args[1]) or inner(*args)
        )
    batches = read_batches(tmp_path / "log", 10)
    next(batches)
    assert read == [0]
    shuffled = shuffled_batches(tmp_path / "log", rng(), 5, buffer=20)
    next(shuffled)
    assert len(read) == 1 + 2


def write(folder, table, name="a.parquet"):
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / name)


def table(**columns):
    start = {"query": [0, 1], "item": [[4, 2], [5, 7]], "click": [[1, 0], [0, 1]]}
    merged = {**start, **columns}
    return pa.table({n: v for n, v in merged.items() if v is not None})


def test_ragged_lists_and_nulls_of_other_programs(tmp_path):
    write(
        tmp_path,
        table(
            item=[[4, None, 2], [5]],
            click=[[True, None, False], [True]],
            device=[None, 2],
            swap=[None, [0, 0]],
            attraction=[[0.5, None, 0.25], [1.0]],
        ),
    )
    write(
        tmp_path,
        table(
            item=[[1, 2, 3, 4]] * 2,
            click=[[0] * 4] * 2,
            device=[1, 1],
            swap=[[1, 4]] * 2,
            attraction=[[0.0] * 4] * 2,
        ),
        "b.parquet",
    )
    log = ClickLog.open(tmp_path)
    assert log.item.tolist()[:2] == [[4, -1, 2, -1], [5, -1, -1, -1]]
    assert log.click.tolist()[:2] == [[True, False, False, False], [True] + [False] * 3]
    assert log.device.tolist() == [0, 2, 1, 1] and log.swap.tolist()[0] == [0, 0]
    assert log.attraction[0, [0, 2]].tolist() == [0.5, 0.25]
    assert same(ClickLog(**log.columns()), log)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"click": None}, "no column click"),
        ({"item": None}, "no column item"),
        ({"session_id": [1, 2]}, "unknown column session_id"),
        ({"query": ["a", "b"]}, "query must be numbers, got string"),
        ({"query": [1, None]}, "query is NULL at row 1"),
        ({"query": [1.5, 2.5]}, "query must be int32, got double|float64"),
        ({"item": [1, 2]}, "item must be lists"),
        ({"item": [[1, 2], None]}, "item shows nothing at row 1"),
        ({"item": [[1, 2], [3]]}, "click must be 0 at padding, got .* at row 1"),
        ({"click": [[1, 0], None]}, "click is NULL at row 1"),
        ({"click": [[1, 0], [1]]}, "click is NULL at row 1"),
        ({"click": [[1, 0, 0], [1, 1, 1]]}, "click must be lists of at most 2, got 3"),
        ({"attraction": [[0.5, None], [0.5, 0.5]]}, "attraction is NULL at row 0"),
        ({"context": [[0.5, None], [0.5, 0.5]]}, "context is NULL at row 0"),
        ({"user_type": [0, None]}, "user_type is NULL at row 1"),
        ({"swap": [[1, 2, 3], [0, 0, 0]]}, "swap must be lists of at most 2"),
        ({"examination": [[0.5, 2.0], [0, 0]]}, "examination .*2.0 at row 0, column 1"),
    ],
)
def test_a_wrong_column_names_the_file(tmp_path, columns, message):
    write(tmp_path, table(**columns))
    for read in (ClickLog.open, lambda path: list(shuffled_batches(path, rng()))):
        with pytest.raises(ValueError, match=f"a.parquet.*{message}"):
            read(tmp_path)


def test_unknown_columns_are_passed_over_when_columns_are_named(tmp_path):
    write(tmp_path, table(session_id=["x", "y"], device=[1, 2]))
    assert ClickLog.open(tmp_path, columns=["device"]).device.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"a.parquet: no column context"):
        ClickLog.open(tmp_path, columns=["context"])
    with pytest.raises(ValueError, match=r"a.parquet: unknown column session_id"):
        ClickLog.open(tmp_path, columns=["session_id"])


@pytest.mark.usefixtures("small_groups")
def test_a_fault_names_its_row_of_the_file(tmp_path):
    log = numbered(30)
    log.item[24] = -1
    log.click[24] = False
    log.write(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"from its row 24 on: item .* at row 0"):
        list(read_batches(tmp_path, 4))


def test_a_shard_that_is_not_like_the_others_is_named(tmp_path):
    write(tmp_path, table())
    write(tmp_path, table(device=[1, 2]), "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet: has columns .* device, but a"):
        ClickLog.open(tmp_path)


def test_empty_things(tmp_path):
    with pytest.raises(ValueError, match="holds no file"):
        ClickLog.open(tmp_path)
    write(tmp_path, table())
    write(tmp_path, table().slice(0, 0), "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet: holds no session"):
        ClickLog.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ClickLog.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must have a session"):
        numbered(4).take([]).write(tmp_path / "c.parquet")


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, keep):
    numbered(1000).write(tmp_path / "log", shards=2)
    path = tmp_path / "log" / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(
        ValueError, match=r"part-00001.parquet: is not a complete Parquet"
    ):
        ClickLog.open(tmp_path / "log")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.parquet"
    numbered(1000).write(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.parquet: .*(?i:crc|checksum)"):
        ClickLog.open(path)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_refused_or_change_nothing(seed, tmp_path):
    log, path = numbered(40), tmp_path / "a.parquet"
    log.write(path)
    whole = path.read_bytes()
    refused = 0
    for place in rng(seed).choice(len(whole), 150, replace=False):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng(place).integers(8))
        path.write_bytes(changed)
        try:
            assert same(ClickLog.open(path), log), place
        except ValueError as error:
            assert "a.parquet" in str(error)
            refused += 1
    assert refused > 75


@pytest.mark.usefixtures("small_groups")
def test_sessions_that_the_footer_promises_must_be_there(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    numbered(30).write(path)
    inner = pq.ParquetFile.iter_batches

    def fewer(file, *args, row_groups, **options):
        batches = list(inner(file, *args, row_groups=row_groups, **options))
        yield from (
            batch.slice(0, 7) if row_groups == [1] else batch for batch in batches
        )

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fewer)
    with pytest.raises(ValueError, match=r"a\.parquet.*row 17.*ends 3 sessions early"):
        ClickLog.open(path)


def test_damaged_lists_of_other_programs_name_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    ragged = pa.table(
        {"item": [[1, 2]] * 99, "query": range(99), "click": [[0, 1]] * 99}
    )
    pq.write_table(ragged, path, write_page_checksum=True, compression="none")
    whole = bytearray(path.read_bytes())
    whole[60] ^= 1  # within the first page, that of the items
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"a\.parquet: is not a complete Parquet file"):
        ClickLog.open(path)


def test_odd_files_name_themselves(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    for path in (tmp_path, tmp_path / "pipe.parquet"):
        with pytest.raises(ValueError, match=r"pipe\.parquet: must be a file, is"):
            ClickLog.open(path)
    twice = pa.table([[0], [[1]], [[0]], [[0]]], ["query", "item", "click", "click"])
    pq.write_table(twice, tmp_path / "twice")
    with pytest.raises(ValueError, match="twice: 2 columns are called click"):
        ClickLog.open(tmp_path / "twice")


def test_writing_leaves_what_was_there(tmp_path):
    numbered(5).write(tmp_path / "log", shards=2)
    before = {path: path.read_bytes() for path in (tmp_path / "log").iterdir()}
    with pytest.raises(ValueError, match="not an empty folder"):
        numbered(6).write(tmp_path / "log", shards=2)
    with pytest.raises(ValueError, match=r"shards must be in 1..5"):
        numbered(5).write(tmp_path / "other", shards=6)
    assert {path: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    numbered(5).write(path)
    full = Path("/dev/full")
    monkeypatch.setattr(pq, "write_table", lambda *_, **__: full.write_text("x"))
    with pytest.raises(OSError, match="No space left"):
        numbered(6).write(path)
    assert ClickLog.open(path).sessions == 5
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("sessions, buffer", [(0, 5), (6, 5)])
def test_rejects_sizes(tmp_path, sessions, buffer):
    numbered(9).write(tmp_path / "log")
    with pytest.raises(ValueError, match="sessions must be"):
        next(shuffled_batches(tmp_path / "log", rng(), sessions, buffer=buffer))
    with pytest.raises(ValueError, match="sessions must be"):
        next(read_batches(tmp_path / "log", 0))
