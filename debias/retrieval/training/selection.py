"""Which tower, how it reads a history, and after how many passes: by held-out users.

Each candidate learns from a log less the events held out of it, and is judged by NDCG
at 50 after every pass; the passes end where that has not risen for two of them. The
best candidate then learns from the whole log, with the passes that were best for it.
To each is added, at the weight that is best, a linear part: EASE in a few dimensions.

Rivals that take no gradient steps are tuned on the same events, so that one knows
whether a tower was worth it.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from debias.data.files import atomic_write
from debias.metrics.statistics import grouped_standard_error
from debias.retrieval.data.interactions import Interactions, leave_last_out, time_split
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import Ragged, owners
from debias.retrieval.data.trend import trend
from debias.retrieval.training.baselines import BASELINES, GRIDS, Scorer, taken, tuned
from debias.retrieval.training.evaluation import (
    dot_scores,
    ndcg_by_query,
    ranks,
    ranks_of_each,
)
from debias.retrieval.training.fitting import Diverged
from debias.retrieval.training.learner import (
    Learner,
    averaged,
    finish,
    learn,
    new_learner,
)
from debias.retrieval.training.linear import (
    DECAYS,
    STRENGTHS,
    WEIGHTS,
    Spectrum,
    ease_vectors,
    spectrum,
)
from debias.retrieval.training.recipe import TRENDS, Recipe
from debias.retrieval.training.repeating import fit_repeats

CUTOFF = 50
MAX_PASSES, PATIENCE = 8, 2
PERIOD = 0.1  # of the events, the least that the last period holds
USERS, LEAST = 10_000, 2_000  # judged at most, and of whatever catalogue
SCORES = 400_000_000  # users times items that one judgment takes, about
AN_EVENT = 5_000  # scores that take as long as learning from an event, about
PERIODS, ASKED = 5, 1000  # in which fashion has to last, and users asked in each
ADDED = ("linear", "trend")  # of a config, what a trial adds to a tower
ADDING = 3  # judgments that take as long as those of a trial's additions, about
EASE_ITEMS = 6_000  # with more, its inverses would take minutes


def _nothing(events: int) -> None:
    return


def _unsaid(text: str) -> None:
    return


class HeldOut(NamedTuple):
    """A log in two.

    Attributes:
        known: What candidates learn from.
        held: What they are judged by.
        rule: "last" or "period".
    """

    known: Interactions
    held: Interactions
    rule: str


def hold_out(log: Interactions, seed: int = 0) -> HeldOut:
    """Events to choose by: each user's last one, or the last period of baskets.

    Where most users with two events took the last two at the same time, they buy in
    baskets. What else was in the basket would then give the last event away, so the
    latest tenth of the log is held out instead, by users who were there before.

    Args:
        seed: Draws which of a user's latest events is the last, where several share
            the time.

    Raises:
        ValueError: No event can be held out.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u", "u", "v", "v"], ["i", "j", "i", "k"], [1, 2, 3, 4])
    >>> hold_out(log).rule, hold_out(log).held.time.tolist()
    ('last', [2, 4])
    >>> log = from_columns(["u"] * 4, ["i", "j", "i", "k"], [1, 1, 2, 2])
    >>> hold_out(log).rule, hold_out(log).held.time.tolist()
    ('period', [2, 2])
    """
    order, offsets = log.by_user()
    last = offsets[1:][np.diff(offsets) >= 2] - 1
    if not len(last):
        raise ValueError(
            "no user has two events, so none can be held out to choose or judge by: "
            "give one tower, one history and the passes (--model, --history, "
            "--epochs), and no --hold-out"
        )
    time = log.time[order]
    if (time[last] == time[last - 1]).mean() > 0.5:
        start = np.quantile(log.time, 1 - PERIOD, method="lower")
        if start == log.time.min():
            start = log.time.max()
        known, held = time_split(log, start)
        held = held.take(np.isin(held.user, known.user))
        if len(held):
            return HeldOut(known, held, "period")
    return HeldOut(*leave_last_out(log, seed=seed), "last")


class Judge(NamedTuple):
    """Held-out events, as questions to a scorer.

    Attributes:
        users: (Q,) rows of users.
        query: (E,) which of them each event is of.
        target: (E,) rows of items.
        seen: What each user took before, as `Interactions.seen` gives it.
        work: Of asking them all once: the events that training learns from meanwhile.
    """

    users: np.ndarray
    query: np.ndarray
    target: np.ndarray
    seen: Ragged
    work: int = 0

    def __call__(self, score: Scorer, repeat: Repeat) -> np.ndarray:
        """(Q,) the NDCG at 50 of each user, by a policy of repeats."""
        return self.worth(self.ranks(score, repeat))

    def ranks(self, score: Scorer, repeat: Repeat) -> np.ndarray:
        """(E,) the rank of each event's item."""
        rank, _ = ranks(
            lambda q: score(self.users[q]),
            self.query,
            self.target,
            self.seen,
            repeat=repeat,
        )
        return rank

    def ranks_of_each(self, score: "Scorers", repeats: Sequence[Repeat]) -> np.ndarray:
        """(R, E) the same of each of R scorers that share work."""
        return ranks_of_each(
            lambda q: score(self.users[q]), self.query, self.target, self.seen, repeats
        )

    def worth(self, rank: np.ndarray) -> np.ndarray:
        """(Q,) the NDCG at 50 of each user, by the ranks of events."""
        return ndcg_by_query(rank, self.query, CUTOFF, self.target)


