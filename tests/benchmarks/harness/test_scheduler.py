"""Tests of benchmarks.harness.scheduler."""

import dataclasses
import math
import os
import time
from itertools import pairwise

import pytest

from benchmarks.harness import scheduler, store
from benchmarks.harness.scheduler import Clock, Job, Observer, plan, run, seconds_left
from tests.benchmarks.fakes import LOG, Fake

FAKES = (Fake("additive"), Fake("dot"), Fake("additive", "grid"))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv(LOG, str(tmp_path / "begun"))
    return tmp_path / "main.jsonl"


def begun(path):
    """Row, population, seed, process and data of each measurement that began."""
    log = path.with_name("begun")
    return [line.split() for line in log.read_text().splitlines()]


def jobs(*experiments, seeds=2, **options):
    return plan("main", experiments, range(seeds), "generated", **options)


def finished(path):
    return store.newest(store.read(path)).keys()


def test_a_plan_keeps_jobs_of_one_log_together_and_goes_seed_by_seed():
    assert [(j.seed, j.population, j.row) for j in jobs(*FAKES)] == [
        (0, "mixed", "additive"),
        (0, "mixed", "dot"),
        (0, "grid", "additive"),
        (1, "mixed", "additive"),
        (1, "mixed", "dot"),
        (1, "grid", "additive"),
    ]


def test_finished_jobs_are_not_run_again_and_changed_ones_are(path):
    first = run(jobs(*FAKES), path)
    assert len(first.done) == 6 and not first.failures
    assert jobs(*FAKES, finished=finished(path)) == []
    changed = (dataclasses.replace(FAKES[0], value=0.9), *FAKES[1:])
    again = jobs(*changed, seeds=3, finished=finished(path))
    assert [(j.row, j.population, j.seed) for j in again] == [
        ("additive", "mixed", 0),
        ("additive", "mixed", 1),
        ("additive", "mixed", 2),
        ("dot", "mixed", 2),
        ("additive", "grid", 2),
    ]


def test_a_record_holds_what_was_measured(path):
    (record,) = run(jobs(Fake("dot", value=0.25), seeds=1), path).done
    assert store.read(path) == [record]
    assert (record.table, record.row, record.dataset) == ("main", "dot", "generated")
    assert record.metrics == {"ndcg@5": 0.25, "click_log_likelihood": -2.25}
    assert record.config == {"value": 0.25, "hidden": [64, 32]}
    assert {"python", "numpy", "backend"} <= record.versions.keys()
    assert 0 <= record.seconds < 5


def test_one_process_measures_a_log_in_a_row_and_all_processes_have_work(path):
    rows = [Fake(f"row{i}", seconds=0.05) for i in range(4)]
    outcome = run(jobs(*rows, seeds=4), path, workers=2)
    assert len(outcome.done) == 16
    by_process = {}
    for _, _, seed, process, _ in begun(path):
        by_process.setdefault(process, []).append(seed)
    assert len(by_process) == 2 and str(os.getpid()) not in by_process
    for seeds in by_process.values():
        switches = sum(a != b for a, b in pairwise(seeds))
        assert switches <= 3  # two or three logs each, the last perhaps shared


def test_a_worker_without_work_takes_over_half_of_the_busiest(path):
    short, long = [Fake(f"row{i}") for i in range(4)], Fake("long")
    one, two, three = crew = [scheduler._Worker(path, {}) for _ in range(3)]
    one.queue, two.queue = jobs(*short, seeds=1), jobs(long, long, long, seeds=1)
    clock = Clock([record(fake.row, seconds=1.0) for fake in short])
    clock.saw(record("long", seconds=9.0))
    assert scheduler._next(three, crew, [], clock).row == "long"
    assert [len(worker.queue) for worker in crew] == [4, 1, 1]
    groups = [jobs(Fake("new"), Fake("new2"), seeds=1)]
    three.queue = []
    assert scheduler._next(three, crew, groups, clock).row == "new"
    assert [len(worker.queue) for worker in crew] == [4, 1, 1] and not groups
    assert [scheduler._next(three, crew, [], Clock()).row for _ in range(3)] == [
        "new2",  # its own, then the last two of four
        "row2",
        "row3",
    ]
    assert [job.row for job in one.queue] == ["row0", "row1"]
    one.queue = two.queue = three.queue = []
    assert scheduler._next(three, crew, [], clock) is None


def test_a_failing_row_is_reported_with_its_traceback_and_others_go_on(path):
    outcome = run(jobs(Fake("bad", fault="raise"), Fake("good")), path)
    assert [(f.job.row, f.job.seed) for f in outcome.failures] == [
        ("bad", 0),
        ("bad", 1),
    ]
    for failure in outcome.failures:
        assert "Traceback" in failure.reason
        assert "ValueError: row bad cannot learn" in failure.reason
    assert [record.row for record in store.read(path)] == ["good", "good"]
    assert len(jobs(Fake("bad"), Fake("good"), finished=finished(path))) == 2


