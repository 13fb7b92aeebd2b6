"""A table of propensities: the estimated examination of each place.

A place is a rank, or a combination of a rank with labels of other columns, such as a
device or a badge. `debias propensities` writes the table. The commands for judgments,
impression weights and corrected rankers read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from debias.data import ClickLog
from debias.data.files import atomic_write
from debias.data.records import plain
from debias.data.text import near, printable, quoted

if TYPE_CHECKING:
    import pyarrow as pa

Labels = Mapping[str, Sequence[str]]
RANKS = ("rank", "position")  # possible names of the column of ranks in a file
NUMBERS = ("examination", "low", "high", "standard_error", "n")
LONGEST = 1000


@dataclass(frozen=True, eq=False)
class Propensities:
    """Examination of R places relative to rank 1, with intervals and verdicts.

    Attributes:
        rank: (R,) int64 rank from 1.
        examination: (R,) float64 examination relative to rank 1; nan at places whose
            examination the log does not identify.
        low, high: (R,) float64 limits of the interval; nan without an interval.
        standard_error: (R,) float64 standard error of the examination.
        n: (R,) int64 number of impressions used for the estimate.
        method: (R,) name of the estimator.
        verdict: (R,) verdict in words; "identified" if there is no problem.
        by: (R,) labels of the other columns that distinguish places, by name of the
            column.
        trust: (R,) trust bias beta, the click probability of an item with attraction 0:
            P(click) = beta + examination * attraction. None means 0.
        why: Reason why the estimator was chosen.
        notes: Further notes for the user.
    """

    rank: np.ndarray
    examination: np.ndarray
    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray
    n: np.ndarray
    method: np.ndarray
    verdict: np.ndarray
    by: Mapping[str, np.ndarray] = field(default_factory=dict)
    trust: np.ndarray | None = None
    why: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def identified(self) -> bool:
        """Whether examination is known at any place below rank 1."""
        return bool(np.isfinite(self.examination[self.rank > 1]).any())

    @classmethod
    def of(
        cls, examination: Sequence[float] | np.ndarray, trust: Any = None
    ) -> "Propensities":
        """Makes a table of known propensities, one per rank.

        >>> Propensities.of([1.0, 0.5]).verdict.tolist()
        ['given', 'given']
        """
        theta = np.asarray(examination, float)
        if (
            theta.ndim != 1
            or not theta.size
            or not (theta[np.isfinite(theta)] > 0).all()
        ):
            raise ValueError(
                f"examination must be numbers above 0, one per rank, got {examination}"
            )
        size = len(theta)
        word = np.full(size, "given")
        nothing = np.full(size, np.nan)
        count = np.zeros(size, np.int64)
        rank = np.arange(1, size + 1)
        beta = None if trust is None else np.asarray(trust, float)
        return cls(
            *(rank, theta, nothing, nothing, nothing, count, word, word), trust=beta
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The table as columns, one row per place."""
        found = {**self.by, "rank": self.rank}
        found |= {name: getattr(self, name) for name in NUMBERS}
        found |= {"method": self.method, "verdict": self.verdict}
        return found if self.trust is None else found | {"trust": self.trust}

    def records(self) -> list[dict[str, Any]]:
        """The table as one dict per place; unknown values are None."""
        return plain(self.to_arrow().to_pylist())

    def to_arrow(self) -> "pa.Table":
        """The table as an Arrow table; unknown values are NULL."""
        import pyarrow as pa

        return pa.table(
            {
                name: pa.array(v, from_pandas=v.dtype.kind == "f")
                for name, v in self.columns().items()
            }
        )

    def write(self, path: str | Path) -> None:
        """Writes the table atomically as Parquet, CSV or JSON, by the ending of `path`.

        Raises:
            ValueError: The ending of `path` is unknown.
        """
        write_table(self.to_arrow(), path)

    def by_rank(self) -> tuple[np.ndarray, np.ndarray]:
        """(K,) examination and (K,) standard error of the ranks 1 to K.

        Raises:
            ValueError: Other columns distinguish places, or the table does not have one
                row for each rank.

        >>> Propensities.of([1.0, 0.5]).by_rank()[0].tolist()
        [1.0, 0.5]
        """
        if self.by:
            raise ValueError(
                f"propensities differ by {', '.join(self.by)}, but one row per rank is "
                "expected: run `debias propensities` without --by"
            )
        order = np.argsort(self.rank, kind="stable")
        wrong = np.flatnonzero(self.rank[order] != np.arange(1, len(self) + 1))
        if wrong.size:
            raise ValueError(
                f"propensities have rank {self.rank[order[wrong[0]]]} where rank "
                f"{wrong[0] + 1} is expected: give one row for each rank, from 1"
            )
        return self.examination[order], self.standard_error[order]

    def at(self, log: ClickLog, names: Labels | None = None) -> np.ndarray:
        """(S, L) int64 table row for each cell; -1 at padding and unknown places.

        Args:
            log: A log with the columns of `by`.
            names: For each column of `by`, the labels of the codes 1, 2 and so on.
                Without `names`, the codes are the labels.

        Raises:
            ValueError: The log lacks a column, or its lists are longer than the table.

        >>> log = ClickLog([0], [[4, 2, -1]], [[0, 1, 0]])
        >>> Propensities.of([1.0, 0.5, 0.25]).at(log).tolist()
        [[0, 1, -1]]
        """
        longest = int(self.rank.max())
        if log.mask[:, longest:].any():
            raise ValueError(
                f"propensities end at rank {longest}, but the log has {log.list_size} "
                "ranks: estimate them from lists of this length"
            )
        number: dict[tuple[Any, ...], int] = {}
        columns = [value.astype(str) for value in self.by.values()]
        rows = zip(*columns, self.rank, strict=True)
        for row, key in enumerate(rows):
            if number.setdefault(key, row) != row:
                raise ValueError(f"propensities have rank {key[-1]} twice")
        labels = [labels_of(log, name, names) for name in self.by]
        rank = np.broadcast_to(np.arange(1, log.list_size + 1), log.item.shape)
        found = np.full(log.item.shape, -1)
        for key, row in number.items():
            here = (rank == key[-1]) & log.mask
            for label, value in zip(labels, key[:-1], strict=True):
                here &= label == value
            found[here] = row
        return found


