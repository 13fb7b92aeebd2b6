"""Measures, in worker processes, all experiments that have no result yet.

The parent process assigns jobs and writes each result to disk as it arrives, but never
measures. A worker measures one job at a time and never writes. So all finished results
are on disk, even if a worker or the parent process is killed.

Each worker is a `ProcessPoolExecutor` of one process: a process that dies breaks only
its own pool. A worker has one thread, because several threads add numbers in varying
order. The order changes the last digits of a sum, and training amplifies this change up
to the third digit. Only workers for tables of rates use all cores.
"""

import contextlib
import functools
import hashlib
import json
import math
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, store
from benchmarks.harness.plan import Experiment

FINGERPRINT_BYTES = 1 << 16


@dataclass(frozen=True)
class Job:
    """One experiment to measure with one seed."""

    table: str
    experiment: Experiment
    dataset: str
    seed: int
    data: str | None = None
    fingerprint: str | None = None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The settings and the data as JSON values, as the record stores them."""
        data = {"data": self.fingerprint} if self.fingerprint else {}
        return json.loads(json.dumps({**self.experiment.settings(), **data}))

    @property
    def key(self) -> str:
        """The key that the result will have, see `store.Record.key`."""
        row, population = self.experiment.row, self.experiment.population
        return store.key(
            self.table, row, self.dataset, population, self.seed, self.config
        )

    @property
    def log(self) -> tuple[str, str, int]:
        """Key of the simulated log that the job reads."""
        return self.dataset, self.experiment.population, self.seed

    def __str__(self) -> str:
        of = self.experiment
        return f"{of.row} on {of.population}, seed {self.seed}"


@dataclass(frozen=True)
class Failure:
    """A failed job, with the traceback or the last output of its worker."""

    job: Job
    reason: str


@dataclass
class Outcome:
    """Progress of a run: finished, current and remaining jobs."""

    done: list[store.Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)
    seconds_left: float = math.nan
    interrupted: bool = False

    @property
    def ended(self) -> int:
        return len(self.done) + len(self.failures)


Report = Callable[[Outcome, store.Record | Failure | None], None]
"""Receives the outcome so far, and the new result or failure, if there is one."""


def fingerprint(path: Path) -> str:
    """Hash of the names, sizes and first 64 KiB of all files at a path, in 12 digits.

    Raises:
        ValueError: There is no file at `path`.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
    if path.is_file():
        files = [path]
    if not files:
        raise ValueError(f"data must be a file or a folder of files, got {path}")
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:12]


def plan(
    table: str,
    experiments: Sequence[Experiment],
    seeds: Iterable[int],
    dataset: str,
    data: Path | None = None,
    finished: Collection[str] = (),
) -> list[Job]:
    """Jobs that have no result yet, ordered by seed and grouped by simulated log.

    Args:
        table: Name of the table.
        experiments: Experiments of the table.
        seeds: Seeds with which each experiment is measured.
        dataset: Name of the data if `data` is None.
        data: A file or folder of ranking data.
        finished: Keys of existing records.
    """
    mark = None
    if data is not None:
        data = data.resolve()
        dataset, mark = data.name, fingerprint(data)
    if any("data" in experiment.settings() for experiment in experiments):
        raise ValueError(f"table {table}: settings must not hold the key 'data'")
    where = None if data is None else str(data)
    seeds = tuple(seeds)
    jobs = [Job(table, e, dataset, s, where, mark) for e in experiments for s in seeds]
    todo = [job for job in jobs if job.key not in finished]
    first = {job.log: place for place, job in reversed([*enumerate(todo)])}
    # Seed by seed, so that an interrupted run leaves complete tables of fewer seeds.
    return sorted(todo, key=lambda job: (job.seed, first[job.log]))


SIZES = {  # settings that do not concern training
    *("queries", "sessions", "crowd", "best_first", "random", "world", "attraction"),
    "learner",
}
GROWTH = 0.4
"""Exponent of seconds by sessions.

A fit has fixed costs, and takes fewer passes over a larger log. For published rows of
two sizes, the exponent .4 predicts the seconds of one size from the other within a
factor of 2.4 (geometric mean). The exponent 1 misses by a factor of 11.
"""