def judge(held: HeldOut, most: int | None = None) -> Judge:
    """What held-out events ask; of more than `most` users some count, always those.

    Of a large catalogue fewer users are asked: `SCORES` in all, but `LEAST` users.
    """
    users, items = np.unique(held.held.user), len(held.known.items)
    most = most or min(USERS, max(LEAST, SCORES // max(items, 1)))
    if len(users) > most:
        users = np.sort(np.random.default_rng(0).choice(users, most, replace=False))
    inside = np.isin(held.held.user, users)
    query = np.searchsorted(users, held.held.user[inside])
    asked = users, query, held.held.item[inside], held.known.seen(users)
    return Judge(*asked, len(users) * items // AN_EVENT)


def scorer(learner: Learner) -> Scorer:
    """Scores users, as of the end of the learner's log, over its catalogue.

    Where repeats are modelled, a linear part does not count for what was taken.
    """
    served, items = learner.served, learner.item_vectors()
    linear = getattr(served, "linear", 0) if learner.config.repeat == "model" else 0

    def score(rows: np.ndarray) -> np.ndarray:
        users = served.user_vectors(learner.user_features(rows))
        scores = dot_scores(users, items)
        own = Repeat("model", linear=linear)
        own.own_scores(scores, users, items, learner.log.seen(rows))
        return scores

    return score


Scorers = Callable[[np.ndarray], Iterable[np.ndarray]]  # of users, matrices of scores
Addition = tuple[float, np.ndarray | None]  # weight of a linear part, and a prior


def scorers(learner: Learner, added: Sequence[Addition]) -> Scorers:
    """Scores with several additions; tower and linear part are multiplied out once.

    Args:
        learner: Its `extra` is a linear part of weight 1 and no trend; or None.
        added: For each matrix of scores, the weight of that linear part, and what is
            added to the score of each item, (items,) or None.
    """
    served, items = learner.served, learner.item_vectors()
    size = 0 if learner.extra is None else learner.extra.items.shape[1]
    own, extra = np.split(items, [items.shape[1] - size], axis=1)

    def score(users: np.ndarray) -> Iterator[np.ndarray]:
        vectors = served.user_vectors(learner.user_features(users))
        first = vectors[:, 0] if vectors.ndim == 3 else vectors
        tower = dot_scores(vectors[..., : own.shape[1]], own)
        linear = first[:, own.shape[1] :] @ extra.T if size else None
        if linear is not None and learner.config.repeat == "model":
            rows, offsets = learner.log.seen(users)
            linear[owners(offsets), rows] = 0.0  # as `Repeat.own_scores` has it
        for weight, prior in added:
            scores = tower.copy() if linear is None else tower + weight * linear
            yield scores if prior is None else np.add(scores, prior, out=scores)

    return score


class Trial(NamedTuple):
    """A candidate and its judgment; all fields but the last are plain values.

    Attributes:
        recipe: Its settings.
        passes: How many were best; at least 1.
        curve: NDCG at 50 after each pass.
        values: (users,) NDCG at 50 of each held-out user after the best pass.
    """

    recipe: Recipe
    passes: int
    curve: list[float]
    values: np.ndarray


def trial(
    recipe: Recipe,
    held: HeldOut,
    passes: int | None = None,
    progress: Callable[[int], None] = _nothing,
    parts: "Parts | None" = None,
) -> Trial:
    """How well a candidate does on what was held out.

    Args:
        recipe: Its settings.
        held: What to learn from, and what to be judged by.
        passes: How many; None: as many as are best, at most `MAX_PASSES`.
        progress: Called with the number of events that are done, or with the work of
            a judgment.
        parts: What `parts_of` gives, where it is known; None: it is asked.
    """
    asked, parts = judge(held), parts or parts_of(held)
    recipe = recipe._replace(config={**recipe.config, **dict.fromkeys(ADDED)})
    learner = new_learner(recipe.build(), held.known, recipe.training_config())
    best, curve = Trial(recipe, 0, [], np.array([-1.0])), []
    for number in range(1, (passes or MAX_PASSES) + 1):
        learn(learner, progress=progress)
        if passes and number < passes:
            continue
        with averaged(learner):
            values = asked.worth(_ranks(learner, held, asked, [(0.0, None)])[0])
            progress(asked.work)
            curve.append(float(values.mean()))
            if curve[-1] > best.values.mean():
                best = Trial(recipe, number, curve, values)
                weights = learner.model.get_weights()
        if number - best.passes >= PATIENCE:
            break
    learner.model.set_weights(weights)
    learner.config = learner.config._replace(linear=(1.0, *parts.linear))
    learner.add_extra(parts.spectrum)
    best = _with_linear(best, learner, held, asked, parts)
    best = _with_trend(best, learner, held, asked, parts)
    progress(ADDING * asked.work)
    return best


def _ranks(
    learner: Learner, held: HeldOut, asked: Judge, added: Sequence[Addition]
) -> np.ndarray:
    """(R, E) ranks with each addition, and the policy of repeats that suits it."""
    score = scorers(learner, added)
    return asked.ranks_of_each(score, policies(score, learner, held, len(added)))


def policies(
    score: Scorers, learner: Learner, held: HeldOut, count: int
) -> list[Repeat]:
    """The policies of repeats of scorers, with weights that fit what was held out."""
    name = learner.config.repeat
    if name != "model":
        return [Repeat(name)] * count
    return fit_repeats(score, held.known, held.held, learner.model.temperature)


class Parts(NamedTuple):
    """What trials may add to a tower, found once for all of them.

    Attributes:
        spectrum: Of the log to learn from.
        linear: The best regularisation and decay of a linear part by itself.
        trends: What `lasting_trends` gives.
    """

    spectrum: Spectrum
    linear: tuple[float, float]
    trends: list[tuple[float, float]]


def parts_of(held: HeldOut, progress: Callable[[int], None] = _nothing) -> Parts:
    """The linear part and the trends that suit a log."""
    of, values_of = spectrum(held.known), judge(held)

    def worth(strength: float, decay: float) -> float:
        past, items = ease_vectors(of, strength)
        asked = taken(held.known, decay)
        values = values_of(lambda users: (asked[users] @ past) @ items.T, Repeat())
        progress(values_of.work)
        return float(values.mean())

    strength = max(STRENGTHS, key=lambda each: worth(each, DECAYS[0]))
    decay = max(DECAYS, key=lambda each: worth(strength, each))
    return Parts(of, (strength, decay), lasting_trends(held.known))


def _with_linear(
    best: Trial, learner: Learner, held: HeldOut, asked: Judge, parts: Parts
) -> Trial:
    """The trial with the linear part at its best weight, 0 among them.

    Adding it costs no training. The learner has it at weight 1.
    """
    if not len(parts.spectrum.values):
        return best
    found = _ranks(learner, held, asked, [(weight, None) for weight in WEIGHTS])
    for weight, rank in zip(WEIGHTS, found, strict=True):
        values = asked.worth(rank)
        if values.mean() > best.values.mean():
            config = {**best.recipe.config, "linear": (weight, *parts.linear)}
            recipe = best.recipe._replace(config=config)
            best = best._replace(recipe=recipe, values=values)
    return best


def _with_trend(
    best: Trial, learner: Learner, held: HeldOut, asked: Judge, parts: Parts
) -> Trial:
    """The trial with the best of some trends, if it helps by more than chance.

    Adding it to the scores costs no training. What is in fashion is drawn by items, not
    by users: one best seller of the held-out days would move thousands of users at
    once. So the gain has to exceed two standard errors with items as units.
    """
    if not parts.trends:
        return best
    linear = best.recipe.config["linear"]
    weight = linear[0] if linear else 0.0
    priors = [learner.trend_prior(tried) for tried in parts.trends]
    added = [(weight, prior) for prior in (None, *priors)]
    before, *found = _ranks(learner, held, asked, added)
    for tried, after in zip(parts.trends, found, strict=True):
        gain = _gain(after) - _gain(before)
        error = grouped_standard_error(gain, asked.target)
        values = asked.worth(after)
        lasts = error > 0 and gain.mean() > 2 * error
        if lasts and values.mean() > best.values.mean():
            config = {**best.recipe.config, "trend": tried}
            recipe = best.recipe._replace(config=config)
            best = best._replace(recipe=recipe, values=values)
    return best


def lasting_trends(log: Interactions) -> list[tuple[float, float]]:
    """Those of `TRENDS` that lasted in earlier periods; the same for all trials."""
    return [tried for tried in TRENDS if fashion_lasts(log, *tried)]


def fashion_lasts(log: Interactions, weight: float, share: float) -> bool:
    """Whether what came into fashion was still bought in the period that followed.

    The latter half of the log is cut into periods of a tenth. Before each, items are
    ordered by popularity alone, and by popularity and `trend`. The mean gain in DCG at
    50 has to exceed two standard errors over the periods: a holiday is one of them.

    Args:
        log: What users took; nothing is learned from it.
        weight, share: Of the trend.
    """
    gains = []
    cuts = np.quantile(log.time, np.linspace(0.5, 1.0, PERIODS + 1))
    for start, stop in pairwise(cuts):
        known, later = time_split(log, start)
        inside = (later.time <= stop) & np.isin(later.user, known.user)
        if not len(known) or inside.sum() < PERIODS:
            continue
        asked = judge(HeldOut(known, later.take(inside), "period"), ASKED)
        often = np.log(known.popularity() + 1.0)
        late = often + weight * trend(known, share)
        plain, moved = (asked.ranks(_same(s), Repeat()) for s in (often, late))
        gains.append(float(np.mean(_gain(moved) - _gain(plain))))
    if len(gains) < 3:
        return False
    return bool(np.mean(gains) > 2 * np.std(gains, ddof=1) / np.sqrt(len(gains)))


def _same(scores: np.ndarray) -> Scorer:
    """The same scores (items,) for every user."""
    return lambda users: np.tile(scores, (len(users), 1))


def _gain(rank: np.ndarray) -> np.ndarray:
    """What each rank adds to a DCG at 50."""
    return np.where(rank <= CUTOFF, 1 / np.log2(1 + rank), 0.0)


def rivals(
    held: HeldOut,
    repeat: str = "exclude",
    progress: Callable[[int], None] = _nothing,
) -> Iterator[tuple[str, dict[str, float], np.ndarray]]:
    """Each baseline at its best settings: name, settings, and values as of a trial.

    Their scores have no units for a bonus: unless repeats are excluded, they compete.
    """
    of, plain = judge(held), Repeat("exclude" if repeat == "exclude" else "allow")

    def values_of(score: Scorer) -> np.ndarray:
        progress(of.work)
        return of(score, plain)

    for name in compared(len(held.known.items), repeat):
        best = tuned(name, held.known, lambda score: float(values_of(score).mean()))
        yield name, best.settings, values_of(best.fit(held.known))


def compared(items: int, repeat: str) -> list[str]:
    """The baselines that a catalogue and a policy of repeats allow."""
    left_out = {
        "ease": items > EASE_ITEMS,
        "own_repeats": repeat == "exclude",  # what is left of it is popularity
    }
    return [name for name in BASELINES if not left_out.get(name, False)]


def row(name: str, values: np.ndarray, **more: Any) -> dict[str, Any]:
    """A row of a choice: the mean over users and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"name": name, "ndcg@50": float(values.mean()), "se": float(error), **more}


class Choice(NamedTuple):
    """What `select` found out; plain values, but for the recipe.

    Attributes:
        recipe: The best candidate.
        passes: How many were best for it.
        rule: Of `HeldOut`.
        users: Held-out users that judged.
        trials: A row a candidate, as `row` makes it, in falling order.
        rivals: A row a baseline, with "ahead", its NDCG less that of the best
            candidate, and "ahead_se", the standard error by paired users.
    """

    recipe: Recipe
    passes: int
    rule: str
    users: int
    trials: list[dict[str, Any]]
    rivals: list[dict[str, Any]]

    @property
    def beaten_by(self) -> list[str]:
        """Baselines that are ahead of the best candidate."""
        return [each["name"] for each in self.rivals if each["ahead"] > 0]


def work(
    log: Interactions, recipes: Sequence[Recipe], passes: int | None, compare: bool
) -> int:
    """What `select` has to do, about: events to learn from, and judgments as events."""
    users, items = len(np.unique(log.user)), len(log.items)
    once = min(users, USERS, max(LEAST, SCORES // max(items, 1))) * items // AN_EVENT
    judgments = len(STRENGTHS) + len(DECAYS)
    for name in compared(items, recipes[0].training_config().repeat) if compare else ():
        judgments += 1 + (sum(map(len, GRIDS[name].values())) or 1)
    trials = len(recipes) * _trial_work(len(log), once, passes)
    return judgments * once + trials


def _trial_work(events: int, once: int, passes: int | None) -> int:
    """The most that a trial takes, where a judgment is worth `once` events."""
    judged = ADDING + (1 if passes else MAX_PASSES)
    return (passes or MAX_PASSES) * events + judged * once


class _Meter:
    """Hands progress on and adds it up."""

    def __init__(self, progress: Callable[[int], None]):
        self.progress, self.done = progress, 0

    def __call__(self, events: int) -> None:
        self.done += events
        self.progress(events)


def select(
    log: Interactions,
    recipes: Sequence[Recipe],
    passes: int | None = None,
    compare: bool = True,
    keep: str | Path | None = None,
    progress: Callable[[int], None] = _nothing,
    at: Callable[[str], None] = _unsaid,
) -> Choice:
    """Chooses among recipes by events held out of a log.

    Args:
        log: What users took.
        recipes: The candidates, as `debias.retrieval.training.recipe.candidates` gives
            them.
        passes: How many each makes; None: as many as are best for it.
        compare: Whether baselines are tuned and compared as well.
        keep: A folder in which each candidate's trial is kept, so that a choice that
            was interrupted goes on from the last; None: nowhere. For one log and one
            set of candidates.
        progress: Called with the number of events that are done, or with work that
            takes as long as they: as much, in all, as `work` says.
        at: Called with a name of each part of the work when it begins.

    Raises:
        ValueError: No event can be held out, or there is no candidate.
    """
    if not recipes:
        raise ValueError("recipes must hold at least one candidate, got none")
    held = hold_out(log)
    parts = parts_of(held, progress)
    trials: list[Trial] = []
    each = _trial_work(len(held.known), judge(held).work, passes)
    diverged: Diverged | None = None
    for number, recipe in enumerate(recipes):
        path = None if keep is None else Path(keep) / f"{number}.npz"
        if path is not None and path.exists():
            trials.append(_read(path, recipe))
            progress(each)
            continue
        meter = _Meter(progress)
        how = f"{recipe.tower} {recipe.history or ''}".strip()
        at(f"{number + 1} of {len(recipes)}, {how}")
        try:
            trials.append(trial(recipe, held, passes, meter, parts))
        except Diverged as error:
            warnings.warn(
                f"{recipe.tower} with history {recipe.history} is left out of the "
                f"choice: {error}",
                stacklevel=2,
            )
            diverged = error
            continue
        finally:
            progress(max(each - meter.done, 0))  # of passes that were not needed
        if path is not None:
            _write(path, trials[-1])
    if not trials:
        assert diverged is not None
        raise diverged
    # Of equal ones the first: `sorted` keeps their order.
    trials = sorted(trials, key=lambda each: -float(each.values.mean()))
    best, rows = trials[0], []
    if compare:
        at("baselines")
        repeat = best.recipe.training_config().repeat
        for name, settings, values in rivals(held, repeat, progress):
            ahead = row(name, values - best.values)
            more = {"ahead": ahead["ndcg@50"], "ahead_se": ahead["se"]}
            rows.append(row(name, values, settings=settings, **more))
    tried = [row(t.recipe.tower, t.values, **_facts(t)) for t in trials]
    return Choice(best.recipe, best.passes, held.rule, len(best.values), tried, rows)


def _write(path: Path, trial: Trial) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    added = {name: trial.recipe.config.get(name) or () for name in ADDED}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            passes=np.array(trial.passes),
            curve=np.array(trial.curve),
            values=trial.values,
            **{name: np.array(value) for name, value in added.items()},  # type: ignore
        )


def _read(path: Path, recipe: Recipe) -> Trial:
    try:
        with np.load(path) as held:
            passes, curve = int(held["passes"]), held["curve"].tolist()
            values = held["values"]
            added = {name: tuple(held[name].tolist()) or None for name in ADDED}
    except Exception as error:  # of zipfile and NumPy
        raise ValueError(f"{path}: is damaged: {error}; remove it") from error
    config = {**recipe.config, **added}
    return Trial(recipe._replace(config=config), passes, curve, values)


def _facts(trial: Trial) -> dict[str, Any]:
    """What tells the rows of a choice apart."""
    recipe = trial.recipe
    linear, trend = (recipe.config.get(name) for name in ADDED)
    return {
        "history": recipe.history,
        "linear": linear and linear[0],
        "trend": trend,
        "passes": trial.passes,
    }


def trained(
    log: Interactions,
    recipe: Recipe,
    passes: int,
    progress: Callable[[int], None] = _nothing,
) -> Learner:
    """A learner that has learned from a whole log and holds its averaged weights."""
    learner = new_learner(recipe.build(), log, recipe.training_config())
    for _ in range(passes):  # one by one, as in a trial and in a run that may resume
        learn(learner, progress=progress)
    finish(learner)
    return learner
