"""Runs the experiments that have no result yet, in worker processes.

The parent hands out jobs, writes every result to disk as it arrives and never measures;
a worker measures one job at a time and never writes. So a worker may be killed, or the
parent may, and all that was finished is on disk.

Jobs that share a simulated log (dataset, population, seed) go to one worker in a row. A
worker without work takes over half of what the busiest still has to do.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.harness import store
from benchmarks.harness.plan import Experiment

PACKAGES = ("debias-ranking", "keras", "tensorflow", "jax", "numpy", "scipy")
FINGERPRINT_BYTES = 1 << 16


@dataclass(frozen=True)
class Job:
    """One experiment to be measured with one seed."""

    table: str
    experiment: Experiment
    dataset: str
    seed: int
    data: str | None = None
    fingerprint: str | None = None

    @property
    def row(self) -> str:
        return self.experiment.row

    @property
    def population(self) -> str:
        return self.experiment.population

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """What goes on record as JSON values: the settings, and which data."""
        data = {"data": self.fingerprint} if self.fingerprint else {}
        return json.loads(json.dumps({**self.experiment.settings(), **data}))

    @property
    def key(self) -> str:
        """The `store.Record.key` of the result."""
        return store.key(
            self.table,
            self.row,
            self.dataset,
            self.population,
            self.seed,
            self.config,
        )

    @property
    def log(self) -> tuple[str, str, int]:
        """What names the simulated log that the job reads."""
        return self.dataset, self.population, self.seed

    def __str__(self) -> str:
        return f"{self.row} on {self.population}, seed {self.seed}"


@dataclass(frozen=True)
class Failure:
    """A job that gave no result, and the traceback or last words of its worker."""

    job: Job
    reason: str


@dataclass
class Outcome:
    """What a run did."""

    done: list[store.Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False


class Observer:
    """Is told how a run goes; every method may be left as it is."""

    def started(self, job: Job) -> None: ...

    def finished(self, job: Job, record: store.Record) -> None: ...

    def failed(self, failure: Failure) -> None: ...

    def waiting(self, seconds_left: float) -> None:
        """Called about once a second; `seconds_left` is nan while nothing is known."""


def fingerprint(path: Path) -> str:
    """Twelve hex digits of a file or folder: names, sizes and first 64 KiB of files.

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
    """The jobs that have no result yet, those of one simulated log side by side.

    Args:
        table: Name of the table.
        experiments: Its experiments.
        seeds: The seeds of each.
        dataset: Name of the data, used where `data` is None.
        data: A file or folder of ranking data.
        finished: Keys of the records there are.
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
    groups = _groups(job for job in jobs if job.key not in finished)
    # Seed by seed, so that an interrupted run leaves a whole table of fewer seeds.
    return [job for g in sorted(groups, key=lambda g: g[0].seed) for job in g]


class Clock:
    """Expected seconds of a job, from what measurements of its kind took."""

    def __init__(self, records: Iterable[store.Record] = ()) -> None:
        self._seen: dict[tuple[str, ...], list[float]] = {}
        for record in records:
            self.saw(record)

    @staticmethod
    def _kinds(thing: Job | store.Record) -> list[tuple[str, ...]]:
        """From the most alike to anything of the table at all."""
        settings = store.key(thing.table, thing.row, "", "", 0, thing.config)
        row = thing.table, thing.row
        return [(settings, thing.population), (settings,), row, (thing.table,)]

    def saw(self, record: store.Record) -> None:
        """Learns from one measurement."""
        for kind in self._kinds(record):
            self._seen.setdefault(kind, []).append(record.seconds)

    def expect(self, job: Job) -> float:
        """Mean seconds of the most alike measurements, nan where there are none."""
        for kind in self._kinds(job):
            if seen := self._seen.get(kind):
                return sum(seen) / len(seen)
        return math.nan


def seconds_left(running: Sequence[float], queued: Sequence[float]) -> float:
    """Wall-clock seconds until all is done, by handing each job to the first free.

    Args:
        running: Seconds that each worker still needs for what it measures now.
        queued: Expected seconds of the jobs after those, in order.

    >>> seconds_left([1.0, 4.0], [2.0, 2.0])  # 1 + 2 + 2 beside 4
    5.0
    """
    free = [max(left, 0.0) for left in running]
    for seconds in queued:
        free[free.index(min(free))] += seconds
    return max(free, default=0.0)


def thread_limits(threads: int) -> dict[str, str]:
    """Environment that holds a process to so many threads, if set before imports."""
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    )
    return dict.fromkeys(names, str(threads))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, by name.

    Read from the installed metadata: nothing is imported.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found, "backend": os.environ.get("KERAS_BACKEND", "tensorflow")}


def run(
    jobs: Sequence[Job],
    path: Path,
    workers: int = 1,
    clock: Clock | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Measures `jobs` and appends each result to `path` as it arrives.

    A job that raises is a failure and the others go on, also where its process dies. On
    KeyboardInterrupt the workers are stopped and the outcome says so.

    Args:
        jobs: What to measure; jobs of one log stand side by side, as `plan` leaves
            them.
        path: The results file.
        workers: How many processes measure at once, at least 1.
        clock: What is known of how long jobs take; it learns from this run.
        observer: Is told of every start and end.

    Raises:
        ValueError: `workers` is not positive.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    clock, observer, outcome = clock or Clock(), observer or Observer(), Outcome()
    count = min(workers, len(jobs))
    environment = {
        **thread_limits(max(cores() // max(count, 1), 1)),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        # A pool of memory for each thread would keep what graphs of many rows left.
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
    }
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        crew = [
            _Worker(Path(folder) / f"{number}.log", environment)
            for number in range(count)
        ]
        try:
            _direct(crew, _groups(jobs), path, clock, observer, outcome)
        except KeyboardInterrupt:
            outcome.interrupted = True
            # What was measured but not yet read is a result like any other.
            for worker in crew:
                if worker.job and worker.pipe and worker.pipe.poll():
                    with _whole():
                        _collect(worker, path, clock, observer, outcome)
        finally:
            for worker in crew:
                worker.stop()
    return outcome


class _Worker:
    """A process that measures, and the jobs that wait for it."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.log, self.environment = log, environment
        self.queue: list[Job] = []
        self.job: Job | None = None
        self.since = 0.0
        self.process: Any = None
        self.pipe: Connection | None = None

    def start(self, job: Job) -> None:
        if self.process is not None and not self.process.is_alive():
            self.stop()
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_work, args=(theirs, self.log))
            with _environment(self.environment), _deaf():
                self.process.start()
            theirs.close()
        assert self.pipe is not None
        self.job, self.since = job, time.monotonic()
        # A process that has just died is found out when its pipe is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(job)

    def stop(self) -> None:
        if self.process is None:
            return
        assert self.pipe is not None
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process = self.pipe = self.job = None


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a while: a child inherits them from its start."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ignores Ctrl-C for a while: a child that starts now ignores it for good.

    It reaches every process of a terminal, and the parent alone decides what it means.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's affair
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Puts Ctrl-C off to the end of the block, so that no result is half taken in."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _groups(jobs: Iterable[Job]) -> list[list[Job]]:
    groups: dict[tuple[str, str, int], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.log, []).append(job)
    return list(groups.values())