class Clock:
    """Estimates the duration of a job from earlier measurements.

    The estimate uses the first of these kinds of measurements that exists:

    1. the same settings on the same population;
    2. the same settings on any population;
    3. the same learner with any size and otherwise equal settings;
    4. the same learner with any size and settings;
    5. any learner with any size and otherwise equal settings;
    6. the same row of the table;
    7. any row of the table;
    8. any row of any table.

    Kinds 3, 4, 5 and 8 include all tables, and are scaled by the number of sessions to
    the power `GROWTH`.
    """

    def __init__(self, records: Iterable[store.Record] = ()) -> None:
        self._seen: dict[tuple[str, ...], tuple[float, float]] = {}
        for record in records:
            self.saw(record)

    @staticmethod
    def _kinds(
        table: str, row: str, population: str, config: Mapping[str, Any]
    ) -> Iterator[tuple[tuple[str, ...], float]]:
        """Kinds of measurement, most similar first, and the size within the kind."""
        settings = store.key(table, row, "", "", 0, config)
        size = float(config.get("sessions", 0)) ** GROWTH
        yield (settings, population), 1.0
        yield (settings,), 1.0
        if "sessions" in config:
            alike = {name: v for name, v in config.items() if name not in SIZES}
            learner = str(config.get("learner", row))
            yield ("of size", learner, store.key("", "", "", "", 0, alike)), size
            yield ("of size", learner), size
            yield ("of size", store.key("", "", "", "", 0, alike)), size
        yield (table, row), 1.0
        yield (table,), 1.0
        if "sessions" in config:
            yield ("of size",), size

    def saw(self, record: store.Record) -> None:
        """Adds one measurement to the estimates."""
        of = record
        for kind, size in self._kinds(of.table, of.row, of.population, of.config):
            seconds, sizes = self._seen.get(kind, (0.0, 0.0))
            self._seen[kind] = seconds + record.seconds, sizes + size

    def expect(self, job: Job) -> float:
        """Mean seconds of the most similar measurements; nan if there are none."""
        of = job.experiment
        for kind, size in self._kinds(job.table, of.row, of.population, job.config):
            if seen := self._seen.get(kind):
                return size * seen[0] / seen[1]
        return math.nan


