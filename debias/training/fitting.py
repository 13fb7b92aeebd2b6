"""Fits a click model to a log, with checkpoints from which a killed fit resumes.

A fit runs in rounds of at most half a million sessions. After each round, the fit
writes a checkpoint with its weights, optimiser, random state and best weights so far. A
restarted fit resumes after the last completed round and reproduces the uninterrupted
result.
"""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np

from debias.data import ClickLog, RankingData
from debias.data.files import array_hash, atomic_write
from debias.data.kinds import Features as Kinds
from debias.data.kinds import column_names
from debias.data.layout import layout_of
from debias.data.stream import Stream
from debias.engine import distributed
from debias.engine.optimizers import RowWiseAdam
from debias.engine.scoring import Scorer, scored_by
from debias.layers import Features, Tower
from debias.models import ClickModel, MultiTarget, Ranker, ranker
from debias.models.batches import PACKS, batches, checked_weight
from debias.models.click_model import argument_errors
from debias.presets import READS_TARGETS, build
from debias.propensity.bias_tower import bias_tower
from debias.training import page_parts
from debias.training.config import TrainingConfig
from debias.training.corrections import Correction
from debias.training.results import Printed
from debias.training.splits import (
    Learners,
    Part,
    Prepared,
    check_types,
    prepare,
    standardized,
    vocabulary,
)
from debias.training.targets import Targets

OFTEN = 2.5  # training sessions per validation session, between two validations
JUDGED = 1024  # validation sessions per batch
LARGE = 1 << 26  # bytes that reference cycles may hold before they are collected
HALVINGS = 2  # of a weight decay that left all items the same score, at most
EQUAL = 0.02  # standard deviation of scores, in logits, that count as the same
SOME_ITEMS = 4096  # items whose scores are compared
LATE = 0.05  # share of a fit's gain that must come late to advise more passes
_held = 0  # bytes that they may hold now, in this process


@dataclass(frozen=True)
class Fitted(Printed):
    """The result of a fit.

    Attributes:
        model: The click model, with its best weights.
        ranker: The ranker, which maps raw features to scores.
        log_likelihood: Held-out log-likelihood of the best weights, in nats per
            session.
        epoch: Number (from 1) of the pass in which the best weights were evaluated.
        history: For each pass, its number (from 1), training loss and held-out
            log-likelihood. On a small log, one entry covers several passes and has the
            number of the last pass.
        sessions: Number of sessions that this process trained on, over all passes.
            Sessions before an interruption are not counted.
        prepared: Training, validation and test sessions.
        at_end: Whether the last allowed pass was the best.
        decays: Weight decays that were tried. Each decay except the last gave all items
            the same score.
    """

    model: ClickModel
    ranker: Ranker
    log_likelihood: float
    epoch: int
    history: list[dict[str, Any]]
    sessions: int
    prepared: Prepared
    at_end: bool = False
    decays: tuple[float, ...] = ()

    def sections(self) -> Any:
        yield "Passes", self.history

    def parts(self) -> Any:
        """Adds a figure of examination, and held-out lists as logged and reranked."""
        learned, part = self.prepared.train, self.prepared.test
        found, figures = list(self.sections()), []
        if isinstance(learned.log, ClickLog):
            table = learned.data.features
            figures = page_parts.examination(learned.log, self.model, table)
        if part is not None:
            scores = Scorer(scored_by(self.model.score))(part.data.features)
            found += page_parts.examples(part.log, scores)
        return found, figures

    def words(self) -> str:
        found = (
            f"{type(self.model).__name__}: {self.log_likelihood:.5f} nats per "
            f"validation session after pass {self.epoch}."
        )
        return f"{found} {self.note}".rstrip()

    @cached_property
    def examination(self) -> tuple[float | None, ...] | None:
        """Examination relative to rank 1; None at ranks that held-out lists lack.

        The model predicts a click on every shown item at every rank, with the item
        alone in its list. Examination is the mean click probability at a rank, divided
        by the mean at rank 1. The result is None for a model that does not predict
        clicks.
        """
        judges = self.prepared.validation
        if not self.model.predicts_clicks:
            return None
        with distributed.held_alone(self.model):
            found = bias_tower(judges.log, judges.data.features, self.model)
        return tuple(None if np.isnan(e) else float(np.exp(e)) for e in found)

    @property
    def note(self) -> str:
        """Note on a reduced weight decay, or advice to train longer, or ""."""
        if len(self.decays) > 1:
            return (
                f"With weight decay {self.decays[0]:.3g} all items got the same score, "
                f"so the model was trained again with {self.decays[-1]:.3g}."
            )
        likely = [each["log_likelihood"] for each in self.history]
        if not (self.at_end and still_rising(likely)):
            return ""
        passes = self.epoch
        found = f"Held-out clicks became likelier until the last of {passes} passes"
        if passes == 1:
            found = "One pass does not show whether it was enough"
        return f"{found}: try more, such as {2 * passes} (--epochs; in Python, epochs)."


