"""An HTTP protocol for uvicorn with limits on incomplete requests."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEADERS = 1 << 16  # bytes of a request's line and headers
GRACE = 0.05  # seconds to read bytes that came in time
CONNECTIONS = 4_096  # per process


class Prompt(HttpToolsProtocol):
    """uvicorn's protocol with limits on request lines and headers.

    A connection is closed if its request line and headers are not complete within some
    seconds, counted from its start or from the first byte after the last answer. More
    than `HEADERS` bytes of them get the answer 431. Beyond `CONNECTIONS` connections, a
    new one is closed at once.

    Args:
        header_seconds: Time limit for the headers of a request.
    """

    def __init__(self, *args: Any, header_seconds: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.header_seconds = header_seconds
        self.header_bytes: int | None = 0  # None between headers and the next request
        self.late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_are_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.header_bytes is None or self.transport.is_closing():
            return
        self.header_bytes += len(data)
        if self.header_bytes > HEADERS:
            line = STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(line)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_are_complete()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        if self.late is None:
            self.header_bytes = 0
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
            self.transport.abort()