def run(
    jobs: Sequence[Job],
    path: Path,
    workers: int = 1,
    clock: Clock | None = None,
    report: Report = lambda outcome, news: None,
    threads: int = 1,
) -> Outcome:
    """Measures `jobs` and appends each result to `path` as it arrives.

    A job counts as failed if it raises or if its process dies; all other jobs continue.
    Ctrl-C stops the workers within a second, and sets `Outcome.interrupted`. Call this
    function from the main thread.

    Args:
        jobs: Jobs to measure, in the order of `plan`.
        path: The results file.
        workers: Number of processes that measure at once, at least 1.
        clock: Estimates of the duration of jobs, which this run updates.
        report: Called at every start and end of a job, and about once a second.
        threads: Threads of each worker.

    Raises:
        ValueError: `workers` is not positive.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    clock, outcome, todo = clock or Clock(), Outcome(), list(jobs)

    def interrupt(*signal: Any) -> None:
        outcome.interrupted = True

    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        _environment(machine.environment(threads)),
    ):
        count = min(workers, len(jobs))
        crew = [_Worker(Path(folder) / f"{number}.log") for number in range(count)]
        before = signal.signal(signal.SIGINT, interrupt)
        try:
            while not outcome.interrupted and (todo or any(w.job for w in crew)):
                for worker in crew:
                    if todo and not worker.job:
                        worker.start(_take(todo, worker, crew))
                busy = {worker.future: worker for worker in crew if worker.job}
                outcome.running = [worker.job for worker in crew if worker.job]
                report(outcome, None)
                for future in wait(busy, 1.0, FIRST_COMPLETED).done:
                    news = _collect(busy[future], path, clock, outcome, threads)
                    report(outcome, news)
                outcome.seconds_left = _left(crew, todo, clock)
        finally:
            for worker in crew:
                worker.stop()
            signal.signal(signal.SIGINT, before)
    return outcome


class _Worker:
    """A worker process, its current job, and the key of its cached log."""

    def __init__(self, log: Path) -> None:
        self.words = log
        self.job: Job | None = None
        self.log: tuple[str, str, int] | None = None
        self.since = 0.0
        self.future: Future = Future()
        self.pool: ProcessPoolExecutor | None = None
        self.process: Any = None

    def start(self, job: Job) -> None:
        if self.pool is not None and not self.process.is_alive():
            self.stop()
        self.job, self.log, self.since = job, job.log, time.monotonic()
        if self.pool is not None:
            self.future = self.pool.submit(_measure, job)
            return
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, _begin, (self.words,))
        others = {*multiprocessing.active_children()}
        # Ctrl-C reaches every process of a terminal, and only the parent decides what
        # to do. Children inherit that the signal is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.future = self.pool.submit(_measure, job)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        (self.process,) = {*multiprocessing.active_children()} - others

    def stop(self) -> None:
        """Kills the process, if there is one; the next job starts a new one."""
        if self.pool is not None:
            self.process.kill()
            self.pool.shutdown()
        self.pool = self.job = None

    def last_words(self) -> str:
        """How the process died, and its last output."""
        code = self.process.exitcode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        written = self.words.read_text(errors="replace") if self.words.exists() else ""
        tail = "\n".join(written.splitlines()[-20:])
        wrote = f"; it last wrote:\n{tail}" if tail else ""
        return f"its process died ({how}{hint}){wrote}"


def _take(todo: list[Job], worker: _Worker, crew: Sequence[_Worker]) -> Job:
    """Takes the next job, preferably one that reads the log of the worker."""
    others = {other.log for other in crew if other.job}

    def distance(place: int) -> int:
        log = todo[place].log
        return 0 if log == worker.log else 2 if log in others else 1

    return todo.pop(min(range(len(todo)), key=distance))


def _left(crew: Sequence[_Worker], todo: Sequence[Job], clock: Clock) -> float:
    """Expected remaining seconds: work per process, at least the longest job."""
    now = time.monotonic()
    running = [clock.expect(w.job) - (now - w.since) for w in crew if w.job]
    running = [max(seconds, 0.0) for seconds in running]
    queued = [clock.expect(job) for job in todo]
    return max([sum(running + queued) / len(crew), *running])


def _collect(
    worker: _Worker, path: Path, clock: Clock, outcome: Outcome, threads: int
) -> store.Record | Failure:
    """Records the result of a worker, or a failure if the worker died."""
    job = worker.job
    assert job is not None
    try:
        metrics, seconds, reason = worker.future.result()
    except BrokenProcessPool:
        worker.stop()
        metrics, seconds, reason = {}, 0.0, worker.last_words()
    worker.job = None
    record = store.Record(
        table=job.table,
        row=job.experiment.row,
        dataset=job.dataset,
        population=job.experiment.population,
        seed=job.seed,
        metrics=metrics,
        seconds=round(seconds, 3),
        config=job.config,
        versions=machine.versions(),
        machine=machine.describe(threads),
    )
    if not reason:
        try:
            store.append(path, record)
        except ValueError as error:
            reason = f"ValueError: {error}"
    if reason:
        outcome.failures.append(Failure(job, reason))
        return outcome.failures[-1]
    clock.saw(record)
    outcome.done.append(record)
    return record


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables within the context, for child processes."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# What a worker runs.


def _begin(log: Path) -> None:
    """Makes a worker end with its parent, and redirects its output to a file.

    Output of libraries would break the progress bar, so it is shown only if the process
    dies.
    """
    machine.leave_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _measure(job: Job) -> tuple[dict[str, float], float, str]:
    """Metrics, seconds, and the traceback if the measurement failed."""
    start = time.monotonic()
    try:
        found = job.experiment.measure(job.seed, job.data)
        metrics = {str(name): float(value) for name, value in found.items()}
    except BaseException:
        return {}, time.monotonic() - start, traceback.format_exc()
    return metrics, time.monotonic() - start, ""
