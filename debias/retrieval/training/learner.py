"""A retrieval model that goes on learning, with all that it needs to do so.

A `Learner` is towers, what users took so far, and the state of its optimisers. Saved to
a folder and loaded again, it learns on as if it had never stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from debias.data.files import atomic_folder
from debias.engine.optimizers import RowWiseAdam
from debias.retrieval.data.events import Events, TakenIn, take_in
from debias.retrieval.data.interactions import FIRST, ID, FeatureTable, Interactions
from debias.retrieval.models.ids import (
    dense_weights,
    has_room,
    id_tables,
    inherit,
    settle,
    with_room,
)
from debias.retrieval.models.two_tower import RetrievalModel, Schema
from debias.retrieval.training.batches import Batches
from debias.retrieval.training.evaluate import (
    CUTOFFS,
    dot_scores,
    ranks,
    recall_metrics,
)

Build = Callable[[Schema, Schema], RetrievalModel]


class TrainingConfig(NamedTuple):
    """How a learner learns.

    Attributes:
        length: The latest items of a user that its tower reads.
        batch_size: Events a step.
        rate: Learning rate of Adam.
        id_rate: The same where only embeddings of ids move.
        memory: Events kept of each user, the latest; what is older is forgotten.
        seed: Names the order of events.
    """

    length: int = 20
    batch_size: int = 512
    rate: float = 0.003
    id_rate: float = 0.003
    memory: int = 200
    seed: int = 0


PACE = TrainingConfig()


@dataclass
class Learner:
    """The state of learning; `learn` and `absorb` change it in place.

    Where either raises, the state is none of before and none of after: load it again.

    Attributes:
        build: Makes a model of schemas of users and items; always the same one.
        pace: How it learns.
        log: What users took so far.
        model: Its tables of ids have room for more than the log knows.
        optimizer: Of all weights.
        id_optimizer: Of the embeddings of ids alone; a full update starts it anew.
    """

    build: Build
    pace: TrainingConfig
    log: Interactions
    model: RetrievalModel
    optimizer: RowWiseAdam
    id_optimizer: RowWiseAdam

    @property
    def variables(self) -> list[Any]:
        """All that changes in learning; the generators of dropout among it."""
        optimizers = (*self.optimizer.variables, *self.id_optimizer.variables)
        return [*self.model.variables, *optimizers]

    def user_features(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the user tower reads of users as of now."""
        history, _ = self.log.histories(self.pace.length, rows)
        return {**self.log.users.take(rows), "history": history}


def new_learner(
    build: Build, log: Interactions, pace: TrainingConfig = PACE
) -> Learner:
    """A learner that has learned nothing yet."""
    model = build(with_room(log.users.schema), with_room(log.items.schema))
    model.build(None)
    optimizer, of_ids = RowWiseAdam(pace.rate), RowWiseAdam(pace.id_rate)
    optimizer.build(model.trainable_variables)
    with still(dense_weights(model)):
        of_ids.build(model.trainable_variables)
    return Learner(build, pace, log, model, optimizer, of_ids)


def forget_increments(learner: Learner) -> None:
    """The optimiser of id embeddings remembers nothing any more."""
    for variable in learner.id_optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    learner.id_optimizer.learning_rate = learner.pace.id_rate


def replace_by(learner: Learner, other: Learner) -> None:
    """Makes the learner the same as another one; both may go on learning apart."""
    if not has_room(learner.model, *_sizes(other.log)):
        learner.log = other.log
        _make_room(learner)
    learner.log = other.log
    inherit(learner.variables, other.variables)


@contextmanager
def still(weights: Sequence[Any]) -> Iterator[None]:
    """Within it, training does not move these weights."""
    for weight in weights:
        weight.trainable = False
    try:
        yield
    finally:
        for weight in weights:
            weight.trainable = True


def learn(
    learner: Learner,
    learned: np.ndarray | None = None,
    epochs: int = 1,
    only_ids: bool = False,
    progress: Callable[[int], None] = lambda events: None,
) -> list[float]:
    """Passes over events of the learner's log, in an order drawn anew each time.

    Args:
        learner: Is changed.
        learned: (E,) bool, the events to learn from; None: all.
        epochs: Passes.
        only_ids: Whether only embeddings of ids move.
        progress: Called with the number of events done since the last call.

    Returns:
        The mean loss of each pass.
    """
    model, pace = learner.model, learner.pace
    log, learned = _around(learner.log, learned)
    optimizer = learner.id_optimizer if only_ids else learner.optimizer
    batches = Batches(
        log,
        pace.batch_size,
        history=pace.length,
        learned=learned,
        # Never the order of the passes before, and the same one when done again.
        seed=pace.seed * 1_000_003 + int(optimizer.iterations),
    )
    with still(dense_weights(model) if only_ids else []):
        if getattr(model, "optimizer", None) is not optimizer:
            model.compile(optimizer)
        done = model.fit(
            batches,
            epochs=epochs,
            verbose=0,
            callbacks=[_Steps(progress, batches.batch_size)],
        )
    return [float(loss) for loss in done.history["loss"]]


class _Steps(keras.callbacks.Callback):
    def __init__(self, progress: Callable[[int], None], events: int):
        super().__init__()
        self.progress, self.events = progress, events

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress(self.events)


