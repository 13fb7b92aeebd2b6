"""Updates a published retrieval model with the events of a stream.

A full update starts from the parameters of the last full update, makes one shuffled
pass over all later events, and publishes the whole model. Between full updates,
incremental updates change only id embeddings. Dense weights, the trend and the linear
part do not change, so old and new vectors remain comparable. An incremental update
publishes only the changed id rows of the user tower and the changed item vectors. A
full update replaces all incremental updates since the last full update.

The manifest of a version records its position in the stream. So one switch publishes
the version together with its position in the stream. If a process is killed at any
moment, a complete version stays in service. The next run applies exactly the events
that the version in service has not applied.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from debias.data.tables import Source
from debias.retrieval.data.events import (
    PLAIN,
    Appended,
    EventColumns,
    Events,
    Mark,
    joined_events,
    pending,
)
from debias.retrieval.data.interactions import FIRST
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.models.ids import checksum, dense_weights, id_tables
from debias.retrieval.models.two_tower import RetrievalModel
from debias.retrieval.serving import versions
from debias.retrieval.serving.index import Index, build
from debias.retrieval.serving.storage import storage
from debias.retrieval.training.learner import (
    CONFIG,
    Build,
    Learner,
    TrainingConfig,
    add_events,
    drop_old_events,
    finish,
    learn,
    load,
    reset_id_optimizer,
    save,
)

Progress = Callable[[int], None]
LEARNERS = "learners"  # folder of training states, beside the versions
REBUILD = 0.1  # share of the catalogue whose change makes the index be rebuilt


def full_update(
    learner: Learner,
    events: Events,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
    progress: Progress = lambda events: None,
) -> Appended:
    """Trains all weights in one shuffled pass over the events.

    Args:
        learner: The learner after the last full update, which this function changes.
        events: All events since the last full update, in any order. Duplicates count
            once.
        users, items: Raw features of new users and items, see
            `debias.retrieval.data.events.append_events`.
        progress: Function that is called with the number of events used for training
            since its last call.
    """
    appended = add_events(learner, events, users, items)
    reset_id_optimizer(learner)
    if appended.events:
        learn(learner, _new_events(appended), progress=progress)
        finish(learner)
    drop_old_events(learner)
    return appended


class Increment(NamedTuple):
    """The changes of an incremental update, which `publish_increment` publishes.

    Attributes:
        appended: Result of appending the events.
        users: Rows of users whose embedding changed, including new users.
        items: Rows of items whose vector changed, including new items.
        vectors: (n, d) vectors of the n items in `items`.
        before, after: Id tables of the user tower before and after the update.
    """

    appended: Appended
    users: np.ndarray
    items: np.ndarray
    vectors: np.ndarray
    before: list[np.ndarray]
    after: list[np.ndarray]


def incremental_update(
    learner: Learner,
    events: Events,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
    progress: Progress = lambda events: None,
) -> Increment:
    """Trains only id embeddings in one pass over the events.

    Args:
        learner, events, users, items, progress: See `full_update`.

    Raises:
        ValueError: Several ids share a row of an embedding table.
        RuntimeError: A dense weight changed. After this error, do not publish the
            learner, but load it again.
    """
    tables = id_tables(learner.model)
    if any(table.compress for side in tables for table in side):
        raise ValueError(
            "ids of this model share rows (compress=), so an event also changes the "
            "vectors of other ids: make full updates"
        )
    before = _values(learner.model)
    dense = checksum(dense_weights(learner.model))
    known = len(learner.log.items)
    appended = add_events(learner, events, users, items)
    if appended.events:
        learn(learner, _new_events(appended), only_ids=True, progress=progress)
    drop_old_events(learner)
    if checksum(dense_weights(learner.model)) != dense:
        raise RuntimeError("an incremental update changed a dense weight")
    after = _values(learner.model)
    log = appended.log
    users_moved = _moved(before.users, after.users, len(log.users))
    rows = _moved(before.items, after.items, len(log.items))
    rows = np.union1d(rows, np.arange(known, len(log.items)))
    return Increment(
        appended,
        users_moved,
        rows,
        learner.item_vectors(rows),
        [*before.users, *before.past],
        [*after.users, *after.past],
    )


def _new_events(appended: Appended) -> np.ndarray:
    """(E,) bool, whether each event is new in the log."""
    return np.arange(len(appended.log)) >= len(appended.log) - appended.events


class _Tables(NamedTuple):
    users: list[np.ndarray]
    items: list[np.ndarray]
    past: list[np.ndarray]


def _values(model: RetrievalModel) -> _Tables:
    """Copies the tables, because training changes them in place."""
    return _Tables(*([np.array(t.table) for t in side] for side in id_tables(model)))


def _moved(before: list[np.ndarray], after: list[np.ndarray], count: int) -> np.ndarray:
    """Rows below `count` that differ in a table, including all new rows.

    >>> _moved([np.zeros((4, 1))], [np.array([[0.0], [0], [0], [9], [0]])], 3).tolist()
    [1, 2]
    """
    other = np.zeros(count, bool)
    for old, new in zip(before, after, strict=True):
        common = min(len(old), len(new), count + FIRST)
        same = (old[FIRST:common] == new[FIRST:common]).all(axis=1)
        other |= ~np.pad(same, (0, count - len(same)))
    return np.flatnonzero(other)


# Publishing


How = Callable[..., Any] | None  # of `debias.retrieval.serving.index.build`


@dataclass(frozen=True)
class Served:
    """The published version, to which the next incremental update is applied.

    Attributes:
        name: Name of the version.
        tower: Path of the `tower.onnx` of the version.
        index: Index of the item vectors.
        about: The entry "extra" of the manifest. The keys of this entry are "kind"
            ("full" or "increment"), "learner" (folder of the training state), "applied"
            (marks), and "full" (learner and marks of the last full update). The caller
            may add entries.
        repeat: Policy for items that a user took before.
    """

    name: str
    tower: Path
    index: Index
    about: dict[str, Any]
    repeat: Repeat


def publish_full(
    root: str | Path,
    learner: Learner,
    applied: Mapping[str, Mark],
    how: How = None,
    *,
    about: Mapping[str, Any] | None = None,
    repeat: str | Repeat = "exclude",
    ranker: Path | None = None,
    keep: int = 3,
    progress: Callable[[float], None] = lambda share: None,
    vectors: np.ndarray | None = None,
) -> Served:
    """Publishes the user tower, all item vectors and a new index.

    Args:
        root: Folder or URL of the versions.
        learner: The learner after a full update.
        applied: Marks of all events on which the learner was trained.
        how: Function that makes the searcher, see
            `debias.retrieval.serving.index.build`.
        about: Additional entries of the manifest, as JSON values.
        repeat: See `debias.retrieval.serving.versions.publish`.
        ranker: See `debias.retrieval.serving.versions.publish`.
        keep: Number of versions to keep.
        progress: Function that is called with the share of the work that is done.
        vectors: Vectors of all items from `Learner.item_vectors`. If None, they are
            computed.
    """
    users = len(learner.log.users)
    some = np.unique(np.linspace(0, users - 1, 200).astype(int))
    if vectors is None:
        vectors = learner.item_vectors()
    progress(0.1)
    index = build(
        vectors,
        how,
        queries=learner.user_vectors(some),
        progress=lambda share: progress(0.1 + 0.5 * share),
    )
    progress(0.6)  # writing the tower and the rest takes about as long
    state = {"learner": _keep(root, learner), "applied": applied}
    return _publish(
        root,
        learner,
        learner.user_tower(),
        index,
        {**(about or {}), "kind": "full", **state, "full": state},
        keep,
        ranker,
        Repeat.of(repeat),
    )


def publish_increment(
    root: str | Path,
    learner: Learner,
    increment: Increment,
    applied: Mapping[str, Mark],
    served: Served,
    how: How = None,
    *,
    keep: int = 3,
) -> Served:
    """Publishes an increment, which changes a part of the served version.

    The new user tower is a copy of the served `tower.onnx` with changed id rows. The
    changed item vectors are written into the served index. The index is rebuilt when
    the share of items that changed since the last build exceeds `REBUILD`.

    Args:
        root, learner, how, keep: See `publish_full`.
        increment: Result of `incremental_update` for this learner.
        applied: Marks of all applied events, including the events of the increment.
        served: The published version.
    """
    index = served.index.upsert(increment.items, increment.vectors)
    if len(index.fresh) > REBUILD * len(index):
        index = build(index.vectors, how)
    state = {"learner": _keep(root, learner), "applied": applied}
    about = {**served.about, "kind": "increment", **state}
    with tempfile.TemporaryDirectory() as folder:
        tower = Path(folder) / "tower.onnx"
        fits = replace_tables(served.tower, increment.before, increment.after, tower)
        side = tower if fits else learner.user_tower()
        kept = keep, _ranker(served), served.repeat
        return _publish(root, learner, side, index, about, *kept)


def replace_tables(
    tower: Path, before: list[np.ndarray], after: list[np.ndarray], out: Path
) -> bool:
    """Writes an ONNX model in which only the given tables are replaced.

    The function finds tables by their values. Replacing tables is hundreds of times as
    fast as a new export, and dense weights stay identical.

    Args:
        tower: The model.
        before: Tables in the model.
        after: New tables, in the order of `before`.
        out: File to write.

    Returns:
        Whether the file was written. Nothing is written if a new table and its old
        table differ in size, or if an old table does not occur exactly once in the
        model.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(tower)
    for old, new in zip(before, after, strict=True):
        found = [
            each
            for each in model.graph.initializer
            if tuple(each.dims) == new.shape == old.shape
            and np.array_equal(numpy_helper.to_array(each), old)
        ]
        if len(found) != 1:
            return False
        found[0].CopyFrom(numpy_helper.from_array(new, found[0].name))
    onnx.save(model, out)
    return True


