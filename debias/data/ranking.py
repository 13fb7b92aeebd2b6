"""Ranking data: the items of each query with features and grades.

Ranking data is a single table of items. The items of a query are consecutive, so a
query is a slice of the table. A click log contains only item numbers: features are
looked up in this table, and never copied into a log.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from debias.data import kinds as of_kinds
from debias.data.files import array_hash
from debias.data.kinds import Features
from debias.data.splits import random_parts

_ROWS_AT_ONCE = 1 << 16  # items that are checked at once, to keep temporaries small


@dataclass(frozen=True, eq=False, repr=False)
class RankingData:
    """Items of all queries; query q has the items offsets[q] to offsets[q + 1] - 1.

    Args:
        features: (items, F) finite numbers, stored as C-contiguous float32.
        labels: (items,) relevance grades in [0, max_grade]; None without grades.
            Integers are stored as int8, and other numbers as float32.
        offsets: (queries + 1,) strictly increasing whole numbers from 0 to the number
            of items, so each query has at least one item. Stored as int64.
        qid: (queries,) ids of the queries in the source; None without ids.
        max_grade: Highest grade, at most 127. MSLR-WEB30K, Yahoo and Istella have
            grades up to 4.
        feature_names: (F,) distinct names of the features. None if the features have no
            names, as in LETOR files and simulated data.
        item_id: (items,) ids of the items in the source; None without ids.
        kinds: Kinds of the features (see `debias.data.kinds`). Columns of category
            codes come before columns of numbers, and a missing number is NaN. None
            means that all features are finite numbers.

    Raises:
        ValueError: An array has a wrong shape or type, or a value is not allowed. The
            message names the argument and the item or query.

    >>> data = RankingData([[0.5], [2.0], [1.0]], [0, 4, 1], [0, 2, 3])
    >>> data
    RankingData(queries=2, items=3, feature_count=1, max_grade=4)
    >>> data.padded().tolist()
    [[0, 1], [2, -1]]
    """

    features: np.ndarray
    labels: np.ndarray | None
    offsets: np.ndarray
    qid: np.ndarray | None = None
    max_grade: int = 4
    feature_names: tuple[str, ...] | None = None
    item_id: np.ndarray | None = None
    kinds: Features | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_grade <= 127:
            raise ValueError(f"max_grade must be in 1..127, got {self.max_grade}")
        features = _checked_features(self.features, self.kinds)
        names = self.feature_names
        if self.kinds is not None:
            names = of_kinds.column_names(self.kinds)
        offsets = _checked_offsets(self.offsets, len(features))
        for name, value in (
            ("features", features),
            ("offsets", offsets),
            ("labels", _checked_labels(self.labels, len(features), self.max_grade)),
            ("qid", _checked_qid(self.qid, len(offsets) - 1)),
            ("feature_names", _checked_names(names, features.shape[1])),
            ("item_id", _checked_ids(self.item_id, len(features))),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def trusted(
        cls,
        features: np.ndarray,
        labels: np.ndarray | None,
        offsets: np.ndarray,
        qid: np.ndarray | None = None,
        max_grade: int = 4,
        feature_names: tuple[str, ...] | None = None,
        item_id: np.ndarray | None = None,
        kinds: Features | None = None,
    ) -> Self:
        """Makes ranking data from checked arrays, without validation."""
        data = object.__new__(cls)
        named = (qid, max_grade, feature_names, item_id, kinds)
        values = (features, labels, offsets, *named)
        for field, value in zip(fields(cls), values, strict=True):
            object.__setattr__(data, field.name, value)
        return data

    def with_trusted(self, **changed: Any) -> Self:
        """Returns a copy with other checked arrays, without validation."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        return self.trusted(**{**kept, **changed})

    def __repr__(self) -> str:
        return (
            f"RankingData(queries={self.queries}, items={self.items}, "
            f"feature_count={self.feature_count}, max_grade={self.max_grade})"
        )

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def items(self) -> int:
        """Total number of items in all queries."""
        return len(self.features)

    @property
    def feature_count(self) -> int:
        """Number of features of an item."""
        return self.features.shape[1]

    @cached_property
    def sizes(self) -> np.ndarray:
        """(queries,) int64 number of items of each query."""
        return np.diff(self.offsets)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of features and offsets, which identifies the items.

        The hash has 32 hexadecimal digits. Above 256 MB, it covers only samples (see
        `debias.data.files.sampled_hash`). Names, ids and grades do not change the hash.

        >>> one = RankingData([[0.5], [2.0]], None, [0, 2])
        >>> one.fingerprint == RankingData([[0.5], [2.0]], [0, 1], [0, 2]).fingerprint
        True
        >>> one.fingerprint == RankingData([[0.5], [2.5]], None, [0, 2]).fingerprint
        False
        """
        return array_hash({"features": self.features, "offsets": self.offsets})

    def dense(self) -> np.ndarray:
        """Finite features (items, D) float32, for estimators that accept only numbers.

        Missing numbers become the mean of their feature. A category becomes one column
        for each of its most frequent values. Without `kinds`, the result is `features`.
        """
        if self.kinds is None:
            return self.features
        return of_kinds.dense(self.features, self.kinds)

    def query_of_item(self) -> np.ndarray:
        """(items,) int32 query of each item.

        >>> RankingData([[0.0], [0.0], [0.0]], None, [0, 2, 3]).query_of_item().tolist()
        [0, 0, 1]
        """
        return np.repeat(np.arange(self.queries, dtype=np.int32), self.sizes)

    def padded(self, list_size: int | None = None) -> np.ndarray:
        """(queries, list_size) int32 item numbers, -1 after the last item of a query.

        Args:
            list_size: Largest number of items to keep per query; None keeps all items.
        """
        if list_size is None:
            list_size = int(self.sizes.max())
        if list_size < 1:
            raise ValueError(f"list_size must be at least 1, got {list_size}")
        rank = np.arange(list_size)
        item = self.offsets[:-1, None] + rank
        return np.where(rank < self.sizes[:, None], item, -1).astype(np.int32)

    def select(self, queries: np.ndarray | Sequence[int]) -> Self:
        """Selects queries in the given order, and renumbers their items.

        Args:
            queries: Query numbers, or a (queries,) bool mask.

        Raises:
            ValueError: No query is selected, or a number is out of range.

        >>> data = RankingData([[0.5], [2.0], [1.0]], None, [0, 2, 3], qid=[7, 9])
        >>> data.select([1]).features.tolist(), data.select([1]).qid.tolist()
        ([[1.0]], [9])
        """
        queries = np.asarray(queries)
        if queries.dtype == bool and queries.shape == (self.queries,):
            queries = np.flatnonzero(queries)
        if queries.ndim != 1 or queries.size == 0 or queries.dtype.kind not in "iu":
            raise ValueError(
                "queries must hold at least one query number, or be a mask"
            )
        if queries.min() < 0 or queries.max() >= self.queries:
            raise ValueError(
                f"queries must be in 0..{self.queries - 1}, "
                f"got {queries.min()} to {queries.max()}"
            )
        sizes = self.sizes[queries]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        # Item j of the result has the same distance from its query's first item as
        # before.
        shift = np.repeat(self.offsets[queries] - offsets[:-1], sizes)
        item = np.arange(offsets[-1]) + shift
        return self.with_trusted(
            features=self.features[item],
            labels=None if self.labels is None else self.labels[item],
            offsets=offsets,
            qid=None if self.qid is None else self.qid[queries],
            item_id=None if self.item_id is None else self.item_id[item],
        )

    def arranged(
        self, names: Sequence[str] | None, kinds: Features | None = None
    ) -> Self:
        """Returns the data with only the features `names`, in the order of `names`.

        Args:
            names: Names of the wanted features. If `names` or `feature_names` is None,
                the data is returned unchanged, after a check of the number of names.
            kinds: Kinds of the wanted features, with the vocabularies to encode them;
                `names` is then ignored. None means that all wanted features are finite
                numbers.

        Raises:
            ValueError: A wanted feature is missing, is named twice or has a different
                kind, or the number of wanted features is wrong.

        >>> data = RankingData([[1, 2]], None, [0, 1], feature_names=("a", "b"))
        >>> data.arranged(["b", "a"]).features.tolist()
        [[2.0, 1.0]]
        """
        if kinds is not None:
            return self._coded_as(kinds)
        if self.kinds is not None:
            self._check_plain(names)
        if names is None or self.feature_names is None:
            count = self.feature_count if names is None else len(names)
            if count != self.feature_count:
                raise ValueError(
                    f"{count} features are requested, but the items have "
                    f"{self.feature_count}"
                )
            return self
        wanted = _checked_names(names, len(names)) or ()
        if wanted == self.feature_names:
            return self
        absent = [name for name in wanted if name not in self.feature_names]
        if absent:
            raise ValueError(
                f"the items have no feature {absent[0]}; there are "
                f"{' '.join(self.feature_names)}"
            )
        columns = [self.feature_names.index(name) for name in wanted]
        features = np.ascontiguousarray(self.features[:, columns])
        return self.with_trusted(features=features, feature_names=wanted, kinds=None)

    def _coded_as(self, kinds: Features) -> Self:
        """The same data, encoded with the vocabularies of `kinds`."""
        if self.kinds == kinds:
            return self
        have = self.kinds or of_kinds.plain(self.feature_names, self.features)
        return self.with_trusted(
            features=of_kinds.recoded(self.features, have, kinds),
            feature_names=of_kinds.column_names(kinds),
            kinds=kinds,
        )

    def _check_plain(self, names: Sequence[str] | None) -> None:
        """Raises ValueError unless these features are finite numbers."""
        for each, block in of_kinds.blocks(self.features, self.kinds or ()):
            if names is not None and each.name not in names:
                continue
            if each.coded:
                raise ValueError(
                    f"the feature {each.name} holds categories, but the model reads it "
                    "as a number; read the items with numbers=NAME"
                )
            gone = np.isnan(block[:, 0])
            if gone.any():
                raise ValueError(
                    f"the feature {each.name} is missing at item {np.argmax(gone)}, "
                    "but never missing in training; fill it, or train on a log in "
                    "which it is sometimes missing"
                )

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple[Self, ...]:
        """Splits the queries at random.

        Args:
            fractions: Shares of the queries, summing to 1.
            rng: The only source of randomness.

        Raises:
            ValueError: The fractions do not sum to 1, or a part gets no query.
        """
        parts = random_parts(self.queries, fractions, rng)
        if min(part.size for part in parts) == 0:
            raise ValueError(
                f"fractions {list(fractions)} leave a part of {self.queries} "
                "queries empty"
            )
        return tuple(self.select(part) for part in parts)

    def write_parquet(self, path: str | Path) -> None:
        """Writes a Parquet file with one row per item, atomically.

        The columns are `qid`, `label`, `item_id` and `features`, which holds lists of
        fixed size. `label` and `item_id` are left out if the data lacks them. If
        queries have no ids, a column `query` with the numbers of the queries replaces
        `qid`.
        """
        from debias.data.ranking_files import Rows, write_rows

        query = self.query_of_item()
        rows = Rows(
            self.features,
            self.labels,
            query,
            None if self.qid is None else self.qid[query],
            self.max_grade,
            self.feature_names,
            self.kinds,
            self.item_id,
        )
        write_rows(rows, path)

    @classmethod
    def read_parquet(cls, path: str | Path, max_grade: int | None = None) -> Self:
        """Reads a file of `write_parquet`, or a similar table of another program.

        Args:
            path: File with a column qid or query, and optional columns label and
                item_id. The features are in a column `features` with lists of equal
                length, or in columns f0, f1 and so on. Other columns are an error.
            max_grade: Highest grade. None means the highest grade in the metadata of
                the file, or 4 if there is none.

        Raises:
            ValueError: A column is missing, unknown or of the wrong type, the items of
                a query are not consecutive, or a value is not allowed. The message
                names the file.
        """
        from debias.data.ranking_files import read_rows

        rows = read_rows(path)
        try:
            offsets, ids = runs(rows.query if rows.qid is None else rows.qid)
            return cls(
                rows.features,
                rows.labels,
                offsets,
                None if rows.qid is None else ids,
                rows.max_grade if max_grade is None else max_grade,
                rows.names,
                kinds=rows.kinds,
                item_id=rows.item_id,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def runs(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and ids of queries, from the query id of each item.

    Raises:
        ValueError: The items of a query are not consecutive. The message names the
            item.

    >>> [array.tolist() for array in runs(np.array([7, 7, 3]))]
    [[0, 2, 3], [7, 3]]
    """
    starts = np.flatnonzero(query[1:] != query[:-1]) + 1
    offsets = np.concatenate([[0], starts, [len(query)]])
    qid = query[offsets[:-1]]
    repeats = np.ones(len(qid), dtype=bool)
    repeats[np.unique(qid, return_index=True)[1]] = False
    if repeats.any():
        run = int(np.argmax(repeats))
        raise ValueError(
            f"query {qid[run]} appears again at item {offsets[run]}: "
            "the items of a query must be consecutive"
        )
    return offsets, qid


