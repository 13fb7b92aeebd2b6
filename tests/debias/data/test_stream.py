"""Windows of a log on disk: the same for the same key, and no session twice."""

import json
import subprocess
import sys

import numpy as np
import pytest

from debias.data import ClickLog, Stream, log_files
from debias.data import stream as stream_module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A log of 230 numbered sessions, 4 shards of 6 row groups of at most 10."""
    monkeypatch.setattr(log_files, "ROW_GROUP", 10)
    number = np.arange(230)
    item = np.stack([number, number + 230], axis=1)
    log = ClickLog(number, item, item % 3 == 0, device=number % 2)
    log.write(tmp_path / "log", shards=4)
    return tmp_path / "log"


def epoch(stream, key):
    return [stream.read(number, key).query for number in range(stream.windows)]


def test_windows_hold_every_session_once_in_an_order_named_by_the_key(folder):
    stream = Stream(folder, window=60)
    first = epoch(stream, [7, 0])
    assert len(first) == 4 and max(map(len, first)) <= 70
    assert sorted(np.concatenate(first)) == list(range(230))
    # Of several shards (58 sessions each), and not in order within a window.
    assert all(len(set(window // 58)) >= 3 for window in first)
    assert all((np.diff(window) == 1).mean() < 0.2 for window in first)
    again = Stream(folder, window=60)
    np.testing.assert_array_equal(again.read(2, [7, 0]).query, first[2])
    assert not np.array_equal(np.concatenate(epoch(stream, [7, 1])), first)
    assert set(epoch(stream, [7, 1])[0]) != set(first[0])


def test_the_first_window_is_shuffled_apart_from_the_order_of_groups(tmp_path):
    """NumPy's generators of [k] and [k, 0] are one; three sessions would show it."""
    log = ClickLog(range(3), [[0], [1], [2]], np.zeros((3, 1), bool))
    log.write(tmp_path / "log", shards=3)
    stream = Stream(tmp_path / "log")
    orders = {tuple(stream.read(0, [key]).query.tolist()) for key in range(60)}
    assert len(orders) == 6


def test_a_part_is_the_same_sessions_whichever_way_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(stream_module, "BATCH", 4)  # three pieces a row group
    keys = set()

    def draw(piece, key):
        keys.add(key)
        return np.random.default_rng(key).random(len(piece)) < 0.5

    part = Stream(folder, columns=(), window=60, keep=draw, share=0.5)
    one, other = (np.sort(np.concatenate(epoch(part, [key]))) for key in (1, 2))
    np.testing.assert_array_equal(one, other)
    assert 80 < len(one) < 150 and len(part) == 115
    np.testing.assert_array_equal(part.sample(1000, [3]).query, one)
    assert part.read(0, [1]).device is None
    sizes = [len(piece) for g in range(24) for piece in Stream(folder).group(g)]
    assert len(keys) == len(sizes) > 48  # no two pieces share a draw


def test_a_sample_is_uniform_and_looks_where_it_is_told(folder):
    stream = Stream(folder)
    counts = np.zeros(230)
    for seed in range(100):
        drawn = stream.sample(23, [seed])
        assert len(drawn) == 23 and (np.diff(drawn.query) > 0).all()
        counts[drawn.query] += 1
    # Each is drawn with chance a tenth: 10 times, give or take sqrt(100 .1 .9) = 3.
    assert abs(counts - 10).max() < 4.5 * 3
    few = stream.sample(1000, [0], groups=2)
    groups = [set(piece.query) for g in range(24) for piece in stream.group(g)]
    assert sum(bool(group & set(few.query)) for group in groups) == 2
    with pytest.raises(ValueError, match="no session in the requested part"):
        nothing = Stream(folder, keep=lambda piece, key: np.zeros(len(piece), bool))
        nothing.sample(5, [0])


def test_pieces_are_the_log_in_order_and_say_how_far_they_are(folder):
    shares = []
    part = Stream(folder, keep=lambda piece, key: piece.query % 2 == 0)
    found = ClickLog.concatenate(list(part.pieces(shares.append)))
    np.testing.assert_array_equal(found.query, np.arange(0, 230, 2))
    assert len(shares) == 24 and shares == sorted(shares) and shares[-1] == 1.0
    drawn = []
    part.sample(5, [0], groups=4, progress=drawn.append)
    assert drawn == [0.25, 0.5, 0.75, 1.0]


def test_an_item_beyond_the_data_is_found_in_its_file(folder):
    assert sum(map(len, Stream(folder, items=460).pieces())) == 230
    # Session 200 shows item 430: shard 3 begins at 172, its group of 10 at 192.
    message = r"part-00003.*from its row 20 on: item must be below 430.* at row 8, col"
    with pytest.raises(ValueError, match=message):
        list(Stream(folder, items=430).pieces())


def test_rejects(folder, tmp_path):
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        Stream(folder, window=0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Stream(tmp_path / "nowhere")


PEAKS = """
import json, sys
from pathlib import Path
from debias.data import ClickLog, Stream

def peak():
    # Not getrusage, which begins with what the parent held.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024  # MB

def streamed(path):
    stream = Stream(path, window=60_000)
    sessions = sum(len(stream.read(n, [0])) for n in range(stream.windows))
    return sessions, len(stream.sample(1000, [0])), peak()

small, large = map(streamed, sys.argv[1:])
held = len(ClickLog.open(sys.argv[2])), peak()
print(json.dumps([small, large, held]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_log(tmp_path, monkeypatch):
    """Four times the log, 90 MB decoded, needs no more, unless all of it is opened."""
    monkeypatch.setattr(log_files, "ROW_GROUP", 20_000)
    rng = np.random.default_rng(0)
    item = rng.integers(0, 1 << 30, (1_600_000, 10), np.int32)
    log = ClickLog(np.zeros(len(item), np.int32), item, item % 3 == 0)
    paths = [tmp_path / "small", tmp_path / "large"]
    log.take(slice(0, 400_000)).write(paths[0], shards=2)
    log.write(paths[1], shards=8)
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, *paths], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    small, large, held = json.loads(done.stdout)
    assert (small[:2], large[:2]) == ([400_000, 1000], [1_600_000, 1000])
    assert large[2] - small[2] < 15  # MB
    assert held[0] == 1_600_000 and held[1] - large[2] > 40