def _publish(
    root: str | Path,
    learner: Learner,
    tower: Any,
    index: Index,
    about: dict[str, Any],
    keep: int,
    ranker: Path | None,
    repeat: Repeat,
) -> Served:
    log = learner.log
    histories, _ = log.histories(learner.history_length, np.arange(len(log.users)))
    name = versions.publish(
        root,
        tower,
        log.users,
        log.items,
        index,
        histories=histories,
        taken=log.seen(),
        repeat=repeat,
        ranker=ranker,
        stranger=learner.typical_user(),
        extra=about,
        keep=keep,
    )
    _prune(root)
    about = versions.manifest(root, name)["extra"]
    tower = storage(root).folder(f"{versions.KIND}/{name}") / "tower.onnx"
    return Served(name, tower, index, about, repeat)


def _ranker(served: Served) -> Path | None:
    """The ranker of the served version, which later versions also contain."""
    path = served.tower.with_name("ranker.onnx")
    return path if path.exists() else None


# Training states, beside the versions


def _keep(root: str | Path, learner: Learner) -> str:
    """Saves the learner in a new folder, synced to disk; returns its name."""
    place = storage(root)
    name = f"{int((place.folders(LEARNERS) or ['0'])[-1]) + 1:06d}"
    with place.new(f"{LEARNERS}/{name}") as aside:
        save(learner, aside)
    return name


