"""What every request passes first: limits on its body and time, and counters."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import Histogram

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class Limited:
    """Answers 413 to a body that is too large, 408 or 503 to what takes too long.

    The rest of a large body is read and dropped, so that its sender reads the answer
    instead of a broken pipe. The time includes that of receiving the body.

    Args:
        app: The application behind.
        body: Most bytes of a body.
        seconds: Most seconds of a request.
    """

    def __init__(self, app: App, body: int, seconds: float):
        self.app, self.body, self.seconds = app, body, seconds

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        chunks: list[bytes] = []
        size, complete, begun = 0, False, False

        async def replay() -> Message:
            if not chunks:
                return await receive()  # which waits for the client to leave
            body = b"".join(chunks)
            chunks.clear()
            return {"type": "http.request", "body": body, "more_body": False}

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self.seconds):
                while not complete:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    piece = message.get("body", b"")
                    size += len(piece)
                    complete = not message.get("more_body")
                    chunks.append(piece)
                    if size > self.body:
                        chunks.clear()
                if size <= self.body:
                    await self.app(scope, replay, watched)
        except TimeoutError:
            if begun:
                raise
            if size <= self.body:
                late = "the answer was not ready"
                if not complete:
                    late = "the body did not come"
                await _refuse(
                    send, 503 if complete else 408, f"{late} within {self.seconds:g} s"
                )
        if size > self.body:
            await _refuse(
                send, 413, f"the body is larger than {self.body:,} bytes, the limit"
            )


class Counted:
    """Observes the seconds of each request by path and status.

    Args:
        app: The application behind.
        seconds: Histogram with the labels "path" and "status".
        paths: Paths with a label of their own; all others share "other".
    """

    def __init__(self, app: App, seconds: Histogram, paths: frozenset[str]):
        self.app, self.seconds, self.paths = app, seconds, paths

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            taken = time.perf_counter() - begun
            self.seconds.labels(path, str(status)).observe(taken)


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
