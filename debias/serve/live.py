"""The version that is being served, and how the next one takes its place."""

import logging
import os
from pathlib import Path

from debias.retrieval.serving import versions
from debias.retrieval.serving.query import retrieve
from debias.retrieval.serving.versions import Version

log = logging.getLogger("debias.serve")


class Live:
    """Holds one version and follows CURRENT.

    An answer reads `version` once and uses nothing else. The next version is loaded
    completely before one assignment puts it there; the old one lives until the last
    answer from it is done. Where the version that CURRENT names is damaged, at the
    start or because a file of it is written to later, the latest good one before it is
    served.

    Attributes:
        version: What is served.
        refused: Why the version that CURRENT names is not served; None if it is.
        switches: How often the version has changed.

    Raises:
        ValueError: There is no complete version to begin with.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.switches = 0
        self._read = self._stamp()
        version, self.refused = last_good(root)
        self.version = ready(version)
        self._files = stamps(version)

    def follow(self) -> None:
        """Takes over a version that has been published or rolled back to since.

        A damaged one is refused, and not tried again until CURRENT is rewritten.
        """
        if self._changed():
            return
        if (stamp := self._stamp()) == self._read:
            return
        try:
            if versions.current(self.root) != self.version.name:
                self._serve(versions.load(self.root))
            self.refused = None
        except (ValueError, OSError) as error:
            self.refused = str(error)
            log.error("still serving version %s: %s", self.version.name, error)
        self._read = stamp

    def _serve(self, version: Version, refused: str | None = None) -> None:
        files = stamps(version)
        version = ready(version)
        self.refused = refused  # first: who sees the new version sees why it is served
        self.version = version
        self._files = files
        self.switches += 1
        log.info("serving version %s", version.name)

    def _changed(self) -> bool:
        """Whether a file of the version was written to; then another one is served.

        A version that was removed, as old ones are, is served on from memory.
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

    def _stamp(self) -> tuple[int, int] | None:
        """What changes whenever CURRENT is written; None where it is absent."""
        try:
            found = os.stat(self.root / "CURRENT")
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def last_good(root: str | Path) -> tuple[Version, str | None]:
    """The current version; where it is damaged, the latest good one before it, and why.

    Raises:
        ValueError: There is none; the message is that of the current one.
    """
    try:
        return versions.load(root), None
    except (ValueError, OSError) as error:
        first = error
    try:
        name = int(versions.current(root))
    except ValueError:
        raise first from None  # a version rolled back from must not come again
    for older in reversed([one for one in versions.names(root) if int(one) < name]):
        try:
            version = versions.load(root, older)
        except (ValueError, OSError):
            continue
        log.error("serving version %s: %s", older, first)
        return version, str(first)
    raise first


def stamps(version: Version) -> dict[str, tuple[int, int, int]]:
    """For each file of a version what changes when it is written to."""
    found = {}
    for name in version.manifest["files"]:
        try:
            about = os.stat(version.path / name)
        except OSError:
            continue
        found[name] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return found


def ready(version: Version) -> Version:
    """The version after its first answer, so that no user waits for its tables."""
    retrieve(version, k=1)
    return version