def _prune(root: str | Path) -> None:
    """Removes training states that no remaining version uses."""
    extras = [versions.manifest(root, name)["extra"] for name in versions.names(root)]
    used = {state["learner"] for about in extras for state in (about, about["full"])}
    place = storage(root)
    for name in set(place.folders(LEARNERS)) - used:
        place.drop(f"{LEARNERS}/{name}")
    place.tidy(LEARNERS)


# A stream, continued from the published version


class Report(NamedTuple):
    """The report of one published update.

    Attributes:
        version: Name of the version.
        kind: "full" or "increment".
        events: Number of training events.
        duplicates: Number of events that were skipped, because they were applied
            before.
        new_users, new_items: Number of new users and of new items.
        bare: Number of new users and items without any feature.
        lacks: Number of new users and items without features, and names of the missing
            features, see `Appended`.
        unknown: Number of new users and items with unknown categories, see `Appended`.
        late: Number of events older than a known event of their user.
        moved_users, moved_items: Number of users whose embedding changed, and of items
            whose vector changed. After a full update, the counts cover all users and
            all items.
        seconds: Time of training and publishing, in seconds.
    """

    version: str
    kind: str
    events: int
    duplicates: int
    new_users: int
    new_items: int
    bare: int
    lacks: Mapping[str, Any]
    unknown: Mapping[str, Mapping[str, int]]
    late: int
    moved_users: int
    moved_items: int
    seconds: float


