"""Writes simulated logs of any length as Parquet shards, in constant memory.

A folder belongs to one run. The manifest of a folder is written first and describes its
run. A shard gets its final name only when it is complete and on disk. Checksums are
added to the manifest at the end. So a killed run resumes when the same command is
started again. Neither interruptions nor the number of threads change the files.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from debias.data.files import alone, atomic_write, sha256
from debias.data.log_files import COMPRESSION, PLAIN, ROW_GROUP
from debias.types import Over
from simulators.clicks import BLOCK, Simulation

MANIFEST = "manifest.json"
SHARD = 1 << 20  # sessions per shard by default
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(
    simulation: Simulation,
    folder: str | Path,
    sessions: int,
    shards: int | None = None,
    run: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
    over: Over | None = None,
) -> dict[str, Any]:
    """Writes sessions 0 to `sessions` - 1, or resumes an interrupted run.

    `debias.data.ClickLog.open` reads the folder, and `debias.data.read_batches` reads
    it in pieces. The number of shards does not affect the sessions.

    Args:
        simulation: The simulation, from `simulators.clicks.prepare`.
        folder: A new or empty folder, or the folder in which the same run was started
            before.
        sessions: Number of sessions.
        shards: Number of files, named part-00000.parquet and so on. The numbers of
            sessions of any two files differ by at most one. With None, a file has about
            a million sessions.
        run: Further settings to record in the manifest, as JSON values. An interrupted
            run resumes only with the same settings.
        workers: Number of threads; None means one per core. Each thread holds about
            131,072 sessions in memory.
        progress: Called with the number of sessions written since the last call.
        over: Function like `map` to use instead of a thread pool, such as the `map` of
            a cluster. Workers of this `map` must be able to write to the folder.

    Returns:
        The manifest.

    Raises:
        ValueError: The folder holds other files or another run; there are more shards
            than sessions; or the disk has too little space. Existing files stay.
        OSError: The disk is full. Complete shards stay, and the run can be resumed.
    """
    folder = Path(folder)
    if sessions < 1:
        raise ValueError(f"sessions must be at least 1, got {sessions}")
    if shards is None:
        shards = -(-sessions // SHARD)
    if not 1 <= shards <= sessions:
        raise ValueError(
            f"shards must be in 1..{sessions}, the number of sessions, got {shards}"
        )
    sample = simulation.sessions(0, min(sessions, BLOCK)).to_arrow()
    manifest = _manifest(simulation, sessions, shards, run or {}, sample)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        begun = _begun(folder, manifest)
        if begun["shards"]:
            progress(sessions)
            return begun
        cuts = [sessions * number // shards for number in range(shards + 1)]
        width = max(5, len(str(shards - 1)))  # so that sorting names sorts numbers
        names = [f"part-{number:0{width}d}.parquet" for number in range(shards)]
        parts = dict(zip(names, pairwise(cuts), strict=True))
        missing = [
            stop - start
            for name, (start, stop) in parts.items()
            if not (folder / name).exists()
        ]
        _check_room(folder, int(1.1 * sum(missing) * _bytes(sample) / len(sample)))
        shard = partial(_shard, simulation, folder)
        if over is None:
            told = partial(shard, progress=progress)
            manifest["shards"] = _by_threads(told, folder, parts, workers)
        else:
            manifest["shards"] = []
            for made in over(shard, list(parts.items())):
                manifest["shards"].append(made)
                progress(made["sessions"])
        _write_manifest(folder, manifest)
    return manifest


def _shard(
    simulation: Simulation,
    folder: Path,
    part: tuple[str, tuple[int, int]],
    progress: Callable[[int], None] = lambda sessions: None,
) -> dict[str, Any]:
    """Writes a shard unless it exists; returns its entry in the manifest."""
    name, (start, stop) = part
    path = folder / name
    if path.exists():
        progress(stop - start)
    else:
        _write_shard(simulation, path, start, stop, progress)
    return {
        "file": name,
        "sessions": stop - start,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }


def _by_threads(
    shard: Callable[[tuple[str, tuple[int, int]]], dict[str, Any]],
    folder: Path,
    parts: Mapping[str, tuple[int, int]],
    workers: int | None,
) -> list[dict[str, Any]]:
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        return list(pool.map(shard, parts.items()))
    except OSError as error:
        if error.errno in _FULL:
            done = sum((folder / name).exists() for name in parts)
            raise OSError(
                error.errno,
                f"the disk is full: {done} of {len(parts)} shards are written; make "
                "room and start the same run again to continue",
                str(folder),
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Raises:
        ValueError: The manifest is missing or damaged. The error message names the
            file.
    """
    path = Path(folder) / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: does not exist; it is the manifest of a log"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: is not a manifest: {error}") from error
    if not isinstance(found, dict) or "shards" not in found:
        raise ValueError(f"{path}: is not a manifest of a click log")
    return found


