"""Training, validation and test sessions, and scaled features."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import keras
import numpy as np

from debias.data import ClickLog, RankingData, Stream
from debias.data.kinds import Features, column_names, recoder, trained
from debias.data.layout import Layout, layout_of
from debias.data.splits import random_parts
from debias.layers import Standardize
from debias.models.batches import LAYOUT, applied, share

FEW = 50  # queries; below, sessions are held out instead
PARTS = (0.8, 0.1, 0.1)  # shares for training, validation and test
JUDGES = 250_000  # most sessions of a stream held in memory for validation or test
ROW_GROUPS = 48  # row groups of a stream from which they are drawn


class Part(NamedTuple):
    """Sessions in memory and the preprocessed features of their items."""

    log: ClickLog
    data: RankingData


class Learners(NamedTuple):
    """Training sessions, in memory or on disk, and the features of their items.

    Attributes:
        log: The sessions.
        data: Ranking data with the log's items and preprocessed features.
        weight: (S, L) weight of each cell in the loss, or None.
    """

    log: ClickLog | Stream
    data: RankingData
    weight: np.ndarray | None = None


class Prepared(NamedTuple):
    """A log prepared for training.

    Attributes:
        train: Training sessions, in memory or on disk.
        validation: Sessions for comparing passes and candidates, in memory.
        test: Sessions for a final evaluation, or None if the caller made the split.
        held_out_by: Unit of the split, "query" or "session"; "caller" if the caller
            made the split.
        layout: Layout columns of the log, such as the position, and the largest id of
            each column.
        preprocess: The layer that preprocesses raw features.
        feature_names: Names of the features in order, or None if the features have no
            names.

    `layout.kinds` has the kinds of the features, with the vocabularies of `train`.
    """

    train: Learners
    validation: Part
    test: Part | None
    held_out_by: str
    layout: Layout
    preprocess: keras.layers.Layer | None
    feature_names: tuple[str, ...] | None = None

    @property
    def features(self) -> int:
        """F, the number of raw feature columns of an item."""
        names = self.feature_names
        return self.train.data.feature_count if names is None else len(names)


def prepare(
    log: ClickLog | Stream,
    data: RankingData,
    seed: int = 0,
    preprocess: keras.layers.Layer | None = None,
    targets: bool = False,
) -> Prepared:
    """Splits a log into training, validation and test sessions, and scales features.

    Args:
        log: All sessions, in memory or on disk.
        data: Raw features of the items.
        seed: Random seed of the split.
        preprocess: Layer that scales features. None means a `Standardize` layer adapted
            to the items of the training sessions, or to all items for a log on disk.
        targets: Whether the model reads the targets of the log.

    Raises:
        ValueError: The log has no click, the log has too few sessions, the log names an
            item or query that `data` lacks, or an argument has a wrong type.
    """
    check_types(log, data)
    if isinstance(log, ClickLog):
        columns = [n for n in LAYOUT if getattr(log, n) is not None]
        columns += log.presentation or ()
        columns += (targets and log.targets) or ()
        seen, features = shown_only(log.select(*columns), data)
        (train, validation, test), by = held_out(seen, seed)
        layout = layout_of(seen)
    else:
        stored = [n for n in LAYOUT if n in (log.columns or ())]
        roles = ("presentation", "target") if targets else ("presentation",)
        stored += [n for n, role in log.others.items() if role in roles]
        (train, validation, test), by = held_out_of_stream(
            replace(log, columns=tuple(stored)), data.queries, seed
        )
        layout = layout_of(ClickLog.concatenate([validation, test]))
        features = data.features
    names, coded = data.feature_names, data.kinds
    del data  # its features are freed if the caller drops it, too
    kinds = vocabulary(features, coded, train)
    layout = layout._replace(kinds=kinds)
    names = names if kinds is None else column_names(kinds)
    scale, scaled = standardized(features, preprocess, kinds, train, coded)
    judges, tests = Part(validation, scaled), Part(test, scaled)
    return Prepared(Learners(train, scaled), judges, tests, by, layout, scale, names)


def check_types(log: ClickLog | Stream, data: RankingData) -> None:
    """Raises ValueError unless `log` has clicks and `data` is ranking data."""
    for name, value, kind, wanted in (
        ("log", log, ClickLog | Stream, "a ClickLog or a Stream"),
        ("data", data, RankingData, "RankingData"),
    ):
        if not isinstance(value, kind):
            raise ValueError(
                f"{name} must be {wanted}, got {type(value).__name__}; "
                "debias.read_log(table) makes both: reading.log, reading.data"
            )
    if isinstance(log, ClickLog) and not log.click.any():
        raise ValueError("the log has no click: there is nothing to learn from")


def held_out(
    log: ClickLog, seed: int
) -> tuple[tuple[ClickLog, ClickLog, ClickLog], str]:
    """Training, validation and test sessions, and the unit of the split.

    If the log has at least 50 queries, the unit is "query": all sessions of a query are
    in one part. If the log has fewer queries, the unit is "session".

    Raises:
        ValueError: A part would be empty.
    """
    by = "query" if np.unique(log.query).size >= FEW else "session"
    train, validation, test = log.split(PARTS, np.random.default_rng(seed), by)
    if min(len(train), len(validation), len(test)) == 0:
        raise ValueError(
            f"{len(log)} sessions are too few to hold some out: give more sessions, "
            "or give fit your own validation sessions"
        )
    return (train, validation, test), by


def not_learned(log: ClickLog, seed: int) -> np.ndarray:
    """Mask (S,) of the validation and test sessions of `held_out`.

    >>> log = ClickLog([0] * 10, [[0, 1]] * 10, [[1, 0]] * 10)
    >>> int(not_learned(log, seed=0).sum())
    2
    """
    numbered = ClickLog(log.query, log.item, log.click, device=np.arange(len(log)))
    (train, _, _), _ = held_out(numbered, seed)
    found = np.ones(len(log), bool)
    found[train.device] = False
    return found


def held_out_of_stream(
    stream: Stream, queries: int, seed: int
) -> tuple[tuple[Stream, ClickLog, ClickLog], str]:
    """The split of `held_out` for a log on disk, with samples of held-out sessions.

    With at least 50 queries, the split is the same as in `held_out` if every query
    occurs in the log. With fewer than 50 queries, each session is assigned to a part at
    random. To start a fit quickly, the function draws at most 250,000 validation
    sessions and 250,000 test sessions, from 48 row groups.

    Args:
        stream: All sessions.
        queries: Number of queries, including those without sessions.
        seed: Random seed of the split and of the samples.
    """
    by = "query" if queries >= FEW else "session"
    part = np.zeros(queries, np.int8)
    if by == "query":
        parts = random_parts(queries, PARTS, np.random.default_rng(seed))
        for number, members in enumerate(parts):
            part[members] = number

    def keep(wanted: int) -> Callable[[ClickLog, tuple[int, int]], np.ndarray]:
        def kept(piece: ClickLog, key: tuple[int, int]) -> np.ndarray:
            if by == "query":
                if (highest := piece.query.max()) >= queries:
                    raise ValueError(
                        f"{stream.path}: query must be below {queries}, the queries of "
                        f"its ranking data, got {highest}"
                    )
                return part[piece.query] == wanted
            draw = np.random.default_rng([seed, *key]).random(len(piece))
            return np.searchsorted(np.cumsum(PARTS[:-1]), draw, "right") == wanted

        return kept

    train, validation, test = (
        replace(stream, keep=keep(number), share=share)
        for number, share in enumerate(PARTS)
    )
    judged, tested = (
        each.sample(JUDGES, [seed, 1], ROW_GROUPS) for each in (validation, test)
    )
    return (train, judged, tested), by


def shown_only(log: ClickLog, data: RankingData) -> tuple[ClickLog, np.ndarray]:
    """The log with its shown items renumbered, and the features of these items.

    >>> data = RankingData([[0.0], [1.0], [2.0]], None, [0, 3])
    >>> log, features = shown_only(ClickLog([0], [[2, 0]], [[1, 0]]), data)
    >>> log.item.tolist(), features.tolist()
    ([[1, 0]], [[0.0], [2.0]])
    """
    log.check(data.items)
    log, item = log.renumbered()
    every = len(item) == data.items
    return log, data.features if every else data.features[item]


def vocabulary(
    features: np.ndarray, kinds: Features | None, train: ClickLog | Stream
) -> Features | None:
    """Kinds of the features, with the vocabularies of the training sessions.

    A value with fewer than `debias.data.kinds.RARE` impressions is out of vocabulary.
    For training sessions on disk, the vocabulary keeps all values.

    Args:
        features: (items, F) features of all items.
        kinds: Kinds of the features. None means that all features are numbers, which
            have no vocabulary.
        train: The training sessions.
    """
    if kinds is None:
        return None
    times = None
    if isinstance(train, ClickLog):
        times = np.bincount(train.item[train.mask], minlength=len(features))
    return trained(kinds, features, times)


def standardized(
    features: np.ndarray,
    layer: keras.layers.Layer | None = None,
    kinds: Features | None = None,
    train: ClickLog | Stream | None = None,
    coded: Features | None = None,
) -> tuple[keras.layers.Layer, RankingData]:
    """Returns the scaling layer, and scaled features as ranking data of one query.

    Args:
        features: (items, F) raw features.
        layer: Layer that scales the features. None means a `Standardize` layer adapted
            to the features.
        kinds: Kinds of the features. None means that all features are numbers.
        train: The training sessions. The layer is adapted to the shown items of these
            sessions, or to all items if `train` is None or on disk.
        coded: Kinds of the raw features, if their vocabularies differ from `kinds`.
    """
    if layer is None:
        shown = None
        if isinstance(train, ClickLog):
            shown = np.zeros(len(features), bool)
            shown[train.item[train.mask]] = True
        layer = Standardize.of(kinds).adapt(features, shown)
    recode = None
    if coded is not None and kinds is not None:
        recode = recoder(coded, kinds)
    scaled = applied(layer, features, recode)
    data = RankingData.trusted(scaled, None, np.array([0, len(scaled)]))
    share(data)
    return layer, data
