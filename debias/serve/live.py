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
    answer from it is done.

    Attributes:
        version: What is served.
        refused: Why the version that CURRENT names is not served; None if it is.
        switches: How often the version has changed.

    Raises:
        ValueError: There is no complete version to begin with.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.refused: str | None = None
        self.switches = 0
        self._read = self._stamp()
        self.version = ready(versions.load(root))

    def follow(self) -> None:
        """Takes over a version that has been published or rolled back to since.

        A damaged one is refused, and not tried again until CURRENT is rewritten.
        """
        if (stamp := self._stamp()) == self._read:
            return
        try:
            if versions.current(self.root) != self.version.name:
                self.version = ready(versions.load(self.root))
                self.switches += 1
                log.info("serving version %s", self.version.name)
            self.refused = None
        except (ValueError, OSError) as error:
            self.refused = str(error)
            log.error("still serving version %s: %s", self.version.name, error)
        self._read = stamp

    def _stamp(self) -> tuple[int, int] | None:
        """What changes whenever CURRENT is written; None where it is absent."""
        try:
            found = os.stat(self.root / "CURRENT")
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def ready(version: Version) -> Version:
    """The version after its first answer, so that no user waits for its tables."""
    retrieve(version, k=1)
    return version
