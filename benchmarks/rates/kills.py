"""Kills jobs by kill -9 at random moments, and compares their outputs.

Each row is a job, usually a command. The job first runs undisturbed. Then it is started
and killed at a random moment, uniform between 0 and 1.2 times the duration of the
undisturbed run. The job is started again until it ends before it is killed. All this is
repeated on fresh folders until `KILLS` processes were killed. The processes have
already imported TensorFlow, so that kills interrupt the work and not the import. The
job `worker` is a pass over a log on a Dask cluster, in which a worker process is killed
and replaced.

    python -m benchmarks.rates.kills import 50    # kill the job `import` 50 times
"""

import json
import multiprocessing
import os
import runpy
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.harness import store
from benchmarks.harness.plan import Table
from debias.data.files import content_hash

KILLS, LONGEST = 50, 1.2  # of the duration of an undisturbed run
PRELOADED: tuple[str, ...] = (
    *("tensorflow", "keras", "distributed", "debias.__main__", "debias.models"),
    *("debias.retrieval.serving.update", "debias.retrieval.training.runs"),
)
Seen = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A job that can be killed.

    Attributes:
        prepare: Function that writes the inputs of the job to the current folder.
        run: Function that runs the job in the current folder.
        seen: Function that returns the outputs that a reader sees in a folder, by name.
            The function raises ValueError if an output is damaged.
        grows: Names of outputs that must not decrease. If no names are given, every
            output must equal the output before the job or the output of the undisturbed
            run.
    """

    prepare: Callable[[], None]
    run: Callable[[], None]
    seen: Callable[[Path], Seen]
    grows: tuple[str, ...] = ()

    def lost(self, folder: Path, last: Seen, ends: tuple[Seen, Seen]) -> bool:
        """Whether an output is damaged, missing or half-written after a kill."""
        try:
            now = self.seen(folder)
        except ValueError as error:
            print(error, file=sys.stderr)
            return True
        for name in self.grows:
            if now[name] < last[name]:
                return True
        return any(name not in now for name in last) or any(
            value not in [end.get(name) for end in ends]
            for name, value in now.items()
            if not self.grows
        )


def act(job: Callable[[], None], folder: Path, seconds: float | None = None) -> bool:
    """Runs a job and kills it after `seconds`; returns whether it ended earlier.

    Raises:
        RuntimeError: The job failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    log = folder.with_suffix(".log")
    process = context.Process(target=_inside, args=(job, folder, log))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode == -9:
        return False
    if process.exitcode:
        raise RuntimeError(f"exit status {process.exitcode}: {log.read_text()[-2000:]}")
    return True