def known_places(
    propensities: Propensities, log: ClickLog, names: Labels | None
) -> np.ndarray:
    """Like `Propensities.at`, but also -1 at places with unknown examination.

    Raises:
        ValueError: No click is at a place with known examination.
    """
    place = propensities.at(log, names)
    known = np.append(np.isfinite(propensities.examination), False)[place]
    if not (known & log.click).any():
        raise ValueError(
            "no click is at a rank with known examination: give propensities of "
            "these ranks. If the log identifies none, `debias plan` says which "
            "ranks to exchange"
        )
    return np.where(known, place, -1)


def labels_of(log: ClickLog, name: str, names: Labels | None = None) -> np.ndarray:
    """(S, L) or (S, 1) str labels of a column of the log.

    Raises:
        ValueError: The column is missing or does not hold whole numbers.

    >>> log = ClickLog([0, 0], [[4], [4]], [[0], [1]], device=[2, 0])
    >>> labels_of(log, "device", {"device": ("phone", "laptop")}).tolist()
    [['laptop'], ['unknown']]
    """
    no_places = {*NO_PLACES, *(log.targets or {})}
    columns = {n: v for n, v in log.columns().items() if n not in no_places}
    if name not in columns:
        raise ValueError(
            f"this log has no column {quoted(name)}: {near(name, [*columns])}. To use "
            "another column of its file, read the log with presentation=COLUMN"
        )
    value = columns[name]
    value = value[:, None] if value.ndim == 1 else value
    if (value.dtype.kind == "f" and (value != np.round(value)).any()) or (
        value.shape[1] not in (1, log.list_size)
    ):
        raise ValueError(
            f"column {name} must be one whole number per session or per cell: cut it "
            "into groups first"
        )
    code = value.astype(np.int64)
    known = (names or {}).get(name)
    if known is None:
        return code.astype(str)
    labels = np.array([absent_label(name, known), *known])
    return labels[np.where(code <= len(known), code, 0)]


def absent_label(name: str, labels: Sequence[str]) -> str:
    """Label of code 0 of a column: "unknown" or "none".

    >>> absent_label("badge", ["sale"]), absent_label("badge", ["none", "sale"])
    ('none', 'unknown')
    """
    return "unknown" if name == "device" or "none" in labels else "none"


NO_PLACES = (
    *("query", "item", "click", "logging_propensity", "swap"),
    *("user_type", "examination", "attraction", "satisfaction"),
)


