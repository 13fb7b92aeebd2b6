"""Chooses the tower, history and number of passes by held-out events.

Each candidate is trained without the held-out events and evaluated by NDCG at 50 after
every pass. Training of a candidate stops when NDCG has not risen for two passes. Each
candidate then gets a linear part, which is low-rank EASE, with the best weight.
Finally, the best candidate is trained on the whole log with its best number of passes.

Baselines that need no gradient steps are tuned on the same events, to show whether a
tower is better than the baselines.
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
    POWERS,
    RANK,
    STRENGTHS,
    WEIGHTS,
    WIDE,
    Spectrum,
    ease_vectors,
    spectrum,
)
from debias.retrieval.training.recipe import TRENDS, Recipe
from debias.retrieval.training.repeating import fit_repeats

CUTOFF = 50
MAX_PASSES, PATIENCE = 12, 2
PERIOD = 0.1  # smallest share of the events in the last period
USERS, LEAST = 10_000, 2_000  # most users evaluated, and their minimum
SCORES = 400_000_000  # scores (users times items) of an evaluation, about
AN_EVENT = 5_000  # scores that take about as long as training on an event
PERIODS, ASKED = 5, 1000  # periods in which a trend has to help, and users of each
ADDED = ("linear", "trend")  # additions to a tower in a configuration
ADDING = 4  # cost of trying additions to a trial, in evaluations
EASE_ITEMS = 6_000  # with more items, the inverse in EASE would take minutes


class HeldOut(NamedTuple):
    """A log that is split into known and held-out events.

    Attributes:
        known: Training events of the candidates.
        held: Held-out events.
        rule: What is held out: the "last" events of users, or the last "period".
    """

    known: Interactions
    held: Interactions
    rule: str


def hold_out(log: Interactions) -> HeldOut:
    """Holds out events for selection: each user's last event, or the last period.

    If most users with at least two events took their last two items at the same time,
    the log consists of baskets. The rest of a basket would reveal its last item. So for
    baskets, the events in the latest tenth of the log are held out instead, for users
    with earlier events.

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
            "no user has two events, so no event can be held out: give one tower, one "
            "history and the passes (--model, --history, --epochs), without --hold-out"
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
    return HeldOut(*leave_last_out(log), "last")


class Judge(NamedTuple):
    """Evaluates scorers on held-out events.

    Attributes:
        users: (Q,) rows of users.
        query: (E,) user of each event, as an index into `users`.
        target: (E,) rows of items.
        seen: (rows, offsets) of the items that each user took before, from
            `Interactions.seen`.
        work: Time of one evaluation, expressed as the number of training events that
            take the same time.
    """

    users: np.ndarray
    query: np.ndarray
    target: np.ndarray
    seen: Ragged
    work: int = 0

    def __call__(self, score: Scorer, repeat: Repeat) -> np.ndarray:
        """(Q,) NDCG at 50 of each user, under a policy of repeats."""
        return self.worth(self.ranks(score, repeat))

    def ranks(self, score: Scorer, repeat: Repeat) -> np.ndarray:
        """(E,) rank of the held-out item of each event."""
        rank, _ = ranks(
            lambda q: score(self.users[q]),
            self.query,
            self.target,
            self.seen,
            repeat=repeat,
        )
        return rank

    def ranks_of_each(self, score: "Scorers", repeats: Sequence[Repeat]) -> np.ndarray:
        """(R, E) ranks by R scorers that share computations."""
        return ranks_of_each(
            lambda q: score(self.users[q]), self.query, self.target, self.seen, repeats
        )

    def worth(self, rank: np.ndarray) -> np.ndarray:
        """(Q,) NDCG at 50 of each user, from the ranks of events."""
        return ndcg_by_query(rank, self.query, CUTOFF, self.target)


def judge(held: HeldOut, most: int | None = None) -> Judge:
    """Makes a judge from held-out events, with a fixed sample of at most `most` users.

    If `most` is None, the sample has at most `USERS` users. For a large catalogue, the
    sample has fewer users, but at least `LEAST`, so that there are about `SCORES`
    scores in total.
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
    """Scorer of a learner, which scores all items for users at the end of the log.

    With the policy "model", the linear part does not score items taken before.
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


Scorers = Callable[[np.ndarray], Iterable[np.ndarray]]  # from users to score matrices
Addition = tuple[float, np.ndarray | None]  # weight of a linear part, and a prior


