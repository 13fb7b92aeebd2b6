"""Tests of debias.serve.protocol: what comes before a body comes promptly."""

import socket
import threading
import time
from contextlib import contextmanager
from functools import partial

import pytest
import uvicorn

from debias.serve.protocol import HEADERS, Prompt

SECONDS = 0.3


async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port():
    config = uvicorn.Config(
        app,
        port=0,
        lifespan="off",
        log_level="critical",
        http=partial(Prompt, header_seconds=SECONDS),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        yield peer


def read(peer):
    """All that comes until the other side closes."""
    found = b""
    try:
        while more := peer.recv(1 << 16):
            found += more
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_half_sent_headers_are_dropped(port, sent):
    with connected(port) as peer:
        peer.sendall(sent)
        begun = time.monotonic()
        assert read(peer) == b""
        assert SECONDS / 2 < time.monotonic() - begun < 5


def test_headers_that_trickle_are_dropped(port):
    with connected(port) as peer:
        begun = time.monotonic()
        with pytest.raises(OSError):
            peer.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(200):
                peer.sendall(b"a%d: b\r\n" % number)
                time.sleep(0.05)
        assert time.monotonic() - begun < 5


def test_the_second_request_of_a_connection_is_held_to_it(port):
    with connected(port) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.recv(1 << 16).endswith(b"ok")
        time.sleep(2 * SECONDS)  # idle between requests is no half a request
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.recv(1 << 16).endswith(b"ok")
        peer.sendall(b"GET / HTTP/1.1\r\n")
        assert read(peer) == b""


def test_headers_that_are_too_large_are_refused(port):
    with connected(port) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\na: " + b"x" * (HEADERS + 1))
        assert read(peer).startswith(b"HTTP/1.1 431 ")
