"""The (query, item) pairs of a log, with features and grades."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.coded import LONGEST as CUT
from debias.data.coded import OtherKind, Reader, kinds_of, other_date
from debias.data.kinds import MOST, RARE, Features, column_names, starts
from debias.data.present import Present, notices
from debias.data.ranking import RankingData
from debias.data.roles import Chosen, Columns
from debias.data.rows import Rows, read_rows
from debias.data.shown import REMEDIES, Batch, listed, matching, shown_batches
from debias.data.tables import Part, Source, open_parts
from debias.data.text import near, printable, quoted
from debias.data.versions import Distinct

_PIECE = 1 << 16  # rows of a matrix
HIGHEST = 127  # largest grade that ranking data can hold


class Pairs(NamedTuple):
    """The (query, item) pairs of a log, numbered consecutively within each query.

    Attributes:
        number: (n,) pair number of each shown item; -1 for shown items that are
            dropped.
        query: (P,) int32 query number of each pair, ascending from 0.
        items: (P,) name of the item of each pair.
        queries: Names of the queries; None if they have no names.
        key: (P,) query code * number of items + item code, used to join a table of
            items; empty if it is no longer needed.
    """

    number: np.ndarray
    query: np.ndarray
    items: np.ndarray
    queries: np.ndarray | None
    key: np.ndarray


def pair_up(rows: Rows, kept: np.ndarray) -> Pairs:
    """Numbers the (query, item) pairs of the kept rows.

    The pairs of a query have consecutive numbers, in order of first appearance.

    Raises:
        ValueError: No row has an item.
    """
    count, item = len(rows.names["item"]), rows.codes["item"]
    kept = kept & (item >= 0)
    if not kept.any():
        raise rows.fault("item", 0, "shows no item in any session")
    key = _key(rows)
    coded = pa.array(key if kept.all() else key[kept]).dictionary_encode()
    del key
    unique = coded.dictionary.to_numpy()
    order = np.argsort(unique // count, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    number = np.full(len(item), -1, np.int32)
    number[kept] = rank[coded.indices.to_numpy()]
    unique = unique[order]
    present, query = np.unique(unique // count, return_inverse=True)
    queries = rows.names.get("query")
    return Pairs(
        number,
        query.astype(np.int32),
        _array(rows.names["item"])[unique % count],  # one Python object per name
        None if queries is None else _array(queries.take(pa.array(present))),
        unique,
    )


def _array(names: pa.Array) -> np.ndarray:
    return names.to_numpy(zero_copy_only=False)


def _key(rows: Rows) -> np.ndarray:
    """(n,) int64, unique for each pair of query and item."""
    key = rows.codes["item"].astype(np.int64)
    if "query" in rows.codes:
        key += rows.codes["query"].astype(np.int64) * len(rows.names["item"])
    return key


# Features


class Known(NamedTuple):
    """Features and grades of P (query, item) pairs.

    Attributes:
        features: (R, F) float32 rows of features; the rows of a pair are consecutive.
        kinds: Kinds of the features.
        label: (R,) grades; None without grades.
        notices: Messages for the user about the columns.
        pair: (R,) pair number of each row, in ascending order. A pair has several rows
            only if its features change.
        number: (n,) row of `features` for each shown item; -1 for shown items that are
            dropped.
    """

    features: np.ndarray
    kinds: Features
    label: np.ndarray | None
    notices: tuple[str, ...]
    pair: np.ndarray
    number: np.ndarray

    def take(self, rows: np.ndarray) -> "Known":
        """Selects features and grades by row, in the order of `rows`."""
        label = None if self.label is None else self.label[rows]
        return self._replace(features=self.features[rows], label=label)


def read_known(
    parts: Sequence[Part],
    chosen: Chosen,
    number: np.ndarray,
    count: int,
    first_features: bool,
    progress: Callable[[float], None],
) -> Known:
    """Reads features, and grades if there are any, in a second pass over a log.

    Args:
        parts, chosen: The files and the columns that `debias.data.rows.read_rows` read
            in the first pass.
        number: (n,) pair number of each shown item; -1 for shown items that are
            dropped.
        count: Number of pairs, called P.
        first_features: Whether to keep only the first row of features of each pair.
            False keeps every distinct row.
        progress: Called with the share of the files that was read so far.

    Raises:
        ValueError: A value is not allowed, the grades of a pair differ, or all features
            are NULL in every row. The message names the file, the column and the row.
    """
    asked = chosen.get("numbers", ())
    kinds = kinds_of(
        parts,
        chosen["features"],
        listed(parts[0], chosen),
        chosen.get("categories", ()),
        asked,
    )
    while True:
        tables = _Tables(count, first_features, Reader(kinds, asked))
        if not first_features:
            tables.room = min(int((number >= 0).sum()) - count, count // 8)
        try:
            tables.read(parts, chosen, number, progress)
            return tables.known(number)
        except OtherKind as found:
            kinds = {**kinds, found.column: found.kind}


class _Tables:
    """Collects features and grades of P pairs from the rows that show them."""

    def __init__(self, count: int, first_features: bool, reader: Reader) -> None:
        self._count, self._first, self._reader = count, first_features, reader
        self.room = 0  # extra rows for features that change
        self._held: dict[str, np.ndarray] = {}  # (P + room, columns) float32 by role
        self._present = Present()  # columns of grades that are present
        self._have = np.zeros(count, bool)
        self._batch: Batch | None = None  # the first batch
        self._changed: list[np.ndarray] = []  # shown items with other features
        self._rows: Distinct | None = None  # their pairs and features

    def read(
        self,
        parts: Sequence[Part],
        chosen: Chosen,
        number: np.ndarray,
        progress: Callable[[float], None],
    ) -> None:
        start = 0
        roles = ("item", "features", "label", "categories")
        for batch, share in shown_batches(parts, chosen, roles):
            self._batch = self._batch or batch._replace(arrays={})
            stop = start + len(batch.arrays["item"][0])
            self._add(batch, number[start:stop], start)
            start = stop
            progress(share)

    def _add(self, batch: Batch, number: np.ndarray, start: int) -> None:
        """Adds a batch; `number` (n,) is the pair of each entry, -1 for none."""
        entries = np.flatnonzero(number >= 0)
        if not len(entries):
            return
        pair = number[entries]
        new = np.flatnonzero(~self._have[pair])[::-1]  # the first of several stays
        if "label" in batch.arrays:
            values = self._present.matrix(batch, "label")[entries]
            _check_grades(self._present, batch, values, entries)
            grades = self._table("label", values, pair[new], values[new])
            if not self._first:
                _check_same(self._present, batch, values, grades[pair], entries)
        values = self._reader.matrix(batch)[entries]
        table = self._table("features", values, pair[new], values[new])
        self._have[pair] = True
        if not self._first:
            self._keep_changed(values, table[pair], pair, entries + start)

    def _table(
        self, role: str, like: np.ndarray, pairs: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """The table of a role, with the values of new pairs entered."""
        if role not in self._held:
            rows = self._count + (self.room if role == "features" else 0)
            self._held[role] = np.zeros((rows, like.shape[1]), np.float32)
        self._held[role][pairs] = values
        return self._held[role]

    def _keep_changed(
        self,
        values: np.ndarray,
        known: np.ndarray,
        pair: np.ndarray,
        entries: np.ndarray,
    ) -> None:
        """Keeps the rows that differ from the first row of their pair."""
        differs = (values.view(np.int32) != known.view(np.int32)).any(axis=1)
        if not differs.any():
            return
        self._rows = self._rows or Distinct(values.shape[1] + 1)
        bits = values[differs].view(np.int32)
        self._rows.add(np.concatenate([pair[differs, None], bits], axis=1))
        self._changed.append(entries[differs])

    def known(self, number: np.ndarray) -> Known:
        """Returns everything read so far.

        Raises:
            ValueError: All features are NULL in every row.
        """
        assert self._batch is not None
        batch = self._batch
        matrix, pair, number, said = self._with_changed(number)
        features, kinds, notes = trimmed(matrix, self._reader, batch)
        if not kinds:
            what = "is NULL in every row, and there are no other features"
            raise batch.fault("features", 0, what, "say features=NAME, or features=")
        label = self._held.get("label", np.zeros((0, 0)))
        notes = (*notices(batch, self._present.empty), *notes, *said)
        grades = label[pair, 0] if label.shape[1] else None
        return Known(features, kinds, grades, notes, pair, number)

    def _with_changed(
        self, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
        """Features, the pair of each row, the row of each shown item, and notices."""
        matrix = self._held.pop("features")
        pair = np.arange(self._count, dtype=np.int32)
        if self._rows is None:
            return _cut(matrix, self._count), pair, number, ()
        assert self._batch is not None
        code, rows = self._rows.found()
        pair = np.concatenate([pair, rows[:, 0]])
        order = np.argsort(pair, kind="stable")
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        row = np.where(number >= 0, place[number], np.int32(-1))
        row[np.concatenate(self._changed)] = place[self._count + code]
        changed = rows[:, 1:].view(np.float32)
        matrix = _inserted(matrix, self._count, changed, order)
        note = (
            f"{self._batch.part}: {len(np.unique(rows[:, 0])):,} of {self._count:,} "
            "items of a query change their features between sessions: "
            f"{len(order):,} rows of features are kept, "
            f"{matrix.nbytes / 1e6:,.1f} MB; first_features=True (--first-features) "
            "keeps the first of each"
        )
        return matrix, pair[order], row, (note,)


def trimmed(
    matrix: np.ndarray, reader: Reader, batch: Batch
) -> tuple[np.ndarray, Features, tuple[str, ...]]:
    """Removes empty columns from a matrix; also returns its features and messages.

    Args:
        matrix: (R, F) values and codes from `reader`.
        reader: The reader that encoded the matrix.
        batch: A batch with the names of the file and its columns, for messages.
    """
    chosen = batch.chosen["features"]
    kinds = reader.features(chosen)
    columns: list[int] = []
    found, empty = [], []
    for each, start in zip(kinds, starts(kinds).values(), strict=True):
        block = matrix[:, start : start + each.width]
        gone = (block == 0).all() if each.coded else np.isnan(block).all()
        if gone and each.name in chosen:
            empty.append(("features", chosen.index(each.name)))
            continue
        if each.kind == "categories":
            each = each._replace(width=max(1, reader.width(each.name)))
        found.append(each)
        columns += range(start, start + each.width)
    notes = [
        f"{batch.part}: column {printable(name)} (features) lists more than {CUT} "
        f"values in {count:,} rows: the first {CUT} are kept"
        for name, count in reader.cut.items()
    ]
    notes += [
        f"{batch.part}: column {printable(each.name)} (features) is a category of "
        f"{len(each.values):,} values, more than {MOST:,} from "
        f"{reader.beyond[each.name]} on: a model distinguishes only the {MOST:,} most "
        f"frequent values, without values that training shows fewer than {RARE} "
        "times; leave ids out of features=NAMES"
        for each in found
        if len(each.values) > MOST
    ]
    notes += [
        f"{batch.part}: column {printable(each.name)} (features) holds dates such as "
        f"{quoted(example)}, and each date is read as a separate category; write "
        "2026-01-31 (year-month-day) to read the column as dates"
        for each in found
        if each.kind == "category" and (example := other_date(each.values)) is not None
    ]
    return _narrowed(matrix, columns), tuple(found), (*notices(batch, empty), *notes)


def _narrowed(matrix: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Selects ascending columns in place; the caller must not use `matrix` again."""
    width, rows = len(columns), len(matrix)
    if width == matrix.shape[1] or not matrix.flags.owndata:
        return matrix[:, columns] if width < matrix.shape[1] else matrix
    flat = matrix.ravel()
    for start in range(0, rows, _PIECE):
        piece = matrix[start : start + _PIECE, columns]
        flat[start * width : start * width + piece.size] = piece.ravel()
    del flat
    matrix.resize((rows, width), refcheck=False)
    return matrix


