"""Tests of benchmarks.harness.scheduler."""

import dataclasses
import math
import os
import signal
import time
from itertools import pairwise

import pytest

from benchmarks.harness import machine, scheduler, store
from benchmarks.harness.scheduler import Clock, Failure, Job, plan, run
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
    assert [(j.seed, j.log[1], j.experiment.row) for j in jobs(*FAKES)] == [
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
    assert [(j.experiment.row, j.log[1], j.seed) for j in again] == [
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


def test_a_worker_stays_with_its_log_and_shares_one_only_at_the_end(path):
    two, other = (Fake("a"), Fake("b")), Fake("c", "grid")
    one, idle = (scheduler._Worker(path) for _ in range(2))
    todo = jobs(*two, other, seeds=1)

    def take(worker):
        job = scheduler._take(todo, worker, (one, idle))
        worker.job, worker.log = job, job.log
        return job.experiment.row

    assert [take(one), take(idle), take(idle)] == ["a", "c", "b"] and not todo
    todo = jobs(other, *two, seeds=1)  # `idle` has the log of `two` by now
    assert take(idle) == "a"


def test_a_failing_row_is_reported_with_its_traceback_and_others_go_on(path):
    outcome = run(jobs(Fake("bad", fault="raise"), Fake("good")), path)
    assert [(f.job.experiment.row, f.job.seed) for f in outcome.failures] == [
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
    assert [failure.job.experiment.row for failure in outcome.failures] == [
        "bad",
        "bad",
    ]
    assert "died (signal 9" in outcome.failures[0].reason
    assert "these are its last words" in outcome.failures[0].reason
    assert [record.row for record in outcome.done] == ["good", "good"]


def test_a_metric_that_is_not_finite_is_a_failure(path):
    outcome = run(jobs(Fake("bad", fault="nan"), seeds=1), path)
    assert "metric ndcg@5 of row bad must be finite" in outcome.failures[0].reason
    assert store.read(path) == []


@pytest.mark.parametrize("workers, threads", [(1, 1), (2, 1), (1, 6)])
def test_threads_do_not_hang_on_the_number_of_processes(path, workers, threads):
    before = os.environ.get("TF_NUM_INTRAOP_THREADS")
    todo = jobs(Fake("row", fault="threads"))
    outcome = run(todo, path, workers, threads=threads)
    assert len(outcome.done) == 2, outcome.failures
    for record in outcome.done:
        assert set(record.metrics.values()) == {threads}
        assert record.machine["threads"] == threads
        assert record.machine["cores"] == machine.cores()
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == before


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(path):
    def interrupt(outcome, news):
        if news and news.seed == 1:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    everything = jobs(Fake("a", seconds=0.1), Fake("b", seconds=0.1), seeds=3)
    outcome = run(everything, path, report=interrupt)
    assert outcome.interrupted and len(outcome.done) == 3
    assert signal.getsignal(signal.SIGINT) is before
    rest = jobs(Fake("a"), Fake("b"), seeds=3, finished=finished(path))
    assert [(j.experiment.row, j.seed) for j in rest] == [("b", 1), ("a", 2), ("b", 2)]
    run(rest, path)
    assert len(store.read(path)) == 6 == len(finished(path))


def test_a_report_says_everything_and_the_time_left(path):
    seen = []

    def report(outcome, news):
        running = [job.experiment.row for job in outcome.running]
        seen.append((running, outcome.ended, type(news), outcome.seconds_left))

    run(jobs(Fake("good"), Fake("bad", fault="raise"), seeds=1), path, report=report)
    nothing = type(None)
    assert [state[:3] for state in seen] == [
        (["good"], 0, nothing),
        (["good"], 1, store.Record),
        (["bad"], 1, nothing),
        (["bad"], 2, Failure),
    ]
    # Nothing is known at first; then a job is expected to take what the last one did.
    assert math.isnan(seen[0][-1]) and 0 <= seen[2][-1] < 1


def test_the_time_left_is_the_longest_job_or_an_equal_share(path, monkeypatch):
    fakes = {"a": 1.0, "b": 4.0, "c": 2.0}
    clock = Clock([record(row, seconds=s, value=s) for row, s in fakes.items()])
    one, two = (scheduler._Worker(path) for _ in range(2))
    a, b, c = jobs(*(Fake(row, value=s) for row, s in fakes.items()), seeds=1)
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: 100.0)
    one.job, two.job = a, b
    one.since = two.since = 100.0
    assert scheduler._left((one, two), [c, c, c], clock) == 5.5  # (1 + 4 + 3 x 2) / 2
    assert scheduler._left((one, two), [], clock) == 4.0
    one.since = 50.0  # slower than expected: any moment now
    assert scheduler._left((one, two), [c, c, c], clock) == 5.0


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


@dataclasses.dataclass(frozen=True)
class Sized:
    """An experiment of so many sessions."""

    row: str
    sessions: int
    population: str = "mixed"

    def settings(self):
        return {"sessions": self.sessions, "queries": self.sessions // 50, "rate": 0.1}


def test_expected_seconds_grow_with_the_sessions_of_the_same_training():
    def sized(row, sessions, table):
        return Job(table, Sized(row, sessions), "generated", 5)

    def took(row, sessions, seconds, table):
        config = Sized(row, sessions).settings()
        return store.Record(table, row, "", "mixed", 0, {}, seconds, config, {})

    most, some, few = 32_000, 1000, 125
    clock = Clock([took("a", most, 8.0, "one"), took("b", most, 4.0, "one")])
    expected = [
        clock.expect(sized("a", some, "one")),
        clock.expect(sized("a", few, "other")),
        clock.expect(sized("c", some, "other")),  # as all rows
    ]
    # 32 ** .4 = 4 and 8 ** .4 = 2.2974
    assert expected == pytest.approx([2.0, 0.87055, 1.5], rel=1e-4)
    clock.saw(took("a", some, 7.0, "one"))
    assert clock.expect(sized("a", some, "one")) == 7.0


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
