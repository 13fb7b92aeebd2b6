"""A thread pool that refuses requests that it could not answer in time."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

WAITING = 256  # most requests in work or waiting
PATIENCE = 0.1  # longest expected wait of a request in seconds
LATE = 0.2  # longest delay of the event loop in seconds
LOOK = 0.05  # seconds between measurements of the event loop's delay
BUSY = "too many requests at once; try again"
FIRST = 0.005  # duration of an answer before one was measured
MEMORY = 0.05  # weight of the latest answer in the mean duration

T = TypeVar("T")


class Busy(Exception):
    """Raised if the service is too busy."""


class Workers:
    """Threads that compute answers to requests.

    The pool refuses a request in three cases: its estimated wait exceeds `PATIENCE`,
    the pool already has `WAITING` requests, or the event loop is delayed by more than
    `LATE`. The wait is estimated from the number of requests in the pool and the time
    of past answers. An abandoned request stays in the pool until its thread is done.

    Args:
        threads: Number of threads.
    """

    def __init__(self, threads: int):
        self.pool, self.threads = ThreadPoolExecutor(threads, "answer"), threads
        self.waiting, self.seconds, self.late = 0, FIRST, 0.0
        self.arrived = 0  # requests that `admit` let in since the loop last turned

    def busy(self) -> bool:
        """Whether a new request would be refused."""
        ahead = self.waiting + self.arrived
        wait = (ahead - self.threads) * self.seconds / self.threads
        return ahead >= WAITING or wait > PATIENCE or self.late > LATE

    def check(self) -> None:
        """Raises Busy if a new request would be refused."""
        if self.busy():
            raise Busy(BUSY)

    def admit(self) -> bool:
        """Whether to read the body of a request; called after its headers are read."""
        if self.busy():
            return False
        if not self.arrived:
            asyncio.get_running_loop().call_soon(self._turned)
        self.arrived += 1
        return True

    def _turned(self) -> None:
        self.arrived = 0

    async def watch(self) -> None:
        """Measures in an endless loop by how much the event loop delays callbacks."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK
            await asyncio.sleep(LOOK)
            self.late = loop.time() - due

    async def run(self, compute: Callable[[], T]) -> T:
        """Calls `compute` in a thread and returns its value.

        Raises:
            Busy: See `check`.
        """
        self.check()
        loop = asyncio.get_running_loop()

        def timed() -> T:
            begun = time.perf_counter()
            try:
                return compute()
            finally:
                taken = time.perf_counter() - begun
                self.seconds += MEMORY * (taken - self.seconds)

        def done(_: Future[T]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._done)

        self.waiting += 1
        future = self.pool.submit(timed)
        future.add_done_callback(done)
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self.waiting -= 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