def write_table(table: "pa.Table", path: str | Path) -> None:
    """Writes an Arrow table atomically; the ending of `path` selects the format.

    Raises:
        ValueError: The ending of `path` is unknown.
    """
    import json

    import pyarrow.csv
    import pyarrow.parquet as pq

    path = Path(path)
    if path.suffix not in (".parquet", ".csv", ".json"):
        raise ValueError(f"{path}: the name must end with .parquet, .csv or .json")
    with atomic_write(path) as aside:
        if path.suffix == ".parquet":
            pq.write_table(table, aside, write_page_checksum=True)
        elif path.suffix == ".csv":
            pyarrow.csv.write_csv(table, aside)
        else:
            text = json.dumps(plain(table.to_pylist()), indent=1, allow_nan=False)
            aside.write_text(text + "\n", encoding="utf-8")


def read_propensities(path: str | Path) -> Propensities:
    """Reads a table of propensities, from this library or any other source.

    Args:
        path: A Parquet, CSV or JSON file with the columns `rank` (or `position`), from
            1, and `examination`. The columns `trust`, `low`, `high`, `standard_error`,
            `n`, `method` and `verdict` are optional. Every other column distinguishes
            places with the same rank, and must have the name of a column of the log.

    Raises:
        ValueError: The file has an unknown format, a column is missing or has a wrong
            type, or a value is not allowed. The message names the file, the column and
            the row.
    """
    path = Path(path)
    table = _table(path)
    rank_name = next((name for name in RANKS if name in table), None)
    for name in ("rank" if rank_name is None else rank_name, "examination"):
        if name not in table:
            raise ValueError(f"{path}: no column {name}: {near(name, [*table])}")
    assert rank_name is not None
    rank = _numbers(path, rank_name, table.pop(rank_name))
    whole = (rank >= 1) & (rank <= LONGEST) & (rank == np.round(rank))
    _refuse(path, rank_name, rank, ~whole, f"a whole number from 1 to {LONGEST}")
    theta = _numbers(path, "examination", table["examination"])
    wrong = ~((theta > 0) & (theta < np.inf)) & ~np.isnan(theta)
    expected = "above 0, and finite, or empty where unknown"
    _refuse(path, "examination", theta, wrong, expected)
    found: dict[str, Any] = {}
    for name in NUMBERS:
        value = table.pop(name, None)
        found[name] = np.full(len(rank), np.nan if name != "n" else 0)
        if value is not None:
            found[name] = _numbers(path, name, value)
    found["n"] = np.nan_to_num(found["n"]).astype(np.int64)
    for name in ("method", "verdict"):
        words = table.pop(name, None)
        found[name] = np.array([str(w) for w in words or ["given"] * len(rank)])
    trust, given = None, table.pop("trust", None)
    if given is not None:
        trust = _numbers(path, "trust", given)
        _refuse(path, "trust", trust, ~((trust >= 0) & (trust < 1)), "in [0, 1)")
    by = {name: np.array([str(v) for v in values]) for name, values in table.items()}
    return Propensities(rank=rank.astype(np.int64), **found, by=by, trust=trust)


def _table(path: Path) -> dict[str, list[Any]]:
    """Reads the columns of a small table as lists."""
    from debias.data.tables import open_parts

    if path.suffix == ".json":
        import json

        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise ValueError(f"{path}: expected a list of one object per place")
        names = dict.fromkeys(name for row in rows for name in row)
        table = {name: [row.get(name) for row in rows] for name in names}
    else:
        (part,) = open_parts(path)
        batches = [rows for rows, _ in part.read(part.schema.names, ())]
        table = {
            name: [v for rows in batches for v in rows.column(name).to_pylist()]
            for name in part.schema.names
        }
    if not table or not len(next(iter(table.values()))):
        raise ValueError(f"{path}: holds no rows")
    return table


def _numbers(path: Path, name: str, values: Sequence[Any]) -> np.ndarray:
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        try:
            found[row] = np.nan if value in (None, "") else float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"{path}: column {name} must be numbers, got {quoted(value)} at row "
                f"{row}"
            ) from None
    return found


def _refuse(
    path: Path, name: str, values: np.ndarray, wrong: np.ndarray, expected: str
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{path}: column {printable(name)} must be {expected}, got "
            f"{values[row]:g} at row {row}"
        )