def scorers(learner: Learner, added: Sequence[Addition]) -> Scorers:
    """Yields scores with several additions, but computes the tower's products once.

    Args:
        learner: A learner whose `extra` is None, or has only a linear part with weight
            1.
        added: For each matrix of scores, the weight of the linear part, and a term
            (items,) to add to the scores. If the term is None, no term is added.
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
            linear[owners(offsets), rows] = 0.0  # as in `Repeat.own_scores`
        for weight, prior in added:
            scores = tower.copy() if linear is None else tower + weight * linear
            yield scores if prior is None else np.add(scores, prior, out=scores)

    return score


class Trial(NamedTuple):
    """A candidate and its evaluation.

    Attributes:
        recipe: Settings of the candidate.
        passes: Best number of passes, at least 1.
        curve: NDCG at 50 after each pass.
        values: (users,) NDCG at 50 of each held-out user after the best pass, with the
            chosen linear part and trend.
        repeat: The policy of repeats, with weights fitted to the held-out events.
    """

    recipe: Recipe
    passes: int
    curve: list[float]
    values: np.ndarray
    repeat: Repeat = Repeat()


def trial(
    recipe: Recipe,
    held: HeldOut,
    passes: int | None = None,
    progress: Callable[[int], None] = lambda events: None,
    parts: "Parts | None" = None,
) -> Trial:
    """Trains a candidate and evaluates it on held-out events.

    Args:
        recipe: Settings of the candidate.
        held: Training and held-out events.
        passes: Number of passes. If None, the best number is chosen, at most
            `MAX_PASSES`.
        progress: Function that is called with the number of events used for training
            since its last call, or with the work of an evaluation.
        parts: Result of `parts_of`. If None, it is computed.
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
            ((rank, repeat),) = _ranks(learner, held, asked, [(0.0, None)])
            values = asked.worth(rank)
            progress(asked.work)
            curve.append(float(values.mean()))
            if curve[-1] > best.values.mean():
                best = Trial(recipe, number, curve, values, repeat)
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
) -> list[tuple[np.ndarray, Repeat]]:
    """For each addition, ranks (E,) and the policy of repeats fitted to the scores."""
    score = scorers(learner, added)
    repeats = policies(score, learner, held, len(added))
    return list(zip(asked.ranks_of_each(score, repeats), repeats, strict=True))


def policies(
    score: Scorers, learner: Learner, held: HeldOut, count: int
) -> list[Repeat]:
    """The policy of repeats for each scorer, with weights fitted to held-out events."""
    name = learner.config.repeat
    if name != "model":
        return [Repeat(name)] * count
    return fit_repeats(score, held.known, held.held, learner.model.temperature)


class Parts(NamedTuple):
    """Possible additions to a tower, which are computed once for all trials.

    Attributes:
        spectrum: Eigenvectors of the items of the training log, with the best
            power and rank.
        linear: Regularisation, decay, power and rank of the best linear part without a
            tower.
        trends: Result of `lasting_trends`.
    """

    spectrum: Spectrum
    linear: tuple[float, float, float, int]
    trends: list[tuple[float, float]]


def parts_of(
    held: HeldOut, progress: Callable[[int], None] = lambda events: None
) -> Parts:
    """Chooses the linear part and the trends that may be added to a tower.

    Columns are divided by a power of their counts if the gain in DCG at 50 exceeds two
    standard errors. The rank is raised to `WIDE` if this change also gains more than
    two standard errors. The standard error treats items as independent units.
    """
    asked = judge(held)

    def ranks_of(of: Spectrum, strength: float, decay: float) -> np.ndarray:
        past, items = ease_vectors(of, strength)
        known = taken(held.known, decay)
        progress(asked.work)
        return asked.ranks(lambda users: (known[users] @ past) @ items.T, Repeat())

    def value(rank: np.ndarray) -> float:
        return float(asked.worth(rank).mean())

    best: tuple[float, Spectrum, float, np.ndarray] | None = None
    for power in POWERS:
        of = spectrum(held.known, RANK, power)
        tried = {each: ranks_of(of, each, DECAYS[0]) for each in STRENGTHS}
        strength = max(STRENGTHS, key=lambda each: value(tried[each]))
        if best is None or _surely_gains(best[-1], tried[strength], asked):
            best = power, of, strength, tried[strength]
    assert best is not None
    power, of, strength, before = best
    wide, rank = spectrum(held.known, WIDE, power), RANK
    if len(wide.values) > len(of.values):
        after = ranks_of(wide, strength, DECAYS[0])
        if _surely_gains(before, after, asked):
            of, rank = wide, WIDE
    decay = max(DECAYS, key=lambda each: value(ranks_of(of, strength, each)))
    return Parts(of, (strength, decay, power, rank), lasting_trends(held.known))


