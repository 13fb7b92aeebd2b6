"""Model selection by held-out clicks.

By default, candidates are compared by their rankings. All candidates are trained on a
small part of the log. The best two and the baseline are then trained on a larger part.
The chosen model is trained on the whole log. This method is successive halving:
Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
Optimization, AISTATS 2016.
"""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np

from debias.data import ClickLog, RankingData, Stream
from debias.data.files import atomic_write
from debias.data.text import one_of
from debias.engine.extras import installed, is_installed
from debias.metrics import item_log_likelihood
from debias.models import Ranker
from debias.models.trees import Trees, TreesConfig
from debias.presets import PRESETS, READS_TARGETS
from debias.training.choice import (
    BASELINE,
    BOOSTED,
    LEAST_FOR_TREES,
    LINEAR,
    RANKERS,
    TOWER,
    Choice,
    Verdict,
    choose,
    choose_ranking,
    compared_with_trees,
)
from debias.training.choice import verdict as judged
from debias.training.config import TrainingConfig
from debias.training.evaluation import evaluate, score_items
from debias.training.fitting import (
    Diverged,
    Fitted,
    fit_prepared,
    session_log_likelihoods,
)
from debias.training.results import Printed
from debias.training.splits import ROW_GROUPS, Part, Prepared, prepare
from debias.training.trees import FittedTrees, fit_trees, trial_trees

By = Literal["ranking", "clicks"]

RUNGS = (20_000, 60_000)  # training sessions of all, then of remaining candidates
REMAIN = 2
TRIAL = 100_000  # training sessions of candidates in a choice by clicks
TRIAL_EPOCHS = 3  # most passes in a choice by clicks
JUDGES = 50_000  # held-out sessions that compare candidates
STOPPED_BY = 8  # training sessions per session that decides early stopping
FEW_QUERIES = 200  # training queries, below which linear towers are candidates too

CHOSEN = tuple(name for name in PRESETS if name not in READS_TARGETS)
CANDIDATES = tuple(name for name in CHOSEN if PRESETS[name].predicts_clicks)
"""Candidates of a choice by clicks, the simplest first."""


@dataclass(frozen=True)
class Selected(Printed):
    """The chosen model and its fit on all sessions.

    Attributes:
        choice: Name of the chosen model, the reason, and the results of every
            candidate.
        fitted: The chosen model, trained on all sessions that are not held out; a
            result of `fit`, or of `fit_trees` if trees were chosen.
    """

    choice: Choice
    fitted: Fitted | FittedTrees

    @property
    def ranker(self) -> Ranker | Trees:
        """The ranker of the chosen model, which maps raw features to scores."""
        return self.fitted.ranker

    def sections(self) -> Any:
        yield "Candidates, on held-out clicks", self.choice.table
        yield from self.fitted.sections()

    def parts(self) -> Any:
        """Sections and figures of the fit and of its evaluation on held-out clicks."""
        found, figures = self.fitted.parts()
        judged, drawn = evaluate(self.fitted).parts()
        sections = [*self.sections(), *judged, *found[1:]]
        return sections, figures + drawn

    def words(self) -> str:
        name, why = self.choice.name, self.choice.why
        said = why if why.startswith(f"{name} ") else f"{name}: {why}"
        return f"{said}. {self.fitted.words()}"


def select(
    log: ClickLog | Stream,
    data: RankingData,
    *,
    by: By = "ranking",
    candidates: Iterable[str] | None = None,
    config: TrainingConfig | None = None,
    preprocess: keras.layers.Layer | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
) -> Selected:
    """Chooses a candidate model by held-out clicks, and fits it to the log.

    Args:
        log: Sessions, in memory or on disk.
        data: Raw features of the items.
        by: Criterion. "ranking" compares how models order items with equal examination;
            see `debias.training.choose_ranking`. "clicks" compares the click
            likelihood; use it if you need click probabilities.
        candidates: Names in `debias.presets`, in order of preference. None means the
            names from `debias.training.candidates_of`. If "trees" is one of them,
            `product` is a candidate, too.
        config: Settings of the training.
        preprocess: See `fit`. Trees do not use it, so with it they are no candidate by
            default, and must not be named.
        progress: Function that receives the number of sessions since its last call.

    Returns:
        A result with two attributes. `choice` has the reason and the results of every
        candidate, and `fitted` is a result of `fit`. `debias.evaluate` and
        `debias.export` also accept the whole result.

    Raises:
        ValueError: `fit` fails, a candidate is unknown, a candidate does not predict
            clicks although `by` is "clicks", or training diverged for every candidate.
        ModuleNotFoundError: `candidates` has trees, but the extra `trees` is not
            installed.
    """
    config = TrainingConfig.of(config)
    if candidates is not None:
        candidates = [candidates] if isinstance(candidates, str) else list(candidates)
        if preprocess is not None and {*BOOSTED} & {*candidates}:
            raise ValueError("trees do not use preprocess: leave out one of the two")
    prepared = prepare(log, data, config.seed, preprocess)
    if candidates is None and preprocess is not None:
        candidates = [n for n in candidates_of(prepared, by) if n not in BOOSTED]
    choice = try_all(prepared, config, candidates, by=by, progress=progress)
    if choice.name in BOOSTED:
        return Selected(choice, fit_trees(log, data, TreesConfig(seed=config.seed)))
    return Selected(choice, fit_prepared(choice.name, prepared, config, None, progress))


