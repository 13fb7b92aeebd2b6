"""An HTTP protocol for uvicorn that limits incomplete requests and the load."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

HEADERS = 1 << 16  # bytes of a request's line and headers
GRACE = 0.05  # seconds to read bytes that came in time
CONNECTIONS = 4_096  # per process
REFUSAL = "refusal"  # name in the state of a lifespan

Refusal = Callable[[bytes], bytes | None]


class Prompt(HttpToolsProtocol):
    """The HTTP protocol of uvicorn, with limits on request lines and headers.

    A connection is closed if its request line and headers are not complete within
    `header_seconds`. The time limit counts from the start of the connection, or from
    the first byte after the last answer. If the request line and headers together have
    more than `HEADERS` bytes, the answer is 431. If there are already `CONNECTIONS`
    connections, a new connection is closed at once.

    The application may set a function `refusal` in the state of its lifespan. `refusal`
    is called with the path of each POST request, before the body of the request is
    read. If `refusal` returns bytes of JSON, they are sent at once as the body of a 503
    answer. The application does not get a refused request, and the rest of the request
    is discarded. So refusals are cheap, and even an overloaded service answers every
    request at once or with 503.

    Args:
        header_seconds: Time limit for the request line and headers, in seconds.
    """

    def __init__(self, *args: Any, header_seconds: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.header_seconds = header_seconds
        self.header_bytes: int | None = 0  # None between headers and the next request
        self.late: asyncio.TimerHandle | None = None
        self.refusal: Refusal | None = self.app_state.get(REFUSAL)
        self.refused = False  # the request that is being read
        self.ended = True  # its body is complete
        self.running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_are_complete()
        self._stop_answering()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._idle() and self.timeout_keep_alive_task is None:
            if self.ended:  # blank lines before a request
                self._expect_headers()
            elif self.late is None:  # the rest of a request that has its answer
                self._drop_after_a_while()
        if self.header_bytes is None:
            return
        self.header_bytes += len(data)
        if self.header_bytes > HEADERS:
            line = STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(line)
            self._stop_answering()
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.refused = self.ended = False
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_are_complete()
        if self.refusal is not None and self.parser.get_method() == b"POST":
            body = self.refusal(self.url) if self._idle() else None
            if body is not None:
                self._refuse(body)
                return
        super().on_headers_complete()

    def _refuse(self, body: bytes) -> None:
        self.refused, close = True, not self.parser.should_keep_alive()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"1"),
            *([(b"connection", b"close")] if close else ()),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"".join((STATUS_LINE[503], lines, b"\r\n", body)))
        if close:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._stop_answering()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def _stop_answering(self) -> None:
        """Tells the application to stop, as if the client had disconnected."""
        self.pipeline.clear()
        if self.running is not None:
            self.running.disconnected = True

    def on_body(self, body: bytes) -> None:
        if not self.refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.ended = True
        if not self.refused:
            super().on_message_complete()
        if self._idle():
            self._headers_are_complete()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _idle(self) -> bool:
        """Whether no request is waiting for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_headers(self) -> None:
        if self.late is None:
            self.header_bytes = 0
            self._drop_after_a_while()

    def _drop_after_a_while(self) -> None:
        self.late = self.loop.call_later(self.header_seconds, self._look_once_more)

    def _headers_are_complete(self) -> None:
        self.header_bytes = None
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def _look_once_more(self) -> None:
        # After blocking, an event loop runs timers before it reads new bytes.
        self.late = self.loop.call_later(GRACE, self._drop)

    def _drop(self) -> None:
        self.late = None
        if not self.transport.is_closing():
            self._stop_answering()
            self.transport.abort()
