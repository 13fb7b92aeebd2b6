"""Training a click model on a log: fits that survive a kill.

A fit runs in rounds of at most half a million sessions and writes a checkpoint after
each: weights, optimiser, the state of chance, and the best weights so far. Started
again it goes on behind the last whole round and ends as if nothing had happened.
"""

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from debias.data import ClickLog, RankingData
from debias.data.files import atomic_write
from debias.data.splits import random_parts
from debias.data.stream import Stream
from debias.engine import distributed
from debias.engine.optimizers import RowWiseAdam
from debias.layers import Standardize
from debias.models import ClickModel
from debias.models.batches import PACKS, batches

ROUND = 1 << 19  # sessions
FEW = 50  # queries; below, sessions are held out instead
PARTS = (0.8, 0.1, 0.1)  # to learn from, to judge passes by, to test
JUDGES = 250_000  # sessions of a stream that are held in memory to judge or test by
LOOKED_AT = 48  # row groups that those are drawn from
OFTEN = 10  # sessions learned for one to judge by, within a pass; 8 make a usual pass


class TrainingConfig(NamedTuple):
    """How long and how fast a model learns.

    Attributes:
        epochs: Passes at most.
        patience: Passes without a better held-out likelihood after which to stop.
        rate: Learning rate of Adam.
        batch_size: Sessions a step.
        seed: Names initial weights, orders and dropout.
        round: Sessions between two checkpoints, at most.
    """

    epochs: int = 8
    patience: int = 2
    rate: float = 0.01
    batch_size: int = 512
    seed: int = 0
    round: int = ROUND


class Fitted(NamedTuple):
    """What a fit came to.

    Attributes:
        log_likelihood: Mean over held-out sessions, in nats, of the weights kept.
        epoch: The pass that they are from, from 1: its end, or where it is long, one
            of the places within it where it was judged.
        history: Of each pass, the training loss and the held-out log-likelihood.
        sessions: Trained on by this process, passes counted; the rest was done before.
    """

    log_likelihood: float
    epoch: int
    history: list[dict[str, float]]
    sessions: int


def held_out(
    log: ClickLog, seed: int, fractions: tuple[float, float, float] = PARTS
) -> tuple[tuple[ClickLog, ClickLog, ClickLog], str]:
    """Training, validation and test sessions, and by what they were parted.

    No query is in two parts ("query"), unless there are fewer than 50 ("session").
    """
    by = "query" if np.unique(log.query).size >= FEW else "session"
    train, validation, test = log.split(fractions, np.random.default_rng(seed), by)
    if min(len(train), len(validation), len(test)) == 0:
        raise ValueError(f"{len(log)} sessions are too few to hold some out")
    return (train, validation, test), by


