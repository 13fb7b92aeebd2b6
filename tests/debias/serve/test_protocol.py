"""Tests of debias.serve.protocol: what is sent comes promptly, or is refused."""

import socket
import threading
import time
from contextlib import contextmanager
from functools import partial

import pytest
import uvicorn

from debias.serve.protocol import HEADERS, REFUSAL, Prompt

SECONDS = 0.3


asked = []  # paths of requests while the application is busy; None: it is not


def refusal(path):
    if not asked or asked[-1] is None:
        return None
    asked.append(path)
    return b"busy"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        scope["state"][REFUSAL] = refusal
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port():
    config = uvicorn.Config(
        app,
        port=0,
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


@pytest.fixture
def refusing():
    asked[:] = [b"first"]
    yield asked
    asked.clear()


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


def test_blank_lines_do_not_hold_a_connection(port):
    with connected(port) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.recv(1 << 16).endswith(b"ok")
        peer.sendall(b"\r\n")
        begun = time.monotonic()
        assert read(peer) == b"" and time.monotonic() - begun < 2


POST = b"POST /x?y HTTP/1.1\r\nHost: a\r\n"


def test_a_busy_service_refuses_before_it_reads(port, refusing):
    """The rest of a refused body is dropped; what comes after it is answered."""
    with connected(port) as peer:
        peer.sendall(POST + b"content-length: 200000\r\n\r\n")
        found = peer.recv(1 << 16)
        assert found.startswith(b"HTTP/1.1 503 ") and found.endswith(b"\r\n\r\nbusy")
        assert b"content-length: 4\r\n" in found and b"retry-after: 1\r\n" in found
        assert refusing == [b"first", b"/x?y"]
        refusing.append(None)  # no longer
        peer.sendall(bytes(200_000) + POST + b"content-length: 0\r\n\r\n")
        assert peer.recv(1 << 16).endswith(b"ok")
        time.sleep(2 * SECONDS)  # idle, as after any answer
        peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.recv(1 << 16).endswith(b"ok")


def test_the_rest_of_a_refused_request_comes_promptly(port, refusing):
    with connected(port) as peer:
        peer.sendall(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        assert b"503" in peer.recv(1 << 16)
        begun = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(200):
                peer.sendall(b"1\r\na\r\n")
                time.sleep(0.02)
        assert time.monotonic() - begun < 2


def test_a_refusal_closes_where_the_client_asks_for_it(port, refusing):
    with connected(port) as peer:
        peer.sendall(POST + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        found = read(peer)
        assert found.startswith(b"HTTP/1.1 503 ") and b"connection: close" in found
