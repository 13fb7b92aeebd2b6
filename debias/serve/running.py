"""Runs the service as worker processes, which are restarted when they die."""

import copy
import dataclasses
import gc
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn
import uvicorn._subprocess
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from debias.artifacts import open_scorer
from debias.retrieval.serving import versions
from debias.serve.app import service
from debias.serve.protocol import CONNECTIONS, Prompt

SWITCH = 1e-4  # seconds
HANDLES = CONNECTIONS + 256  # open files per process
PRELOADED = ["debias.__main__", "debias.serve.running", "faiss", "onnxruntime"]


@dataclass(frozen=True)
class Application:
    """Makes the application inside a worker process.

    Attributes:
        root, body, seconds, threads, hosts, token: See `debias.serve.app.service`.
        begin: Function that each worker calls first, for example to silence the
            messages of TensorFlow.
        ranker: Path of a ranker for `debias.artifacts.open_scorer`. If None, only
            rankers in versions are served.
    """

    root: str | Path | None
    ranker: Path | None
    body: int
    seconds: float
    threads: int
    hosts: frozenset[str]
    token: str | None = field(default=None, repr=False)
    begin: Callable[[], None] | None = None

    def __call__(self) -> FastAPI:
        """Makes the application; an error ends the process without a retry."""
        _end_with_parent()
        if self.begin is not None:
            self.begin()
        options = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name not in ("root", "ranker", "begin")
        }
        try:
            scorer = None if self.ranker is None else open_scorer(self.ranker)
            app = service(self.root, scorer, **options)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            from debias.data.text import printable

            print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
            sys.exit(STARTUP_FAILURE)
        # Computing threads block the thread that receives and sends for at most this
        # time.
        sys.setswitchinterval(SWITCH)
        gc.collect()
        gc.freeze()  # the garbage collector never scans the tables of a version again
        return app