def _cut(matrix: np.ndarray, rows: int) -> np.ndarray:
    """Keeps the first rows in place; the caller must not use `matrix` again."""
    if rows < len(matrix):
        matrix.resize((rows, matrix.shape[1]), refcheck=False)
    return matrix


def _inserted(
    matrix: np.ndarray, count: int, rows: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Inserts rows, in place if there is room; `matrix` must not be used again.

    Args:
        matrix: (P + room, F), whose first P rows count and keep their order.
        count: P.
        rows: (R, F) rows to insert.
        order: (P + R,) index of each result row in `matrix` followed by `rows`.
    """
    if len(order) > len(matrix):
        return np.concatenate([matrix[:count], rows])[order]
    # Rows only move to higher places. Written from the end, no row is overwritten
    # before it is read.
    for stop in range(len(order), 0, -_PIECE):
        some = order[max(stop - _PIECE, 0) : stop]
        new = some >= count
        piece = matrix[np.where(new, 0, some)]
        piece[new] = rows[some[new] - count]
        matrix[stop - len(some) : stop] = piece
    return _cut(matrix, len(order))


def _check_grades(
    present: Present, batch: Batch, values: np.ndarray, entries: np.ndarray
) -> None:
    """Checks grades (n, C) of the shown items with the indices `entries` (n,)."""
    wrong = ~((values >= 0) & (values <= HIGHEST))
    if wrong.any():
        row, cell = np.argwhere(wrong)[0]
        what = f"must be a grade in 0..{HIGHEST}, got {values[row, cell]:g}"
        todo = REMEDIES["label"]
        raise present.fault(batch, "label", int(entries[row]), int(cell), what, todo)


def _check_same(
    present: Present,
    batch: Batch,
    values: np.ndarray,
    known: np.ndarray,
    entries: np.ndarray,
) -> None:
    differs = values != known
    if differs.any():
        row, cell = np.argwhere(differs)[0]
        what = (
            f"is {values[row, cell]:g} where the same item under the same query "
            f"had {known[row, cell]:g} before,"
        )
        todo = "say first_features=True (--first-features) to keep the first"
        raise present.fault(batch, "label", int(entries[row]), int(cell), what, todo)


def ranking_of(pairs: Pairs, known: Known) -> RankingData:
    """Builds ranking data whose items are the pairs."""
    label = known.label
    if label is not None and (label == label.astype(np.int8)).all():
        label = label.astype(np.int8)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs.query))])
    highest = 4 if label is None else max(4, int(np.ceil(label.max())))
    numeric = all(each.kind in ("number", "boolean") for each in known.kinds)
    whole = numeric and not np.isnan(known.features.sum(dtype=np.float64))
    return RankingData(
        known.features,
        label,
        offsets,
        pairs.queries,
        highest,
        column_names(known.kinds),
        kinds=None if whole else known.kinds,
    )


def in_rows(pairs: Pairs, known: Known) -> Pairs:
    """Repeats each pair once per row of its features."""
    return pairs._replace(
        number=known.number,
        query=pairs.query[known.pair],
        items=pairs.items[known.pair],
    )


# A table of items


class Items(NamedTuple):
    """A table of items with features and grades."""

    rows: Rows
    known: Known


def read_items(source: Source, asked: Columns) -> Items:
    """Reads a table with one row per item, or per (query, item) pair.

    Raises:
        ValueError: A column is missing, a value is not allowed, or a pair occurs twice.
            The message names the file, the column and the row.
    """
    parts = open_parts(source)
    chosen = _choose(parts[0], asked)
    features = chosen.pop("features")
    rows = read_rows(parts, chosen, lambda share: None)
    key = _key(rows)
    order = np.argsort(key, kind="stable")
    again = order[1:][np.diff(key[order]) == 0]
    if again.size:
        what = "names the same item of the same query again"
        raise rows.fault("item", int(again.min()), what, "keep one row of each")
    number = np.arange(len(key))
    chosen["features"] = features
    known = read_known(parts, chosen, number, len(key), False, lambda share: None)
    return Items(rows, known)


def _choose(part: Part, asked: Columns) -> dict[str, tuple[str, ...]]:
    name, names = part.name, part.schema.names
    if asked.item not in names:
        raise ValueError(
            f"{name}: no column {printable(asked.item)}: {near(asked.item, names)}; "
            "rename the column of ids: it needs the name that it has in the log"
        )
    chosen: dict[str, tuple[str, ...]] = {"item": (asked.item,)}
    for role, column in (("query", asked.query), ("label", asked.label)):
        if column is not None and column in names:
            chosen[role] = (column,)
    wanted = asked.features or ()
    patterns = (wanted,) if isinstance(wanted, str) else wanted
    taken = {column for columns in chosen.values() for column in columns}
    columns = matching(patterns, names, taken)
    if not columns:
        raise ValueError(
            f"{name}: no column {printable(' '.join(patterns))} for features: "
            f"{near(' '.join(patterns), names)}; say features=NAME, or features=* for "
            "all other columns"
        )
    return {**chosen, "features": columns}


def join(rows: Rows, pairs: Pairs, items: Items) -> tuple[Pairs, RankingData]:
    """Joins the pairs with the features and grades of a table of items.

    Raises:
        ValueError: The table lacks a shown item. The message names the row of this item
            in the log.
    """
    codes, names = items.rows.codes, items.rows.names
    count = len(rows.names["item"])
    wanted = index_in(rows.names["item"], names["item"])[pairs.key % count]
    if "query" in codes:
        query = index_in(rows.names["query"], names["query"])[pairs.key // count]
        known = (wanted >= 0) & (query >= 0)
        wanted = np.where(known, query * len(names["item"]) + wanted, -1)
    key = _key(items.rows)
    order = np.argsort(key)
    row = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
    missing = np.flatnonzero(key[row] != wanted)
    if missing.size:
        entry = int(np.argmax(pairs.number == missing[0]))
        where = items.rows.batches[0].part
        what = f"is {quoted(pairs.items[missing[0]])}, which {where} lacks,"
        raise rows.fault("item", entry, what, "add it there")
    if "query" not in codes:
        return pairs, ranking_of(pairs, items.known.take(row))
    order = np.argsort(codes["query"], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    moved = np.where(pairs.number >= 0, place[row][pairs.number], -1)
    shown = _array(names["item"].take(pa.array(codes["item"][order])))
    whole = Pairs(
        moved, codes["query"][order], shown, _array(names["query"]), key[order]
    )
    return whole, ranking_of(whole, items.known.take(order))


def index_in(names: pa.Array, known: pa.Array) -> np.ndarray:
    """The index of each name in `known`; -1 for a name that is not in `known`."""
    if names.type != known.type:  # numbers in one file, and text in the other
        names, known = names.cast(pa.string()), known.cast(pa.string())
    return pc.index_in(names, known).fill_null(-1).to_numpy().astype(np.int64)
