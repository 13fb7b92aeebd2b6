"""Attacks the service by hostile requests, slow headers, large bodies and load.

`debias serve` retrieves from 100,000 items. During the attack, a probe requests `/live`
fifty times a second. The longest wait of the probe is the longest freeze of the
service. After the attack, more connections are opened than the service can answer.
During this overload, versions are published, damaged and rolled back, and a worker is
killed. An answer is wrong if one of its items is not in the version that the answer
names.

    python -m benchmarks.rates.service_attack 10000 1000 60

The three arguments are the number of hostile requests, the number of connections, and
the seconds of load.
"""

import asyncio
import json
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from benchmarks.rates import service_load
from debias.retrieval.serving import versions

JSON = {"content-type": "application/json"}
PATHS = ("/retrieve", "/rank", "/recommend")
LARGE = 3_900_000  # bytes of a large body, just below the limit
SENDERS = 16  # of hostile and of large bodies, at the same time


@dataclass
class Seen:
    """The result of an attack.

    Attributes:
        statuses: Number of answers by status; 0 is a broken connection.
        milliseconds: Waits for answers with status 200, under load.
        wrong: Number of answers with items that are not in the version that they name.
        names: Versions that answered.
        freeze_ms: Longest wait of the probe over all `probes` requests.
        memory: Samples of the memory of the service, in megabytes.
        held: Number of connections with half a request that were still open at the end.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    wrong: int = 0
    names: set[str] = field(default_factory=set)
    freeze_ms: float = 0.0
    probes: int = 0
    memory: list[float] = field(default_factory=list)
    held: int = 0


def hostile(rng: random.Random) -> bytes:
    """A random request body, which is invalid in most cases."""
    size = rng.choice((1, 10, 1_000, 30_000))
    word = json.dumps("x" * rng.choice((0, 1, 600)))
    number = rng.choice(("1e999", "-0.0", "9" * rng.randrange(1, 5_000), "1e-400", "1"))
    value = rng.choice((word, number, "null", "true", "[]", "{}", '"\\ud800"', "NaN"))
    key = rng.choice(("features", "items", "ids", "user", "history", "where", "k", "z"))
    many = ",".join([value] * size)
    keys = ",".join(f'"{n}":{value}' for n in range(size))
    body = rng.choice(
        (
            f'{{"{key}": {value}}}',
            f'{{"{key}": [{many}]}}',
            f'{{"{key}": [[{many}]]}}',
            f'{{"{key}": [{{{keys}}}]}}',
            f'{{"{key}": {{{keys}}}}}',
            f"{{{keys}}}",
            f'{{"{key}": ' + "[" * size,
            f'{{"{key}": ' + '{"a":' * size,
            '{"user": {"age": 0.5}, "k": 3}',
        )
    ).encode()
    if rng.random() < 0.3:  # change one byte, or truncate
        place = rng.randrange(len(body))
        tail = bytes([rng.randrange(256)]) + body[place + 1 :]
        body = body[:place] + rng.choice((b"", tail))
    return body


def large(rng: random.Random) -> bytes:
    """A body of nearly the largest allowed size, with values that are slow to parse."""
    piece = rng.choice(('""', "1", "[]", '"x"', "null", '{"a":1}', "[[1]]"))
    many = ",".join([piece] * (LARGE // (len(piece) + 1)))
    key = rng.choice(("features", "items", "ids", "history"))
    return f'{{"{key}": [{rng.choice((many, f"[{many}]"))}]}}'.encode()


async def post(session: Any, seen: Seen, path: str, body: bytes) -> None:
    import aiohttp

    try:
        async with session.post(path, data=BytesIO(body), headers=JSON) as answer:
            await answer.read()
            seen.statuses[answer.status] += 1
    except aiohttp.ClientError:
        seen.statuses[0] += 1


async def flood(session: Any, seen: Seen, bodies: Iterator[tuple[str, bytes]]) -> None:
    """Sends all bodies, `SENDERS` at a time."""

    async def sender() -> None:
        for path, body in bodies:
            await post(session, seen, path, body)

    await asyncio.gather(*(sender() for _ in range(SENDERS)))


async def slow_headers(url: str, seen: Seen, connections: int, seconds: float) -> None:
    """Opens connections that send a header slowly; counts how many stay open."""
    host, port = url.removeprefix("http://").split(":")

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nX: ")
        end = time.monotonic() + seconds
        closed = asyncio.create_task(reader.read(1))  # no other bytes will follow
        while time.monotonic() < end and not closed.done():
            writer.write(b"x")
            await asyncio.wait({closed}, timeout=0.5)
        seen.held += not closed.done()
        closed.cancel()
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def crowd(url: str, seen: Seen, connections: int, seconds: float) -> None:
    """Opens connections that send the next request as soon as they have an answer.

    The connections are plain sockets, because a thousand clients of an HTTP library
    would need more processor time than the service.
    """
    end = time.monotonic() + seconds
    body = json.dumps({"user": {"age": 0.5}, "k": service_load.K}).encode()
    host = url.removeprefix("http://")
    head = f"POST /retrieve HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n"
    request = f"{head}content-type: application/json\r\n\r\n".encode() + body

    async def ask(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length: ")[2].split()[0])
        return int(head[9:12]), await reader.readexactly(size)

    async def one() -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while time.monotonic() < end:
            begun = time.perf_counter()
            try:
                if streams is None:
                    streams = await asyncio.open_connection(*host.split(":"))
                streams[1].write(request)
                status, text = await ask(streams[0])
            except (OSError, asyncio.IncompleteReadError):  # its worker was killed
                status, text = 0, b""
                await closed(streams)
                streams = None
            seen.statuses[status] += 1
            if status == 200:
                seen.milliseconds.append(1e3 * (time.perf_counter() - begun))
                check(seen, msgspec.json.decode(text))
            else:
                await asyncio.sleep(0.5)  # sooner than Retry-After says
        await closed(streams)

    await asyncio.gather(*(one() for _ in range(connections)))


async def closed(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None,
) -> None:
    if streams is not None:
        streams[1].close()
        with suppress(OSError):
            await streams[1].wait_closed()


def check(seen: Seen, answer: dict[str, Any]) -> None:
    """Counts an answer as wrong if it has items of another version."""
    own = f"{int(answer['version'])}-"
    seen.wrong += not all(item.startswith(own) for item in answer["items"])
    seen.names.add(answer["version"])


@asynccontextmanager
async def probed(url: str, pid: int, seen: Seen) -> AsyncIterator[None]:
    """Context manager: requests /live repeatedly, on a separate connection."""
    import aiohttp

    async def forever() -> None:
        async with aiohttp.ClientSession(url) as session:
            while True:
                begun = time.perf_counter()
                try:
                    async with session.get("/live") as answer:
                        await answer.read()
                except aiohttp.ClientError:
                    pass  # its worker was killed
                waited = 1e3 * (time.perf_counter() - begun)
                seen.freeze_ms = max(seen.freeze_ms, waited)
                seen.probes += 1
                if seen.probes % 50 == 0:
                    seen.memory.append(service_load.memory_mb(pid))
                await asyncio.sleep(0.02)

    task = asyncio.create_task(forever())
    yield
    task.cancel()


def trouble(root: Path, pid: int, seconds: float) -> None:
    """Publishes ten versions, damages two, rolls back three times, kills a worker."""
    tower, pause = root / "tower.onnx", seconds / 16
    index = versions.load(root).index
    for step in range(10):
        time.sleep(pause)
        number = int(versions.names(root)[-1]) + 1
        versions.publish(root, tower, *service_load.world(0, number), index)
        if step in (3, 7):
            path = root / "versions" / versions.current(root) / "items.npz"
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-100])
        if step in (2, 5, 9):
            time.sleep(pause)
            versions.roll_back(root)
        if step == 6:
            service_load.workers(pid)[0].send_signal(signal.SIGKILL)


def apart(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in a separate process, without delaying this process."""
    process = multiprocessing.get_context("spawn").Process(
        target=function, args=arguments
    )
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} ended with {process.exitcode}")