def verify(folder: str | Path) -> None:
    """Checks every shard of a complete folder by its checksum.

    Raises:
        ValueError: A shard is missing or does not match its checksum, or the run is not
            complete.
    """
    found = read_manifest(folder)
    if not found["shards"]:
        raise ValueError(f"{folder}: the run did not finish; start it again")
    for shard in found["shards"]:
        path = Path(folder) / shard["file"]
        if not path.exists() or sha256(path) != shard["sha256"]:
            raise ValueError(f"{path}: is missing or has changed")


def _manifest(
    simulation: Simulation,
    sessions: int,
    shards: int,
    run: Mapping[str, Any],
    sample: pa.Table,
) -> dict[str, Any]:
    content = hashlib.sha256()
    for name, value in simulation.sessions(0, BLOCK).columns().items():
        content.update(name.encode() + np.ascontiguousarray(value).tobytes())
    described = {
        "format": 1,
        "sessions": sessions,
        "shard_count": shards,
        "seed": simulation.seed,
        "list_size": simulation.list_size,
        "run": dict(run),
        "schema": {field.name: str(field.type) for field in sample.schema},
        # The first block of sessions, which differs between any two runs.
        "first_block_sha256": content.hexdigest(),
        "versions": {
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        },
        "shards": [],
    }
    return json.loads(json.dumps(described))


def _begun(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Starts or resumes a run in a folder, and returns its manifest.

    An unfinished run has an empty list of shards.
    """
    if not (folder / MANIFEST).exists():
        others = [path.name for path in folder.iterdir() if not _is_aside(path)]
        if others:
            raise ValueError(
                f"{folder}: holds {sorted(others)[0]} and no manifest; choose an empty "
                "folder"
            )
        _write_manifest(folder, manifest)
    found = read_manifest(folder)
    for key, value in manifest.items():
        if key != "shards" and found.get(key) != value:
            there, here = _difference(key, found.get(key), value)
            raise ValueError(
                f"{folder}: holds another run, with {there} where this has {here}"
            )
    for path in folder.iterdir():
        if _is_aside(path):  # left by a killed process
            path.unlink()
    return found


def _difference(key: str, there: Any, here: Any) -> tuple[str, str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                return _difference(f"{key}.{name}", there.get(name), here.get(name))
    return f"{key} {there}", f"{here}"


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: needs {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} "
            "GB"
        )


def _parquet(where: Path | pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        where, schema, compression=COMPRESSION, write_page_checksum=True, **PLAIN
    )


def _bytes(table: pa.Table) -> int:
    """The size of a table on disk."""
    sink = pa.BufferOutputStream()
    with _parquet(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue().size


def _write_shard(
    simulation: Simulation,
    path: Path,
    start: int,
    stop: int,
    progress: Callable[[int], None],
) -> None:
    with _on_disk(path) as aside, ExitStack() as opened:
        file = None
        for first in range(start, stop, ROW_GROUP):
            last = min(first + ROW_GROUP, stop)
            table = simulation.sessions(first, last).to_arrow()
            file = file or opened.enter_context(_parquet(aside, table.schema))
            file.write_table(table, row_group_size=ROW_GROUP)
            progress(last - first)


@contextmanager
def _on_disk(path: Path) -> Iterator[Path]:
    """Context manager: a temporary file that replaces `path` when it is on disk."""
    with atomic_write(path) as aside:
        yield aside
        _sync(aside)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with _on_disk(folder / MANIFEST) as aside:
        aside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
