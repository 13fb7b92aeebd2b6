"""Middleware for access control, limits of size and time, and logging."""

import asyncio
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Histogram

from debias.serve.workers import BUSY, Busy

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

BODIES = 16  # bodies of the largest size held at once
OPEN = frozenset({"/live", "/ready"})  # need no token
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
REFUSED = json.dumps({"error": BUSY}).encode()

access = logging.getLogger("debias.access")


class Limited:
    """Limits the size and the time of requests, and answers 413, 408 or 503.

    If a body is too large, its rest is read and discarded, so that the sender gets the
    answer 413 instead of a broken pipe. The time limit includes the time to receive the
    body. If the service is too busy, a POST request is refused before its body is read.
    A request is also refused if the bodies of other requests fill the memory limit.

    Args:
        app: The application that handles the requests.
        body: Largest size of a body in bytes.
        seconds: Time limit of a request in seconds.
        check: Function that raises Busy if the service is too busy.
    """

    def __init__(
        self,
        app: App,
        body: int,
        seconds: float,
        check: Callable[[], None] = lambda: None,
    ):
        self.app, self.body, self.seconds, self.check = app, body, seconds, check
        self.held = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            if scope["method"] == "POST":
                self.check()
            await self._answer(scope, receive, send)
        except Busy as busy:
            await refuse(send, 503, str(busy), retry=True)

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        chunks: list[bytes] = []
        size, complete, begun = 0, False, False

        async def replay() -> Message:
            if not chunks:
                return await receive()  # waits for the client to disconnect
            body = b"".join(chunks)
            chunks.clear()
            return {"type": "http.request", "body": body, "more_body": False}

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        own = 0
        try:
            async with asyncio.timeout(self.seconds):
                while not complete:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    piece = message.get("body", b"")
                    size += len(piece)
                    complete = not message.get("more_body")
                    if size > self.body:
                        chunks.clear()
                        continue
                    own += len(piece)
                    self.held += len(piece)
                    if self.held > BODIES * self.body:
                        raise Busy("too many large requests at once; try again")
                    chunks.append(piece)
                if size <= self.body:
                    await self.app(scope, replay, watched)
        except TimeoutError:
            if begun:
                raise
            if size <= self.body:
                late = "the answer was not ready"
                if not complete:
                    late = "the body did not come"
                status = 503 if complete else 408
                await refuse(send, status, f"{late} within {self.seconds:g} s")
        finally:
            self.held -= own
        if size > self.body:
            reason = f"the body is larger than {self.body:,} bytes, the limit"
            await refuse(send, 413, reason)


class Admitted:
    """Checks the Host header and bearer token of requests; answers 400 or 401.

    The check of the Host header prevents DNS rebinding. In a DNS rebinding attack, the
    name of a malicious site resolves to this machine. A page of the malicious site then
    sends requests with the site's name as Host. Paths in `OPEN` need no token, because
    the probes of an orchestrator read them.

    Args:
        app: The application that handles the requests.
        hosts: Accepted host names and addresses. "*" accepts any host, and "addresses"
            accepts any IP address.
        token: Required bearer token. If None, no token is required.
    """

    def __init__(self, app: App, hosts: Collection[str], token: str | None = None):
        self.app, self.hosts = app, frozenset(host.lower() for host in hosts)
        self.token = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        if "*" not in self.hosts and not (
            len(hosts) == 1 and served_here(hosts[0].decode("latin-1"), self.hosts)
        ):
            reason = "this Host is not served here; --allow-host names further ones"
            await refuse(send, 400, reason)
            return
        given = [value for name, value in headers if name == b"authorization"]
        if self.token is not None and scope["path"] not in OPEN:
            same = [hmac.compare_digest(value, self.token) for value in given]
            if same != [True]:
                reason = "the bearer token is missing or wrong"
                await refuse(send, 401, reason, challenge=True)
                return
        await self.app(scope, receive, send)


def served_here(host: str, hosts: Collection[str]) -> bool:
    """Whether a Host header matches one of `hosts`, ignoring the port.

    >>> served_here("LOCALHOST:8000", {"localhost"}), served_here("evil.test", {"::1"})
    (True, False)
    >>> served_here("[::1]:8000", {"::1"}), served_here("10.0.0.7", {"addresses"})
    (True, True)
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    if not port.isdecimal():
        return False
    name = name.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    if name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return "addresses" in hosts


def hosts_of(host: str, further: Collection[str] = ()) -> frozenset[str]:
    """The accepted Host headers for an address to listen on.

    If the service listens on all addresses of the machine, any IP address is accepted
    as Host, because DNS rebinding needs a name.

    >>> sorted(hosts_of("127.0.0.1", ["recall.example"]))
    ['127.0.0.1', '::1', 'localhost', 'recall.example']
    """
    if host in ("0.0.0.0", "::", ""):
        return frozenset({"addresses", *LOOPBACK, *further})
    return frozenset({host, *further, *(LOOPBACK if host in LOOPBACK else ())})


class Counted:
    """Logs each request, and measures its time by path and status.

    Args:
        app: The application that handles the requests.
        seconds: Histogram of seconds, with the labels "path" and "status".
        paths: Paths that each have their own label. All other paths share the label
            "other".
    """

    def __init__(self, app: App, seconds: Histogram, paths: Collection[str]):
        self.app, self.seconds, self.paths = app, seconds, paths

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, size = time.perf_counter(), 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            status = status or 500
            raise
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            taken = time.perf_counter() - begun
            # 499, as in nginx: the client disconnected before the answer.
            self.seconds.labels(path, str(status or 499)).observe(taken)
            if access.isEnabledFor(logging.INFO):
                access.info(_line(scope, status or 499, taken, size))


class Refusal:
    """The answer that `debias.serve.protocol.Prompt` sends if the service is too busy.

    `Refusal` counts and logs refused requests in the same way as `Counted`.

    Args:
        admit: Function that returns whether the service accepts a request.
        seconds, paths: See `Counted`.
    """

    def __init__(
        self, admit: Callable[[], bool], seconds: Histogram, paths: Collection[str]
    ):
        self.admit, self.seconds, self.paths = admit, seconds, paths

    def __call__(self, url: bytes) -> bytes | None:
        """The body of a 503 answer to a request; None if the request is accepted."""
        if self.admit():
            return None
        path = url.partition(b"?")[0].decode("latin-1")
        label = path if path in self.paths else "other"
        self.seconds.labels(label, "503").observe(0.0)
        if access.isEnabledFor(logging.INFO):
            scope = {"method": "POST", "path": path}
            access.info(_line(scope, 503, 0.0, len(REFUSED)))
        return REFUSED


def _line(scope: Any, status: int, taken: float, size: int) -> str:
    """A request as one line of JSON, in ASCII."""
    client = scope.get("client")
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(1e3 * taken, 3),
            "bytes": size,
        }
    )


async def refuse(
    send: Send, status: int, reason: str, retry: bool = False, challenge: bool = False
) -> None:
    """Sends an error answer; closes the connection unless `retry` is true."""
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1") if retry else (b"connection", b"close"),
    ]
    if challenge:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
