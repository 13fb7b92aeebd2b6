"""Reads all columns of a log except features and grades, which need a second pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from debias.data.coded import OtherKind, Reader, kinds_of
from debias.data.kinds import Features
from debias.data.present import Present, notices
from debias.data.roles import Chosen
from debias.data.shown import (
    MANY,
    NAMES,
    REMEDIES,
    Batch,
    listed,
    names_of,
    numbers_of,
    shown_batches,
)
from debias.data.tables import Part
from debias.data.times import Times

LONGEST = 1000  # most positions of a session by default
LATER = ("features", "label", "categories", "numbers")  # read in the second pass


@dataclass
class Rows:
    """All columns of the n shown items except features and grades.

    Attributes:
        session: (n,) number of the session; sessions are numbered by first appearance.
        codes: (n,) code of the name of each shown item, by role; -1 means no name.
        names: For each role, the names in the order of their codes.
        values: (n,) or (n, C) numbers of the shown items, by role.
        batches: The batches of the source without their arrays, for error messages.
        ends: Cumulative number of shown items at the end of each batch.
        notices: Messages for the user, for example about ignored empty columns.
        many: Kinds of the "presentation" and "target" columns of `values`, by role.
    """

    session: np.ndarray
    codes: dict[str, np.ndarray]
    names: dict[str, pa.Array]
    values: dict[str, np.ndarray]
    batches: list[Batch]
    ends: np.ndarray
    notices: tuple[str, ...]
    many: dict[str, Features]

    def let_go(self, *roles: str) -> None:
        """Frees columns that are no longer needed."""
        if "session" in roles:
            self.session = self.session[:0].copy()
        for role in roles:
            self.codes.pop(role, None)
            self.values.pop(role, None)

    def fault(
        self, role: str, entry: int, what: str, todo: str = "", column: int = 0
    ) -> ValueError:
        """An error that names the file and row of a shown item."""
        number = int(np.searchsorted(self.ends, entry, side="right"))
        before = int(self.ends[number - 1]) if number else 0
        return self.batches[number].fault(role, entry - before, what, todo, column)


def read_rows(
    parts: Sequence[Part], chosen: Chosen, progress: Callable[[float], None]
) -> Rows:
    """Reads all columns of a log except features and grades.

    Raises:
        ValueError: A value is not allowed in its column. The message names the file,
            the column and the row.
    """
    roles = [role for role in chosen if role not in LATER]
    rows_are_lists = listed(parts[0], chosen)
    kinds = {
        role: kinds_of(parts, chosen[role], rows_are_lists)
        for role in MANY
        if role in chosen
    }
    while True:
        collected = _Collected({r: Reader(k, (), r) for r, k in kinds.items()})
        try:
            for batch, share in shown_batches(parts, chosen, roles):
                collected.add(batch)
                progress(share)
            return collected.rows()
        except OtherKind as found:
            for role in kinds:
                kinds[role] |= {c: found.kind for c in kinds[role] if c == found.column}


_MAY_MISS = ("user", "device", "timestamp")  # NULL for a session if unknown


class _Collected:
    """Collects the columns of batches; an integer n stands for an array of n NULLs."""

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers
        self._names: dict[str, list[pa.DictionaryArray | int]] = {}
        self._times: list[np.ndarray | int] = []
        self._clock = Times()
        self._pieces: dict[str, list[np.ndarray]] = {}
        self._batches: list[Batch] = []
        self._sizes: list[int] = []
        self._sessions = 0
        self._present = Present()
        self._mixed: dict[str, str] = {}  # notices about names of several types

    def add(self, batch: Batch) -> None:
        for role, arrays in batch.arrays.items():
            nothing = arrays[0].null_count == len(arrays[0]) and role in _MAY_MISS
            if role == "timestamp":
                size = len(arrays[0])
                self._times.append(size if nothing else self._clock.read(batch))
            elif role in NAMES:
                self._add_names(batch, role, arrays[0], nothing)
            elif role == "context":
                self._add(role, self._present.matrix(batch, role))
            elif role in self._readers:
                self._add(role, self._readers[role].matrix(batch))
            elif role == "click" or self._present.holds(batch, role):
                self._add(role, numbers_of(batch, role))
        self._sizes.append(len(batch.arrays["item"][0]))
        if batch.at is not None:
            self._add_ranks(batch.at)
        self._batches.append(batch._replace(arrays={}))

    def _add(self, role: str, values: np.ndarray) -> None:
        self._pieces.setdefault(role, []).append(values)

    def _add_names(
        self, batch: Batch, role: str, array: pa.Array, nothing: bool
    ) -> None:
        chunks = self._names.setdefault(role, [])
        if nothing:
            chunks.append(len(array))
            return
        chunk = names_of(batch, role, array).dictionary_encode()
        before = next((c for c in chunks if not isinstance(c, int)), chunk)
        if chunk.type != before.type and role not in self._mixed:
            what = (
                f"mixes types ({before.type.value_type} in {self._batches[0].part}, "
                f"{chunk.type.value_type} from here on)"
            )
            self._mixed[role] = str(batch.fault(role, 0, what, "all are read as text"))
        chunks.append(chunk)

    def _add_ranks(self, at: np.ndarray) -> None:
        """Adds sessions and ranks of lists: each row is a session."""
        rows = int(at[-1]) + 1 if len(at) else 0
        start = np.flatnonzero(np.diff(at, prepend=-1))
        rank = np.arange(len(at)) - start[at]
        self._add("rank", rank.astype(np.int32) + 1)
        self._add("session", at.astype(np.int32) + self._sessions)
        self._sessions += rows

    def rows(self) -> Rows:
        """Joins all batches."""
        chosen = self._batches[0].chosen
        codes: dict[str, np.ndarray] = {}
        names: dict[str, pa.Array] = {}
        empty = [(role, 0) for role in self._names if not _types(self._names[role])]
        for role in self._names.keys() - {role for role, _ in empty}:
            codes[role], names[role] = _encoded(self._names.pop(role))
        values = {r: np.concatenate(self._pieces.pop(r)) for r in list(self._pieces)}
        if all(isinstance(piece, int) for piece in self._times):
            empty += [("timestamp", 0)] * bool(self._times)
        else:
            values["timestamp"] = self._joined_times()
        if "context" in values and values["context"].shape[1] == 0:
            del values["context"]
        session = codes.pop("session", np.zeros(0, np.int32))
        session = values.pop("session", session)
        return Rows(
            session,
            codes,
            names,
            values,
            self._batches,
            np.cumsum(self._sizes),
            (
                *notices(self._batches[0], [*empty, *self._present.empty]),
                *self._clock.notices,
                *self._mixed.values(),
            ),
            {r: each.features(chosen[r]) for r, each in self._readers.items()},
        )

    def _joined_times(self) -> np.ndarray:
        some = [piece for piece in self._times if not isinstance(piece, int)]
        kinds = {piece.dtype.kind == "M" for piece in some}
        if len(kinds) > 1:
            numbers = [isinstance(p, int) or p.dtype.kind == "M" for p in self._times]
            batch = self._batches[numbers.index(False)]
            what = "holds numbers where other files hold times, the first of them"
            raise batch.fault("timestamp", 0, what, "write them as one type")
        gap = np.datetime64("NaT", "us") if kinds == {True} else np.nan
        return np.concatenate(
            [np.full(p, gap) if isinstance(p, int) else p for p in self._times]
        )


def _types(chunks: Sequence[pa.DictionaryArray | int]) -> list[pa.DataType]:
    return [chunk.type for chunk in chunks if not isinstance(chunk, int)]


def _encoded(chunks: list[pa.DictionaryArray | int]) -> tuple[np.ndarray, pa.Array]:
    """Codes of names, -1 for NULL, and the names in the order of their codes.

    If names have several types, all become text.
    """
    if len(set(_types(chunks))) > 1:
        chunks = [c if isinstance(c, int) else _as_text(c) for c in chunks]
    kind = _types(chunks)[0]
    whole = [pa.nulls(c, kind) if isinstance(c, int) else c for c in chunks]
    unified = pa.chunked_array(whole, kind).unify_dictionaries()
    indices = [chunk.indices.fill_null(-1).to_numpy() for chunk in unified.chunks]
    return np.concatenate(indices), unified.chunk(0).dictionary


def _as_text(names: pa.DictionaryArray) -> pa.DictionaryArray:
    words = names.dictionary.cast(pa.string())
    return pa.DictionaryArray.from_arrays(names.indices, words)


def positions(rows: Rows, first_position: int, list_size: int | None) -> np.ndarray:
    """(n,) int32 position of each shown item, from 1."""
    for role in ("position", "row", "column"):
        if role in rows.values:
            values = rows.values[role] = rows.values[role] - (first_position - 1)
            wrong = (values < 1) & (rows.codes["item"] >= 0)
            if wrong.any():
                entry = int(np.argmax(wrong))
                what = (
                    f"must count from {first_position}, "
                    f"got {values[entry] + first_position - 1}"
                )
                todo = REMEDIES[role]
                if values[entry] + first_position == 1:
                    todo = (
                        "say first_position=0 (--first-position 0) if the log "
                        "counts from 0"
                    )
                raise rows.fault(role, entry, what, todo)
    if "position" in rows.values:
        position = rows.values.pop("position")
    elif "rank" in rows.values:
        position = rows.values["rank"]
    else:
        position = _ranks(rows)
    if list_size is None and position.size and position.max() > LONGEST:
        entry = int(np.argmax(position > LONGEST))
        what = f"is at position {position[entry]}, beyond the limit of {LONGEST}"
        todo = "say list_size=N (--list-size N) to keep the first N"
        raise rows.fault("item", entry, what, todo)
    return position


def _ranks(rows: Rows) -> np.ndarray:
    """Ranks within the session by row and column, or else by order of appearance."""
    session = rows.session
    if {"row", "column"} <= set(rows.values):
        order = np.lexsort((rows.values["column"], rows.values["row"], session))
    elif (np.diff(session) >= 0).all():
        order = None
    else:
        order = np.argsort(session, kind="stable")
    grouped = session if order is None else session[order]
    start = np.flatnonzero(np.diff(grouped, prepend=-1))
    rank = np.arange(len(grouped), dtype=np.int32)
    rank -= np.repeat(start, np.diff(start, append=len(grouped))).astype(np.int32)
    if order is None:
        return rank + 1
    placed = np.empty_like(rank)
    placed[order] = rank + 1
    return placed
