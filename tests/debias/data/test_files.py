"""Tests of debias.data.files."""

import stat

import pytest

from debias.data.files import atomic_folder, atomic_write, cached, content_hash


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