def _checked_features(features: np.ndarray, kinds: Features | None) -> np.ndarray:
    given = np.asarray(features)
    if given.ndim != 2 or given.shape[1] == 0 or given.dtype.kind not in "fiub":
        raise ValueError(
            "features must be numbers of shape (items, features), "
            f"got {given.dtype} of shape {given.shape}"
        )
    with np.errstate(over="ignore"):  # overflow is reported just below
        features = np.ascontiguousarray(given, dtype=np.float32)
    if kinds is not None:
        of_kinds.check_matrix(features, kinds)
        return features
    for start in range(0, len(features), _ROWS_AT_ONCE):
        finite = np.isfinite(features[start : start + _ROWS_AT_ONCE])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"features must be finite in float32, got {given[start + row, column]} "
                f"at item {start + row}, feature {column}"
            )
    return features


def _checked_offsets(offsets: np.ndarray, items: int) -> np.ndarray:
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or offsets.size < 2 or offsets.dtype.kind not in "iu":
        raise ValueError(
            "offsets must be whole numbers of shape (queries + 1,), "
            f"got {offsets.dtype} of shape {offsets.shape}"
        )
    offsets = offsets.astype(np.int64, copy=False)
    if offsets[0] != 0 or offsets[-1] != items:
        raise ValueError(
            f"offsets must run from 0 to the {items} items, "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    empty = np.flatnonzero(np.diff(offsets) < 1)
    if empty.size:
        raise ValueError(f"offsets leave query {empty[0]} without an item")
    return offsets


def _checked_labels(
    labels: np.ndarray | None, items: int, max_grade: int
) -> np.ndarray | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (items,) or labels.dtype.kind not in "fiub":
        raise ValueError(
            f"labels must be numbers of shape ({items},), "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    outside = np.flatnonzero(~((labels >= 0) & (labels <= max_grade)))
    if outside.size:
        raise ValueError(
            f"labels must be in 0..{max_grade}, "
            f"got {labels[outside[0]]} at item {outside[0]}"
        )
    kept = np.float32 if labels.dtype.kind == "f" else np.int8
    return labels.astype(kept, copy=False)


def _checked_qid(qid: np.ndarray | None, queries: int) -> np.ndarray | None:
    if qid is None:
        return None
    qid = np.asarray(qid)
    if qid.shape != (queries,):
        raise ValueError(f"qid must have shape ({queries},), got {qid.shape}")
    names, count = np.unique(qid, return_counts=True)
    if names.size < queries:
        twice = names[np.argmax(count > 1)]
        raise ValueError(f"qid must name each query once, got {twice} again")
    return qid


def _checked_ids(item_id: np.ndarray | None, items: int) -> np.ndarray | None:
    if item_id is None:
        return None
    item_id = np.asarray(item_id)
    if item_id.shape != (items,):
        raise ValueError(f"item_id must have shape ({items},), got {item_id.shape}")
    return item_id


def _checked_names(names: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(names) != count or not all(isinstance(n, str) and n for n in names):
        raise ValueError(
            f"feature_names must be {count} names, one a feature, got {names!r}"
        )
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise ValueError(f"feature_names must differ, got {twice[0]} twice")
    return tuple(names)