def _around(
    log: Interactions, learned: np.ndarray | None
) -> tuple[Interactions, np.ndarray | None]:
    """The events of the users who have any to learn from, over a table of them alone.

    So the cost of an update is that of its users, not of all. Codes stay what they are.
    """
    if learned is None:
        return log, None
    inside = np.isin(log.user, log.user[learned])
    rows, user = np.unique(log.user[inside], return_inverse=True)
    users = FeatureTable(log.users.take(rows), log.users.vocabularies)
    part = replace(log.take(inside), user=user.astype(np.int32), users=users)
    return part, learned[inside]


def judge(
    learner: Learner, events: Events, cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, float]:
    """How well the learner foretells events that it has not learned from.

    Each user's items among `events` are ranked among all that it has not taken before,
    from its history as the learner knows it; a user that the learner does not know has
    an unknown id, no features and no history. An item that the learner does not know
    has no rank and counts as missed.

    Returns:
        `debias.retrieval.training.evaluate.recall_metrics`, over users, and "users",
        "events", "unknown_users" and "unknown_items", counts.
    """
    log = learner.log
    names, query = np.unique(events.user, return_inverse=True)
    features, _ = log.users.encode({ID: names})
    row = features[ID] - FIRST
    known = row >= 0
    some = learner.user_features(row[known])
    features["history"] = np.zeros((len(names), learner.pace.length), np.int32)
    for name, column in some.items():
        features[name][known] = column
    queries = learner.model.user_vectors(features)
    vectors = learner.model.item_vectors(log.items.columns)
    taken, _ = log.seen(row[known])
    counts = np.zeros(len(names), int)
    counts[known] = np.bincount(log.user, minlength=len(log.users))[row[known]]
    target = log.items.encode({ID: events.item})[0][ID] - FIRST
    there = target >= 0
    rank = np.full(len(target), np.inf)
    rank[there], _ = ranks(
        lambda q: dot_scores(queries[q], vectors),
        query[there],
        target[there],
        (taken, np.append(0, np.cumsum(counts))),
    )
    return {
        **recall_metrics(rank, query, cutoffs),
        "users": len(names),
        "events": len(target),
        "unknown_users": int((~known).sum()),
        "unknown_items": int((~there).sum()),
    }


def absorb(
    learner: Learner,
    events: Events,
    users: Any = None,
    items: Any = None,
) -> TakenIn:
    """Takes events into the learner's log; new users and items get rows of vectors.

    A new row starts at the mean of the known ones, its moments at 0. Nothing is learned
    yet: the new events are the last of the log.

    Args:
        learner: Is changed.
        events, users, items: As for `debias.retrieval.data.events.take_in`.
    """
    old = learner.log
    taken = take_in(old, events, users, items)
    learner.log = taken.log
    sizes = _sizes(taken.log)
    if not has_room(learner.model, *sizes):
        _make_room(learner)
    tables = id_tables(learner.model)
    users_before, items_before = _sizes(old)
    settle(tables.users, users_before, sizes[0])
    settle([*tables.items, *tables.past], items_before, sizes[1])
    return taken


def _sizes(log: Interactions) -> tuple[int, int]:
    return log.users.size("id"), log.items.size("id")


def _make_room(learner: Learner) -> None:
    larger = new_learner(learner.build, learner.log, learner.pace)
    inherit(larger.variables, learner.variables)
    learner.model = larger.model
    learner.optimizer, learner.id_optimizer = larger.optimizer, larger.id_optimizer


def forget(learner: Learner) -> None:
    """Drops what is beyond the memory that `TrainingConfig` allows each user."""
    learner.log = learner.log.latest(learner.pace.memory)


def save(learner: Learner, folder: Path) -> None:
    """Writes a new folder, whole or not at all.

    Raises:
        ValueError: The folder holds anything.
    """
    with atomic_folder(folder) as aside:
        arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(learner.variables)}
        np.savez(aside / "variables.npz", **arrays)  # type: ignore[arg-type]
        log = learner.log
        held = {"user": log.user, "item": log.item, "time": log.time}
        for side, table in (("users", log.users), ("items", log.items)):
            held |= {f"{side}.column.{n}": c for n, c in table.columns.items()}
            held |= {f"{side}.names.{n}": c for n, c in table.vocabularies.items()}
        if log.weight is not None:
            held["weight"] = log.weight
        np.savez(aside / "log.npz", **held)  # type: ignore[arg-type]


def load(folder: Path, build: Build, pace: TrainingConfig = PACE) -> Learner:
    """The learner of a folder that `save` wrote.

    Raises:
        ValueError: `build` makes another model than the saved one.
    """
    with np.load(folder / "log.npz") as held:
        tables = [
            FeatureTable(
                _named(held, f"{side}.column."), _named(held, f"{side}.names.")
            )
            for side in ("users", "items")
        ]
        log = Interactions(
            held["user"],
            held["item"],
            held["time"],
            users=tables[0],
            items=tables[1],
            weight=held["weight"] if "weight" in held.files else None,
        )
    learner = new_learner(build, log, pace)
    with np.load(folder / "variables.npz") as held:
        stored = [held[f"v{i}"] for i in range(len(held.files))]
    shapes = [tuple(variable.shape) for variable in learner.variables]
    if [value.shape for value in stored] != shapes:
        raise ValueError(f"{folder}: was saved from another model; build the same one")
    for variable, value in zip(learner.variables, stored, strict=True):
        variable.assign(value)
    return learner


def _named(held: Any, start: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(start): held[name]
        for name in held.files
        if name.startswith(start)
    }
