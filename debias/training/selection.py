"""The choice of a model by held-out clicks."""

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from debias.data import ClickLog, RankingData, Stream
from debias.data.files import atomic_write
from debias.presets import PRESETS
from debias.training.config import TrainingConfig
from debias.training.fitting import (
    Diverged,
    Fitted,
    fit_prepared,
    session_log_likelihoods,
)
from debias.training.results import Printed
from debias.training.splits import ROW_GROUPS, Prepared, prepare

TRIAL = 100_000  # sessions that each candidate learns from
TRIAL_EPOCHS = 3
JUDGES = 50_000  # held-out sessions that candidates are judged by
CANDIDATES = tuple(name for name, each in PRESETS.items() if each.predicts_clicks)


@dataclass(frozen=True)
class Selected(Printed):
    """Which model was chosen, and its fit on all sessions.

    Attributes:
        choice: Which, why, and what every candidate got.
        fitted: The chosen model, trained on all that is not held out.
    """

    choice: "Choice"
    fitted: Fitted

    def sections(self) -> Any:
        yield "Candidates, on held-out clicks", self.choice.table
        yield from self.fitted.sections()

    def words(self) -> str:
        return f"{self.choice.name}: {self.choice.why}. {self.fitted.words()}"


def select(
    log: ClickLog | Stream,
    data: RankingData,
    *,
    candidates: Iterable[str] | None = None,
    config: TrainingConfig | None = None,
    preprocess: keras.layers.Layer | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
) -> Selected:
    """Tries every candidate at one budget, chooses by held-out clicks, and fits it.

    Args:
        log: Sessions, in memory or on disk.
        data: Features of the items as they come.
        candidates: Names of `debias.presets` that predict clicks, the simplest first;
            None: all of them.
        config: How long and how fast the chosen model learns.
        preprocess: As for `fit`.
        progress: Called with sessions done since the last call.

    Raises:
        ValueError: As `fit` does; a candidate is unknown or predicts no clicks; or none
            has a finite likelihood.
    """
    config = TrainingConfig() if config is None else config
    prepared = prepare(log, data, config.seed, preprocess)
    choice = try_all(prepared, config, candidates, progress=progress)
    return Selected(choice, fit_prepared(choice.name, prepared, config, None, progress))


def trial_sessions(prepared: Prepared, config: TrainingConfig, candidates: int) -> int:
    """Sessions that `try_all` learns from, passes and candidates counted."""
    learned = min(TRIAL, len(prepared.train.log))
    return candidates * config.passes(learned, TRIAL_EPOCHS) * learned


def try_all(
    prepared: Prepared,
    config: TrainingConfig,
    candidates: Iterable[str] | None = None,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda sessions: None,
) -> "Choice":
    """Fits every candidate at the same small budget; which to take.

    Args:
        prepared: Of `prepare`.
        config: Of the fit to come; its passes are cut to those of a trial.
        candidates: As for `select`.
        folder: Where each candidate's result is kept, to resume from; None: nowhere.
        progress: Called with sessions done since the last call.
    """
    names = list(CANDIDATES if candidates is None else candidates)
    for name in names:
        if name not in PRESETS or not PRESETS[name].predicts_clicks:
            raise ValueError(
                f"candidates must be some of {' '.join(CANDIDATES)}, got {name!r}"
            )
    trial = _sample(prepared, config.seed)
    sessions = len(trial.train.log)
    passes = config.passes(sessions, TRIAL_EPOCHS)
    # On a small log as many passes as a fit may take, else a few.
    budget = config if passes > TRIAL_EPOCHS else replace(config, epochs=passes)
    judges = trial.validation
    likelihoods = {}
    for name in names:
        done = None if folder is None else folder / f"{name}.npy"
        if done is not None and done.exists():
            progress(passes * sessions)
            likelihoods[name] = np.load(done)
            continue
        part = None if done is None else done.with_suffix(".npz")
        try:
            fitted = fit_prepared(name, trial, budget, part, progress)
            found = session_log_likelihoods(fitted.model, judges.log, judges.data)
            del fitted
        except Diverged:
            found = np.full(len(judges.log), np.nan)
        if done is not None and part is not None:
            with atomic_write(done) as aside, aside.open("wb") as file:
                np.save(file, found)
            part.unlink(missing_ok=True)
        likelihoods[name] = found
        keras.backend.clear_session()  # else the graphs of all would stay
        gc.collect()
    return choose(likelihoods, judges.log.query)


