"""Ranking data and click logs, in NumPy and Arrow.

`ClickLog.write` and `ClickLog.open` write and read a whole log. `read_batches`,
`shuffled_batches` and `Stream` read a log that is larger than memory.
"""

from importlib import import_module
from typing import Any

from debias.data.letor import read_letor, read_letor_folder
from debias.data.log import ClickLog
from debias.data.ranking import RankingData
from debias.data.targets import amount_weights

_ARROW = {  # these load Arrow
    "Stream": "debias.data.stream",
    "count_sessions": "debias.data.log_files",
    "fingerprint": "debias.data.fingerprints",
    "matrix": "debias.data.by_name",
    "read_batches": "debias.data.stream",
    "read_elwc": "debias.data.elwc",
    "shuffled_batches": "debias.data.stream",
    "write_elwc": "debias.data.elwc",
    "write_examples": "debias.data.examples",
}

__all__ = [
    "ClickLog",
    "RankingData",
    "Stream",
    "amount_weights",
    "count_sessions",
    "fingerprint",
    "matrix",
    "read_batches",
    "read_elwc",
    "read_letor",
    "read_letor_folder",
    "shuffled_batches",
    "write_elwc",
    "write_examples",
]


def __getattr__(name: str) -> Any:
    if name in _ARROW:
        return getattr(import_module(_ARROW[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
