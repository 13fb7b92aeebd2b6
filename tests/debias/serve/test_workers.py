"""Tests of debias.serve.workers: what cannot be answered in time is refused."""

import asyncio
import threading

import pytest

from debias.serve.workers import LATE, PATIENCE, Busy, Workers


def test_a_queue_that_would_take_too_long_is_refused():
    async def scenario():
        workers, held = Workers(2), threading.Event()
        assert await workers.run(lambda: 7) == 7
        workers.seconds = 0.5 * PATIENCE  # an answer, on average
        tasks = [asyncio.create_task(workers.run(held.wait)) for _ in range(6)]
        await asyncio.sleep(0.01)
        # Two at work and four before the next: 4 / 2 * 0.5 = 1 time the patience.
        workers.check()
        tasks.append(asyncio.create_task(workers.run(held.wait)))
        await asyncio.sleep(0.01)
        with pytest.raises(Busy, match="try again"):
            workers.check()
        tasks[0].cancel()  # its thread is not free for that
        await asyncio.sleep(0.01)
        assert workers.waiting == 7
        held.set()
        assert await asyncio.gather(*tasks[1:]) == [True] * 6
        await asyncio.sleep(0.01)
        assert workers.waiting == 0
        with pytest.raises(ValueError, match="bad"):
            await workers.run(lambda: int("bad"))
        workers.close()

    asyncio.run(scenario())


def test_requests_that_are_let_in_count_until_the_loop_turns():
    async def scenario():
        workers = Workers(2)
        workers.seconds = PATIENCE  # an answer, on average
        # With four let in, (4 - 2) / 2 answers are the patience, and not above it.
        admitted = [workers.admit() for _ in range(6)]
        assert admitted == [True] * 5 + [False]
        await asyncio.sleep(0)
        assert workers.admit()
        workers.late = 2 * LATE
        assert not workers.admit()
        workers.close()

    asyncio.run(scenario())