def update(
    root: str | Path,
    source: Source,
    build_model: Build,
    config: TrainingConfig = CONFIG,
    full: bool = False,
    *,
    columns: EventColumns = PLAIN,
    max_events: int = 4096,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
    how: How = None,
    keep: int = 3,
    start: Callable[[int], Progress] = lambda total: lambda events: None,
) -> Iterator[Report]:
    """Applies the new events of a stream to the published version.

    Incremental updates publish one version for each chunk of events. A full update
    publishes one version. A full update starts from the state of the last full update,
    and trains on all later events, including events that incremental updates have
    applied. If the process was killed, call this function again. No published version
    is lost, and every event is applied exactly once. If a process was killed, the
    numbers in the names of versions and training states may have a gap.

    Items are never removed. To withdraw an item, exclude the item by a filter
    (`where`), or train again and publish a smaller catalogue.

    Args:
        root: Folder or URL of versions. At least one version must come from
            `publish_full`.
        source, columns: The stream, see `debias.retrieval.data.events.pending`.
        build_model, config: The arguments with which the published learner was made.
        full: Whether to make a full update.
        max_events: Largest number of events in a chunk.
        users, items: Raw features of new users and items, see
            `debias.retrieval.data.events.append_events`.
        how, keep: See `publish_full`.
        start: Function that takes the number of events to apply and returns a function.
            The returned function is called with the number of events used for training
            since its last call.

    Yields:
        A report of each version, after it is published. The updates are lazy: the
        events of a report are applied only when the caller requests the report.

    Raises:
        ValueError: `root` has no published version, another update is running, or the
            stream lacks events that were applied before.
    """
    _trained_manifest(root)
    with versions.alone(root, LEARNERS):
        about = _trained_manifest(root)
        state = about["full"] if full else about
        chunks = list(pending(source, _marks(state), columns, max_events))
        if full and chunks:
            chunks = [_joined(chunks, _marks(about))]
        progress = start(sum(len(events.user) for events, _ in chunks))
        if not chunks:
            return
        folder = storage(root).folder(f"{LEARNERS}/{state['learner']}")
        learner = load(folder, build_model, config)
        served = _served(root)
        apply = _apply_full if full else _apply_increment
        for events, applied in chunks:
            begun = time.perf_counter()
            appended, moved, served = apply(
                _Step(root, learner, events, users, items, progress, how, keep),
                applied,
                served,
            )
            yield Report(
                served.name,
                served.about["kind"],
                appended.events,
                appended.duplicates,
                appended.users,
                appended.items,
                appended.bare,
                appended.lacks,
                appended.unknown,
                appended.late,
                *moved,
                time.perf_counter() - begun,
            )


class _Step(NamedTuple):
    """The input and the settings of an update; see the arguments of `update`."""

    root: str | Path
    learner: Learner
    events: Events
    users: Mapping[str, Any] | None
    items: Mapping[str, Any] | None
    progress: Progress
    how: How
    keep: int


Applied = tuple[Appended, tuple[int, int], Served]


def _apply_full(step: _Step, applied: Mapping[str, Mark], served: Served) -> Applied:
    appended = full_update(
        step.learner, step.events, step.users, step.items, step.progress
    )
    repeat = served.repeat
    if repeat.linear:  # fewer in a small log; a full update rebuilds the part
        repeat = repeat._replace(linear=getattr(step.learner.served, "linear", 0))
    served = publish_full(
        step.root,
        step.learner,
        applied,
        step.how,
        about=served.about,
        repeat=repeat,
        ranker=_ranker(served),
        keep=step.keep,
    )
    return appended, (len(appended.log.users), len(appended.log.items)), served


def _apply_increment(
    step: _Step, applied: Mapping[str, Mark], served: Served
) -> Applied:
    moved = incremental_update(
        step.learner, step.events, step.users, step.items, step.progress
    )
    served = publish_increment(
        step.root, step.learner, moved, applied, served, step.how, keep=step.keep
    )
    return moved.appended, (len(moved.users), len(moved.items)), served


def _trained_manifest(root: str | Path) -> dict[str, Any]:
    """The "extra" of the current version, which must have a training state."""
    about: dict[str, Any] = versions.manifest(root)["extra"]
    if "learner" not in about:
        raise ValueError(f"{root}: was published without its training state")
    return about


def _served(root: str | Path) -> Served:
    version = versions.load(root)
    about = version.manifest["extra"]
    tower = version.path / "tower.onnx"
    return Served(version.name, tower, version.index, about, version.repeat)


def _marks(state: Mapping[str, Any]) -> dict[str, Mark]:
    return {name: Mark(*mark) for name, mark in state["applied"].items()}


def _joined(
    chunks: list[tuple[Events, dict[str, Mark]]], covered: Mapping[str, Mark]
) -> tuple[Events, dict[str, Mark]]:
    """Joins all chunks; raises ValueError if they lack applied events."""
    marks = chunks[-1][1]
    for name, mark in covered.items():
        if name not in marks or marks[name].rows < mark.rows:
            raise ValueError(
                f"{name}: incremental updates have applied {mark.rows} of its rows; a "
                "full update needs these rows again, so give this file too"
            )
    return joined_events([events for events, _ in chunks]), marks