def _inside(job: Callable[[], None], folder: Path, log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    job()


def killed(job: Job, kills: int, seed: int) -> dict[str, float]:
    """Kills a job `kills` times, and compares outputs with an undisturbed run.

    Returns:
        `kills` is the number of kills, and `lost` the number of kills after which an
        output was lost. `resumed` is the number of runs that ended after at least one
        kill. `equal` is the number of these runs with the same outputs as the
        undisturbed run. `left` is the number of hidden files that these runs left,
        except files that the undisturbed run leaves too.
    """
    rng, found = np.random.default_rng(seed), dict.fromkeys(COUNTS, 0)
    with TemporaryDirectory() as temporary:
        folder, base = Path(temporary) / "work", Path(temporary) / "base"
        folder.mkdir()
        act(job.prepare, folder)
        shutil.copytree(folder, base)
        act(job.run, folder)  # the first is slower than others
        _fresh(base, folder)
        begun = time.perf_counter()
        act(job.run, folder)
        longest = LONGEST * (time.perf_counter() - begun)
        ends, hidden = (job.seen(base), job.seen(folder)), _hidden(folder)
        while found["kills"] < kills:
            _fresh(base, folder)
            last, before = ends[0], found["kills"]
            while not act(job.run, folder, _moment(rng, found, kills, longest)):
                found["kills"] += 1
                found["lost"] += job.lost(folder, last, ends)
                last = job.seen(folder)
            if found["kills"] > before:
                found["resumed"] += 1
                found["equal"] += job.seen(folder) == ends[1]
                found["left"] += len(_hidden(folder) - hidden)
    return {name: float(count) for name, count in found.items()}


COUNTS = ("kills", "lost", "resumed", "equal", "left")


def _moment(
    rng: np.random.Generator, found: Mapping[str, int], kills: int, longest: float
) -> float | None:
    return rng.uniform(0, longest) if found["kills"] < kills else None


def _fresh(base: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(base, folder)


def _hidden(folder: Path) -> set[str]:
    """Hidden files and folders, except lock files."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob(".*")
        if path.name != ".lock"
    }


# Commands


def command(*words: str) -> None:
    from debias.__main__ import app

    if code := app(list(words), standalone_mode=False):
        raise SystemExit(code)


def files(folder: Path, *, of: tuple[str, ...]) -> dict[str, str]:
    """Hashes of the visible files of the given outputs, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        visible = not any(name.startswith(".") for name in names)
        if names[0] in of and visible and path.is_file():
            found["/".join(names)] = content_hash(path)
    return found


ROWS, LIST = 120_000, 10  # of the table to rank


def clicks(path: Path, rows: int, seed: int) -> None:
    """Writes lists of items with eight features and random clicks as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    features = rng.normal(size=(8, rows)).astype(np.float32)
    columns = {
        "session": np.arange(rows) // LIST,
        "query": np.arange(rows) // LIST % 50,
        "item": rng.integers(0, 1000, rows),
        "position": np.arange(rows) % LIST + 1,
        "click": rng.random(rows) < 0.1 + 0.2 * (features[0] > 0),
        **{f"f_{number}": column for number, column in enumerate(features)},
    }
    pq.write_table(pa.table(columns), path)


def prepare_rank() -> None:
    clicks(Path("log.parquet"), 2_000, 0)
    clicks(Path("table.parquet"), ROWS, 1)
    clicks(Path("ranked.parquet"), 10, 2)  # of an earlier run
    words = ["train", "log.parquet", "-c", "features=f_*", "--first-features"]
    command(*words, "--model", "product", "--epochs", "1", "-o", "trained")


RANK = ("rank", "trained", "table.parquet", "-o", "ranked.parquet", "--force")


def events(path: Path, rows: int, seed: int) -> None:
    """Writes impressions and clicks as CSV."""
    import pyarrow as pa
    import pyarrow.csv

    rng = np.random.default_rng(seed)
    columns = {
        "session": rng.integers(0, rows // LIST, rows),
        "event": np.where(rng.random(rows) < 0.2, "click", "impression"),
        "item": rng.integers(0, 50, rows),
        "timestamp": np.arange(rows) + seed * rows,
    }
    pa.csv.write_csv(pa.table(columns), path)


def prepare_import() -> None:
    Path("events").mkdir()
    events(Path("events/0.csv"), 2_000, 9)
    command(*IMPORT)
    for number in range(4):
        events(Path(f"events/{number}.csv"), 30_000, number)


IMPORT = ("import", "events", "-o", "log", "--memory", "0.01", "--force")


def interactions(path: Path, first: int, rows: int) -> None:
    """Writes interactions of users with items as CSV."""
    import pyarrow as pa
    import pyarrow.csv

    rng = np.random.default_rng(first)
    user = rng.integers(0, 300, rows)
    item = (7 * user + rng.integers(0, 60, rows)) % 400
    columns = {"user": user, "item": item, "time": np.arange(first, first + rows)}
    pa.csv.write_csv(pa.table(columns), path)


def prepare_versions() -> None:
    interactions(Path("day1.csv"), 0, 3_000)
    interactions(Path("day2.csv"), 3_000, 400)
    words = ["retrieval", "train", "day1.csv", "-o", "trained", "--epochs", "1"]
    words += ["--model", "dssm", "--history", "recency", "--dim", "8"]
    command(*words, "--hidden", "8", "--length", "4", "--repeat", "exclude")
    command(*PUBLISH)


PUBLISH = ("retrieval", "publish", "trained", "root", "--index", "hnsw")
UPDATE = ("retrieval", "update", "root", "day2.csv", "--every", "100")


def version(folder: Path) -> dict[str, Any]:
    """The parts of the served version, and the number of applied events.

    The tower is compared by its user vectors, because an export writes the nodes of the
    ONNX graph in random order.

    Raises:
        ValueError: A version is damaged.
    """
    from debias.retrieval.serving import versions

    for each in versions.check(folder / "root"):
        if each.damage:
            raise ValueError(each.damage)
    served = versions.load(folder / "root")
    about, extra = served.manifest, served.manifest["extra"]
    sums = {name: file["sha256"] for name, file in about["files"].items()}
    assert served.histories is not None
    users = {**served.users.columns, "history": served.histories}
    learners = folder / "root" / "learners"
    return {
        "applied": sum(mark[0] for mark in extra["applied"].values()),
        "files": {**sums, "tower.onnx": served.tower(users).round(5).tolist()},
        "learner": [*files(learners, of=(extra["learner"],)).values()],
    }


# The benchmark itself


@dataclass(frozen=True)
class Drawn:
    """A row of the table `DRAWN`, which takes 30 milliseconds to measure."""

    row: str
    population: str = "none"

    def settings(self) -> dict[str, Any]:
        return {}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """The mean of random numbers, which the seed and the row determine."""
        time.sleep(0.03)
        rng = np.random.default_rng([seed, int(self.row)])
        return {"mean": rng.random(1000).mean()}


DRAWN = Table(
    name="drawn",
    title="Random numbers",
    experiments=tuple(Drawn(str(number)) for number in range(4)),
    metrics=("mean",),
    paired=(),
    clicks="",
    seeds=6,
)


def nothing() -> None:
    return


def run_benchmarks() -> None:
    """Runs `python -m benchmarks run` with `DRAWN` as the only table."""
    tables: Any = SimpleNamespace(TABLES={DRAWN.name: DRAWN})
    sys.modules["benchmarks.experiments"] = tables
    sys.argv = ["benchmarks", "run", DRAWN.name, "--jobs", "1", "--out", "results"]
    runpy.run_module("benchmarks", run_name="__main__")


def records(folder: Path) -> dict[str, Any]:
    """The metrics of each result, by key, and the number of repeated results."""
    with warnings.catch_warnings(action="ignore"):  # that a line is half-written
        every = store.read(folder / "results" / f"{DRAWN.name}.jsonl")
    found: dict[str, Any] = {record.key: dict(record.metrics) for record in every}
    return {**found, "twice": len(every) - len(found)}


JOBS: dict[str, Job] = {
    "rank": Job(
        prepare_rank,
        partial(command, *RANK),
        partial(files, of=("ranked.parquet", "trained")),
    ),
    "import": Job(
        prepare_import, partial(command, *IMPORT), partial(files, of=("log",))
    ),
    "publish": Job(prepare_versions, partial(command, *PUBLISH), version, ("applied",)),
    "update": Job(prepare_versions, partial(command, *UPDATE), version, ("applied",)),
    "run": Job(nothing, run_benchmarks, records),
}


# Workers of a cluster

SESSIONS, SHARDS, WORKERS = 40_000, 40, 2


def killed_workers(kills: int, seed: int) -> dict[str, float]:
    """Like `killed`, for passes over a log in which a cluster worker is killed."""
    from distributed import LocalCluster

    rng, found = np.random.default_rng(seed), dict.fromkeys(COUNTS, 0)
    quiet: dict[str, Any] = {"dashboard_address": None, "silence_logs": "CRITICAL"}
    with (
        TemporaryDirectory() as temporary,
        LocalCluster(n_workers=0, **quiet) as scheduler,
        _crew(scheduler.scheduler_address, Path(temporary)) as crew,
    ):
        address, folder = scheduler.scheduler_address, Path(temporary) / "log"
        end = simulated_and_counted(None, folder)
        simulated_and_counted(address, folder)  # the first is slower than others
        begun = time.perf_counter()
        simulated_and_counted(address, folder)
        longest = LONGEST * (time.perf_counter() - begun)
        while found["kills"] < kills:
            over = Event()

            def kill(
                over: Event = over, moment: float = rng.uniform(0, longest)
            ) -> None:
                if not over.wait(moment):
                    crew.replace(int(rng.integers(WORKERS)))
                    found["kills"] += 1
                    now = files(folder.parent, of=(folder.name,))
                    written = (n for n in now if n.endswith(".parquet"))
                    found["lost"] += any(now[name] != end[name] for name in written)

            killer, before = Thread(target=kill), found["kills"]
            killer.start()
            now = simulated_and_counted(address, folder)
            over.set()
            killer.join()
            if found["kills"] > before:
                found["resumed"] += 1
                found["equal"] += now == end
    return {name: float(count) for name, count in found.items()}


def simulated_and_counted(address: str | None, folder: Path) -> dict[str, Any]:
    """The files of a log that a cluster simulates, and the counts of this log."""
    from debias.data import Stream
    from debias.data.summary import count
    from debias.engine.cluster import joined
    from simulators import EpsilonGreedy, generate, prepare, weak_ranker
    from simulators.writer import write

    shutil.rmtree(folder, ignore_errors=True)
    data = generate(20, 1)
    ready = prepare(data, EpsilonGreedy(weak_ranker(data)), "mixed", seed=4)
    with joined(address) as over:
        write(ready, folder, SESSIONS, SHARDS, over=over if address else None)
        counted = count(Stream(folder), over=over)
    numbers = {name: np.array(value).tolist() for name, value in vars(counted).items()}
    return {**files(folder.parent, of=(folder.name,)), **numbers}


class _Crew:
    """Worker processes, each of which can be killed and replaced."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder
        self.processes = [self._started() for _ in range(WORKERS)]

    def _started(self) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED])
        log = self.folder / "workers.log"
        work = partial(_work, self.address)
        process = context.Process(target=_inside, args=(work, self.folder, log))
        process.start()
        return process

    def replace(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].join()
        self.processes[number] = self._started()


