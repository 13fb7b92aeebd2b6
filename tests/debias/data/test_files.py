"""Tests of debias.data.files."""

import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.data.files import (
    atomic_folder,
    atomic_write,
    cached,
    check_regular,
    content_hash,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_replaces_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "inner" / "a"
    with atomic_write(path) as aside:
        aside.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as aside:
        aside.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old" and names(path.parent) == ["a"]
    with atomic_write(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new" and names(path.parent) == ["a"]


def test_what_is_written_can_be_read_by_others(tmp_path):
    with atomic_write(tmp_path / "a") as aside:
        aside.write_text("")
    (tmp_path / "b").write_text("")
    with atomic_folder(tmp_path / "c"):
        pass
    (tmp_path / "d").mkdir()
    mode = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "abcd"}
    assert mode["a"] == mode["b"] and mode["c"] == mode["d"]


def test_whole_folder_is_absent_when_the_block_raises(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as aside:
        (aside / "x").write_text("")
        raise RuntimeError
    assert names(tmp_path) == []


def test_whole_folder_leaves_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("")
    with (
        pytest.raises(ValueError, match="not an empty folder"),
        atomic_folder(tmp_path / "a") as aside,
    ):
        (aside / "x").write_text("")
    assert names(tmp_path / "a") == ["kept"]


def test_cached_builds_once_and_not_at_all_after_a_failure(tmp_path):
    builds = []

    def build(folder):
        builds.append(folder)
        (folder / "x").write_text("x")
        if len(builds) == 1:
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        cached("key", build, tmp_path)
    assert names(tmp_path) == []
    for _ in range(2):
        assert names(cached("key", build, tmp_path)) == ["x"]
    assert len(builds) == 2


def test_cached_takes_the_copy_of_a_faster_process(tmp_path):
    def build(folder):
        (folder / "x").write_text("slow")
        (tmp_path / "key").mkdir()
        (tmp_path / "key" / "x").write_text("fast")

    assert (cached("key", build, tmp_path) / "x").read_text() == "fast"
    assert names(tmp_path) == ["key"]


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("DEBIAS_CACHE", raising=False)
    assert cached("a", lambda folder: None) == tmp_path / "user" / "debias" / "a"
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "own"))
    assert cached("a", lambda folder: None) == tmp_path / "own" / "a"


def test_content_hash_knows_every_byte_and_where_a_file_ends(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    seen = set()
    for texts in (("ab", "c"), ("a", "bc"), ("ab", "d"), ("ab", "c")):
        one.write_text(texts[0])
        other.write_text(texts[1])
        seen.add(content_hash(one, other))
    assert len(seen) == 3


@pytest.mark.parametrize("whole", [atomic_write, atomic_folder])
def test_what_a_killed_process_left_is_removed_by_the_next_of_the_same_path(
    whole, tmp_path
):
    program = (
        "import os, signal\n"
        f"from debias.data.files import {whole.__name__}\n"
        f"with {whole.__name__}({str(tmp_path / 'a')!r}):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".a.") and left.endswith(".part")
    others = [".b.xyz.part", ".a.b.xyz.part", "a.xyz.part", ".a.part"]
    for name in others:
        (tmp_path / name).touch()
    with whole(tmp_path / "a") as aside:
        assert left not in names(tmp_path) and aside.name in names(tmp_path)
    assert names(tmp_path) == sorted([*others, "a"])


@pytest.mark.parametrize("whole", [atomic_write, atomic_folder])
def test_what_another_process_is_writing_stays(whole, tmp_path):
    with whole(tmp_path / "a") as first:
        with atomic_write(tmp_path / "a.b"):
            pass
        with atomic_write(tmp_path / "a"):
            assert first.exists()
        (tmp_path / "a").unlink()
    assert names(tmp_path) == ["a", "a.b"]


def test_a_part_that_was_removed_before_it_was_locked_is_made_again(
    tmp_path, monkeypatch
):
    made, flock = [], fcntl.flock

    def late(handle, operation):
        """Another process finds the first part unlocked and removes it."""
        made.append(names(tmp_path))
        if len(made) == 1:
            (tmp_path / made[0][0]).unlink()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "a") as aside:
        aside.write_text("x")
    assert len(made) == 2 and (tmp_path / "a").read_text() == "x"


def no_file_above(size):
    """What a full disk is like: writing beyond `size` bytes of a file fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def full_disk():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    no_file_above(1000)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


ITEM = np.random.default_rng(0).permutation(20_000).reshape(-1, 2)
WRITES = {
    "text.txt": lambda path: _written(path, "x" * 5000),
    "log.parquet": ClickLog(ITEM[:, 0], ITEM, ITEM < 0).write,
    "data.parquet": RankingData(ITEM, None, [0, len(ITEM)]).write_parquet,
    "shards": lambda path: ClickLog(ITEM[:, 0], ITEM, ITEM < 0).write(path, 2),
}


def _written(path, text):
    with atomic_write(path) as aside:
        aside.write_text(text)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_names_the_file_and_leaves_nothing(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(OSError, match=r"make room") as caught:
        WRITES[name](path)
    assert caught.value.filename == str(path) and names(tmp_path) == []


def test_other_errors_within_keep_their_names(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"nowhere"),
        atomic_write(tmp_path / "a"),
    ):
        (tmp_path / "nowhere").read_text()


@pytest.mark.parametrize("whole", [atomic_write, atomic_folder])
def test_a_folder_that_cannot_be_written_to_names_the_path(
    whole, tmp_path, monkeypatch
):
    def refuse(suffix, prefix, folder):  # as root, any folder can be written to
        name = os.path.join(folder, f"{prefix}xyz{suffix}")
        raise PermissionError(13, "Permission denied", name)

    for maker in ("mkstemp", "mkdtemp"):
        monkeypatch.setattr(f"debias.data.files.tempfile.{maker}", refuse)
    with pytest.raises(PermissionError, match="Permission denied") as caught:
        whole(tmp_path / "a").__enter__()
    assert caught.value.filename == str(tmp_path / "a")


def test_only_files_are_regular(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").touch()
    check_regular(tmp_path / "file")
    for name, message in (
        ("pipe", "pipe: must be a file, is a pipe or a device"),
        ("", "must be a file, is a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            check_regular(tmp_path / name)
    for name in ("link", "nothing"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            check_regular(tmp_path / name)