def held_out_of_stream(
    stream: Stream, queries: int, seed: int
) -> tuple[tuple[Stream, ClickLog, ClickLog], str]:
    """What `held_out` parts of a log in memory; few of the held-out are held.

    The parts are those of `held_out` where every query was asked. Where there are fewer
    than 50, each session is put in a part by a draw. At most 250,000 sessions to judge
    by and as many to test by are drawn from 48 row groups, so that a fit begins soon.

    Args:
        stream: All sessions.
        queries: How many queries there are, asked or not.
        seed: Of the draws.
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

    learners, judges, tests = (
        replace(stream, keep=keep(number), share=share)
        for number, share in enumerate(PARTS)
    )
    judged, tested = (
        part.sample(JUDGES, [seed, 1], LOOKED_AT) for part in (judges, tests)
    )
    return (learners, judged, tested), by


def shown_only(log: ClickLog, data: RankingData) -> tuple[ClickLog, np.ndarray]:
    """The log with the shown items numbered afresh, and features of these alone.

    >>> data = RankingData([[0.0], [1.0], [2.0]], None, [0, 3])
    >>> log, features = shown_only(ClickLog([0], [[2, 0]], [[1, 0]]), data)
    >>> log.item.tolist(), features.tolist()
    ([[1, 0]], [[0.0], [2.0]])
    """
    log.check(data.items)
    seen = np.zeros(data.items + 1, bool)
    seen[log.item] = True  # padding is the last cell
    seen[-1] = False
    number = np.where(seen, np.cumsum(seen) - 1, -1).astype(np.int32)
    columns = {**log.columns(), "item": number[log.item]}
    return ClickLog.trusted(**columns), data.features[seen[:-1]]


def standardized(features: np.ndarray) -> tuple[Standardize, RankingData]:
    """Scaled features as ranking data of one query, and the layer that scales them."""
    scale = Standardize().adapt(features)
    scaled = np.empty_like(features)
    for start in range(0, len(features), 1 << 14):
        piece = slice(start, start + (1 << 14))
        scaled[piece] = np.asarray(scale(features[piece]))
    return scale, RankingData.trusted(scaled, None, np.array([0, len(scaled)]))


def session_log_likelihoods(
    model: ClickModel, log: ClickLog, data: RankingData
) -> np.ndarray:
    """(S,) log-likelihood of each session's clicks, in nats."""
    with distributed.held_alone(model):
        parts = [
            -np.asarray(model.session_losses(batch, clicks, model(batch)))
            for batch, clicks in batches(log, data, 1024, shuffle=False, packed=PACKS)
        ]
    return np.concatenate(parts)