def _surely_gains(before: np.ndarray, after: np.ndarray, asked: Judge) -> bool:
    """Whether the gain exceeds two standard errors, with items as the units."""
    gain = _gain(after) - _gain(before)
    error = grouped_standard_error(gain, asked.target)
    return bool(error > 0 and gain.mean() > 2 * error)


def _with_linear(
    best: Trial, learner: Learner, held: HeldOut, asked: Judge, parts: Parts
) -> Trial:
    """The trial with the linear part at the best weight, which may be 0.

    Adding the linear part needs no training. The learner has the linear part with
    weight 1.
    """
    if not len(parts.spectrum.values):
        return best
    found = _ranks(learner, held, asked, [(weight, None) for weight in WEIGHTS])
    for weight, (rank, repeat) in zip(WEIGHTS, found, strict=True):
        values = asked.worth(rank)
        if values.mean() > best.values.mean():
            config = {**best.recipe.config, "linear": (weight, *parts.linear)}
            recipe = best.recipe._replace(config=config)
            best = best._replace(recipe=recipe, values=values, repeat=repeat)
    return best


def _with_trend(
    best: Trial, learner: Learner, held: HeldOut, asked: Judge, parts: Parts
) -> Trial:
    """Adds the best trend to the trial, if its gain is statistically significant.

    Adding a trend to the scores needs no training. Trends affect items, not users: one
    best seller of the held-out days would change the ranks of thousands of users at
    once. So the gain must exceed two standard errors, with items as the units.
    """
    if not parts.trends:
        return best
    linear = best.recipe.config["linear"]
    weight = linear[0] if linear else 0.0
    priors = [learner.trend_prior(tried) for tried in parts.trends]
    added = [(weight, prior) for prior in (None, *priors)]
    (before, _), *found = _ranks(learner, held, asked, added)
    for tried, (after, repeat) in zip(parts.trends, found, strict=True):
        values = asked.worth(after)
        lasts = _surely_gains(before, after, asked)
        if lasts and values.mean() > best.values.mean():
            config = {**best.recipe.config, "trend": tried}
            recipe = best.recipe._replace(config=config)
            best = best._replace(recipe=recipe, values=values, repeat=repeat)
    return best


def lasting_trends(log: Interactions) -> list[tuple[float, float]]:
    """The `TRENDS` for which `fashion_lasts` is true; all trials use the same list."""
    return [tried for tried in TRENDS if fashion_lasts(log, *tried)]


def fashion_lasts(log: Interactions, weight: float, share: float) -> bool:
    """Whether the trend before a period improves the ranking in this period.

    The second half of the log is divided into periods, each with a tenth of the events.
    For each period, items are ordered by earlier popularity, with and without `trend`.
    The mean gain in DCG at 50 must exceed two standard errors. The standard error
    treats periods as independent units, because a holiday affects a whole period.

    Args:
        log: Events, on which no model is trained.
        weight, share: Weight and share of the trend.
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
    """Gives every user the same scores (items,)."""
    return lambda users: np.tile(scores, (len(users), 1))


def _gain(rank: np.ndarray) -> np.ndarray:
    """The contribution of each rank to DCG at 50."""
    return np.where(rank <= CUTOFF, 1 / np.log2(1 + rank), 0.0)


def rivals(
    held: HeldOut,
    repeat: str = "exclude",
    progress: Callable[[int], None] = lambda events: None,
) -> Iterator[tuple[str, dict[str, float], np.ndarray]]:
    """Yields each baseline's name, best settings, and NDCG at 50 of each user.

    The scores of baselines are not logits, so baselines have no bonus for repeats.
    Items taken before are excluded if `repeat` is "exclude"; otherwise, they are ranked
    by their scores.
    """
    of, plain = judge(held), Repeat("exclude" if repeat == "exclude" else "allow")

    def values_of(score: Scorer) -> np.ndarray:
        progress(of.work)
        return of(score, plain)

    for name in compared(len(held.known.items), repeat):
        best = tuned(name, held.known, lambda score: float(values_of(score).mean()))
        yield name, best.settings, values_of(best.fit(held.known))


def compared(items: int, repeat: str) -> list[str]:
    """The baselines for a catalogue with `items` items and a policy of repeats."""
    left_out = {
        "ease": items > EASE_ITEMS,
        "own_repeats": repeat == "exclude",  # popularity remains
    }
    return [name for name in BASELINES if not left_out.get(name, False)]


def row(name: str, values: np.ndarray, **more: Any) -> dict[str, Any]:
    """A row of a choice: a name, the mean over users, and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"name": name, "ndcg@50": float(values.mean()), "se": float(error), **more}


