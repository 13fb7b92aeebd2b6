"""Files that are whole or absent, and copies of what was costly to read."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_WHOLE = 1 << 28  # bytes that a hash reads
_BLOCK = 1 << 16


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a path to write aside; renames it to `path` once the block ends well.

    Readers see the old file, or none, until the new one is whole. When the block
    raises, or the disk is full, what was written is removed and the old file stays. A
    process killed inside the block leaves a hidden file `.NAME.*.part` behind, which
    no reader of this library looks at.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as aside:
    ...     _ = aside.write_text("abc")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())  # mkstemp made it private
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """`atomic_write` for a new folder; one that exists and holds anything is an error.

    Raises:
        ValueError: The path exists and is not an empty folder; it stays as it was.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path}: exists and is not an empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(".part", f".{path.name}.", path.parent))
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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

    Whoever finishes first of several processes wins, the others use its copy.

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


def check_regular(path: Path) -> None:
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
    """32 hexadecimal digits of parts that are too many bytes to read all of them.

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


def content_hash(*paths: Path) -> str:
    """32 hexadecimal digits that change when a byte of any of the files does."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "blake2b").digest())
    return total.hexdigest()
