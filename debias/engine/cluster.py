"""Processes the files of a log on a Dask cluster.

The result equals that of a single process.

>>> with joined(None) as over:
...     list(over(abs, [-1, 2]))
[1, 2]
"""

import logging
import pickle
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from warnings import catch_warnings

from debias.engine.extras import installed
from debias.types import Over

T = TypeVar("T")
R = TypeVar("R")
_TLS = "DASK_DISTRIBUTED__COMM__TLS__"
SECONDS = 20.0  # largest time for a scheduler, and a first worker, to answer
ALONE = 60.0  # seconds without any worker, after which none is expected to come back


@contextmanager
def joined(address: str | None, seconds: float = SECONDS) -> Iterator[Over]:
    """Context manager that yields a `map` over the workers of a cluster.

    The mapped function and its arguments are pickled. If a worker dies, other workers
    repeat its tasks. Iterating over the results raises `ValueError` if the cluster has
    no worker for a minute. All workers must see the same paths, on a shared file system
    or in an object store.

    Args:
        address: Address of a Dask scheduler, such as tcp://10.0.0.7:8786. The address
            local:N starts N processes on this machine. None means that the context
            manager yields the built-in `map`.
        seconds: Time limit in seconds for the scheduler and a first worker to answer.

    Raises:
        ModuleNotFoundError: The extra `cluster` is not installed.
        ValueError: The address is invalid, there is no scheduler or worker, or a worker
            has other versions of this library or its dependencies.
    """
    if address is None:
        yield map
        return
    distributed = installed("distributed", "cluster")
    kind, _, rest = address.partition(":")
    if kind == "local" and rest.isdigit() and int(rest):
        quiet: dict[str, Any] = {"dashboard_address": None, "silence_logs": "CRITICAL"}
        with (
            _settings(),
            distributed.LocalCluster(
                n_workers=int(rest), threads_per_worker=1, **quiet
            ) as started,
            distributed.Client(started) as client,
        ):
            yield _checked(client, address, seconds)
        return
    if not rest.startswith("//"):
        raise ValueError(
            f"--cluster must be tcp://HOST:PORT or local:PROCESSES, got {address!r}"
        )
    try:
        client = distributed.Client(address, timeout=seconds)
    except TypeError as error:  # Dask's, without certificates
        raise ValueError(
            f"--cluster {address}: Dask has no certificates: set {_TLS}CA_FILE, "
            f"{_TLS}CLIENT__CERT and {_TLS}CLIENT__KEY to PEM files"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--cluster {address}: no Dask scheduler answers there: {error}"
        ) from error
    with client, _quiet():
        yield _checked(client, address, seconds)


def _settings() -> Any:
    """Settings of Dask for workers of this machine, which scan large arrays.

    By default, Dask profiles its workers, and returns memory to the system as soon as
    64 KB are free. Returning memory makes counting a fourth slower.
    """
    import dask

    kept = {"MALLOC_TRIM_THRESHOLD_": 1 << 27, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
    environment = {
        f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in kept.items()
    }
    return dask.config.set({**environment, "distributed.worker.profile.enabled": False})


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides Dask's tracebacks of a lost connection; `_over` raises an error instead."""
    log = logging.getLogger("distributed.client")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def edition() -> dict[str, str]:
    """Versions of the packages that determine the results."""
    import numpy as np
    import pyarrow as pa

    import debias

    return {
        "debias": debias.__version__,
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
        "python": platform.python_version(),
    }


def _checked(client: Any, address: str, seconds: float) -> Over:
    """The map of a cluster, after checking that its workers run the same versions."""
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise ValueError(f"--cluster {address}: the scheduler has no worker") from None
    # A worker may be lost meanwhile; each task compares editions again.
    for worker, theirs in client.run(edition, on_error="return").items():
        if isinstance(theirs, ModuleNotFoundError):
            raise ValueError(
                f"--cluster {address}: a worker lacks {theirs.name}; install the same "
                "packages there"
            ) from theirs
        if not isinstance(theirs, OSError):
            _check(theirs, worker)
    return partial(_over, client)


def _check(theirs: dict[str, str], worker: str) -> None:
    for name, ours in edition().items():
        if theirs.get(name) != ours:
            raise ValueError(
                f"worker {worker}: has {name} {theirs.get(name)}, but this process has "
                f"{ours}; only equal versions give equal bytes"
            )


def _over(
    client: Any, function: Callable[[T], R], things: Iterable[T], /
) -> Iterator[R]:
    import cloudpickle
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    # The function is also a task: it is sent once, and sent again if a worker is lost.
    with catch_warnings(action="ignore"):  # Dask warns of large arguments
        shared = client.submit(pickle.loads, cloudpickle.dumps(function), pure=False)
    tasks = [
        client.submit(_call, shared, thing, edition(), pure=False) for thing in things
    ]
    try:
        while tasks:  # each result is freed once it is taken
            _wait(client, tasks[0])
            yield tasks.pop(0).result()
    except KilledWorker as error:
        raise ValueError(
            f"a task killed {error.allowed_failures + 1} workers, the last "
            f"{error.last_worker.address}; give workers more memory, or write the log "
            "in more shards"
        ) from error
    except FutureCancelledError as error:
        raise ValueError(
            "the connection to the Dask scheduler was lost; give the command again "
            "when there is a scheduler"
        ) from error
    finally:
        client.cancel(tasks)


def _wait(client: Any, task: Any) -> None:
    """Waits until a task is done, has failed or is lost.

    Raises:
        ValueError: The cluster has no worker for `ALONE` seconds.
    """
    from distributed import wait
    from distributed.client import CancelledError

    alone: float | None = None  # when the last worker was first missed
    while True:
        try:
            wait([task], timeout=ALONE / 6)
            return
        except CancelledError:  # raised again by `result`
            return
        except TimeoutError:
            now = time.monotonic()
        try:
            left = client.scheduler_info()["workers"]
        except OSError:  # the scheduler is lost, and the task is cancelled soon
            continue
        alone = None if left else now if alone is None else alone
        if alone is not None and now - alone >= ALONE:
            raise ValueError(
                f"the cluster has had no worker for {ALONE:g} s: start workers, with "
                "more memory if they were killed for it, and give the command again; "
                "debias import and the simulator go on where they stopped"
            )


def _call(function: Callable[[T], R], thing: T, ours: dict[str, str]) -> R:
    """Calls the function in a worker; raises ValueError if package versions differ.

    The check is repeated because workers may join later.
    """
    if (here := edition()) != ours:
        raise ValueError(f"a worker has {here}, but this process has {ours}")
    return function(thing)