def candidates_of(prepared: Prepared, by: By = "ranking") -> tuple[str, ...]:
    """The candidates for a log, in order of preference.

    With fewer than `FEW_QUERIES` training queries, models with linear relevance come
    first, because towers overfit. Boosted trees come last, if the extra `trees` is
    installed, the log is in memory, whole queries are held out, and there are at least
    `LEAST_FOR_TREES` training sessions.
    """
    if by == "clicks":
        return CANDIDATES
    log = prepared.train.log
    if not isinstance(log, ClickLog):
        return RANKERS
    few = np.unique(log.query).size < FEW_QUERIES
    # On held-out sessions of known queries, trees could win by memory of the items.
    whole = prepared.held_out_by != "session" and len(log) >= LEAST_FOR_TREES
    grow = whole and is_installed("lightgbm")
    return (*(LINEAR if few else ()), *RANKERS, *(BOOSTED if grow else ()))


def trial_sessions(
    prepared: Prepared, config: TrainingConfig, by: By = "ranking"
) -> int:
    """Upper bound on the sessions that `try_all` trains on, over all passes."""
    count = sum(name not in BOOSTED for name in candidates_of(prepared, by))
    if by == "clicks":
        learned = min(TRIAL, len(prepared.train.log))
        return count * config.passes(learned, TRIAL_EPOCHS) * learned
    rungs = _rungs(len(prepared.train.log))
    each = [config.passes(sessions) * sessions for sessions in rungs]
    return sum(n * cost for n, cost in zip((count, REMAIN), each, strict=False))


def _rungs(sessions: int) -> tuple[int, ...]:
    """Numbers of training sessions; a single rung if a second would add little."""
    first, last = RUNGS
    return (sessions,) if sessions <= 2 * first else (first, min(last, sessions))


def try_all(
    prepared: Prepared,
    config: TrainingConfig,
    candidates: Iterable[str] | None = None,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
    by: By = "ranking",
) -> Choice:
    """Fits the candidates to parts of the log and returns the choice.

    Args:
        prepared: Result of `prepare`.
        config: Settings of the final fit.
        candidates: See `select`.
        folder: Folder that stores the verdict of each candidate, so that an interrupted
            choice can resume. None means that nothing is stored.
        progress: Function that receives the number of sessions since its last call.
        by: See `select`.
    """
    if by not in get_args(By):
        raise ValueError(one_of("by", get_args(By), by))
    if candidates is None:
        candidates = candidates_of(prepared, by)
    names = [candidates] if isinstance(candidates, str) else list(candidates)
    _check(names, by)
    most = TRIAL if by == "clicks" else RUNGS[-1]
    trial = _sample(prepared, config.seed, most)
    sessions, queries = len(trial.train.log), trial.validation.log.query
    if by == "clicks":
        passes = config.passes(sessions, TRIAL_EPOCHS)
        # On a small log, candidates may take as many passes as a fit; otherwise a few.
        budget = config if passes > TRIAL_EPOCHS else replace(config, epochs=passes)
        trying = _Trying(trial, budget, folder, progress)
        verdicts = {name: trying.verdict(name) for name in names}
        return choose({n: _likelihood(v) for n, v in verdicts.items()}, queries)
    grown = [name for name in names if name in BOOSTED]
    names = [name for name in names if name not in BOOSTED]
    # Rankings are compared with raw clicks, and trees with a tower.
    needed = (BASELINE, TOWER) if grown else (BASELINE,)
    names += [name for name in needed if name not in names]
    rungs = _rungs(len(prepared.train.log))
    table: list[dict[str, Any]] = []
    all_tried: tuple[_Trying, dict[str, Verdict], int] | None = None
    decides = None  # the first rung, with all candidates, determines the criterion
    for number, size in enumerate(rungs):
        rung = trial if size >= sessions else _sample(trial, config.seed, size)
        trying = _Trying(rung, config, folder, progress)
        verdicts = {name: trying.verdict(name) for name in names}
        choice = choose_ranking(verdicts, queries, decides, len(rung.train.log))
        decides = choice.by
        all_tried = all_tried or (trying, verdicts, len(rung.train.log))
        table = [{**row, "sessions_trained_on": size} for row in choice.table] + table
        if number + 1 < len(rungs):
            names = _remaining(names, choice)
    choice = choice._replace(table=table)
    assert all_tried is not None
    trying, verdicts, size = all_tried
    for name in grown:
        verdicts[name] = trying.verdict(name)
        choice = compared_with_trees(choice, verdicts, name, queries, size)
    return choice