def still_rising(likelihoods: Sequence[float]) -> bool:
    """Whether the last quarter of the passes gave over 5% of the likelihood gain.

    Averaged weights keep improving slowly, so the last pass is often the best, even if
    more passes would gain almost nothing. After a single evaluation, the result is
    True.

    Args:
        likelihoods: Held-out log-likelihood after each pass.

    >>> still_rising([-2.0, -1.5, -1.2, -1.0]), still_rising([-2.0, -1.01, -1.0, -1.0])
    (True, False)
    """
    if len(likelihoods) < 2:
        return True
    last = likelihoods[-1]
    before = likelihoods[3 * len(likelihoods) // 4 - 1]
    return last - before > LATE * (last - likelihoods[0])


def collect(log: ClickLog, data: RankingData) -> None:
    """Frees the memory of discarded TensorFlow datasets, if it may be large.

    A TensorFlow dataset is part of a reference cycle that holds copies of the features
    and the log. In a large process, a search for reference cycles takes up to a second.
    So `collect` searches only when the cycles may hold at least `LARGE` bytes.
    """
    global _held
    _held += data.features.nbytes + sum(v.nbytes for v in log.columns().values())
    if _held >= LARGE:
        gc.collect()
        _held = 0


def session_log_likelihoods(
    model: ClickModel, log: ClickLog, data: RankingData
) -> np.ndarray:
    """(S,) log-likelihood of each session's clicks, in nats."""
    return _likelihoods(model, _judged(log, data))


def _judged(log: ClickLog, data: RankingData) -> Any:
    return batches(log, data, JUDGED, shuffle=False, packed=PACKS)


def _likelihoods(model: ClickModel, feed: Any) -> np.ndarray:
    with argument_errors(), distributed.held_alone(model):
        parts = [
            -np.asarray(model.session_losses(batch, clicks, model(batch)))
            for batch, clicks in feed
        ]
    return np.concatenate(parts)


def fit(
    model: ClickModel | Correction | Targets | str,
    log: ClickLog | Stream,
    data: RankingData | None = None,
    *,
    validation: ClickLog | None = None,
    config: TrainingConfig | None = None,
    preprocess: keras.layers.Layer | None = None,
    weight: np.ndarray | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
) -> Fitted:
    """Fits a click model to a log and keeps the best weights.

    Args:
        model: A new click model, a name in `debias.presets`, a `Correction` of clicks,
            or `Targets`. To resume a fit, give a model with the same seed.
        log: Sessions, in memory or on disk.
        data: Raw features of the items. `fit` scales the features.
        validation: Held-out sessions of the same items, to evaluate each pass. None
            means that `fit` holds out a tenth of the queries for validation and another
            tenth for `evaluate`.
        config: Settings of the training.
        preprocess: Layer that preprocesses raw features. None means a `Standardize`
            layer adapted to the items.
        weight: (S, L) weight of each cell in the loss, such as the `weight` of
            `debias.propensity.policy_weights`. `weight` needs `validation`.
        checkpoint: File that stores the state after each round. If the file exists, the
            fit resumes from it.
        progress: Function that receives the number of sessions trained since its last
            call.

    Raises:
        ValueError: An argument is invalid, the log is too small to hold sessions out,
            the loss became infinite or nan, or the checkpoint belongs to another log,
            model or version, or to other settings than the number of passes.

    >>> import simulators
    >>> data = simulators.generate(queries=60, seed=1)
    >>> policy = simulators.PlackettLuce(simulators.weak_ranker(data), 0.5)
    >>> log = simulators.simulate(data, policy, "pbm", sessions=500, seed=1)
    >>> fitted = fit("product", log, data, config=TrainingConfig(epochs=1))
    >>> fitted.ranker(data.features[:5]).shape[0]
    5
    """
    config = TrainingConfig.of(config)
    if data is None:
        raise ValueError(
            "fit needs the ranking data of the items: fit(model, log, data), or of "
            "debias.read_log: fit(model, reading.log, reading.data)"
        )
    if validation is None and weight is not None:
        raise ValueError(
            "weight needs validation: hold out sessions yourself, and give weights of "
            "the training sessions"
        )
    if not isinstance(model, ClickModel | Correction | Targets | str):
        got = model if isinstance(model, type) else type(model).__name__
        raise ValueError(
            "model must be a name such as 'product', a click model such as "
            f"debias.Product(tower, bias_tower), a Correction or Targets, got {got}"
        )
    if validation is None:
        reads = reads_targets(model)
        prepared = prepare(log, data, config.seed, preprocess, reads)
    else:
        prepared = _split(log, validation, data, preprocess, weight)
    return fit_prepared(model, prepared, config, checkpoint, progress)


def _split(
    log: ClickLog | Stream,
    validation: ClickLog,
    data: RankingData,
    preprocess: keras.layers.Layer | None,
    weight: np.ndarray | None,
) -> Prepared:
    """Prepares a log like `prepare`, with the caller's own validation sessions."""
    check_types(log, data)
    if not isinstance(validation, ClickLog):
        raise ValueError(
            f"validation must be a ClickLog, got {type(validation).__name__}"
        )
    if weight is not None:
        if isinstance(log, Stream):
            raise ValueError(
                "weight needs a log in memory: open it with debias.ClickLog.open, or "
                "leave out weight"
            )
        weight = checked_weight(weight, log)
    kinds = vocabulary(data.features, data.kinds, log)
    layer, scaled = standardized(data.features, preprocess, kinds, None, data.kinds)
    names = data.feature_names if kinds is None else column_names(kinds)
    layout = layout_of(validation)._replace(kinds=kinds)
    train, judges = Learners(log, scaled, weight), Part(validation, scaled)
    return Prepared(train, judges, None, "caller", layout, layer, names)


@distributed.lost_process()  # an error may surface only when a result is read
def fit_prepared(
    model: ClickModel | Correction | Targets | str,
    prepared: Prepared,
    config: TrainingConfig,
    checkpoint: str | Path | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
    report: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None,
) -> Fitted:
    """Fits like `fit`, on a log prepared by `prepare`.

    On a small log, weight decay can be so strong that all items get the same score. In
    this case, the fit starts again with half the decay, up to `HALVINGS` times, unless
    `config` sets the decay. Each restart has its own checkpoint.

    At the end of each pass, the weights are evaluated on held-out sessions. The
    held-out likelihood can also fall during a pass. So the weights are also evaluated
    during a pass, each time after `OFTEN` training sessions per validation session.

    Inside the scope of `debias.engine.distributed.join`, all processes train together
    and share each batch. The result equals that of a single process. Process 0 writes
    the checkpoint, and all processes read it.

    Args:
        model: See `fit`.
        prepared: Result of `prepare`.
        config: Settings of the training.
        checkpoint: File that stores the state after each round. If the file exists, the
            fit resumes from it.
        progress: Function that receives the number of sessions trained since its last
            call. The number also counts sessions before an interruption, and sessions
            of passes that early stopping skips.
        report: Function that receives the number (from 0) and the metrics of each
            completed pass. The numbers continue if the fit starts again with less
            weight decay.

    Raises:
        ValueError: See `fit`.
    """
    if not isinstance(model, ClickModel):
        keras.utils.set_random_seed(config.seed)
        layout = prepared.layout
        if isinstance(model, str):
            model = build(model, layout, config.seed)
        else:
            model = model.build(layout, config.seed)
    check_reads(model, prepared.layout.kinds)
    run = _Run(model, prepared, config, checkpoint, progress)
    start, decays, passes = run.best, [run.decay], 0

    def reported(epoch: int, metrics: dict[str, float]) -> None:
        report(passes + epoch, metrics)

    fitted = run.train(reported)
    while (
        config.decay is None
        and len(decays) <= HALVINGS
        and decaying(model)
        and _scores_are_equal(model, prepared.validation.data.features[:SOME_ITEMS])
    ):
        decays.append(decays[-1] / 2)
        model.set_weights(start)
        passes += len(fitted.history)
        path = None if checkpoint is None else next_checkpoint(checkpoint, len(decays))
        half = replace(config, decay=decays[-1])
        fitted = _Run(model, prepared, half, path, progress).train(reported)
    return replace(fitted, decays=tuple(decays))


def next_checkpoint(path: str | Path, number: int) -> Path:
    """Path of the checkpoint of a restarted fit. The first restart has number 2.

    >>> next_checkpoint("trained/checkpoint.npz", 2).name
    'checkpoint-2.npz'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _scores_are_equal(model: ClickModel, features: np.ndarray) -> bool:
    """Whether items with different features all have nearly the same score."""
    if not np.ptp(features, axis=0).any():
        return False
    return float(np.std(np.asarray(model.score(features)))) < EQUAL


def reads_targets(model: ClickModel | Correction | Targets | str) -> bool:
    """Whether a model learns from the targets of a log.

    >>> reads_targets("multi_target"), reads_targets("product")
    (True, False)
    """
    return isinstance(model, Targets | MultiTarget) or model in READS_TARGETS


def check_reads(model: ClickModel, kinds: Kinds | None) -> None:
    """Checks that the towers of a model can read features of these kinds.

    Raises:
        ValueError: Some features are categories, but no tower has a layer that embeds
            them.
    """
    names = [each.name for each in kinds or () if each.coded]
    if names and not any(isinstance(e, Features) for e in model._flatten_layers()):
        raise ValueError(
            f"the features {' '.join(names[:8])} are categories, whose codes a tower "
            "would read as numbers: put a layer in front of it, "
            "keras.Sequential([debias.layers.Features(data.kinds), tower])"
        )


class _Run:
    """A fit, from its start or its checkpoint to its end."""

    def __init__(
        self,
        model: ClickModel,
        prepared: Prepared,
        config: TrainingConfig,
        checkpoint: str | Path | None,
        progress: Callable[[int], None],
    ):
        self.model, self.prepared, self.config = model, prepared, config
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.progress = progress
        self.sessions = len(prepared.train.log)
        self.rounds = _rounds(prepared.train.log, config.round)
        self.together = config.passes_a_round(self.sessions)
        self.passes = -(-config.passes(self.sessions) // self.together)
        self.done = 0
        self.state: dict[str, Any] = {"round": 0, "history": [], "loss": 0.0}
        self.state |= {"unjudged": 0, "best": None, "log_likelihood": None}
        self.state |= {"waited": 0}  # number of validations since the best
        self.state |= {"fit": None if self.checkpoint is None else self._hash()}
        self.decay = self._compile()
        self.best = model.get_weights()
        # Making a dataset takes longer than evaluating a small log with it.
        self.judges = _judged(prepared.validation.log, prepared.validation.data)

    def _hash(self) -> str:
        """Hash of the model's class, the settings and the sessions.

        Two fits with the same hash differ at most in their number of passes.
        """
        settings = replace(self.config, epochs=None, patience=1, min_steps=0)
        name, train = type(self.model).__name__, self.prepared.train
        parts = {f"{name} {settings} {self.together} {self.sessions}": np.zeros(0)}
        for part in (train, self.prepared.validation):
            if isinstance(part.log, ClickLog):
                columns = part.log.columns().items()
                parts |= {f"{n} {len(parts)}": np.asarray(v) for n, v in columns}
        return array_hash(parts | ({} if train.weight is None else {"": train.weight}))

    def _compile(self) -> float:
        """Compiles the model; returns the weight decay."""
        model, config, judges = self.model, self.config, self.prepared.validation
        batch, _ = batches(judges.log, judges.data, config.batch_size).element_spec
        shapes = {n: keras.KerasTensor(v.shape, v.dtype.name) for n, v in batch.items()}
        model(shapes)  # builds the model without computing
        steps = -(-self.sessions // self.rounds // config.batch_size)
        # With TensorFlow on a CPU, XLA gains nothing here and compiles slowly. JAX
        # would run every operation separately.
        decay = config.decay_of(self.sessions, judges.data.feature_count)
        model.compile(
            _optimizer(model, decay, config),
            jit_compile=keras.backend.backend() == "jax",
            steps_per_execution=min(50, steps),
        )
        model.optimizer.build(model.trainable_variables)
        # Held-out sessions are in memory, even if training sessions are not.
        click, mask = np.asarray(judges.log.click), np.asarray(judges.log.mask)
        clicked = click & mask
        targets = {n: v[clicked] for n, v in (judges.log.targets or {}).items()}
        model.start_at(float(click[mask].mean()), targets)
        return decay

    def train(self, report: Callable[[int, dict[str, float]], None]) -> Fitted:
        """Trains from the start, or from the checkpoint, to the end."""
        self.resume()
        rounds, patience = self.passes * self.rounds, self.config.patience
        while self.state["round"] < rounds and self.state["waited"] < patience:
            metrics = self.take_round()
            if metrics is not None:
                report(len(self.state["history"]) - 1, metrics)
            if self.checkpoint is not None and distributed.me()[0] == 0:
                _write_checkpoint(self.checkpoint, self.model, self.state, self.best)
        return self.finish()

    def resume(self) -> None:
        """Restores the state of the checkpoint, if the file exists."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        there, best = _restore(self.checkpoint, self.model)
        if there.keys() != self.state.keys():
            raise ValueError(
                f"{self.checkpoint}: is the checkpoint of another version of this "
                "library; remove it to start again"
            )
        if there["fit"] != self.state["fit"]:
            raise ValueError(
                f"{self.checkpoint}: is the checkpoint of another fit, with another "
                "log, model or other settings; remove it to start again"
            )
        self.state, self.best = there, best
        done = self.state["round"] * self.sessions // self.rounds
        self.progress(self.together * done)

    def take_round(self) -> dict[str, float] | None:
        """Trains for a round. At the end of a pass, returns the metrics of the pass."""
        state = self.state
        epoch, piece = divmod(state["round"], self.rounds)
        some, loss = self._learn(epoch, piece)
        state["loss"] += loss / self.rounds
        state["round"] += 1
        state["unjudged"] += some
        whole_pass = piece == self.rounds - 1
        if whole_pass or state["unjudged"] >= OFTEN * len(self.prepared.validation.log):
            likely = self._judge(epoch)
        if not whole_pass:
            return None
        passes = self.together * (epoch + 1)
        metrics = {"epoch": passes, "loss": state["loss"], "log_likelihood": likely}
        state["history"].append(metrics)
        state["loss"] = 0.0
        return metrics

    def _learn(self, epoch: int, piece: int) -> tuple[int, float]:
        """Takes the steps of a round; returns its sessions and its mean loss."""
        config, train = self.config, self.prepared.train
        some, rows = _round(train.log, [config.seed, epoch], piece, self.rounds)
        seed = config.seed * 100_003 + epoch * self.rounds + piece
        weight = None if train.weight is None else train.weight[rows]
        feed = batches(
            some, train.data, config.batch_size, True, seed, None, weight, packed=PACKS
        )
        steps = _Steps(self.progress, config, len(some), epoch)
        one = distributed.me()[1] == 1
        history = self.model.fit(
            feed if one else distributed.share(feed),
            epochs=self.together,
            verbose=0,
            callbacks=[steps],
        )
        del feed
        collect(some, train.data)
        self.done += len(some) * self.together
        return len(some), history.history["loss"][-1]

    def _judge(self, epoch: int) -> float:
        """Mean held-out log-likelihood; saves the weights if it is the highest."""
        state = self.state
        with self._averaged():
            found = _likelihoods(self.model, self.judges)
            likely = float(found.mean(dtype=float))
            if not np.isfinite(likely):
                what = f"held-out log-likelihood {likely}"
                raise _diverged(what, epoch, "", self.config)
            state["unjudged"], state["waited"] = 0, state["waited"] + 1
            if state["best"] is None or likely > state["log_likelihood"]:
                state |= {"best": epoch, "log_likelihood": likely, "waited": 0}
                self.best = self.model.get_weights()
        return likely

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Gives the model the averaged weights within the context, if there are any."""
        if self.config.averaging is None:
            yield
            return
        variables = self.model.trainable_variables
        raw = [np.asarray(v) for v in variables]
        for variable, value in zip(
            variables, self.model.optimizer.averages(), strict=True
        ):
            variable.assign(value)
        try:
            yield
        finally:
            for variable, before in zip(variables, raw, strict=True):
                variable.assign(before)

    def finish(self) -> Fitted:
        state, model = self.state, self.model
        behind = state["round"] * self.sessions // self.rounds
        self.progress(self.together * (self.sessions * self.passes - behind))
        model.set_weights(self.best)
        return Fitted(
            model,
            ranker(
                model,
                self.prepared.preprocess,
                self.prepared.feature_names,
                self.prepared.layout.kinds,
            ),
            state["log_likelihood"],
            self.together * (state["best"] + 1),
            state["history"],
            self.done,
            self.prepared,
            state["best"] + 1 == self.passes,
        )


def _optimizer(model: ClickModel, decay: float, config: TrainingConfig) -> RowWiseAdam:
    """Adam with weight decay on the kernels of relevance towers only."""
    optimizer = RowWiseAdam(
        config.rate,
        weight_decay=decay or None,
        averaging=config.averaging,
        overwrite_at_end=False,  # a fit continues from the current weights
    )
    if decay:
        decayed = {id(v) for v in decaying(model)}
        spared = [v for v in model.trainable_variables if id(v) not in decayed]
        optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer


def decaying(model: ClickModel) -> list[Any]:
    """The variables with weight decay: all kernels except those in `without_decay`.

    In a linear tower, category embeddings have weight decay as well. Without decay, the
    embeddings would grow to compensate for the decay of the kernel, and categories
    would outweigh numbers.

    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Product
    >>> model = Product(Tower((4,)), BiasTower({"position": 2}, hidden=(3,)))
    >>> place = np.ones((1, 2), int)
    >>> _ = model({"features": np.zeros((1, 2, 5), "float32"), "position": place})
    >>> sorted(tuple(v.shape) for v in decaying(model))
    [(4, 1), (5, 4)]
    """
    layers = list(model._flatten_layers())
    models = [layer for layer in layers if isinstance(layer, ClickModel)]
    without = [layer for each in models for layer in each.without_decay()]
    spared = {id(v) for layer in without for v in layer.variables}
    dense = [layer for layer in layers if hasattr(layer, "kernel")]
    kernels = [each.kernel for each in dense if id(each.kernel) not in spared]
    return [*kernels, *(v for layer in layers for v in _linear_vectors(layer))]


def _linear_vectors(layer: Any) -> list[Any]:
    """The category embeddings that a linear tower reads."""
    if not isinstance(layer, keras.Sequential) or not layer.layers:
        return []
    first, last = layer.layers[0], layer.layers[-1]
    linear = isinstance(last, Tower) and not last.hidden
    return first.trainable_variables if linear and isinstance(first, Features) else []


class Diverged(ValueError):
    """Raised if a loss or likelihood is nan or infinite."""


def _diverged(what: str, epoch: int, step: str, config: TrainingConfig) -> Diverged:
    """The error that says where the loss became NaN or infinite, and what to try."""
    return Diverged(
        f"training diverged: {what} in pass {epoch + 1}{step} at learning rate "
        f"{config.rate:g}; try a lower rate, such as {config.rate / 10:g}, and look "
        "for features or weights of extreme size. Nothing of this pass was kept"
    )


def _rounds(train: ClickLog | Stream, most: int) -> int:
    """Number of rounds per pass; for a stream, a multiple of its windows."""
    if isinstance(train, Stream):
        return train.windows * -(-len(train) // (train.windows * most))
    return -(-len(train) // most)


def _round(
    train: ClickLog | Stream, key: list[int], number: int, rounds: int
) -> tuple[ClickLog, np.ndarray]:
    """The sessions of a round, and their row numbers; `key` identifies the pass."""
    if isinstance(train, Stream):
        window, piece = divmod(number, rounds // train.windows)
        log, rounds, number = train.read(window, key), rounds // train.windows, piece
        order = np.arange(len(log))
    else:
        log, order = train, np.random.default_rng(key).permutation(len(train))
    rows = np.array_split(order, rounds)[number]
    return log.take(rows), rows


class _Steps(keras.callbacks.Callback):
    """Reports trained sessions, and stops if the loss is not finite.

    Once a loss is NaN, Keras's running mean of the loss stays NaN.
    """

    def __init__(
        self,
        progress: Callable[[int], None],
        config: TrainingConfig,
        sessions: int,
        epoch: int,
    ):
        super().__init__()
        self.progress, self.config = progress, config
        self.sessions, self.pass_number = sessions, epoch
        self.done, self.steps = 0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            step = f", steps {self.steps + 1} to {batch + 1},"
            raise _diverged(f"loss {loss}", self.pass_number, step, self.config)
        self.steps = batch + 1
        done = min((batch + 1) * self.config.batch_size, self.sessions)
        self.progress(done - self.done)
        self.done = 0 if done == self.sessions else done


def _variables(model: ClickModel) -> list[Any]:
    """All variables that change in training, including generators of dropout."""
    return [*model.variables, *model.optimizer.variables]


def _write_checkpoint(
    path: Path, model: ClickModel, state: dict[str, Any], best: list[np.ndarray]
) -> None:
    arrays = {f"now{i}": np.asarray(v) for i, v in enumerate(_variables(model))}
    arrays |= {f"best{i}": value for i, value in enumerate(best)}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)  # type: ignore


def _restore(path: Path, model: ClickModel) -> tuple[dict[str, Any], list[np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file) as found:
            arrays = {name: found[name] for name in found.files}
        state = json.loads(str(arrays["state"]))
    except (BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: is damaged ({error}); remove it to start again"
        ) from error
    variables = _variables(model)
    stored = [value for name, value in arrays.items() if name.startswith("now")]
    if [v.shape for v in stored] != [tuple(v.shape) for v in variables]:
        raise ValueError(f"{path}: is the checkpoint of another model")
    for variable, value in zip(variables, stored, strict=True):
        variable.assign(value)
    return state, [v for name, v in arrays.items() if name.startswith("best")]
