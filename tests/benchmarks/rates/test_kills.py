"""Tests of benchmarks.rates.kills: it sees what is lost, and what ends otherwise."""

import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.rates import kills
from benchmarks.rates.kills import Job, killed

PARTS = 6


def before():
    Path("out").mkdir()
    Path("out/old").write_text("old")


def careful():
    """Writes files atomically, and goes on behind those that are there."""
    for number in range(PARTS):
        path = Path(f"out/{number}")
        if not path.exists():
            Path("out/.part").write_text(f"{number}" * 3)
            time.sleep(0.02)
            Path("out/.part").rename(path)


def careless():
    """Leaves a half-written file for nearly all of its time."""
    Path("out/0").write_text("0")
    time.sleep(0.2)
    Path("out/0").write_text("000")


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr(kills, "PRELOADED", ("benchmarks.rates.kills",))


def job(run):
    return Job(before, run, partial(kills.files, of=("out",)))


def test_a_job_that_goes_on_loses_nothing():
    found = killed(job(careful), 4, seed=0)
    assert found["kills"] == 4 and found["lost"] == 0
    assert found["resumed"] == found["equal"] >= 1 and found["left"] == 0


def test_what_is_half_written_is_lost():
    found = killed(job(careless), 12, seed=0)
    assert found["kills"] == 12 and found["lost"] >= 1


def failing():
    raise ValueError("no such thing")


def test_a_job_that_fails_is_an_error_with_its_words(tmp_path):
    with pytest.raises(RuntimeError, match="no such thing"):
        kills.act(failing, tmp_path)


def test_lost_by_hand(tmp_path):
    ends = {"a": 1}, {"a": 2, "b": 3}
    now = {}
    plain = Job(before, careful, lambda folder: now)
    for now, last, lost in (  # noqa: B007 the job reads it
        ({"a": 1}, {"a": 1}, False),
        ({"a": 2, "b": 3}, {"a": 1}, False),
        ({"a": 9}, {"a": 1}, True),  # half-written
        ({"a": 2}, {"a": 2, "b": 3}, True),  # absent
    ):
        assert plain.lost(tmp_path, last, ends) == lost
    growing = Job(before, careful, lambda folder: now, ("n",))
    for now, lost in (  # noqa: B007
        ({"n": 4}, False),
        ({"n": 2}, True),
    ):
        assert growing.lost(tmp_path, {"n": 3}, ends) == lost

    def damaged(folder):
        raise ValueError("damaged")

    assert Job(before, careful, damaged).lost(tmp_path, {}, ends)
