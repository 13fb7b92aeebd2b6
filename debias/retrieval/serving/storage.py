"""Storage of versions and training states, on disk or in an object store.

Each storage contains the file CURRENT and numbered folders, such as `versions/000007`.
The first part of this path, "versions", is the kind of the folder. A new folder appears
atomically. In an object store, the files of a folder are uploaded one by one, with the
manifest last. CURRENT is changed by a single write. Before the files of a store are
read, they are copied to the cache, `$DEBIAS_CACHE`, and verified by checksums.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

from debias.data.files import atomic_folder, atomic_write, cache_folder, sha256
from debias.data.stores import Remote, located, whole_path

MANIFEST = "manifest.json"
_UNREADABLE = (ValueError, KeyError, AttributeError, TypeError)
ADVICE = "roll back to another version or publish again"


class Disk:
    """Storage in a folder on disk, for POSIX file systems.

    Attributes:
        root: The folder.
        damage: Types of exceptions that mean that a file is damaged.
    """

    damage = (OSError, *_UNREADABLE)

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        """Reads a file; raises FileNotFoundError if it is absent."""
        return (self.root / key).read_bytes()

    def stamp(self) -> tuple[object, ...] | None:
        """A value that changes when CURRENT is written; None if CURRENT is absent."""
        try:
            found = os.stat(self.root / "CURRENT")
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def folders(self, kind: str) -> list[str]:
        """Names of the folders of a kind, oldest first."""
        return _numbers(path.name for path in self.root.glob(f"{kind}/*"))

    def complete(self, kind: str) -> list[str]:
        """Names of the complete folders of a kind; on disk, these are all folders."""
        return self.folders(kind)

    def folder(self, key: str) -> Path:
        """Path of a folder, for reading."""
        return self.root / key

    @contextmanager
    def afresh(self, key: str) -> Iterator[Path]:
        """Context manager that yields the path of a folder, ignoring earlier copies."""
        yield self.root / key

    @contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """Context manager that yields an empty folder, and then renames it to `key`."""
        with atomic_folder(self.root / key) as aside:
            yield aside
            for file in (*aside.iterdir(), aside):
                _sync(file)
        _sync((self.root / key).parent)

    def switch(self, name: str) -> None:
        """Switches CURRENT to another version."""
        with atomic_write(self.root / "CURRENT") as aside:
            aside.write_text(name + "\n", encoding="utf-8")
            _sync(aside)
        _sync(self.root)

    def remember(self, name: str) -> None:
        """Does nothing on disk; a `Store` records the current version in its copies."""

    def drop(self, key: str) -> None:
        path = self.root / key
        hidden = path.with_name(f".{path.name}.part")
        path.rename(hidden)  # rename first, because listed folders are complete
        shutil.rmtree(hidden)

    def tidy(self, kind: str) -> None:
        """Removes files that a killed process left behind."""
        for part in (*self.root.glob(".*.part"), *self.root.glob(f"{kind}/.*.part")):
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)


class Store:
    """Storage in an object store; files are copied to disk before they are read.

    Attributes:
        root: Folder in the store.
        copies: Folder in the cache for the copies.
        damage: Types of exceptions that mean that a file is damaged. Other exceptions
            mean that the store failed.
    """

    damage = (FileNotFoundError, *_UNREADABLE)

    def __init__(self, root: Remote, url: str) -> None:
        self.root = root
        self.copies = _copies(url)

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def stamp(self) -> tuple[object, ...] | None:
        path = self.root / "CURRENT"
        try:  # writes within a second have the same time
            return path.read_bytes(), path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def folders(self, kind: str) -> list[str]:
        return _numbers(path.name for path in (self.root / kind).iterdir())

    def complete(self, kind: str) -> list[str]:
        """Names of the folders with a complete upload."""
        found = (self.root / kind).inside(recursive=True)
        return _numbers(each.parts[-2] for each in found if each.name == MANIFEST)

    def folder(self, key: str) -> Path:
        """Path of a complete copy on disk; an existing copy is verified first.

        Raises:
            OSError: The store cannot be reached or refuses access, or the disk is full.
            ValueError: A file in the store is damaged. The message names the file.
        """
        copy = self.copies / key
        with _held(self.copies, wait=True):
            if self._same(copy, key):
                return copy
            shutil.rmtree(copy, ignore_errors=True)
            with atomic_folder(copy) as aside:
                self._fetch(key, aside)
            for old in Disk(self.copies).folders(copy.parent.name):
                if int(old) < min(map(int, self.folders(copy.parent.name)), default=0):
                    shutil.rmtree(copy.with_name(old))
        return copy

    @contextmanager
    def afresh(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as aside:
            self._fetch(key, Path(aside))
            yield Path(aside)

    def _same(self, copy: Path, key: str) -> bool:
        """Whether the copy is complete and equals the folder in the store."""
        try:
            manifest = (copy / MANIFEST).read_bytes()
            return manifest == self.read(f"{key}/{MANIFEST}") and all(
                sha256(copy / name) == file["sha256"]
                for name, file in json.loads(manifest)["files"].items()
            )
        except FileNotFoundError:
            return False

    def _fetch(self, key: str, into: Path) -> None:
        """Copies a folder of the store; verifies the copy if there is a manifest."""
        where = self.root / key
        for file in where.inside():
            if file.is_file() and file.name[0] != ".":
                with file.open() as source, (into / file.name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        if not (into / MANIFEST).exists():
            return
        try:
            files = json.loads((into / MANIFEST).read_bytes())["files"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where / MANIFEST}: is damaged: {error!r}; {ADVICE}"
            ) from None
        for name, file in files.items():
            path = into / name
            if not path.exists() or sha256(path) != file["sha256"]:
                why = "does not have its checksum" if path.exists() else "is absent"
                raise ValueError(f"{where / name}: {why}; {ADVICE}")

    @contextmanager
    def new(self, key: str) -> Iterator[Path]:
        copy = self.copies / key
        shutil.rmtree(copy, ignore_errors=True)  # remains of a failed upload
        with atomic_folder(copy) as aside:
            yield aside
        self._claim(self.root / key)
        files = [path for path in copy.iterdir() if path.name[0] != "."]
        for path in sorted(files, key=lambda path: path.name == MANIFEST):
            with path.open("rb") as source:
                (self.root / key / path.name).put(source)

    def _claim(self, folder: Remote) -> None:
        """Raises ValueError if another machine is writing to the same new folder."""
        (folder / f".{uuid4().hex}").put(io.BytesIO())
        if len(folder.inside()) > 1:
            raise ValueError(f"{folder}: another process is publishing here; try again")

    def switch(self, name: str) -> None:
        (self.root / "CURRENT").put(io.BytesIO(f"{name}\n".encode()))

    def remember(self, name: str) -> None:
        Disk(self.copies).switch(name)

    def drop(self, key: str) -> None:
        (self.root / key).remove()
        shutil.rmtree(self.copies / key, ignore_errors=True)

    def tidy(self, kind: str) -> None:
        """Removes incomplete uploads that are older than the latest complete upload."""
        whole = self.complete(kind)
        for name in set(self.folders(kind)) - set(whole):
            if int(name) < int(whole[-1] if whole else 0):
                self.drop(f"{kind}/{name}")


Storage: TypeAlias = Disk | Store


def storage(root: str | Path) -> Storage:
    """The storage at a path or URL."""
    path = located(root)
    return Store(path, whole_path(root)) if isinstance(path, Remote) else Disk(path)


@contextmanager
def alone(root: str | Path, kind: str = "") -> Iterator[None]:
    """Context manager that holds a lock until its end, or until the process ends.

    For an object store, the lock excludes only other processes on this machine.
    """
    path = located(root)
    if isinstance(path, Path) and path.exists() and not path.is_dir():
        raise ValueError(f"{path}: is a file; choose another name for the folder")
    home = _copies(whole_path(root)) / "locks" if isinstance(path, Remote) else path
    try:
        with _held(home / kind):
            yield
    except BlockingIOError:
        raise ValueError(f"{path}: another process is publishing here") from None


@contextmanager
def _held(folder: Path, wait: bool = False) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _copies(url: str) -> Path:
    digest = hashlib.blake2b(url.encode(), digest_size=12).hexdigest()
    return cache_folder() / "versions" / digest


def _numbers(names: Iterator[str]) -> list[str]:
    return sorted((name for name in names if name.isdigit()), key=int)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
