"""The environment of a result: libraries, processor, cores, threads.

This module imports no learning library.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import multiprocessing
import os
import platform
import re
import threading
from multiprocessing.connection import wait
from pathlib import Path

PACKAGES = ("debias-ranking", "keras", "tensorflow", "jax", "numpy", "scipy")
LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
CPU_INFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(threads: int) -> dict[str, str]:
    """Environment variables for a worker process with this number of threads."""
    return {
        **dict.fromkeys(LIMITS, str(threads)),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        # With a memory pool per thread, the memory of large graphs would not be freed.
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
    }


def leave_with_parent() -> None:
    """Ends this process as soon as its parent process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results, by name.

    The versions come from the metadata of the installed packages, without importing
    them.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found, "backend": os.environ.get("KERAS_BACKEND", "tensorflow")}


@functools.cache
def processor() -> dict[str, str]:
    """Model of the CPU, and a hash of the CPU flags.

    The flags determine which numerical kernels libraries use. If `/proc/cpuinfo` does
    not exist, the architecture replaces the model and the flags.
    """
    text = CPU_INFO.read_text(errors="replace") if CPU_INFO.exists() else ""
    pairs = re.findall(r"^(model name|flags|Features)\s*:\s*(.*)$", text, re.M)
    found: dict[str, str] = dict(pairs)
    model = found.get("model name") or platform.machine()
    flags = found.get("flags") or found.get("Features") or model
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode())
    return {"cpu": model, "flags": digest.hexdigest()[:12]}


def describe(threads: int) -> dict[str, str | int]:
    """Description of the environment for a record."""
    return {**processor(), "cores": cores(), "threads": threads}
