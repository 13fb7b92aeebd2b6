"""Atomic writing of files, and a cache of decoded copies."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from debias.data.stores import AnyPath

_PART = ".part"  # suffix of files that are being written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WHOLE = 1 << 28  # bytes that are hashed at most
_BLOCK = 1 << 16


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager for an atomic write to `path`.

    The context manager yields a temporary path. At the end of the `with` block, the
    temporary file is renamed to `path`.

    Until then, readers see the old file, if there is one. If the block raises an error
    or the disk is full, the new file is removed and the old file stays. A process
    killed inside the block leaves a hidden file `.NAME.*.part`. This library never
    reads the hidden files, and the next `atomic_write` to `path` removes them.

    Raises:
        OSError: The disk is full, or the folder is not writable. The message names the
            path.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as aside:
    ...     _ = aside.write_text("abc")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    with _renamed(Path(path), _new_file, 0o666) as aside:
        yield aside


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Context manager that writes a new folder atomically, like `atomic_write`.

    If the folder already exists, it must be empty.

    Raises:
        ValueError: The path exists and is not an empty folder. An existing path is not
            changed.
        OSError: See `atomic_write`.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path}: exists and is not an empty folder")
    with _renamed(path, _new_folder, 0o777) as aside:
        yield aside


@contextmanager
def _renamed(
    path: Path, new: Callable[[Path], tuple[Path, int]], mode: int
) -> Iterator[Path]:
    """Creates a temporary file or folder, and renames it at the end of the block."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside, lock = _held_part(path, new)
        try:
            yield aside
            aside.chmod(mode & ~_umask())  # `tempfile` made it private
            aside.replace(path)
        finally:
            os.close(lock)
            if aside.is_dir():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Adds the path to the error if the disk is full or the folder is read-only.

    Other errors pass unchanged, because they may concern other files.
    """
    try:
        yield
    except OSError as error:
        hidden = str(error.filename or "").endswith(_PART)
        if error.errno not in _FULL and not hidden:
            raise
        why = os.strerror(error.errno or 0)
        if error.errno in _FULL:
            why += "; nothing is half written, make room and try again"
        raise OSError(error.errno, why, str(path)) from error


def _new_file(path: Path) -> tuple[Path, int]:
    handle, name = tempfile.mkstemp(_PART, f".{path.name}.", path.parent)
    return Path(name), handle


def _new_folder(path: Path) -> tuple[Path, int]:
    aside = Path(tempfile.mkdtemp(_PART, f".{path.name}.", path.parent))
    return aside, os.open(aside, os.O_RDONLY)


def _held_part(path: Path, new: Callable[[Path], tuple[Path, int]]) -> tuple[Path, int]:
    """Creates a temporary file or folder beside the path, and locks it.

    First, the function removes earlier temporary files of the path that no process has
    locked: the processes that wrote them were killed. The lock ends with the process.
    """
    for left in path.parent.iterdir():
        middle = left.name.removeprefix(f".{path.name}.").removesuffix(_PART)
        if left.name == f".{path.name}.{middle}{_PART}" and "." not in middle:
            _remove_left(left)
    while True:
        aside, handle = new(path)
        if _lock(handle) is not False and aside.exists():
            return aside, handle
        os.close(handle)  # another process removed it as abandoned before the lock


def _remove_left(part: Path) -> None:
    try:
        handle = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if _lock(handle):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    except OSError:
        pass  # a leftover part does no harm
    finally:
        os.close(handle)


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Context manager that locks an existing folder for this process.

    The system frees the lock when the process ends. On Windows, the folder is not
    locked.

    Raises:
        ValueError: Another process has locked the folder.
    """
    handle = None if os.name == "nt" else os.open(folder, os.O_RDONLY)
    try:
        if handle is not None and _lock(handle) is False:
            raise ValueError(
                f"{folder}: another process is writing here; wait until it ends, or "
                "choose another folder"
            )
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether the lock was obtained; None if the system has no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return None
    return True


def _umask() -> int:
    mask = os.umask(0o022)  # the mask can only be read by setting it
    os.umask(mask)
    return mask


def cache_folder(cache: str | Path | None = None) -> Path:
    """Returns `cache`, or else $DEBIAS_CACHE, or else the user's cache folder.

    >>> cache_folder("copies")
    PosixPath('copies')
    """
    if cache is not None:
        return Path(cache)
    if own := os.environ.get("DEBIAS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "debias"


def cached(
    key: str, build: Callable[[Path], None], cache: str | Path | None = None
) -> Path:
    """Returns the cache folder of a key; `build` fills the folder if it is missing.

    If several processes build the folder at once, all use the copy that is finished
    first.

    Args:
        key: Name of the folder. Equal keys must mean equal content.
        build: Function that writes the content into an empty folder.
        cache: See `cache_folder`.
    """
    folder = cache_folder(cache) / key
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(folder) as aside:
            build(aside)
    except (OSError, ValueError):
        if not folder.is_dir():  # otherwise another process was faster
            raise
    return folder


def check_regular(path: "AnyPath") -> None:
    """Checks that the path is a regular file.

    Raises:
        FileNotFoundError: The path does not exist, or is a broken link.
        ValueError: The path is a folder, a pipe or a device. The message names the
            path.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path}: must be a file, is {kind}")


def sampled_hash(sizes: Sequence[int], read: Callable[[int, int, int], bytes]) -> str:
    """Hash of byte strings, sampled if they are large, as 32 hexadecimal digits.

    Every byte is hashed if the parts have at most 256 MB in total. Above 256 MB, the
    hash covers the sizes of the parts, 4,096 evenly spaced blocks of 64 KB, and the
    last block of each part. The hash then misses changes outside these blocks if every
    part keeps its size.

    Args:
        sizes: Size of each part in bytes.
        read: Function of a part number, a start and a stop that returns the bytes of
            the part from start to stop.

    >>> sampled_hash([3], lambda part, start, stop: b"abc"[start:stop])
    '10366aba46518e2b9d040dde242bbc5a'
    """
    total = hashlib.blake2b(digest_size=16)
    step = max(_BLOCK, -(-sum(sizes) * _BLOCK // _WHOLE))
    for part, size in enumerate(sizes):
        total.update(size.to_bytes(8, "little"))
        for start in range(0, size, step):
            total.update(read(part, start, min(start + _BLOCK, size)))
        if step > _BLOCK:
            total.update(read(part, max(size - _BLOCK, 0), size))
    return total.hexdigest()


def array_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of names, types, shapes and values of arrays, as 32 hexadecimal digits."""
    parts: list[np.ndarray] = []
    for name, value in arrays.items():
        text = f"{name} {value.dtype.str} {value.shape}".encode()
        plain = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        parts += [np.frombuffer(text, np.uint8), plain]
    sizes = [part.nbytes for part in parts]
    return sampled_hash(sizes, lambda number, *span: parts[number][slice(*span)].data)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_hash(*paths: Path) -> str:
    """Hash of all bytes of the files, as 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "blake2b").digest())
    return total.hexdigest()
