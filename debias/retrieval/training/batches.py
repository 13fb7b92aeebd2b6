"""Training batches of a retrieval model, on any backend.

A batch is a dict for the models of `debias.retrieval.models`, with these entries:

    user      dict of the users' features (B,) or (B, m), and "history" (B, L)
    target    (B,) int32, the target of each row's event, if the log has targets
    item      dict of the features of C candidates that all rows share
    own       dict of the features of S additional candidates per row, (B, S[, m])
    log_q     (C,) log probability of drawing each shared candidate, if `log_q` is true
    excluded  (B, C + S) uint8, 1 at columns that are not negatives of the row
    positive  (B,) int32, the column of the row's positive, which is also the label
    self      dict of the features of items drawn uniformly, for self-supervision

A packed batch contains each distinct candidate once, so it has fewer columns if some
items occur often. Without histories, a packed batch also contains each distinct user
once. A packed batch has two additional entries:

    log_count (C,) log of the count of each candidate; -1e9 at padding columns
    event     (B,) int32, the row of each event's user in `user`, if users are packed

The label of a packed batch is zero, because the model returns two columns: the score of
the positive in column 0, and the log-sum-exp of all negatives. In a packed batch,
`excluded` marks all items that the user took, including the positive. If
`exclude_known` is false, a packed batch has no `excluded`.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy import sparse

from debias.data.text import one_of
from debias.retrieval.data.interactions import Interactions
from debias.retrieval.data.negatives import Queue, Sampler, uniform
from debias.retrieval.data.taken import owners
from debias.retrieval.layers.logq import MASKED

CANDIDATES = ("batch", "catalogue", "own")
DENSE = 1 << 28  # cells up to which known items are stored in one byte array
CHUNK = 16  # batches that TensorFlow requests from Python at once
WIDTH = 32  # packed batches are padded to multiples of this: XLA compiles each shape


class Drawn(NamedTuple):
    """The random draws of a batch, as indices of events and rows of items."""

    rows: np.ndarray  # (B,) events
    shared: np.ndarray  # (C,) candidates of all rows
    own: np.ndarray  # (B, S) own candidates of each row
    log_q: np.ndarray | None  # (C,)
    views: np.ndarray  # items for self-supervision


class Distinct(NamedTuple):
    """Distinct ids of each row of (N, m) ids, padded to W columns."""

    ids: np.ndarray  # (N, W)
    counts: np.ndarray  # (N, W) number of occurrences, 0 at padding
    first: np.ndarray  # (N, W) index of the first occurrence, in 0..m-1
    place: np.ndarray  # (N, m) index of each id among the W


def distinct(ids: np.ndarray, min_width: int = 0) -> Distinct:
    """Finds the distinct ids in each row of `ids` (N, m), which must be at least 0.

    Args:
        min_width: Smallest width W of the result. W is rounded up to a multiple of
            `WIDTH`. Padding columns contain the smallest id of the row.

    >>> found = distinct(np.array([[7, 5, 7], [2, 2, 2]]))
    >>> found.ids[:, :3].tolist(), found.counts[:, :3].tolist()
    ([[5, 7, 5], [2, 2, 2]], [[1, 2, 0], [3, 0, 0]])
    >>> found.place.tolist(), found.ids.shape
    ([[1, 0, 1], [0, 0, 0]], (2, 32))
    """
    rows, size = len(ids), int(ids.max()) + 1
    # One key per (row, id), so one call of `unique` processes all rows.
    key = ids + size * np.arange(rows, dtype=np.int64)[:, None]
    key, first, place, count = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    # The distinct keys of row r are at start[r] to start[r + 1] - 1.
    start = np.searchsorted(key, size * np.arange(rows + 1))
    width = max(-(-int(np.diff(start).max()) // WIDTH) * WIDTH, min_width)
    at = start[:-1, None] + np.arange(width)
    padding = at >= start[1:, None]
    at = np.where(padding, start[:-1, None], at)
    return Distinct(
        key[at] % size,
        np.where(padding, 0, count[at]),
        first[at] % ids.shape[1],
        place.reshape(ids.shape) - start[:-1, None],
    )


def _check_candidates(
    candidates: str,
    negatives: int,
    own_negatives: int,
    own_sampler: Sampler | None,
    packed: bool,
) -> None:
    """Raises ValueError if arguments of `Batches` contradict each other."""
    if candidates not in CANDIDATES:
        raise ValueError(one_of("candidates", CANDIDATES, candidates))
    if min(negatives, own_negatives) < 0:
        raise ValueError(
            "negatives and own_negatives must not be negative, got "
            f"{negatives} and {own_negatives}"
        )
    if candidates == "own" and negatives < 1:
        raise ValueError("candidates 'own' need negatives of at least 1, got 0")
    if own_negatives and own_sampler is None:
        raise ValueError("own_negatives need an own_sampler, got None")
    if packed and (candidates != "batch" or own_negatives):
        raise ValueError(
            "packed batches have only shared candidates: give candidates 'batch' and "
            f"no own_negatives, got {candidates!r} and {own_negatives}"
        )


def known_items(log: Interactions) -> Any:
    """(users, items) bool, whether a user took an item.

    Matrices with more than `DENSE` cells are sparse.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> known_items(from_columns(["u", "v"], ["i", "j"], [1, 2])).astype(int).tolist()
    [[1, 0], [0, 1]]
    """
    shape = (len(log.users), len(log.items))
    rows, offsets = log.seen()
    pairs = (owners(offsets), rows)
    known = sparse.csr_matrix((np.ones(len(rows), bool), pairs), shape)
    return known.toarray() if shape[0] * shape[1] <= DENSE else known


class Batches(keras.utils.PyDataset):
    """Batches of the events of a log, as pairs (inputs, positive column) for `fit`.

    The model learns to predict each event from the earlier events of its user. Each
    epoch has a new random order.

    Args:
        log: The training events.
        batch_size: B, the number of events per batch, but at most the number of events
            in the log. The last batch of an epoch is filled up with events of the first
            batch, so all batches have the same shape.
        candidates: With "batch", the candidates of a row are the positives of all rows
            and `negatives` items from `sampler`, which all rows share. With
            "catalogue", the candidates are all items. With "own", the candidates of a
            row are its positive in column 0, and `negatives` items from `sampler` for
            this row only.
        negatives: Number of negatives from `sampler`.
        sampler: Sampler of negatives. If None, items are drawn uniformly. A `Queue`
            receives the items of each batch.
        own_negatives: Number of additional negatives per row from `own_sampler`, such
            as one hard negative per 100 shared candidates.
        own_sampler: Sampler of the additional negatives per row.
        log_q: Whether the batch has `log_q` for shared candidates. The probability of
            an in-batch candidate is the item's share of the events, and the probability
            of a sampled candidate comes from the sampler. `log_q` mixes both
            probabilities in proportion to the numbers of in-batch and sampled
            candidates.
        exclude_known: Whether to exclude items that the user took from the negatives.
            True is the policy "exclude" of `debias.retrieval.data.repeats`.
        history: L, the length of histories. 0 means no histories.
        self_items: Number of items to draw for self-supervision. 0 means no
            self-supervision.
        min_history: Smallest number of earlier events of the same user; events with
            fewer earlier events are left out.
        learned: (E,) bool, the training events. The remaining events are used only as
            history, and `log_q` is based only on the training events. If None, all
            events are training events.
        packed: Whether each batch contains each distinct candidate once. Packed batches
            need candidates "batch" and the softmax loss. Packing does not change the
            value of the loss, but the loss needs fewer inner products. With dropout,
            all occurrences of an item in a batch share one dropout mask.
        seed: Random seed of all draws, one or several non-negative integers.
        **kwargs: Arguments of `keras.utils.PyDataset`.
    """

    def __init__(
        self,
        log: Interactions,
        batch_size: int = 512,
        candidates: str = "batch",
        negatives: int = 0,
        sampler: Sampler | None = None,
        own_negatives: int = 0,
        own_sampler: Sampler | None = None,
        log_q: bool = True,
        exclude_known: bool = True,
        history: int = 50,
        self_items: int = 0,
        min_history: int = 0,
        learned: np.ndarray | None = None,
        packed: bool = False,
        seed: int | Sequence[int] = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check_candidates(candidates, negatives, own_negatives, own_sampler, packed)
        if batch_size < 1 or self_items < 0:
            raise ValueError(
                "batch_size must be at least 1 and self_items not negative, got "
                f"{batch_size} and {self_items}"
            )
        if not len(log):
            raise ValueError("log must hold at least one event, got none")
        self.log, self.candidates = log, candidates
        self.negatives, self.own_negatives = negatives, own_negatives
        self.sampler = sampler or uniform(len(log.items))
        self.own_sampler, self.self_items = own_sampler, self_items
        self.draws = candidates == "own" or negatives + own_negatives + self_items > 0
        self.corrected, self.packed, self.epoch = log_q, packed, 0
        self.seed = (seed,) if isinstance(seed, int | np.integer) else tuple(seed)
        self.width = {"user": 0, "item": 0}  # width of the widest packed batch so far
        # Events are sorted by user and time, as their histories are.
        order, _ = log.by_user()
        self.user, self.item = log.user[order], log.item[order]
        self.target = None if log.target is None else log.target[order]
        if packed and self.target is not None:
            raise ValueError("a log with targets needs packed=False")
        histories, before = log.histories(max(history, 1))
        self.histories = histories if history else None
        counted = log if learned is None else log.take(learned)
        inside = True if learned is None else np.asarray(learned, bool)[order]
        self.events = np.flatnonzero((before >= min_history) & inside)
        if not len(self.events):
            raise ValueError(
                f"no event is left to learn from: min_history={min_history} and "
                "learned exclude them all"
            )
        self.batch_size = min(batch_size, len(self.events))
        share = np.maximum(counted.popularity(), 1) / len(counted)
        self.log_share = np.log(share).astype(np.float32)
        self.known: Any = known_items(log) if exclude_known else None
        self._shuffle()

    def _shuffle(self) -> None:
        rng = np.random.default_rng((*self.seed, self.epoch))
        order = rng.permutation(self.events)
        self.order = np.resize(order, len(self) * self.batch_size)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def __len__(self) -> int:
        return -(-len(self.events) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], np.ndarray]:
        return keras.tree.map_structure(lambda x: x[0], self.stacked(index, index + 1))

    def stacked(self, start: int, stop: int) -> tuple[dict[str, Any], np.ndarray]:
        """Batches `start` to `stop` - 1 of the epoch, stacked on a new first axis."""
        drawn = []
        for index in range(start, stop):
            drawn.append(self._draw(index))
            if isinstance(self.sampler, Queue):
                self.sampler.push(self.item[drawn[-1].rows])
        return self._stacked(drawn)

    def _stacked(self, drawn: Sequence[Drawn]) -> tuple[dict[str, Any], np.ndarray]:
        if self.packed:
            return self._packed(drawn)
        return keras.tree.map_structure(
            lambda *parts: np.stack(parts), *map(self._batch, drawn)
        )

    def pieces(
        self, size: int, epochs: int = 1
    ) -> Iterator[tuple[tuple[dict[str, Any], np.ndarray], int]]:
        """Yields the batches of this and later epochs in stacks of `size`.

        Yields:
            A stack, and the number of valid batches in the stack. The number of valid
            batches is below `size` if an epoch ends within the stack.
        """
        ahead = copy.copy(self)  # batches made ahead must not advance this epoch
        for _ in range(epochs):
            for start in range(0, len(self), size):
                count = min(size, len(self) - start)
                found = ahead.stacked(start, start + count)
                if count < size:  # padded to one shape, which XLA compiles once
                    found = keras.tree.map_structure(
                        lambda x: np.resize(x, (size, *x.shape[1:])), found
                    )
                yield found, count
            ahead.on_epoch_end()

    def dataset(self) -> Any:
        """The batches of an epoch as a `tf.data.Dataset`, made in chunks.

        For a plain `PyDataset`, Keras calls Python for each batch and passes the arrays
        one by one. The calls of Python take longer than a small training step.
        """
        import tensorflow as tf

        steps = len(self)
        example = keras.tree.map_structure(
            lambda x: x[0], self._stacked([self._draw(0)])
        )
        flat = keras.tree.flatten(example)

        def chunk(start: np.ndarray) -> list[np.ndarray]:
            stop = min(int(start) + CHUNK, steps)
            return keras.tree.flatten(self.stacked(int(start), stop))

        def tensors(start: Any) -> Any:
            parts = tf.numpy_function(chunk, [start], [x.dtype for x in flat])
            for part, array in zip(parts, flat, strict=True):
                shape = list(array.shape)
                if self.packed:  # the numbers of distinct users and items vary
                    free = 2 if array is example[0].get("excluded") else 1
                    shape[:free] = [None] * free
                part.set_shape([None, *shape])
            return keras.tree.pack_sequence_as(example, parts)

        options = tf.data.Options()  # both optimisations cost time and have no effect
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        return (
            tf.data.Dataset.range(0, steps, CHUNK)
            .map(tensors)
            .prefetch(1)
            .unbatch()
            .apply(tf.data.experimental.assert_cardinality(steps))
            .with_options(options)
        )

    def _draw(self, index: int) -> Drawn:
        rng: Any = None  # creating a generator takes as long as gathering the features
        if self.draws:
            rng = np.random.default_rng((*self.seed, self.epoch, index, 1))
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        columns = self._columns(self.user[rows], self.item[rows], rng)
        items = np.empty(0, np.int32)
        if self.self_items:
            items = rng.integers(len(self.log.items), size=self.self_items)
        return Drawn(rows, *columns, items)

    def _batch(self, drawn: Drawn) -> tuple[dict[str, Any], np.ndarray]:
        rows, shared, own, log_q, views = drawn
        user, item = self.user[rows], self.item[rows]
        # The column of each row's positive: its own row in the batch, the item's row in
        # the catalogue, or the first of its own candidates.
        positive = np.arange(len(rows), dtype=np.int32)
        if self.candidates == "catalogue":
            positive = item.astype(np.int32)
        elif self.candidates == "own":
            positive = np.zeros(len(rows), np.int32)
        batch = self._features(rows, user, shared, views)
        batch["positive"] = positive
        if self.target is not None:
            batch["target"] = self.target[rows]
        if own.shape[1]:
            batch["own"] = self.log.items.take(own)
        if log_q is not None:
            batch["log_q"] = log_q
        # Items that the user knows are excluded, or only copies of the positive. The
        # positive itself never is.
        excluded = np.concatenate(
            [self._excluded(user, item, part) for part in (shared, own)], axis=1
        )
        excluded[:, len(shared) :] |= own == item[:, None]
        excluded[np.arange(len(user)), positive] = False
        batch["excluded"] = excluded.view(np.uint8)  # TensorFlow converts bytes faster
        return batch, positive

    def _excluded(
        self, user: np.ndarray, item: np.ndarray, candidate: np.ndarray
    ) -> np.ndarray:
        if self.known is None:
            return candidate == item[:, None]
        return self._taken(user, candidate)

    def _packed(self, drawn: Sequence[Drawn]) -> tuple[dict[str, Any], np.ndarray]:
        """Packed batches, stacked on a first axis and padded to the same width."""
        rows = np.stack([each.rows for each in drawn])
        views = np.stack([each.views for each in drawn])
        user = self.user[rows]
        # Each distinct candidate once, with the log of its count. The first
        # `batch_size` candidates are the positives of the rows.
        shared = np.stack([each.shared for each in drawn])
        columns = distinct(shared, self.width["item"])
        self.width["item"] = columns.ids.shape[1]
        occurs = columns.counts > 0
        log_count = np.log(np.where(occurs, columns.counts, 1)).astype(np.float32)
        batch = {
            "log_count": np.where(occurs, log_count, np.float32(MASKED)),
            "positive": columns.place[:, : self.batch_size].astype(np.int32),
        }
        # Equal candidates have equal log q, so that of the first occurrence is used.
        log_q = [each.log_q for each in drawn if each.log_q is not None]
        if log_q:
            batch["log_q"] = np.take_along_axis(np.stack(log_q), columns.first, axis=1)
        # A history belongs to an event. Without histories, the events of a user share a
        # row.
        if self.histories is None:
            users = distinct(user, self.width["user"])
            self.width["user"] = users.ids.shape[1]
            batch["event"] = users.place.astype(np.int32)
            user = users.ids
        batch |= self._features(rows, user, columns.ids, views)
        if self.known is not None:
            excluded = np.empty((*user.shape, columns.ids.shape[1]), bool)
            for each, *pair in zip(excluded, user, columns.ids, strict=True):
                each[:] = self._taken(*pair)
            batch["excluded"] = excluded.view(np.uint8)
        return batch, np.zeros_like(batch["positive"])

    def _features(
        self, rows: np.ndarray, user: np.ndarray, item: np.ndarray, views: np.ndarray
    ) -> dict[str, Any]:
        batch: dict[str, Any] = {"user": self.log.users.take(user)}
        if self.histories is not None:
            batch["user"]["history"] = self.histories[rows]
        if item.size:
            batch["item"] = self.log.items.take(item)
        if views.size:
            batch["self"] = self.log.items.take(views)
        return batch

    def _columns(
        self, user: np.ndarray, item: np.ndarray, rng: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows of shared candidates, rows of own candidates, and the shared log q."""
        own = np.empty((len(user), 0), np.int32)
        if self.candidates == "own":
            drawn = self.sampler(user, self.negatives, rng)
            return own[0], np.concatenate([item[:, None], drawn], axis=1), None
        if self.own_sampler is not None and self.own_negatives:
            own = self.own_sampler(user, self.own_negatives, rng)
        if self.candidates == "catalogue":
            return np.arange(len(self.log.items)), own, None
        shared, share = item, self.log_share
        if self.negatives:
            # All rows share them. If a sampler depends on the user, it gets random
            # users of the batch.
            turn = rng.integers(len(user), size=self.negatives)
            drawn = self.sampler(user[turn], 1, rng)[:, 0]
            shared = np.concatenate([item, drawn])
            if self.sampler.log_q is not None:
                part = len(item) / len(shared)
                share = np.logaddexp(
                    np.log(part) + share, np.log1p(-part) + self.sampler.log_q
                ).astype(np.float32)
        return shared, own, share[shared] if self.corrected else None

    def _taken(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(B, C) bool, whether the user took the item, for items (C,) or (B, C)."""
        if isinstance(self.known, np.ndarray):
            if item.ndim == 1:  # several times as fast as by pairs
                return self.known.take(user, axis=0).take(item, axis=1)
            return self.known[user[:, None], item]
        if not item.size:
            return np.zeros((len(user), item.shape[-1]), bool)
        if item.ndim == 1:
            at = (np.ones(len(item), np.float32), (item, np.arange(len(item))))
            place = sparse.csr_matrix(at, (len(self.log.items), len(item)))
            return (self.known[user] @ place).toarray() > 0
        pairs = np.repeat(user, item.shape[1]), item.ravel()
        return np.asarray(self.known[pairs]).reshape(item.shape)