def _remaining(names: list[str], choice: Choice) -> list[str]:
    """The best few candidates of a rung, in order of preference, and the baseline."""
    rows = choice.table
    if choice.by == "clicks":
        rows = [row for row in rows if row["log_likelihood"] is not None]
        rows.sort(key=lambda row: -row["log_likelihood"])
    order = [choice.name, *(row["model"] for row in rows)]
    best = list(dict.fromkeys(order))[:REMAIN]
    return [name for name in names if name in best or name == BASELINE]


def _check(names: list[str], by: By) -> None:
    known = CANDIDATES if by == "clicks" else (*CHOSEN, *BOOSTED)
    if not names:
        raise ValueError(f"candidates must be some of {' '.join(known)}, got none")
    for name in names:
        if name not in known:
            raise ValueError(
                f"candidates must be some of {' '.join(known)}, got {name!r}"
            )


def _likelihood(verdict: Verdict) -> np.ndarray:
    assert verdict.likelihood is not None
    return verdict.likelihood


@dataclass
class _Trying:
    """Fits candidates to a part of a log, and keeps their held-out results."""

    trial: Prepared
    config: TrainingConfig
    folder: Path | None
    progress: Callable[[int], None]

    def verdict(self, name: str) -> Verdict:
        """Held-out results of a candidate; NaN if its training diverged."""
        sessions = len(self.trial.train.log)
        done = None
        if self.folder is not None:
            done = self.folder / f"{name}-{sessions}.npz"
            if done.exists():
                self.progress(self.config.passes(sessions) * sessions)
                return _read(done)
        part = None if done is None else done.with_suffix(".part.npz")
        judges = self.trial.validation
        few = judges.log.take(np.arange(min(len(judges.log), sessions // STOPPED_BY)))
        short = self.trial._replace(validation=judges._replace(log=few))
        try:
            if name in BOOSTED:
                found = self._judge_trees(short.validation)
            else:
                fitted = fit_prepared(name, short, self.config, part, self.progress)
                found = self._judge(fitted)
                del fitted
        except Diverged:
            lost = judged(judges.log, np.zeros(judges.data.items), self._columns())
            nothing = np.full(len(judges.log), np.nan)
            predicts = name in BOOSTED or PRESETS[name].predicts_clicks
            likely = nothing if predicts else None
            found = Verdict(np.full(lost.pairs.shape, np.nan), lost.pairs, likely)
        if done is not None and part is not None:
            _write(done, found)
            part.unlink(missing_ok=True)
        keras.backend.clear_session()  # otherwise all graphs stay in memory
        gc.collect()
        return found

    def _judge(self, fitted: Fitted) -> Verdict:
        log, data = self.trial.validation
        likely = None
        if fitted.model.predicts_clicks:
            likely = session_log_likelihoods(fitted.model, log, data)
        scores = score_items(fitted.model.score, data.features)
        return judged(log, scores, self._columns(), likely)

    def _judge_trees(self, short: Part) -> Verdict:
        log, data = self.trial.validation
        train = self.trial.train
        assert isinstance(train.log, ClickLog)
        both = (log.device, train.log.device)
        devices = 1 + max(0 if d is None else int(d.max()) for d in both)
        lightgbm = installed("lightgbm", "trees")
        try:
            trees = trial_trees(train, short, devices, self.config.seed)
        except lightgbm.basic.LightGBMError as error:  # such as constant features
            raise Diverged(f"trees could not grow: {error}") from error
        logits = trees.place_logits(log, data.features)
        likely = item_log_likelihood(log.click, logits, log.mask).sum(axis=1)
        return judged(log, trees(data.features), self._columns(), likely)

    def _columns(self) -> tuple[str, ...]:
        """The layout columns that form strata, besides the rank."""
        return tuple(n for n in self.trial.layout.columns if n != "position")


def _write(path: Path, verdict: Verdict) -> None:
    arrays = {n: v for n, v in verdict._asdict().items() if v is not None}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Verdict:
    with np.load(path) as found:
        return Verdict(*(found.get(n) for n in Verdict._fields))


def _sample(prepared: Prepared, seed: int, most: int) -> Prepared:
    """Samples at most `most` training sessions and `JUDGES` validation sessions."""
    rng = np.random.default_rng([seed, 1])
    learners, judges = prepared.train.log, prepared.validation.log
    if isinstance(learners, Stream):
        learners = learners.sample(most, [seed, 1], ROW_GROUPS)
    some, few = (
        log.take(np.sort(rng.permutation(len(log))[:count]))
        for log, count in ((learners, most), (judges, JUDGES))
    )
    train, validation = prepared.train, prepared.validation
    return prepared._replace(
        train=train._replace(log=some), validation=validation._replace(log=few)
    )