async def attack(
    url: str,
    pid: int,
    requests: int,
    connections: int,
    seconds: float,
    meanwhile: Callable[[], None],
    seed: int = 0,
) -> tuple[Seen, Seen]:
    """Answers to hostile clients, and answers to normal clients during `meanwhile`."""
    import aiohttp

    rng, bad, good = random.Random(seed), Seen(), Seen()
    some = ((rng.choice(PATHS), hostile(rng)) for _ in range(requests))
    costly = ((rng.choice(PATHS), large(rng)) for _ in range(max(1, requests // 100)))
    plain = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=plain) as session:
        await service_load.up(session)
        async with probed(url, pid, bad):
            await flood(session, bad, some)
            await slow_headers(url, bad, connections, 6.0)
            await flood(session, bad, costly)
        async with probed(url, pid, good):
            await asyncio.gather(
                crowd(url, good, connections, seconds), asyncio.to_thread(meanwhile)
            )
    return bad, good


def summary(bad: Seen, good: Seen, seconds: float) -> dict[str, float]:
    """`failed` counts statuses 5xx except 503; `growth_mb` is relative to the start."""
    p50, p99 = np.percentile(good.milliseconds or [np.nan], [50, 99])
    both = bad.statuses + good.statuses
    memory = bad.memory + good.memory
    first = float(np.median(memory[:3])) if memory else np.nan
    return {
        "requests": float(both.total()),
        "failed": float(sum(n for s, n in both.items() if s >= 500 and s != 503)),
        "wrong": float(good.wrong),
        "broken": float(both[0]),
        "held": float(bad.held),
        "attack_freeze_ms": bad.freeze_ms,
        "load_freeze_ms": good.freeze_ms,
        "rate": good.statuses[200] / seconds,
        "shed_share": good.statuses[503] / max(1, good.statuses.total()),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "versions": float(len(good.names)),
        "memory_mb": memory[-1] if memory else np.nan,
        "growth_mb": memory[-1] - first if memory else np.nan,
    }


def measured(
    requests: int, connections: int, seconds: float, seed: int
) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        first = service_load.publish(root, seed)
        # Its folder disappears when newer versions are published.
        (root / "tower.onnx").write_bytes((first.path / "tower.onnx").read_bytes())
        with service_load.serving(root) as (url, pid):
            meanwhile = partial(apart, trouble, root, pid, seconds)
            found = asyncio.run(
                attack(url, pid, requests, connections, seconds, meanwhile, seed)
            )
    return summary(*found, seconds)


@dataclass(frozen=True)
class Attacked:
    """One row: hostile requests, then overload while versions are switched."""

    row: str = "serve_attacked"
    population: str = "clustered-100k"
    requests: int = 10_000
    connections: int = 1_000
    seconds: float = 600.0

    def settings(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "connections": self.connections,
            "seconds": self.seconds,
        }

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        return measured(self.requests, self.connections, self.seconds, seed)


CASES = (Attacked(),)

if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:4]]
    found = measured(int(given[0]), int(given[1]), given[2], 0)
    print(json.dumps(found, indent=1))