def _direct(
    crew: Sequence[_Worker],
    groups: list[list[Job]],
    path: Path,
    clock: Clock,
    observer: Observer,
    outcome: Outcome,
) -> None:
    """Hands out jobs and takes in results until there are none."""
    while True:
        for worker in crew:
            if worker.job is None and (job := _next(worker, crew, groups, clock)):
                worker.start(job)
                observer.started(job)
        busy = [worker for worker in crew if worker.job]
        if not busy:
            return
        # A dead process is seen by its sentinel even where a child of its own still
        # holds the pipe open.
        signs: dict[Any, _Worker] = {}
        for worker in busy:
            signs |= {worker.pipe: worker, worker.process.sentinel: worker}
        for worker in {signs[sign] for sign in wait(list(signs), timeout=1.0)}:
            with _whole():
                _collect(worker, path, clock, observer, outcome)
        now = time.monotonic()
        running = [
            clock.expect(w.job) - (now - w.since) if w.job else 0.0 for w in crew
        ]
        queued = [job for w in crew for job in w.queue]
        queued += [job for group in groups for job in group]
        observer.waiting(seconds_left(running, [clock.expect(job) for job in queued]))


def _next(
    worker: _Worker, crew: Sequence[_Worker], groups: list[list[Job]], clock: Clock
) -> Job | None:
    if not worker.queue and groups:
        worker.queue = groups.pop(0)
    if not worker.queue:

        def load(other: _Worker) -> float:
            seconds = sum(clock.expect(job) for job in other.queue)
            return len(other.queue) if math.isnan(seconds) else seconds

        other = max(crew, key=load)
        keep = len(other.queue) // 2
        worker.queue, other.queue = other.queue[keep:], other.queue[:keep]
    return worker.queue.pop(0) if worker.queue else None


def _collect(
    worker: _Worker, path: Path, clock: Clock, observer: Observer, outcome: Outcome
) -> None:
    """Takes in one result of a worker, or the news that it is dead."""
    assert worker.job is not None and worker.pipe is not None
    job, metrics, seconds = worker.job, {}, 0.0
    try:
        if not worker.pipe.poll():
            raise EOFError
        metrics, seconds, reason = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join(5)
        reason = _last_words(worker)
        worker.stop()
    worker.job = None
    record = store.Record(
        table=job.table,
        row=job.row,
        dataset=job.dataset,
        population=job.population,
        seed=job.seed,
        metrics=metrics,
        seconds=round(seconds, 3),
        config=job.config,
        versions=versions(),
    )
    if not reason:
        try:
            store.append(path, record)
        except ValueError as error:
            reason = f"ValueError: {error}"
    if reason:
        outcome.failures.append(Failure(job, reason))
        observer.failed(outcome.failures[-1])
        return
    clock.saw(record)
    outcome.done.append(record)
    observer.finished(job, record)


def _last_words(worker: _Worker) -> str:
    code = worker.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    hint = ", perhaps for want of memory" if code == -9 else ""
    written = worker.log.read_text(errors="replace") if worker.log.exists() else ""
    tail = "\n".join(written.splitlines()[-20:])
    return f"its process died ({how}{hint})" + (
        f"; it last wrote:\n{tail}" * bool(tail)
    )


def _work(pipe: Connection, log: Path) -> None:
    """The life of a worker: measures what arrives until the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    # Library chatter would tear the progress bar; it is shown if the process dies.
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        if wait([parent.sentinel], timeout=0):
            return  # a job that the parent had sent before it died
        start = time.monotonic()
        try:
            found = job.experiment.measure(job.seed, job.data)
            metrics = {str(name): float(value) for name, value in found.items()}
            answer = metrics, time.monotonic() - start, ""
        except Exception:
            answer = {}, time.monotonic() - start, traceback.format_exc()
        pipe.send(answer)