def test_a_dead_process_is_reported_and_another_takes_its_place(path):
    start = time.monotonic()
    outcome = run(jobs(Fake("bad", fault="kill"), Fake("good")), path)
    assert time.monotonic() - start < 60
    assert [failure.job.row for failure in outcome.failures] == ["bad", "bad"]
    assert "died (signal 9" in outcome.failures[0].reason
    assert "these are its last words" in outcome.failures[0].reason
    assert [record.row for record in outcome.done] == ["good", "good"]


def test_a_metric_that_is_not_finite_is_a_failure(path):
    outcome = run(jobs(Fake("bad", fault="nan"), seeds=1), path)
    assert "metric ndcg@5 of row bad must be finite" in outcome.failures[0].reason
    assert store.read(path) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_share_the_cores(path, monkeypatch, workers):
    monkeypatch.setattr(scheduler, "cores", lambda: 6)
    outcome = run(jobs(Fake("row", fault="threads")), path, workers)
    assert len(outcome.done) == 2, outcome.failures
    for record in outcome.done:
        assert set(record.metrics.values()) == {6 / workers}
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


class Interrupting(Observer):
    def finished(self, job, record):
        if job.seed == 1:
            raise KeyboardInterrupt


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(path):
    everything = jobs(Fake("a", seconds=0.1), Fake("b", seconds=0.1), seeds=3)
    outcome = run(everything, path, observer=Interrupting())
    assert outcome.interrupted and len(outcome.done) == 3
    rest = jobs(Fake("a"), Fake("b"), seeds=3, finished=finished(path))
    assert [(j.row, j.seed) for j in rest] == [("b", 1), ("a", 2), ("b", 2)]
    run(rest, path)
    assert len(store.read(path)) == 6 == len(finished(path))


class Watching(Observer):
    def __init__(self):
        self.seen = []

    def started(self, job):
        self.seen.append(("started", job.row))

    def finished(self, job, record):
        self.seen.append(("finished", job.row))

    def failed(self, failure):
        self.seen.append(("failed", failure.job.row))

    def waiting(self, seconds_left):
        self.seen.append(("waiting", seconds_left))


def test_an_observer_is_told_everything_and_the_time_left(path):
    observer = Watching()
    run(
        jobs(Fake("good", seconds=0.2), Fake("bad", fault="raise"), seeds=1),
        path,
        observer=observer,
    )
    told = [event for event in observer.seen if event[0] != "waiting"]
    assert told == [
        ("started", "good"),
        ("finished", "good"),
        ("started", "bad"),
        ("failed", "bad"),
    ]
    assert observer.seen[-1] == ("waiting", 0.0)


def record(row="a", population="mixed", seconds=1.0, value=0.5, table="main"):
    config = Fake(row, population, value).settings()
    return store.Record(table, row, "", population, 0, {}, seconds, config, {})


def test_expected_seconds_come_from_the_most_alike():
    def job(row="a", population="mixed", value=0.5, table="main"):
        return Job(table, Fake(row, population, value), "generated", 5)

    clock = Clock([record(seconds=2.0), record(seconds=4.0)])
    clock.saw(record(population="grid", seconds=9.0))
    clock.saw(record("b", seconds=25.0))
    assert clock.expect(job()) == 3.0
    assert clock.expect(job(population="other")) == 5.0  # same settings: 2, 4, 9
    assert clock.expect(job(value=0.1)) == 5.0  # same row
    assert clock.expect(job("c")) == 10.0  # same table: 2, 4, 9, 25
    assert math.isnan(clock.expect(job(table="other")))


@pytest.mark.parametrize(
    "running, queued, left",
    [
        ([], [], 0.0),
        ([-3.0], [], 0.0),  # slower than expected: any moment now
        ([1.0, 4.0], [2.0, 2.0, 2.0], 6.0),  # 1 + 2 + 2 and 4 + 2
        ([0.0, 0.0], [3.0, 1.0, 1.0], 3.0),
    ],
)
def test_seconds_left_by_hand(running, queued, left):
    assert seconds_left(running, queued) == left


def test_data_reach_the_experiment_and_name_the_result(path, tmp_path):
    data = tmp_path / "set"
    data.mkdir()
    (data / "train.txt").write_text("1 qid:1 1:0.5\n")
    (job,) = jobs(Fake("row"), seeds=1, data=data)
    (record,) = run([job], path).done
    assert record.dataset == "set"
    assert record.config["data"] == scheduler.fingerprint(data)
    assert begun(path)[0][-1] == str(data)
    assert jobs(Fake("row"), seeds=1, data=data, finished=finished(path)) == []
    (data / "train.txt").write_text("2 qid:1 1:0.5\n")
    assert len(jobs(Fake("row"), seeds=1, data=data, finished=finished(path))) == 1


def test_fingerprints_tell_names_sizes_and_contents_apart(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("abc")
    other.write_text("abd")
    found = {scheduler.fingerprint(path) for path in (one, other, tmp_path)}
    assert len(found) == 3
    with pytest.raises(ValueError, match="data must be"):
        scheduler.fingerprint(tmp_path / "absent")


def test_bad_arguments(path):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        run([], path, workers=0)


def test_settings_may_not_use_the_name_of_the_data(monkeypatch):
    monkeypatch.setattr(Fake, "settings", lambda self: {"data": 1})
    with pytest.raises(ValueError, match="key 'data'"):
        jobs(Fake("row"))
