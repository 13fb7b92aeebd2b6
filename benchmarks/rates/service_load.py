"""Measures the service under load, with a switch to another version.

`debias serve` retrieves from 100,000 items. Several connections request the 100 best
items for a user with a history of 20. A connection sends the next request as soon as it
has an answer. Halfway through the test, a version with other item ids is published. An
answer counts as failed if its status is not 200. An answer counts as mixed if one of
its items is not in the version that the answer names. Client and service share the
processors of the machine.

    python -m benchmarks.rates.service_load 1800     # for 1,800 seconds
"""

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.rates import ann
from debias.retrieval.data.interactions import FeatureTable
from debias.retrieval.serving import index, versions

ITEMS, USERS, K, HISTORY = 100_000, 10_000, 100, 20
CONNECTIONS, SAMPLES = 4, 30


@dataclass
class Load:
    """The answers of a load test.

    Attributes:
        milliseconds: Wait for each answer.
        failed, mixed: Numbers of failed answers and of mixed answers.
        versions: Names of the versions that answered.
        memory: (seconds, megabytes) samples of the memory of the service's processes.
        processor: Processor time of the service in seconds.
    """

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0
    mixed: int = 0
    versions: set[str] = field(default_factory=set)
    memory: list[tuple[float, float]] = field(default_factory=list)
    processor: float = 0.0


def world(seed: int, number: int) -> tuple[FeatureTable, FeatureTable]:
    """Users and items. Row 7 of version 2 of the items has the id "2-7"."""
    rng = np.random.default_rng(seed)
    names = [f"u{user}" for user in range(USERS)]
    users = {"id": np.array(names), "age": rng.random(USERS)}
    items = {"id": np.array([f"{number}-{row}" for row in range(ITEMS)])}
    return FeatureTable.build(users), FeatureTable.build(items)


def publish(root: Path, seed: int, again: Path | None = None) -> versions.Version:
    """Publishes version 1; with `again`, publishes this tower with other item ids."""
    if again is not None:
        old = versions.load(root)
        number = int(versions.names(root)[-1]) + 1
        versions.publish(root, again, *world(seed, number), old.index)
        return old
    from debias.retrieval.models import dssm

    users, items = world(seed, 1)
    model = dssm(users.schema, items.schema, dim=ann.DIM, seed=seed)
    model.build()
    vectors, _ = ann.clustered(np.random.default_rng(seed), ITEMS, 1)
    how = partial(index.hnsw, links=32, effort=256, build_effort=200)
    versions.publish(root, model.user, users, items, index.build(vectors, how))
    return versions.load(root)


@contextmanager
def serving(root: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Starts `debias serve`; yields its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "debias", "serve", str(root), "--port", str(port)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


async def ask(url: str, pid: int, seconds: float, seed: int, halfway: Any) -> Load:
    """Keeps all connections busy; calls `halfway` after half of the time."""
    import aiohttp

    load = Load()
    rng = np.random.default_rng(seed)
    bodies = [
        {
            "user": {"id": f"u{rng.integers(2 * USERS)}", "age": rng.random()},
            "history": [f"{1 + n % 2}-{row}" for n, row in enumerate(rows)],
            "k": K,
        }
        for rows in rng.integers(ITEMS, size=(1_000, HISTORY)).tolist()
    ]
    async with aiohttp.ClientSession(url) as session:
        await up(session)
        begun = time.perf_counter()

        async def one(offset: int) -> None:
            for body in itertools.islice(itertools.cycle(bodies), offset, None):
                start = time.perf_counter()
                if start - begun > seconds:
                    return
                try:
                    async with session.post("/retrieve", json=body) as answer:
                        found = await answer.json()
                        ok = answer.status == 200 and len(found["items"]) == K
                except (aiohttp.ClientError, KeyError):
                    ok = False
                if not ok:
                    load.failed += 1
                    continue
                load.milliseconds.append(1e3 * (time.perf_counter() - start))
                load.versions.add(found["version"])
                own = f"{int(found['version'])}-"
                load.mixed += not all(item.startswith(own) for item in found["items"])

        async def watch() -> None:
            for _ in range(SAMPLES):
                passed = time.perf_counter() - begun
                load.memory.append((passed, memory_mb(pid)))
                await asyncio.sleep(seconds / SAMPLES)

        async def switch() -> None:
            await asyncio.sleep(seconds / 2)
            await asyncio.to_thread(halfway)

        connections = (one(101 * n) for n in range(CONNECTIONS))
        idle = processor(pid)
        await asyncio.gather(*connections, watch(), switch())
        load.processor = processor(pid) - idle
    return load


def tree(pid: int) -> list[Any]:
    """A process and its children: the supervisor and the workers of the service."""
    import psutil

    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def workers(pid: int) -> list[Any]:
    """The workers of the service: children of the process that forks them."""
    import psutil

    children = psutil.Process(pid).children()
    return [worker for child in children for worker in child.children()]


def memory_mb(pid: int) -> float:
    """Private memory of a process and its children, in megabytes."""
    return sum(each.memory_full_info().uss for each in tree(pid)) / 1e6


def processor(pid: int) -> float:
    """Processor seconds of a process and its children."""
    return sum(sum(each.cpu_times()[:2]) for each in tree(pid))


async def up(session: Any) -> None:
    import aiohttp

    for _ in range(600):
        try:
            async with session.get("/health") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the service did not start within a minute")


def measured(seconds: float, seed: int) -> Load:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        first = publish(root, seed)
        tower = first.path / "tower.onnx"
        with serving(root) as (url, pid):
            halfway = partial(publish, root, seed, tower)
            return asyncio.run(ask(url, pid, seconds, seed, halfway))


def common(load: Load, seconds: float) -> dict[str, float]:
    """Rate, waits, failures, processor time per answer (`cpu_ms`) and memory."""
    p50, p99 = np.percentile(load.milliseconds or [np.nan], [50, 99])
    return {
        "rate": len(load.milliseconds) / seconds,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "failed": float(load.failed),
        "cpu_ms": 1e3 * load.processor / max(1, len(load.milliseconds)),
        "memory_mb": load.memory[-1][1],
    }


def summary(load: Load, seconds: float) -> dict[str, float]:
    """Metrics of a test; `growth_mb` is from a quarter to half of its duration."""
    steady = [mb for at, mb in load.memory if seconds / 4 < at < seconds / 2]
    return {
        **common(load, seconds),
        "mixed": float(load.mixed),
        "versions": float(len(load.versions)),
        "growth_mb": steady[-1] - steady[0],
    }


@dataclass(frozen=True)
class Service:
    """One row: retrieves 100 of 100,000 items over HTTP, with a version switch."""

    row: str = "serve"
    population: str = "clustered-100k"
    seconds: float = 60.0

    def settings(self) -> dict[str, Any]:
        return {"connections": CONNECTIONS, "k": K, "seconds": self.seconds}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        return summary(measured(self.seconds, seed), self.seconds)


CASES = (Service(),)

if __name__ == "__main__":
    asked = float(sys.argv[1])
    found = measured(asked, 0)
    print(json.dumps({**summary(found, asked), "curve": found.memory}, indent=1))
