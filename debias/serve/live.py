"""The version in service, and the switch to the next version."""

import ctypes
import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from debias.engine.scoring import Scorer
from debias.retrieval.serving import versions
from debias.retrieval.serving.query import retrieve
from debias.retrieval.serving.storage import Store, storage
from debias.retrieval.serving.versions import Version

log = logging.getLogger("debias.serve")


class Live:
    """Holds the version in service, and switches when CURRENT changes.

    Each answer reads `version` only once. A new version is loaded completely, and then
    a single assignment switches to it. The old version stays in memory until its last
    answer is done. If the current version is damaged, at the start or by a later write,
    the latest undamaged earlier version is served. While a store cannot be reached, the
    last version stays in service.

    Args:
        root: Folder or URL of the versions.

    Attributes:
        version: The version in service.
        refused: Reason why the current version is not served, or why it is unknown.
            None if the current version is served.
        switches: Number of switches so far.

    Raises:
        OSError: The store cannot be reached, and there is no copy of a version on disk.
        ValueError: There is no complete version.
    """

    def __init__(self, root: str | Path):
        self.root, self.place = root, storage(root)
        self.switches = 0
        self._read: tuple[object, ...] | None = ()
        with suppress(OSError):
            self._read = self.place.stamp()
        version, self.refused = last_good(root)
        self.version = ready(version)
        self._files = stamps(version)

    def follow(self) -> None:
        """Switches to a newly published or rolled-back version.

        A damaged version is refused until CURRENT is rewritten.
        """
        if self._changed():
            return
        try:
            stamp = self.place.stamp()
        except OSError as error:
            if self.refused != str(error):
                self._refuse(error)
            self._read = ()  # CURRENT is read as soon as the store answers
            return
        if stamp == self._read:
            return
        try:
            if versions.current(self.root) != self.version.name:
                self._serve(versions.load(self.root))
            self.refused = None
        except (ValueError, OSError) as error:
            self._refuse(error)
        self._read = stamp

    def _refuse(self, error: Exception) -> None:
        self.refused = str(error)
        log.error("still serving version %s: %s", self.version.name, error)

    def _serve(self, version: Version, refused: str | None = None) -> None:
        files = stamps(version)
        version = ready(version)
        self.refused = refused  # set first, to be visible with the new version
        self.version = version
        self._files = files
        self.switches += 1
        log.info("serving version %s", version.name)

    def _changed(self) -> bool:
        """Whether a file of the version was changed; switches to another version if so.

        A removed version does not count as changed and is still served from memory.
        """
        now = stamps(self.version)
        if all(now.get(name, stamp) == stamp for name, stamp in self._files.items()):
            return False
        self._files = now
        why = f"{self.version.path}: was written to while it was served"
        try:
            version, damage = last_good(self.root)
        except (ValueError, OSError) as error:
            self.refused = str(error)
            log.error("%s, and there is no other: %s", why, error)
            return True
        log.error("%s", damage or why)
        self._serve(version, damage)
        return True


class Alone:
    """A ranker that is served without versions.

    Args:
        ranker: The ranker. The constructor scores a few rows to finish the compilation
            of the ranker.

    Attributes:
        name: Name of the file or folder of the ranker.
    """

    version = refused = None
    switches = 0

    def __init__(self, ranker: Scorer):
        path = Path(ranker.name)
        trained = path.name in ("ranker.keras", "ranker.trees") and path.parent.name
        self.name = trained or path.name
        self.ranker = ranker
        for rows in (1, 2):
            try_ranker(ranker, rows)

    def follow(self) -> None:
        """Does nothing."""


def last_good(root: str | Path) -> tuple[Version, str | None]:
    """The current version; if it is damaged, an earlier version and the reason.

    The earlier version is the latest undamaged version. If an object store does not
    answer, the version that was read last is returned, from its copy on disk.

    Raises:
        OSError: The store does not answer, and there is no copy of a version on disk.
        ValueError: All versions are damaged or missing. The message describes the fault
            of the current version.
    """
    try:
        return versions.load(root), None
    except (ValueError, OSError) as error:
        first = error
    place = storage(root)
    if isinstance(place, Store) and isinstance(first, OSError):
        try:
            return versions.load(place.copies), str(first)
        except ValueError:
            raise first from None
    try:
        name = int(versions.current(root))
    except ValueError:
        raise first from None  # a version that was rolled back must not return
    for older in reversed([one for one in versions.names(root) if int(one) < name]):
        try:
            version = versions.load(root, older)
        except (ValueError, OSError):
            continue
        log.error("serving version %s: %s", older, first)
        return version, str(first)
    raise first


def stamps(version: Version) -> dict[str, tuple[int, int, int]]:
    """For each file of a version, a value that changes when the file is written."""
    found = {}
    for name in version.manifest["files"]:
        try:
            about = os.stat(version.path / name)
        except OSError:
            continue
        found[name] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return found


def ready(version: Version) -> Version:
    """Loads the tables of a version by computing one answer; returns the version."""
    retrieve(version, k=1)
    if version.ranker is not None:
        with suppress(ValueError):  # requests to the version get this error
            try_ranker(version.ranker)
    return version


def give_back() -> None:
    """Returns freed memory to the operating system.

    Without this call, glibc would keep the memory of old versions and large requests.
    """
    with suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def try_ranker(ranker: Scorer, rows: int = 1) -> None:
    """Scores rows of zeros, if the number of features is known."""
    if ranker.feature_names is not None:
        ranker(np.zeros((rows, len(ranker.feature_names)), np.float32))
    if ranker.kinds is not None:
        len(ranker.codes)  # which it keeps