@distributed.lost_process()  # of all of it: a step's error may come when it is read
def fit(
    model: ClickModel,
    train: ClickLog | Stream,
    validation: ClickLog,
    data: RankingData,
    settings: TrainingConfig,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
    report: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None,
) -> Fitted:
    """Maximises the likelihood of clicks; leaves the best weights that were judged.

    Held-out sessions judge at the end of each pass, and within a long one whenever
    `OFTEN` times as many were learned, for their likelihood need not rise to its end.

    Inside the scope of `debias.engine.distributed.join` the processes train together,
    with the result of one: each step's batch is theirs together, process 0 writes the
    checkpoint, and all of them read it.

    Args:
        model: A new click model, of the same seed each time a fit is started again.
        train: Sessions to learn from, in memory or on disk.
        validation: Sessions to judge each pass by.
        data: Features of the items, scaled.
        settings: How long and how fast.
        checkpoint: File to write after each round, and to continue from if it exists.
        progress: Called with sessions done since the last call; those of passes that
            were skipped and of rounds done before an interruption count as well.
        report: Called after each pass with its number from 0 and its metrics.

    Raises:
        ValueError: The checkpoint is that of another model, or of another version.
    """
    batch, _ = batches(validation, data, settings.batch_size).element_spec
    shapes = {n: keras.KerasTensor(v.shape, v.dtype.name) for n, v in batch.items()}
    model(shapes)  # builds it, and computes nothing
    process, processes = distributed.me()
    rounds = _rounds(train, settings.round)
    steps = -(-len(train) // rounds // settings.batch_size)
    # With TensorFlow on a CPU, XLA gains nothing here and compiles for long; JAX would
    # take every operation by itself.
    model.compile(
        RowWiseAdam(settings.rate),
        jit_compile=keras.backend.backend() == "jax",
        steps_per_execution=min(50, steps),
    )
    model.optimizer.build(model.trainable_variables)
    state: dict[str, Any] = {"round": 0, "history": [], "loss": 0.0, "unjudged": 0}
    state |= {"best": None, "log_likelihood": -np.inf}
    best = model.get_weights()
    if checkpoint is not None and checkpoint.exists():
        there, best = _restore(checkpoint, model)
        if there.keys() != state.keys():
            raise ValueError(
                f"{checkpoint}: is the checkpoint of another version of this library; "
                "remove it to begin anew"
            )
        state = there
        progress(state["round"] * len(train) // rounds)
    done = 0
    for number in range(state["round"], settings.epochs * rounds):
        epoch, piece = divmod(number, rounds)
        if _is_over(state, settings):
            break
        some = _round(train, [settings.seed, epoch], piece, rounds)
        seed = settings.seed * 100_003 + number
        feed = batches(some, data, settings.batch_size, seed=seed, packed=PACKS)
        history = model.fit(
            feed if processes == 1 else distributed.share(feed),
            verbose=0,
            callbacks=[_Sessions(progress, settings.batch_size, len(some))],
        )
        # A dataset of TensorFlow is a cycle that holds a copy of the features.
        del feed
        gc.collect()
        done += len(some)
        state["loss"] += history.history["loss"][-1] / rounds
        state["round"] = number + 1
        state["unjudged"] += len(some)
        whole_pass = piece == rounds - 1
        if whole_pass or state["unjudged"] >= OFTEN * len(validation):
            found = session_log_likelihoods(model, validation, data)
            likely, state["unjudged"] = float(found.mean(dtype=float)), 0
            if state["best"] is None or likely > state["log_likelihood"]:
                state |= {"best": epoch, "log_likelihood": likely}
                best = model.get_weights()
        if whole_pass:
            metrics = {"loss": state["loss"], "log_likelihood": likely}
            state["history"].append(metrics)
            state["loss"] = 0.0
            report(epoch, metrics)
        if checkpoint is not None and process == 0:
            _write_checkpoint(checkpoint, model, state, best)
    progress(len(train) * settings.epochs - state["round"] * len(train) // rounds)
    model.set_weights(best)
    likely = state["log_likelihood"]
    return Fitted(likely, state["best"] + 1, state["history"], done)


def _rounds(train: ClickLog | Stream, most: int) -> int:
    """Rounds of a pass; of a stream, equally many for each window."""
    if isinstance(train, Stream):
        return train.windows * -(-len(train) // (train.windows * most))
    return -(-len(train) // most)


def _round(
    train: ClickLog | Stream, key: list[int], number: int, rounds: int
) -> ClickLog:
    """The sessions of a round of the pass that `key` names, in their order."""
    if isinstance(train, Stream):
        window, piece = divmod(number, rounds // train.windows)
        log, rounds, number = train.read(window, key), rounds // train.windows, piece
        order = np.arange(len(log))
    else:
        log, order = train, np.random.default_rng(key).permutation(len(train))
    return log.take(np.array_split(order, rounds)[number])


def _is_over(state: dict[str, Any], settings: TrainingConfig) -> bool:
    waited = len(state["history"]) - 1 - (state["best"] or 0)
    return state["best"] is not None and waited >= settings.patience


class _Sessions(keras.callbacks.Callback):
    """Reports sessions as they are trained on."""

    def __init__(self, progress: Callable[[int], None], batch_size: int, sessions: int):
        super().__init__()
        self.progress, self.batch_size, self.sessions = progress, batch_size, sessions
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = min((batch + 1) * self.batch_size, self.sessions)
        self.progress(done - self.done)
        self.done = done


def _variables(model: ClickModel) -> list[Any]:
    """All that changes in training; the generators of dropout among it."""
    return [*model.variables, *model.optimizer.variables]


def _write_checkpoint(
    path: Path, model: ClickModel, state: dict[str, Any], best: list[np.ndarray]
) -> None:
    arrays = {f"now{i}": np.asarray(v) for i, v in enumerate(_variables(model))}
    arrays |= {f"best{i}": value for i, value in enumerate(best)}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)  # type: ignore


def _restore(path: Path, model: ClickModel) -> tuple[dict[str, Any], list[np.ndarray]]:
    with np.load(path) as found:
        variables = _variables(model)
        stored = [found[name] for name in found.files if name.startswith("now")]
        if [v.shape for v in stored] != [tuple(v.shape) for v in variables]:
            raise ValueError(f"{path}: is the checkpoint of another model")
        for variable, value in zip(variables, stored, strict=True):
            variable.assign(value)
        best = [found[name] for name in found.files if name.startswith("best")]
        return json.loads(str(found["state"])), best
