"""An application behind the server it is meant for, on a free port of this machine."""

import threading
import time
from contextlib import contextmanager
from unittest.mock import patch

import httpx
import uvicorn


@contextmanager
def running(app):
    """Yields a client.

    Server and test share a process, so that an event loop comes late to what is due
    while the test computes. Nothing is sent away for that.
    """
    config = uvicorn.Config(app, port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        base = f"http://127.0.0.1:{port}"
        with (
            patch("debias.serve.workers.PATIENCE", 20.0),
            patch("debias.serve.workers.LATE", 20.0),
            httpx.Client(base_url=base, timeout=30) as client,
        ):
            yield client
    finally:
        server.should_exit = True
        thread.join()