class Choice(NamedTuple):
    """The result of `select`, as plain values except for the recipe.

    Attributes:
        recipe: The best candidate.
        passes: Best number of passes of the best candidate.
        rule: The `rule` of `HeldOut`.
        users: Number of users in the evaluation.
        trials: One result of `row` per candidate, in order of decreasing NDCG.
        rivals: One result of `row` per baseline. "ahead" is the NDCG of the baseline
            minus the NDCG of the best candidate. "ahead_se" is the standard error of
            this difference, paired by user.
        repeat: Policy of repeats of the best candidate, from `Repeat._asdict`, with
            weights fitted to the held-out events.
    """

    recipe: Recipe
    passes: int
    rule: str
    users: int
    trials: list[dict[str, Any]]
    rivals: list[dict[str, Any]]
    repeat: dict[str, Any]

    @property
    def beaten_by(self) -> list[str]:
        """Names of the baselines with a higher NDCG than the best candidate."""
        return [each["name"] for each in self.rivals if each["ahead"] > 0]


def work(
    log: Interactions, recipes: Sequence[Recipe], passes: int | None, compare: bool
) -> int:
    """Approximate cost of `select` with its evaluations; one training event costs 1."""
    users, items = len(np.unique(log.user)), len(log.items)
    once = min(users, USERS, max(LEAST, SCORES // max(items, 1))) * items // AN_EVENT
    judgments = len(POWERS) * len(STRENGTHS) + 1 + len(DECAYS)
    for name in compared(items, recipes[0].training_config().repeat) if compare else ():
        judgments += 1 + (sum(map(len, GRIDS[name].values())) or 1)
    trials = len(recipes) * _trial_work(len(log), once, passes)
    return judgments * once + trials


def _trial_work(events: int, once: int, passes: int | None) -> int:
    """Upper bound on the work of a trial; an evaluation counts as `once` events."""
    judged = ADDING + (1 if passes else MAX_PASSES)
    return (passes or MAX_PASSES) * events + judged * once


class _Meter:
    """Forwards progress and counts the total."""

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
    progress: Callable[[int], None] = lambda events: None,
    at: Callable[[str], None] = lambda part: None,
) -> Choice:
    """Chooses among recipes by held-out events.

    Args:
        log: The events.
        recipes: The candidates, see `debias.retrieval.training.recipe.candidates`.
        passes: Number of passes of each candidate. If None, the best number is chosen
            for each candidate.
        compare: Whether to tune and compare baselines as well.
        keep: Folder for the trials of the candidates. An interrupted choice resumes
            from this folder, so use a separate folder for each log and each set of
            candidates. If None, trials are not saved.
        progress: Function that is called with the work since its last call, in units of
            training events. `work` returns the total.
        at: Function that is called with the name of each part of the work when the part
            begins.

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
            progress(max(each - meter.done, 0))  # for passes that were not needed
        if path is not None:
            _write(path, trials[-1])
    if not trials:
        assert diverged is not None
        raise diverged
    # The first of equal trials, because `sorted` keeps their order.
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
    repeated, users = best.repeat._asdict(), len(best.values)
    return Choice(best.recipe, best.passes, held.rule, users, tried, rows, repeated)


def _write(path: Path, trial: Trial) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    added = {name: trial.recipe.config.get(name) or () for name in ADDED}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            passes=np.array(trial.passes),
            curve=np.array(trial.curve),
            values=trial.values,
            weights=np.array(trial.repeat.weights or ()),
            **{name: np.array(value) for name, value in added.items()},  # type: ignore
        )


def _read(path: Path, recipe: Recipe) -> Trial:
    try:
        with np.load(path) as held:
            passes, curve = int(held["passes"]), held["curve"].tolist()
            values, weights = held["values"], tuple(held["weights"].tolist())
            added = {name: tuple(held[name].tolist()) or None for name in ADDED}
    except Exception as error:  # errors of zipfile and NumPy
        raise ValueError(f"{path}: is damaged: {error}; remove it") from error
    config = {**recipe.config, **added}
    repeat = Repeat(recipe.training_config().repeat, weights or None)
    return Trial(recipe._replace(config=config), passes, curve, values, repeat)


def _facts(trial: Trial) -> dict[str, Any]:
    """The fields that distinguish the rows of a choice."""
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
    progress: Callable[[int], None] = lambda events: None,
) -> Learner:
    """Trains a learner with averaged weights on a whole log."""
    learner = new_learner(recipe.build(), log, recipe.training_config())
    for _ in range(passes):  # one by one, as in a trial and in a run that may resume
        learn(learner, progress=progress)
    finish(learner)
    return learner