def _work(address: str) -> None:
    import asyncio

    from distributed import Worker

    async def forever() -> None:
        async with Worker(address, nthreads=1, dashboard_address=None) as worker:
            await worker.finished()

    asyncio.run(forever())


@contextmanager
def _crew(address: str, folder: Path) -> Iterator[_Crew]:
    crew = _Crew(address, folder)
    try:
        yield crew
    finally:
        for process in crew.processes:
            process.kill()
            process.join()


@dataclass(frozen=True)
class Killed:
    """A row of the table `kills`."""

    row: str
    population: str = "kill-9"
    kills: int = KILLS

    def settings(self) -> dict[str, Any]:
        return {"kills": self.kills, "version": 1}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        if self.row == "worker":
            return killed_workers(self.kills, seed)
        return killed(JOBS[self.row], self.kills, seed)


TABLE = Table(
    name="kills",
    title="Jobs killed by kill -9 at random moments, and started again",
    experiments=tuple(Killed(row) for row in (*JOBS, "worker")),
    metrics=COUNTS,
    lower=("lost", "left"),
    paired=(),
    clicks="",
    seeds=1,
    workers=1,
)


if __name__ == "__main__":
    row, kills = sys.argv[1:]
    print(json.dumps(Killed(row, kills=int(kills)).measure(0, None)))
