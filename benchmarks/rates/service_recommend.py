"""Measures `POST /recommend` at a steady rate of requests.

`debias serve` retrieves 500 of 100,000 items for a user with a history of 20, and a
product model orders them. The product model reads 16 numbers, one of 1,000 brands, up
to 4 of 200 tags, the hour of the request and the retrieval score. Every request has a
scheduled time. The wait for its answer counts from the scheduled time, even if all
connections are still busy then. Client and service share the processors of the machine.
The models are not trained, which does not change the cost of a request.

    python -m benchmarks.rates.service_recommend 60     # for 60 seconds
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.rates import service_load
from benchmarks.rates.service_load import ITEMS, USERS, Load
from debias.data.kinds import Feature, Features, column_names
from debias.retrieval.data.interactions import FeatureTable
from debias.retrieval.serving import versions
from debias.serve.answers import RETRIEVED

RATE, CONNECTIONS = 50.0, 8
BRANDS, TAGS, NUMBERS = 1_000, 200, 16
K, CANDIDATES, HISTORY = 10, 500, 20


def items(seed: int) -> FeatureTable:
    """Items with the ids of `service_load.world`, a brand, tags and numbers."""
    rng = np.random.default_rng(seed)
    tags, sizes = rng.integers(TAGS, size=(ITEMS, 4)), rng.integers(5, size=ITEMS)
    raw: dict[str, Any] = {
        "id": [f"1-{row}" for row in range(ITEMS)],
        "brand": [f"brand {code}" for code in rng.integers(BRANDS, size=ITEMS)],
        "tags": [
            [f"tag {code}" for code in row[:size]]
            for row, size in zip(tags, sizes, strict=True)
        ],
    }
    raw |= {f"number {n}": rng.normal(size=ITEMS) for n in range(NUMBERS)}
    return FeatureTable.build(raw)


def kinds() -> Features:
    """The features of the ranker; half of the brands are unknown to it."""
    return (
        Feature("brand", "category", tuple(f"brand {n}" for n in range(0, BRANDS, 2))),
        Feature("tags", "categories", tuple(f"tag {n}" for n in range(TAGS)), 4),
        *(Feature(f"number {n}") for n in range(NUMBERS)),
        Feature("hour"),
        Feature(RETRIEVED),
    )


def write_ranker(path: Path, seed: int) -> Path:
    """Exports the relevance of a product model as ONNX."""
    from debias import ranker
    from debias.data.layout import Layout
    from debias.models.builders import product
    from debias.models.export import export

    own = kinds()
    names = column_names(own)
    places = [{"position": place} for place in range(1, K + 1)]
    model = product(Layout({"position": K}, places, own), seed)
    model(
        {
            "features": np.zeros((1, K, len(names)), np.float32),
            "position": np.arange(1, K + 1)[None],
        }
    )
    return export(ranker(model, feature_names=names, kinds=own), path)


def publish(root: Path, seed: int) -> None:
    """Publishes the version of `service_load` with features and a ranker."""
    plain = service_load.publish(root, seed)
    with TemporaryDirectory() as folder:
        ranker = write_ranker(Path(folder) / "ranker.onnx", seed)
        tower = plain.path / "tower.onnx"
        table = items(seed)
        versions.publish(root, tower, plain.users, table, plain.index, ranker=ranker)


async def ask(url: str, pid: int, seconds: float, seed: int) -> Load:
    """Sends `RATE` requests a second; waits count from their scheduled times."""
    import aiohttp

    load, rng = Load(), np.random.default_rng(seed)

    def body() -> dict[str, Any]:
        return {
            "user": {"id": f"u{rng.integers(2 * USERS)}", "age": rng.random()},
            "history": [f"1-{row}" for row in rng.integers(ITEMS, size=HISTORY)],
            "context": {"hour": int(rng.integers(24))},
            "k": K,
            "candidates": CANDIDATES,
        }

    async with aiohttp.ClientSession(url) as session:
        await service_load.up(session)
        bodies = [json.dumps(body()) for _ in range(round(RATE * seconds))]
        headers = {"content-type": "application/json"}

        async def one(connection: int, begun: float) -> None:
            for number in range(connection, len(bodies), CONNECTIONS):
                due = begun + number / RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                request = session.post(
                    "/recommend", data=bodies[number], headers=headers
                )
                async with request as answer:
                    found = json.loads(await answer.read())
                if answer.status != 200 or len(found["items"]) != K:
                    load.failed += 1
                    continue
                load.milliseconds.append(1e3 * (time.perf_counter() - due))
                load.versions.add(found["version"])

        idle, before = service_load.processor(pid), service_load.memory_mb(pid)
        begun = time.perf_counter()
        await asyncio.gather(*(one(n, begun) for n in range(CONNECTIONS)))
        load.processor = service_load.processor(pid) - idle
        load.memory = [(0.0, before), (seconds, service_load.memory_mb(pid))]
    return load


def measured(seconds: float, seed: int) -> Load:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        publish(root, seed)
        with service_load.serving(root) as (url, pid):
            return asyncio.run(ask(url, pid, seconds, seed))


def summary(load: Load, seconds: float) -> dict[str, float]:
    """Metrics of a test; `growth_mb` is the growth of memory from start to end."""
    growth = load.memory[-1][1] - load.memory[0][1]
    return {**service_load.common(load, seconds), "growth_mb": growth}


@dataclass(frozen=True)
class Recommended:
    """One row: 10 of 500 items, retrieved from 100,000, at `RATE` requests a second."""

    row: str = "serve_recommend"
    population: str = "clustered-100k"
    seconds: float = 60.0

    def settings(self) -> dict[str, Any]:
        return {
            "rate": RATE,
            "connections": CONNECTIONS,
            "k": K,
            "candidates": CANDIDATES,
            "seconds": self.seconds,
        }

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        return summary(measured(self.seconds, seed), self.seconds)


CASES = (Recommended(),)

if __name__ == "__main__":
    given = float(sys.argv[1])
    print(json.dumps(summary(measured(given, 0), given), indent=1))
