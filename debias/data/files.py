"""Files that are whole or absent, and copies of what was costly to read."""

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

_PART = ".part"  # end of the names of what is being written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WHOLE = 1 << 28  # bytes that a hash reads
_BLOCK = 1 << 16


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a path to write aside; renames it to `path` once the block ends well.

    Readers see the old file, or none, until the new one is whole. When the block
    raises, or the disk is full, what was written is removed and the old file stays. A
    process killed inside the block leaves a hidden file `.NAME.*.part` behind, which
    no reader of this library looks at and the next `atomic_write` of the path removes.

    Raises:
        OSError: The disk is full, or the folder cannot be written to; names the path.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as aside:
    ...     _ = aside.write_text("abc")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside, lock = _held_part(path, _new_file)
        try:
            yield aside
            aside.chmod(0o666 & ~_umask())  # mkstemp made it private
            aside.replace(path)
        finally:
            os.close(lock)
            aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """`atomic_write` for a new folder; one that exists and holds anything is an error.

    Raises:
        ValueError: The path exists and is not an empty folder; it stays as it was.
        OSError: As for `atomic_write`.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path}: exists and is not an empty folder")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside, lock = _held_part(path, _new_folder)
        try:
            yield aside
            aside.chmod(0o777 & ~_umask())
            aside.replace(path)
        finally:
            os.close(lock)
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the path where the disk is full or a folder read-only, as the reader would.

    Other errors pass: what is read inside may be at fault.
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
    """A new part of this path, and a handle whose lock says that a process writes it.

    Parts that no process holds were left by one that was killed, and are removed. The
    lock of a handle goes with its process.
    """
    for left in path.parent.iterdir():
        middle = left.name.removeprefix(f".{path.name}.").removesuffix(_PART)
        if left.name == f".{path.name}.{middle}{_PART}" and "." not in middle:
            _remove_left(left)
    while True:
        aside, handle = new(path)
        if _lock(handle) is not False and aside.exists():
            return aside, handle
        os.close(handle)  # removed before it was locked, taken for one that was left


def _remove_left(part: Path) -> None:
    try:
        handle = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if _lock(handle):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    except OSError:
        pass  # a part that stays does no harm
    finally:
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether this process could lock the file; None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return None
    return True


def _umask() -> int:
    mask = os.umask(0o022)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def cache_folder(cache: str | Path | None = None) -> Path:
    """Where copies are kept: `cache`, else $DEBIAS_CACHE, else the user's cache folder.

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
    """The folder of this key in the cache; `build` fills it where it is missing.

    Of several processes the first to finish wins, and the others use its copy.

    Args:
        key: Name of the folder. Must say all that the content depends on.
        build: Writes into the empty folder it is given.
        cache: As for `cache_folder`.
    """
    folder = cache_folder(cache) / key
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(folder) as aside:
            build(aside)
    except (OSError, ValueError):
        if not folder.is_dir():  # else another process was faster
            raise
    return folder


def check_regular(path: "AnyPath") -> None:
    """Does nothing if the path is a file that can be read from its beginning again.

    Raises:
        FileNotFoundError: Nothing is there, or a link to nothing.
        ValueError: It is a folder, a pipe or a device; names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path}: must be a file, is {kind}")


def sampled_hash(sizes: Sequence[int], read: Callable[[int, int, int], bytes]) -> str:
    """Hashes samples of parts that are too large to be read whole: 32 hex digits.

    Up to 256 MB in all, every byte counts. Of more, 4,096 evenly spaced blocks of
    64 KB, the last one of each part, and all sizes count: a change that keeps a part's
    size and lies between those blocks is missed.

    Args:
        sizes: Bytes of each part.
        read: From the number of a part, and from where to where, to these bytes.

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
    """32 hexadecimal digits of named arrays: their types, shapes and values."""
    parts: list[np.ndarray] = []
    for name, value in arrays.items():
        text = f"{name} {value.dtype.str} {value.shape}".encode()
        plain = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        parts += [np.frombuffer(text, np.uint8), plain]
    sizes = [part.nbytes for part in parts]
    return sampled_hash(sizes, lambda number, *span: parts[number][slice(*span)].data)


def content_hash(*paths: Path) -> str:
    """32 hexadecimal digits that change when a byte of any of the files does."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "blake2b").digest())
    return total.hexdigest()
