"""Quiet import of TensorFlow and handling of Ctrl-C, for the commands."""

import _thread
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INTERRUPTED = 130
HEAVY = ("keras", "tensorflow")  # the first imports the second
# Optional imports of these that no command needs. They take half of the import time and
# .25 GB.
UNUSED = ("IPython", "jax", "matplotlib", "pandas", "sklearn")
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_STARTED, _SWALLOWED = b"\0started\n", b"\0"

# A process that holds the output back until all went well. Then it drops the lines of
# TensorFlow's logger. If the main process fails or dies, it drops nothing. It is a
# separate process, because after a fatal error in C++ no other can print.
_HELD = rb"""
import re, sys
held = []
for line in sys.stdin.buffer:
    if line.endswith(STARTED):
        held.append(line.removesuffix(STARTED))
        noise = rb"[IW]\d{4} |E\d{4} .*Unable to register cu|WARNING: All log messages "
        held = [line for line in held if not re.match(noise, line)]
        break
    held.append(line)
sys.stderr.buffer.write(b"".join(held))
""".replace(b"STARTED", repr(_STARTED).encode()).decode()


def quiet_start(loading: Callable[[], Any] = nullcontext) -> None:
    """Makes the first import of Keras or TensorFlow silent and twice as fast.

    TensorFlow logs lines even before it reads TF_CPP_MIN_LOG_LEVEL. Log lines of the
    import appear only if the import fails, or if TF_CPP_MIN_LOG_LEVEL is set below 3.
    """
    os.environ.setdefault(_LEVEL, "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # no retracing reports
    if not sys.modules.keys() & set(HEAVY):
        sys.meta_path.insert(0, _Finder(loading))


class _Finder(MetaPathFinder):
    """Finds the first module of `HEAVY` as other finders do, and wraps its import."""

    def __init__(self, loading: Callable[[], Any]):
        self._loading = loading

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in HEAVY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def attended(module: Any) -> None:
                quiet = silence() if os.environ[_LEVEL] == "3" else nullcontext()
                with self._loading(), quiet, uncollected(), absent(_unused()):
                    execute(module)

            spec.loader.exec_module = attended  # type: ignore[method-assign]
        return spec


@contextmanager
def absent(names: Iterable[str]) -> Iterator[None]:
    """Context manager that blocks first imports of the named modules.

    >>> with absent(["__hello__"]):
    ...     print(find_spec("__hello__"))
    None
    >>> find_spec("__hello__").name
    '__hello__'
    """
    gone = [name for name in names if name not in sys.modules]
    missing: Any = dict.fromkeys(gone)
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in gone:
            if sys.modules.get(name, gone) is None:
                del sys.modules[name]


def _unused() -> list[str]:
    """`UNUSED` without the backend that Keras is configured to use."""
    backend = os.environ.get("KERAS_BACKEND", "")
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    with suppress(OSError, ValueError, LookupError, TypeError):
        backend = backend or json.loads((folder / "keras.json").read_text())["backend"]
    return [name for name in UNUSED if name != backend]


@contextmanager
def uncollected() -> Iterator[None]:
    """Context manager that permanently excludes new objects from garbage collection.

    Importing TensorFlow makes half a million objects that live as long as the process.
    Without this context, the garbage collector scans TensorFlow's objects repeatedly.
    The scans take a third of the import time, and .2 s of every later `gc.collect()`.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


@contextmanager
def silence() -> Iterator[None]:
    """Context manager that drops the log lines of TensorFlow on standard error.

    All other lines on standard error appear when the context ends. The log lines of
    TensorFlow appear too if an error occurs or the process dies.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    # In its own session, because Ctrl-C reaches all processes of the terminal's
    # session.
    holder = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HELD],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert holder.stdin is not None
    os.dup2(holder.stdin.fileno(), 2)
    try:
        yield
        sys.stderr.flush()
        os.write(2, _STARTED)
    except KeyboardInterrupt:
        os.write(2, _STARTED)
        raise
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        holder.stdin.close()
        holder.wait()


@contextmanager
def stoppable() -> Iterator[None]:
    """Context manager in which Ctrl-C always ends the work.

    Python raises KeyboardInterrupt in the main thread. In callbacks that cannot raise,
    such as those of the garbage collector, Python only prints the exception and drops
    it. Most interrupts during a fit arrive in JAX's garbage-collector callback. This
    context manager raises a dropped exception again. A second Ctrl-C ends the process
    even while native code runs.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # another handler is set, or signals are ignored
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    fd_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hook_before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            os.write(writing, _SWALLOWED)  # do no more: this also runs in the callback
        else:
            hook_before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = hook_before
        signal.set_wakeup_fd(fd_before)
        os.close(writing)


def _watch(pipe: int) -> None:
    """Reads the numbers of signals as they arrive, until the pipe is closed."""
    interrupts = 0
    while byte := os.read(pipe, 1):
        if byte == _SWALLOWED:
            time.sleep(0.02)  # by then the callback has returned, or is called again
            interrupts -= 1  # the next call writes the signal's number as well
            _thread.interrupt_main()
        elif byte[0] == signal.SIGINT:
            interrupts += 1
        if interrupts > 1:
            with suppress(OSError):
                os.write(
                    2, b"\x1b[?25h" if os.isatty(2) else b""
                )  # progress bars hide the cursor
                os.write(2, b"stopped at once\n")
            os._exit(INTERRUPTED)
    os.close(pipe)