@dataclass(frozen=True)
class Tls:
    """Files of a TLS certificate, for uvicorn.

    Attributes:
        ssl_certfile, ssl_keyfile: PEM files of the certificate and its key. The
            certificate file may contain the key.
        ssl_keyfile_password: Password of the key.
        ssl_ca_certs: PEM file of certificate authorities. Clients must have a
            certificate that one of the authorities signed.

    Raises:
        ValueError: A file is missing or invalid, or the certificate and key do not
            match.
    """

    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_ca_certs: Path | None = None

    def __post_init__(self) -> None:
        if self.ssl_certfile is None:
            if self.ssl_keyfile or self.ssl_ca_certs:
                raise ValueError("--ssl-keyfile and --ssl-ca-certs need --ssl-certfile")
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        named = (self.ssl_certfile, self.ssl_keyfile, self.ssl_ca_certs)
        for path in filter(None, named):
            if not path.is_file():
                raise ValueError(f"{path}: does not exist, or is not a file")
        try:
            # An encrypted key without a password would prompt at the terminal.
            context.load_cert_chain(
                self.ssl_certfile,
                self.ssl_keyfile,
                lambda: self.ssl_keyfile_password or "",
            )
        except (ssl.SSLError, OSError) as error:
            files = " and ".join(str(path) for path in filter(None, named[:2]))
            raise ValueError(
                f"{files}: is not a certificate with its key in PEM, or the password "
                f"of the key is wrong: {error}"
            ) from None
        if self.ssl_ca_certs:
            try:
                context.load_verify_locations(self.ssl_ca_certs)
            except (ssl.SSLError, OSError) as error:
                raise ValueError(
                    f"{self.ssl_ca_certs}: holds no certificate in PEM: {error}"
                ) from None

    def options(self) -> dict[str, Any]:
        """The TLS arguments of uvicorn."""
        found: dict[str, Any] = dataclasses.asdict(self)
        if self.ssl_ca_certs:
            found["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        return found


class Supervisor(Multiprocess):
    """A uvicorn supervisor that restarts a worker at once when it dies.

    Workers are forked from the fork server of `multiprocessing`, which has already
    imported all modules. So a new worker starts in less than a second.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.should_exit = _Watched(lambda: [each.process for each in self.processes])

    def keep_subprocess_alive(self) -> None:
        for each in self.processes:
            each.child_conn.close()  # otherwise the pipe stays open without the worker
        super().keep_subprocess_alive()


class _Watched(threading.Event):
    """An event; a wait for the event also ends when a watched process ends."""

    def __init__(self, processes: Callable[[], Sequence[BaseProcess]]):
        super().__init__()
        self.processes = processes

    def wait(self, timeout: float | None = None) -> bool:
        connection.wait([each.sentinel for each in self.processes()], timeout)
        return self.is_set()


def run(
    application: Application,
    host: str,
    port: int,
    workers: int = 1,
    tls: Tls = Tls(),
    access_log: str | None = None,
) -> bool:
    """Serves until a signal arrives, then answers open requests and stops.

    If a worker dies, for example because a mapped file was truncated, it is restarted
    with the latest undamaged version.

    Args:
        application: The object that makes the application in each worker.
        host, port: Address and port to listen on.
        workers: Number of processes. All processes share the memory of a version's
            files.
        tls: Certificate for HTTPS. Without a certificate file, the service uses HTTP.
        access_log: File for a log with one line of JSON per request, or "-" for
            standard output. If None, requests are not logged.

    Returns:
        True if the service ran, False if a worker could not start.

    Raises:
        OSError: The service cannot listen on the address and port.
        ValueError: There is no version to serve.
    """
    if application.root is not None:
        with suppress(OSError):  # for a store; workers may serve from a copy
            versions.current(application.root)  # before anything is started
    _raise_file_limit()
    config = uvicorn.Config(
        application,
        host,
        port,
        factory=True,
        http=partial(Prompt, header_seconds=application.seconds),  # type: ignore[arg-type]
        ws="none",
        access_log=False,
        log_config=_logging(access_log),
        server_header=False,
        workers=workers,
        timeout_graceful_shutdown=int(application.seconds) + 1,
        timeout_worker_healthcheck=30,
        **tls.options(),
    )
    _fork_workers()
    with _shared_counters(workers):
        supervisor = Supervisor(config, [_bound(config)])
        supervisor.run()
    return all(each.exitcode != STARTUP_FAILURE for each in supervisor.processes)


def _bound(config: uvicorn.Config) -> socket.socket:
    try:
        return config.bind_socket()
    except SystemExit:  # uvicorn has printed the reason
        raise OSError(
            f"cannot listen on {config.host} port {config.port}; choose another "
            "--host or --port"
        ) from None


def _fork_workers() -> None:
    """Makes uvicorn fork its workers from a process that has imported `PRELOADED`.

    The process needs a folder for its socket. Without such a folder, for example in a
    read-only container, uvicorn starts workers as usual.
    """
    with suppress(FileNotFoundError):
        tempfile.gettempdir()
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(PRELOADED)
        uvicorn._subprocess.spawn = forks  # type: ignore[assignment]


def _end_with_parent() -> None:
    """Ends this worker when its supervisor ends for any reason."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HANDLES if hard == resource.RLIM_INFINITY else min(HANDLES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _shared_counters(workers: int) -> Iterator[None]:
    """Creates a folder in which several workers count their requests jointly."""
    if workers == 1 or "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _logging(access_log: str | None) -> dict[str, Any]:
    """The logging configuration of uvicorn, with the loggers of this library added."""
    found = copy.deepcopy(LOGGING_CONFIG)
    found["loggers"]["debias.serve"] = {"handlers": ["default"], "level": "INFO"}
    if access_log is None:
        return found
    handler: dict[str, Any] = {"formatter": "plain", "class": "logging.FileHandler"}
    if access_log == "-":
        handler = {
            "formatter": "plain",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
        }
    else:
        handler["filename"] = access_log
    found["formatters"]["plain"] = {"format": "%(message)s"}
    found["handlers"]["requests"] = handler
    found["loggers"]["debias.access"] = {
        "handlers": ["requests"],
        "level": "INFO",
        "propagate": False,
    }
    return found
