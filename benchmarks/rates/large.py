"""One pass of `debias train` over a log on disk, under a limit of memory.

The log is simulated by the command that users run, and so is the training: `product`, a
tenth of the queries held out to validate and another to test. The limit is that of a
control group of Linux, which kills what takes more, files read ahead included. Where no
group can be made, which takes root, memory is watched only and a row has no `limit_gb`.
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

GROUPS = Path("/sys/fs/cgroup")
SESSIONS = {"500k": 500_000, "5M": 5_000_000, "50M": 50_000_000}
QUERIES = 2000


@contextmanager
def group(gigabytes: float, root: Path = GROUPS) -> Iterator[Path | None]:
    """A control group whose processes get so much memory; None if it cannot be made."""
    first = (root / "memory").is_dir()  # the first version has a tree for each resource
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
    """What a command printed, and what it took.

    Attributes:
        seconds, cpu_seconds: Of the clock, and of all processors.
    """

    output: str
    seconds: float
    cpu_seconds: float


def run(command: Sequence[str], folder: Path, inside: Path | None = None) -> Run:
    """Runs `python -m` command in a folder, and in a control group.

    Raises:
        RuntimeError: The command failed, or was killed for the memory it took.
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
    """One pass over the sessions that `population` names."""

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
        """`rate` counts sessions of the log a second of the whole command."""
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


CASES = tuple(Large(name) for name in SESSIONS)