def _sample(prepared: Prepared, seed: int) -> Prepared:
    """At most `TRIAL` sessions to learn from and `JUDGES` to judge by, by lot."""
    rng = np.random.default_rng([seed, 1])
    learners, judges = prepared.train.log, prepared.validation.log
    if isinstance(learners, Stream):
        learners = learners.sample(TRIAL, [seed, 1], ROW_GROUPS)
    some, few = (
        log.take(np.sort(rng.permutation(len(log))[:most]))
        for log, most in ((learners, TRIAL), (judges, JUDGES))
    )
    train, validation = prepared.train, prepared.validation
    return prepared._replace(
        train=train._replace(log=some), validation=validation._replace(log=few)
    )


class Choice(NamedTuple):
    """Which candidate was chosen.

    Attributes:
        name: The candidate.
        why: In words.
        table: Of each candidate, its mean held-out log-likelihood a session, how far
            that lies below the best, and the standard error of that difference.
    """

    name: str
    why: str
    table: list[dict[str, Any]]


def choose(likelihoods: Mapping[str, np.ndarray], query: np.ndarray) -> Choice:
    """The simplest candidate within one standard error of the most likely.

    The difference d_s of two candidates' log-likelihoods of session s is paired; its
    mean has the standard error sqrt(G / (G - 1) sum_g e_g^2) / S, with e_g the sum of
    d_s - mean over the sessions of query g of G, for these depend on each other; where
    there is one query, over single sessions. The rule of one standard error: Breiman et
    al., Classification and Regression Trees, 1984, section 3.4.3.

    Args:
        likelihoods: (S,) held-out log-likelihoods by candidate, the simplest first.
        query: (S,) query of each session.

    A candidate whose likelihoods are not all finite is out, and `why` says so.

    Raises:
        ValueError: No candidate has finite likelihoods.

    >>> same = np.array([0.0, 0.1, -0.1, 0.0])
    >>> likelihoods = {"plain": -2 + same, "rich": -2 - same, "poor": same - 5}
    >>> choose(likelihoods, np.arange(4)).name
    'plain'
    """
    finite = {n: v for n, v in likelihoods.items() if np.isfinite(v).all()}
    out = [name for name in likelihoods if name not in finite]
    if not finite:
        raise ValueError(
            f"no candidate of {' '.join(likelihoods)} learned: every held-out "
            "likelihood is nan or infinite; try a lower rate"
        )
    means = {name: float(value.mean()) for name, value in finite.items()}
    best = max(means, key=lambda name: means[name])
    _, group = np.unique(query, return_inverse=True)
    group = group if group.max() > 0 else np.arange(len(query))
    table: list[dict[str, Any]] = []
    for name, value in finite.items():
        apart = np.asarray(finite[best] - value, dtype=float)
        sums = np.bincount(group, apart - apart.mean())
        error = np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(apart)
        below = float(apart.mean())
        row = {"model": name, "log_likelihood": means[name]}
        table.append({**row, "below_best": below, "standard_error": float(error)})
    near = [row for row in table if row["below_best"] <= row["standard_error"]]
    name = near[0]["model"]
    why = _why(name, best, near)
    if out:
        why += f"; {' '.join(out)} diverged and is out"
        empty = {"log_likelihood": None, "below_best": None, "standard_error": None}
        table += [{"model": each, **empty} for each in out]
    return Choice(name, why, table)


def _why(name: str, best: str, near: list[dict[str, Any]]) -> str:
    """The reason for `name`, given the candidates within one standard error."""
    if name == best:
        why = f"{name} makes held-out clicks most likely"
        if len(near) == 1:
            why += " and no simpler model comes within one standard error"
        return why
    return (
        f"{name} is the simplest within one standard error of {best}: "
        f"{near[0]['below_best']:.5f} nats a session below, error "
        f"{near[0]['standard_error']:.5f}"
    )
