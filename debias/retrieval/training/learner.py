"""Learners: retrieval models with the state for further training.

A `Learner` consists of the towers, the events so far, and the states of two optimisers.
If a learner is saved and loaded, training continues exactly as without interruption.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from debias.data.files import atomic_folder
from debias.engine.optimizers import RowWiseAdam
from debias.retrieval.data.events import Appended, Events, append_events
from debias.retrieval.data.interactions import FIRST, FeatureTable, Interactions
from debias.retrieval.data.taken import Taken
from debias.retrieval.data.trend import trend
from debias.retrieval.models.extended import LENGTH, Extended, Extra
from debias.retrieval.models.ids import (
    copy_into,
    dense_weights,
    has_room,
    id_tables,
    init_rows,
    with_room,
)
from debias.retrieval.models.two_tower import RetrievalModel, Schema
from debias.retrieval.training.evaluation import Encodes, typical_user
from debias.retrieval.training.fitting import (
    AVERAGING,
    BATCH_SIZE,
    DENSE_ROWS,
    LEARNING_RATE,
    fit,
)
from debias.retrieval.training.linear import RANK, Spectrum, ease_vectors, spectrum

Build = Callable[[Schema, Schema], RetrievalModel]


class TrainingConfig(NamedTuple):
    """Training settings of a learner.

    Attributes:
        length: Number of latest items that the user tower reads.
        batch_size: Number of events per step.
        learning_rate: Learning rate of Adam.
        id_learning_rate: Learning rate of Adam in updates that change only id
            embeddings.
        averaging, dense_rows: Settings of `RowWiseAdam` for updates of all weights.
        window_events: Number of latest events to keep per user.
        seed: Random seed of the order of events.
        repeat: The policy of repeats, one of `debias.retrieval.data.repeats.POLICIES`.
        trend: Weight and share of the trend that is added to the logits of a trained
            model, see `debias.retrieval.data.trend.trend`. If None, no trend is added.
        linear: Weight, regularisation, decay, power and rank of a linear part (see
            `debias.retrieval.training.linear`). The scores of the linear part are added
            to the logits of a trained model. Power and rank are optional, with the
            defaults 0 and `debias.retrieval.training.linear.RANK`. If `linear` is None,
            no linear part is added.
    """

    length: int = 20
    batch_size: int = BATCH_SIZE
    learning_rate: float = LEARNING_RATE
    id_learning_rate: float = LEARNING_RATE
    averaging: float | None = AVERAGING
    dense_rows: int = DENSE_ROWS
    window_events: int = 200
    seed: int = 0
    repeat: str = "exclude"
    trend: tuple[float, float] | None = None
    linear: tuple[float, ...] | None = None


CONFIG = TrainingConfig()


@dataclass
class Learner:
    """A model and its training state, which `learn` and `add_events` change in place.

    If `learn` or `add_events` raises an error, the state of the learner is undefined,
    so load the learner again.

    Attributes:
        build: Deterministic function that makes the model from the schemas of users and
            items.
        config: Training settings.
        log: Events so far.
        model: The model. The id tables of the model have room for new ids.
        optimizer: Optimiser of all weights.
        id_optimizer: Optimiser of the id embeddings. A full update resets the state of
            this optimiser.
        extra: Term that is added to the inner products after `finish`. None if no term
            is added.
    """

    build: Build
    config: TrainingConfig
    log: Interactions
    model: RetrievalModel
    optimizer: RowWiseAdam
    id_optimizer: RowWiseAdam
    extra: Extra | None = None

    @property
    def variables(self) -> list[Any]:
        """All variables that training changes, including dropout generators."""
        optimizers = (*self.optimizer.variables, *self.id_optimizer.variables)
        return [*self.model.variables, *optimizers]

    def user_features(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Current input of the user tower for the users at `rows`."""
        history, _ = self.log.histories(self.history_length, rows)
        return {**self.log.users.take(rows), "history": history}

    @property
    def served(self) -> Encodes:
        """The model to evaluate and publish, including `extra`."""
        return self.model if self.extra is None else Extended(self.model, self.extra)

    @property
    def history_length(self) -> int:
        """Largest number of history items that `served` reads."""
        linear = self.extra is not None and self.extra.past.shape[1] > 0
        return max(self.config.length, LENGTH if linear else 0)

    def item_vectors(self, rows: np.ndarray | None = None) -> np.ndarray:
        """(n, d) item vectors, for inner products with `user_vectors`."""
        columns = self.log.items.columns if rows is None else self.log.items.take(rows)
        return self.served.item_vectors(columns)

    def user_vectors(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) or (n, K, d) current user vectors."""
        return self.served.user_vectors(self.user_features(rows))

    def typical_user(self) -> np.ndarray:
        """(d,) vector for a user without any known feature."""
        return typical_user(self.served, self.log)

    def user_tower(self) -> Any:
        """The layer that computes `user_vectors`."""
        return self.served.user

    def trend_prior(self, of: tuple[float, float] | None = None) -> np.ndarray:
        """(items,) term that a trend adds to inner products.

        Args:
            of: Weight and share of the trend. If None, they come from the config.
        """
        if (of := of or self.config.trend) is None:
            return np.zeros(len(self.log.items), np.float32)
        weight, share = of
        return self.model.temperature * weight * trend(self.log, share)

    def add_extra(self, of: Spectrum | None = None) -> None:
        """Sets `extra` from the config and the current log.

        Args:
            of: The `spectrum` of the log with the power of the config. If None, it is
                computed.
        """
        self.extra, config = None, self.config
        if config.trend is None and config.linear is None:
            return
        past, items, decay = np.zeros((len(self.log.items), 0)), None, 1.0
        if config.linear is not None:
            unset = [0.0, float(RANK)][len(config.linear) - 3 :]
            weight, strength, decay, power, rank = [*config.linear, *unset]
            of = of or spectrum(self.log, int(rank), power)
            past, items = ease_vectors(of, strength)
            items = self.model.temperature * weight * items
        parts = (past if items is None else items, self.trend_prior()[:, None])
        tables = np.concatenate(parts, axis=1), past
        every, past = (np.pad(t, ((FIRST, 0), (0, 0))).astype("f4") for t in tables)
        self.extra = Extra(every, past, decay)


def new_learner(
    build: Build, log: Interactions, config: TrainingConfig = CONFIG
) -> Learner:
    """Makes an untrained learner."""
    model = build(with_room(log.users.schema), with_room(log.items.schema))
    model.build(None)
    optimizer = RowWiseAdam(
        config.learning_rate,
        dense_rows=config.dense_rows,
        averaging=config.averaging,
        overwrite_at_end=False,  # training continues from the current weights
    )
    id_optimizer = RowWiseAdam(config.id_learning_rate)
    optimizer.build(model.trainable_variables)
    with frozen(dense_weights(model)):
        id_optimizer.build(model.trainable_variables)
    return Learner(build, config, log, model, optimizer, id_optimizer)


def reset_id_optimizer(learner: Learner) -> None:
    """Resets the moments and the step count of the id optimiser to 0."""
    for variable in learner.id_optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    learner.id_optimizer.learning_rate = learner.config.id_learning_rate


def copy_state(learner: Learner, other: Learner) -> None:
    """Copies the log and all variables of a learner to another learner."""
    if not has_room(learner.model, *_sizes(other.log)):
        learner.log = other.log
        _make_room(learner)
    learner.log, learner.extra = other.log, other.extra
    copy_into(learner.variables, other.variables)


@contextmanager
def frozen(weights: Sequence[Any]) -> Iterator[None]:
    """Context manager in which training does not change the given weights."""
    for weight in weights:
        weight.trainable = False
    try:
        yield
    finally:
        for weight in weights:
            weight.trainable = True


@contextmanager
def averaged(learner: Learner) -> Iterator[None]:
    """Context manager in which the model has its averaged weights."""
    if learner.config.averaging is None:
        yield
        return
    variables = learner.model.trainable_variables
    raw = [np.asarray(variable) for variable in variables]
    copy_into(variables, learner.optimizer.averages())
    try:
        yield
    finally:
        copy_into(variables, raw)


def finish(learner: Learner) -> None:
    """Ends training: the model takes its averaged weights and its `extra`."""
    learner.add_extra()
    if learner.config.averaging is None:
        return
    if not int(learner.optimizer.iterations):
        warnings.warn(
            "no step was taken, since gradients overflowed in half precision: give "
            "more passes, or train in single precision",
            stacklevel=2,
        )
    learner.optimizer.keep_averages()


def learn(
    learner: Learner,
    learned: np.ndarray | None = None,
    epochs: int = 1,
    only_ids: bool = False,
    progress: Callable[[int], None] = lambda events: None,
) -> list[float]:
    """Trains a learner on the events of its log, with a new random order per pass.

    After training, the model has the weights of the last step. Call `finish` to end the
    training.

    Args:
        learner: The learner, which this function changes.
        learned: (E,) bool, the training events. If None, all events are training
            events.
        epochs: Number of passes.
        only_ids: Whether to update only the id embeddings.
        progress: Function that is called after each step with the number of events in
            the step.

    Returns:
        The mean loss of each pass.

    Raises:
        debias.retrieval.training.fitting.Diverged: A loss is NaN or infinite.
    """
    model, config = learner.model, learner.config
    log, learned = _users_with_events(learner.log, learned)
    optimizer = learner.id_optimizer if only_ids else learner.optimizer
    with frozen(dense_weights(model) if only_ids else []):
        return fit(
            model,
            log,
            epochs=epochs,
            batch_size=config.batch_size,
            optimizer=optimizer,
            learned=learned,
            # An order that differs from earlier passes, and is the same in a rerun.
            seed=(config.seed, int(optimizer.iterations)),
            repeat=config.repeat,
            progress=progress,
        )


def _users_with_events(
    log: Interactions, learned: np.ndarray | None
) -> tuple[Interactions, np.ndarray | None]:
    """The events of users who have training events, with a table of only these users.

    So the cost of an update depends only on the users in the update, not on all users.
    Codes do not change.
    """
    if learned is None:
        return log, None
    inside = np.isin(log.user, log.user[learned])
    rows, user = np.unique(log.user[inside], return_inverse=True)
    users = FeatureTable(log.users.take(rows), log.users.vocabularies)
    part = replace(
        log.take(inside),
        user=user.astype(np.int32),
        users=users,
        before=None if log.before is None else log.before.select(rows),
    )
    return part, learned[inside]


def add_events(
    learner: Learner,
    events: Events,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
) -> Appended:
    """Appends events to the learner's log, without training.

    New users and items get embedding rows. A new row starts at the mean of the known
    rows, with zero moments.

    Args:
        learner: The learner, which this function changes.
        events, users, items: See `debias.retrieval.data.events.append_events`.
    """
    old = learner.log
    appended = append_events(old, events, users, items)
    learner.log = appended.log
    sizes = _sizes(appended.log)
    if not has_room(learner.model, *sizes):
        _make_room(learner)
    tables = id_tables(learner.model)
    users_before, items_before = _sizes(old)
    init_rows(tables.users, users_before, sizes[0])
    init_rows([*tables.items, *tables.past], items_before, sizes[1])
    if learner.extra is not None:
        learner.extra = learner.extra.grown(learner.trend_prior())
    return appended


def _sizes(log: Interactions) -> tuple[int, int]:
    return log.users.size("id"), log.items.size("id")


def _make_room(learner: Learner) -> None:
    larger = new_learner(learner.build, learner.log, learner.config)
    copy_into(larger.variables, learner.variables)
    learner.model = larger.model
    learner.optimizer, learner.id_optimizer = larger.optimizer, larger.id_optimizer


def drop_old_events(learner: Learner) -> None:
    """Keeps each user's latest `window_events`; older items still count as taken."""
    learner.log = learner.log.latest(learner.config.window_events)


