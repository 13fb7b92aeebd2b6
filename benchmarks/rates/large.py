"""One pass of `debias train` over a log on disk with a memory limit.

Commands for users simulate the log and train on it. The model is `product`. A tenth of
the queries is held out for validation, and another tenth for the test. A Linux control
group enforces the memory limit: it kills processes that use more memory, including
cached files. Creating a control group needs root. Without root, memory is only
monitored, and the row has no `limit_gb`.

The row of `Mixed` trains on and ranks a table with raw features of every kind. The rows
of `Clustered` compare two cluster workers with one process.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUPS = Path("/sys/fs/cgroup")
SESSIONS = {"500k": 500_000, "5M": 5_000_000, "50M": 50_000_000}
QUERIES = 2000


@contextmanager
def group(gigabytes: float, root: Path = GROUPS) -> Iterator[Path | None]:
    """A control group with a memory limit; None if it cannot be created."""
    first = (root / "memory").is_dir()  # cgroup version 1 has a tree per resource
    folder = (root / "memory" if first else root) / f"debias-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if first else "memory.max")
    try:
        folder.mkdir()
        limit.write_text(str(int(gigabytes * 1e9)))
    except OSError:
        if folder.is_dir():
            folder.rmdir()
        yield None
        return
    try:
        yield folder
    finally:
        folder.rmdir()


@dataclass(frozen=True)
class Run:
    """Output and cost of a command.

    Attributes:
        seconds, cpu_seconds: Wall-clock time, and processor time over all cores.
    """

    output: str
    seconds: float
    cpu_seconds: float


def run(command: Sequence[str], folder: Path, inside: Path | None = None) -> Run:
    """Runs a command by `python -m`, in a folder and a control group.

    Raises:
        RuntimeError: The command failed, or was killed because it exceeded the memory
            limit.
    """
    begun = time.perf_counter()
    with (
        (folder / "output").open("w+") as output,
        (folder / "errors").open("w+") as bad,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            stdout=output,
            stderr=bad,
        )
        if inside is not None:
            (inside / "cgroup.procs").write_text(str(child.pid))
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            bad.seek(0)
            raise RuntimeError(
                f"{' '.join(command)}: exit status {child.returncode}: "
                f"{bad.read()[-2000:]}"
            )
        output.seek(0)
        return Run(output.read(), seconds, used.ru_utime + used.ru_stime)


@dataclass(frozen=True)
class Large:
    """One row: a pass over as many sessions as `population` names."""

    population: str
    row: str = "train"
    limit: float = 3.0

    def settings(self) -> dict[str, Any]:
        return {
            "sessions": SESSIONS[self.population],
            "queries": QUERIES,
            "limit_gb": self.limit,
            "model": "product",
        }

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """`rate` is the number of sessions per second of the whole command."""
        import simulators

        sessions, name = SESSIONS[self.population], str(seed)
        simulate = ["simulators", "log", "--population", "pbm", "--seed", name]
        simulate += ["--sessions", str(sessions), "--queries", str(QUERIES)]
        train = ["debias", "train", "log", "--data", "items.parquet", "--seed", name]
        train += ["--model", "product", "--epochs", "1", "-o", "trained", "--json"]
        with TemporaryDirectory() as temporary, group(self.limit) as inside:
            folder = Path(temporary)
            run(simulate, folder)
            simulators.generate(QUERIES, seed).write_parquet(folder / "items.parquet")
            done = run(train, folder, inside)
        report = json.loads(done.output)
        found = {
            "rate": sessions / done.seconds,
            "cpu_seconds": done.cpu_seconds,
            "peak_gb": report["peak_memory_gb"],
            "log_likelihood": report["log_likelihood"],
        }
        return found if inside is None else found | {"limit_gb": self.limit}


PLACES, PIECE = 10, 50_000  # items per list; lists written at a time
CLICKED = 0.3 / np.arange(1, PLACES + 1)


def mixed_features(rng: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    """20 columns of a shop, with numbers, dates, booleans, text, lists and gaps.

    >>> found = mixed_features(np.random.default_rng(0), 100)
    >>> len(found), found["f_brand"].null_count > 0, found["f_since"].type
    (20, True, DataType(date32[day]))
    """

    def text(name: str, values: int, gaps: float = 0.0) -> pa.Array:
        codes = pa.array(rng.integers(values, size=rows), mask=rng.random(rows) < gaps)
        return pa.array([f"{name} {n}" for n in range(values)]).take(codes)

    sizes = rng.integers(4, size=rows)
    tags = pa.array([f"tag {n}" for n in range(50)])
    some = tags.take(pa.array(rng.integers(50, size=sizes.sum())))
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return {
        "f_price": pa.array(rng.lognormal(3, 1, rows), mask=rng.random(rows) < 0.1),
        "f_cost": pa.array(rng.integers(100, 10**5, rows) / 100).cast(
            pa.decimal128(10, 2)
        ),
        **{f"f_count{n}": pa.array(rng.poisson(3 + n, rows)) for n in range(4)},
        **{f"f_score{n}": pa.array(rng.normal(size=rows)) for n in range(4)},
        "f_stock": pa.array(rng.random(rows) < 0.9),
        "f_new": pa.array(rng.random(rows) < 0.2, mask=rng.random(rows) < 0.3),
        "f_since": pa.array(rng.integers(15_000, 20_000, rows).astype("datetime64[D]")),
        "f_brand": text("brand", 1000, gaps=0.2),
        "f_seller": text("seller", 20_000),
        "f_color": text("color", 12),
        "f_size": text("size", 40),
        "f_genre": text("genre", 100, gaps=0.5),
        "f_region": pa.array(rng.integers(1000, 1050, rows)),
        "f_tags": pa.ListArray.from_arrays(pa.array(ends), some),
    }


def write_mixed(path: Path, lists: int, seed: int) -> None:
    """Writes impressions with `mixed_features`; no (query, item) pair is repeated."""
    rng = np.random.default_rng(seed)
    writer = None
    for first in range(0, lists, PIECE):
        count = min(PIECE, lists - first)
        rows = count * PLACES
        features = mixed_features(rng, rows)
        liked = 1 / (1 + np.exp(-features["f_score0"].to_numpy()))
        session = np.repeat(np.arange(first, first + count), PLACES)
        table = pa.table(
            {
                "session": session,
                "query": session % QUERIES,
                "item": np.arange(first * PLACES, first * PLACES + rows),
                "click": rng.random(rows) < np.tile(CLICKED, count) * liked,
                **features,
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


@dataclass(frozen=True)
class Mixed:
    """Trains on and ranks 10 million impressions with 20 features of all kinds."""

    population: str = "10M-mixed"
    row: str = "train"
    lists: int = 1_000_000
    limit: float = 3.0

    def settings(self) -> dict[str, Any]:
        return {
            "impressions": self.lists * PLACES,
            "features": 20,
            "queries": QUERIES,
            "limit_gb": self.limit,
            "model": "product",
        }

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """`rate` is lists per second of `train`; metrics `rank_...` measure `rank`."""
        train = ["debias", "train", "log.parquet", "-c", "features=f_*", "--json"]
        train += ["-c", "categories=f_region", "--model", "product", "--epochs", "1"]
        train += ["--seed", str(seed), "-o", "trained"]
        rank = ["debias", "rank", "trained", "log.parquet", "-o", "ranked.parquet"]
        with TemporaryDirectory() as temporary, group(self.limit) as inside:
            folder = Path(temporary)
            write_mixed(folder / "log.parquet", self.lists, seed)
            trained = run(train, folder, inside)
            ranked = run([*rank, "--json"], folder, inside)
        report, told = json.loads(trained.output), json.loads(ranked.output)
        if told["rows"] != self.lists * PLACES:
            raise RuntimeError(f"rank wrote {told['rows']} rows")
        found = {
            "rate": self.lists / trained.seconds,
            "cpu_seconds": trained.cpu_seconds,
            "peak_gb": report["peak_memory_gb"],
            "log_likelihood": report["log_likelihood"],
            "rank_rate": self.lists / ranked.seconds,
            "rank_peak_gb": told["peak_memory_gb"],
        }
        return found if inside is None else found | {"limit_gb": self.limit}


@dataclass(frozen=True)
class Clustered:
    """A command on two local cluster workers, compared with one process.

    `inspect` counts the log from disk; `rank` scores its items and writes a folder.
    """

    row: str
    population: str = "20M"
    sessions: int = 20_000_000

    def settings(self) -> dict[str, Any]:
        return {"sessions": self.sessions, "queries": QUERIES, "workers": 2}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """`ratio` is the time of one process divided by the time of two workers."""
        import simulators

        def simulated(name: str, sessions: int) -> list[str]:
            sizes = ["--sessions", str(sessions), "--queries", str(QUERIES)]
            return ["simulators", name, "--seed", str(seed), *sizes]

        inspect = ["debias", "inspect", "log", "--memory", "0"]
        train = ["debias", "train", "few", "--data", "items.parquet"]
        train += ["--model", "product", "--epochs", "1", "-o", "trained"]
        rank = ["debias", "rank", "trained", "log", "--data", "items.parquet"]
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            run(simulated("log", self.sessions), folder)
            if self.row == "rank":
                run(simulated("few", 20_000), folder)
                simulators.generate(QUERIES, seed).write_parquet(
                    folder / "items.parquet"
                )
                run(train, folder)
            command = inspect if self.row == "inspect" else rank
            ways: list[list[str]] = [[], ["--cluster", "local:2"]]
            one, two = (
                run([*command, *(["-o", out] if command is rank else []), *way], folder)
                for out, way in zip("ab", ways, strict=True)
            )
        return {
            "rate": self.sessions / two.seconds,
            "ratio": one.seconds / two.seconds,
            "cpu_seconds": two.cpu_seconds,
        }


CASES: tuple[Large | Mixed | Clustered, ...] = (
    *map(Large, SESSIONS),
    Mixed(),
    *map(Clustered, ("inspect", "rank")),
)
