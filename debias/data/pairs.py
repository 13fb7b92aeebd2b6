"""The items of a log: pairs of a query and an item, their features and their grades."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.present import Present, notices
from debias.data.ranking import RankingData
from debias.data.roles import Chosen, Columns
from debias.data.rows import Rows, read_rows
from debias.data.shown import Batch, matching, shown_batches
from debias.data.tables import Part, Source, open_parts
from debias.data.text import near, printable, quoted

HIGHEST = 127  # grade that ranking data can hold


class Pairs(NamedTuple):
    """The pairs of a query and an item, numbered so that a query's are consecutive.

    Attributes:
        number: (n,) pair of each shown item, -1 for what is not kept.
        query: (P,) query number of each pair, ascending from 0.
        items: (P,) name of each pair's item.
        queries: Names of the queries, None where nothing names them.
        key: (P,) query and item as the rows have them: query code times items + item.
    """

    number: np.ndarray
    query: np.ndarray
    items: np.ndarray
    queries: np.ndarray | None
    key: np.ndarray


def pair_up(rows: Rows, kept: np.ndarray) -> Pairs:
    """Numbers the pairs of the rows to be kept, by first appearance in each query.

    Raises:
        ValueError: No row shows an item.
    """
    count, item = len(rows.names["item"]), rows.codes["item"]
    kept = kept & (item >= 0)
    if not kept.any():
        raise rows.fault("item", 0, "shows nothing in any session")
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
        query,
        _array(rows.names["item"].take(pa.array(unique % count))),
        None if queries is None else _array(queries.take(pa.array(present))),
        unique,
    )


def _array(names: pa.Array) -> np.ndarray:
    return names.to_numpy(zero_copy_only=False)


def _key(rows: Rows) -> np.ndarray:
    """(n,) int64 that tells pairs of query and item apart."""
    key = rows.codes["item"].astype(np.int64)
    if "query" in rows.codes:
        key += rows.codes["query"].astype(np.int64) * len(rows.names["item"])
    return key


# Features


class Known(NamedTuple):
    """What is known of P pairs of a query and an item.

    Attributes:
        features: (P, F) float32.
        names: (F,) what the source calls them.
        label: (P,) grades, None without.
        notices: Columns that were passed over because they are empty, in words.
    """

    features: np.ndarray
    names: tuple[str, ...]
    label: np.ndarray | None
    notices: tuple[str, ...]

    def take(self, rows: np.ndarray) -> "Known":
        """What is known of these pairs, in this order."""
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
    """The second pass: features and, where the source has them, grades.

    Args:
        parts, chosen: As for the first pass.
        number: (n,) pair of each shown item, -1 for none.
        count: P, how many pairs there are.
        first_features: Whether rows of a pair may differ; the first one's are kept.
        progress: Called with the share of the parts that is read.

    Raises:
        ValueError: A value is not allowed, rows of a pair differ, or the features are
            NULL in every row; names file, column and row.
    """
    tables = _Tables(count, first_features)
    first: Batch | None = None
    start = 0
    roles = ("item", "features", "label")
    for batch, share in shown_batches(parts, dict(chosen), roles):
        first = first or batch
        stop = start + len(batch.arrays["item"][0])
        tables.add(batch, number[start:stop])
        start = stop
        progress(share)
    assert first is not None
    if not tables.names:
        what = "is NULL in every row, and there are no other features"
        raise first.fault("features", 0, what, "say features=NAME, or features=")
    label = tables.held.get("label", np.zeros((0, 0)))
    return Known(
        tables.held["features"],
        tables.names,
        label[:, 0] if label.shape[1] else None,
        notices(first, tables.present.empty),
    )


class _Tables:
    """Features and grades of P pairs, as rows come that show them.

    Attributes:
        held: (P, columns) float32 of each role.
        names: What the features are called.
        present: Which columns hold anything.
    """

    def __init__(self, count: int, first_features: bool) -> None:
        self.held: dict[str, np.ndarray] = {}
        self.names: tuple[str, ...] = ()
        self.present = Present()
        self._have = np.zeros(count, bool)
        self._first = first_features

    def add(self, batch: Batch, number: np.ndarray) -> None:
        """Takes in a batch, of which `number` (n,) are the pairs, -1 for none."""
        entries = np.flatnonzero(number >= 0)
        if not len(entries):
            return
        pair = number[entries]
        new = np.flatnonzero(~self._have[pair])
        for role in [role for role in batch.arrays if role != "item"]:
            values = self.present.matrix(batch, role)[entries]
            high = HIGHEST if role == "label" else None
            self.present.check_finite(batch, role, values, entries, high)
            if role not in self.held:
                shape = len(self._have), values.shape[1]
                self.held[role] = np.zeros(shape, np.float32)
            table = self.held[role]
            table[pair[new[::-1]]] = values[new[::-1]]  # of several, the first stays
            if not self._first:
                _check_same(self.present, batch, role, values, table[pair], entries)
        self.names = self.names or self.present.names(batch, "features")
        self._have[pair] = True


def _check_same(
    present: Present,
    batch: Batch,
    role: str,
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
        todo = (
            "say first_features=True (--first-features) to keep the first, or put what "
            "changes it into the name of the item"
        )
        raise present.fault(batch, role, int(entries[row]), int(cell), what, todo)


def ranking_of(pairs: Pairs, known: Known) -> RankingData:
    """Ranking data whose items are the pairs."""
    label = known.label
    if label is not None and (label == label.astype(np.int8)).all():
        label = label.astype(np.int8)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs.query))])
    highest = 4 if label is None else max(4, int(np.ceil(label.max())))
    return RankingData(
        known.features, label, offsets, pairs.queries, highest, known.names
    )


# A table of items


class Items(NamedTuple):
    """A table of items: its names as rows have them, and what is known of them."""

    rows: Rows
    known: Known


def read_items(source: Source, asked: Columns) -> Items:
    """Reads a table of items, or of pairs of a query and an item.

    Raises:
        ValueError: A column is missing, a value is not allowed, or a pair comes twice;
            names file, column and row.
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
            f"{name}: no column {printable(asked.item)}: {near(asked.item, names)}"
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
            "all others"
        )
    return {**chosen, "features": columns}


def join(rows: Rows, pairs: Pairs, items: Items) -> tuple[Pairs, RankingData]:
    """The pairs with the features and grades of a table of items.

    Raises:
        ValueError: The table lacks an item that was shown; names its row.
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
    """The place of each name among `known`, -1 where it is not there."""
    if names.type != known.type:  # numbers in one file, their text in the other
        names, known = names.cast(pa.string()), known.cast(pa.string())
    return pc.index_in(names, known).fill_null(-1).to_numpy().astype(np.int64)