def save(learner: Learner, folder: Path) -> None:
    """Writes a learner into a new folder, atomically.

    Raises:
        ValueError: The folder is not empty.
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
        if log.target is not None:
            held |= {"target": log.target, "targets": np.array(log.targets)}
        if log.before is not None:
            held |= {f"before.{n}": c for n, c in log.before._asdict().items()}
        if learner.extra is not None:
            held |= {f"extra.{n}": c for n, c in learner.extra._asdict().items()}
        np.savez(aside / "log.npz", **held)  # type: ignore[arg-type]


def load(folder: Path, build: Build, config: TrainingConfig = CONFIG) -> Learner:
    """Loads a learner from a folder that `save` wrote.

    Raises:
        ValueError: A file is missing or damaged; the message names the file. The model
            that `build` makes differs from the saved model.
    """
    with _arrays(folder / "log.npz") as held:
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
            before=Taken(**before) if (before := _named(held, "before.")) else None,
            target=held["target"] if "target" in held.files else None,
            targets=tuple(held["targets"].tolist()) if "target" in held.files else (),
        )
        added = _named(held, "extra.")
    with _arrays(folder / "variables.npz") as held:
        stored = [held[f"v{i}"] for i in range(len(held.files))]
    learner = new_learner(build, log, config)
    shapes = [tuple(variable.shape) for variable in learner.variables]
    if [value.shape for value in stored] != shapes:
        raise ValueError(
            f"{folder}: was saved from another model, or by an earlier version of this "
            "library; train and publish again"
        )
    for variable, value in zip(learner.variables, stored, strict=True):
        variable.assign(value)
    if added:
        learner.extra = Extra(added["items"], added["past"], float(added["decay"]))
    return learner


@contextmanager
def _arrays(path: Path) -> Iterator[Any]:
    """Opens the arrays of an .npz file; errors name the file."""
    try:
        with path.open("rb") as file, np.load(file) as held:
            yield held
    except Exception as error:  # errors of zipfile, NumPy and the tables
        raise ValueError(
            f"{path}: is missing or damaged: {error}; train again"
        ) from error


def _named(held: Any, start: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(start): held[name]
        for name in held.files
        if name.startswith(start)
    }
