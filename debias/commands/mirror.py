"""Local copies of the object-store files that a command reads or writes.

Tables are streamed from a store. Other inputs, such as model folders, are downloaded
before the command runs. New and changed files are uploaded when the command succeeds.
Each upload is atomic. Files that mark a folder as complete, such as report.json, are
uploaded last.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debias.commands.screen import called

if TYPE_CHECKING:
    from debias.data.stores import Remote

_LAST = ("report.json", "manifest.json", "_import.json", "CURRENT")
_STATE = "fetched.json"


@contextmanager
def local(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Replaces object-store paths in a command's arguments by local paths.

    Raises:
        OSError: A store cannot be reached or refuses access. The message names the URL.
    """
    from debias.data.stores import store_url

    mirrors = {
        name: _Mirror(url)
        for name, value in values.items()
        if isinstance(value, Path) and (url := store_url(value)) is not None
    }
    yield {**values, **{name: mirror.fetch() for name, mirror in mirrors.items()}}
    for mirror in mirrors.values():
        mirror.put_back()


def fetched(url: str) -> Path:
    """Downloads a file or folder of an object store, for commands that only read it."""
    return _Mirror(url).fetch()


class _Mirror:
    """A file or folder of a store, and its copy in the cache."""

    def __init__(self, url: str) -> None:
        from debias.data.files import cache_folder
        from debias.data.stores import Remote, located

        remote = located(url)
        assert isinstance(remote, Remote)
        self._remote = remote
        digest = hashlib.blake2b(url.encode(), digest_size=12).hexdigest()
        self._home = cache_folder() / "stores" / digest
        self._copy = self._home / (remote.name or "root")
        called(self._copy, str(remote))

    def fetch(self) -> Path:
        """Updates the copy from the store, and returns its path."""
        from debias.data.records import write_record

        known, found = self._known(), {}
        remote = self._remote
        files = [remote] if remote.is_file() else remote.inside(recursive=True)
        for file in files:
            if file.is_file():
                key = file.path[len(remote.path) :].lstrip("/")
                state, target = list(file.stat()), self._copy / key
                if known.get(key) != state or not target.exists():
                    _download(file, target)
                found[key] = [*state, target.stat().st_mtime_ns]
        self._home.mkdir(parents=True, exist_ok=True)
        write_record(self._home / _STATE, {k: v[:2] for k, v in found.items()})
        self._fetched = {key: state[2] for key, state in found.items()}
        return self._copy

    def put_back(self) -> None:
        """Writes new and changed files back to the store."""
        if self._copy.is_file():
            files = [self._copy]
        else:
            files = [path for path in self._copy.rglob("*") if path.is_file()]
        files = [path for path in files if path.name[0] != "."]
        for path in sorted(files, key=lambda path: (path.name in _LAST, path)):
            key = "" if path == self._copy else path.relative_to(self._copy).as_posix()
            if self._fetched.get(key) != path.stat().st_mtime_ns:
                target = self._remote / key if key else self._remote
                with path.open("rb") as source:
                    target.put(source)

    def _known(self) -> dict[str, Any]:
        from debias.data.records import read_record

        try:
            return read_record(self._home / _STATE, ())
        except ValueError:
            return {}


def _download(file: "Remote", target: Path) -> None:
    from debias.data.files import atomic_write
    from debias.data.stores import naming_store

    with (
        naming_store(file),
        file.open() as source,
        atomic_write(target) as aside,
        aside.open("wb") as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)
