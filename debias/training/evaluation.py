"""Evaluation of a trained model: click metrics, ranking metrics, expected clicks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from scipy.special import expit

from debias import metrics
from debias.data import ClickLog, RankingData, Stream
from debias.data.stream import even_pieces
from debias.data.summary import count
from debias.engine.scoring import Scorer, scored_by
from debias.models import ClickModel, Ranker
from debias.models.batches import PACKS, applied, batches
from debias.models.click_model import argument_errors
from debias.models.trees import Trees
from debias.training.expected import NewPolicy, clicks_to_expect, guessed_by
from debias.training.fitting import JUDGED, Fitted, collect
from debias.training.page_parts import calibration
from debias.training.results import Printed
from debias.training.splits import shown_only
from debias.training.trees import FittedTrees

CUTOFFS = (1, 3, 5, 10)
PER_RANK = ("click_rate", "predicted", "perplexity")
PIECE = 1 << 17  # sessions evaluated at once
SOME = 100_000  # sessions on disk from which clicks of another ranking are estimated

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Evaluation(Printed):
    """Click metrics and ranking metrics of a model on a log; the two can disagree.

    Attributes:
        model: Name of the model's class, or of its preset.
        of: Description of the sessions.
        sessions: Number of sessions.
        clicks: Metrics of predicted clicks. Each click is predicted given the clicks
            above it.
        ranking: NDCG and MRR by relevance grades, with 95% intervals; empty if the data
            has no grades.
        off_policy: Estimates of the clicks per session under a new ranking, with one
            dict per estimator; empty if no estimator applies.
        off_policy_sessions: Number of sessions that `off_policy` uses.
        off_policy_note: Reason why propensities give no estimate, or None.
    """

    model: str
    of: str
    sessions: int
    clicks: dict[str, Any]
    ranking: list[dict[str, Any]] = field(default_factory=list)
    off_policy: list[dict[str, Any]] = field(default_factory=list)
    off_policy_sessions: int = 0
    off_policy_note: str | None = None

    def sections(self) -> Any:
        clicks = dict(self.clicks)
        columns = {
            name: clicks.pop(f"{name}_per_rank")
            for name in PER_RANK
            if f"{name}_per_rank" in clicks
        }
        yield "Clicks", [{"metric": k, "value": v} for k, v in clicks.items()]
        if columns:
            ranks = enumerate(zip(*columns.values(), strict=True), 1)
            rows = [
                {"position": k, **dict(zip(columns, row, strict=True))}
                for k, row in ranks
            ]
            yield "Clicks by position, observed and predicted", rows
        if self.ranking:
            yield "Ranking by grades, with 95% intervals", self.ranking
        few = ""
        if self.off_policy_sessions < self.sessions:
            few = f", from {self.off_policy_sessions:,} sessions drawn at random"
        for estimate in self.off_policy:
            rows = [{"what": k, "value": v} for k, v in estimate.items()]
            yield f"Clicks per session with {estimate['ranking']}{few}", rows[1:]

    def parts(self) -> Any:
        return list(self.sections()), calibration(self.clicks)

    def words(self) -> str:
        found = f"{self.model} was evaluated on {self.sessions:,} sessions ({self.of})."
        if not self.off_policy_note:
            return found
        how = "are not estimated", ", and no examination was given"
        if self.off_policy:
            how = "are estimated only by the given examination", ""
        note = f"{how[0]}: {self.off_policy_note}{how[1]}"
        return f"{found} Clicks under the new ranking {note}."


def evaluate(
    model: Any,
    log: ClickLog | Stream | None = None,
    data: RankingData | None = None,
    *,
    ranker: Ranker | Trees | None = None,
    temperature: float = 0.5,
    clip: float | None = None,
    examination: Sequence[float] | None = None,
    name: str = "",
    of: str = "all sessions",
    progress: Progress = lambda share: None,
) -> Evaluation:
    """Evaluates a model on a log by click and ranking metrics and expected clicks.

    Click and ranking metrics use all sessions. For a log on disk, the clicks of a new
    ranking are estimated from at most 100,000 sessions.

    Args:
        model: A trained click model, its ranker, the result of `fit` or `select`, or
            the result of `debias.load` for a folder of `debias train`.
        log: Sessions. None means the test sessions that `fit` or `select` held out, if
            `model` is their result. Held-out sessions give no ranking metrics.
        data: Raw features of the items, and grades if there are any.
        ranker: Ranker with the feature scaling of the click model. None means that the
            model reads raw features.
        temperature: Temperature of the new Plackett-Luce policy, in standard deviations
            of the scores.
        clip: Largest importance weight of a session. None means the largest value for
            which the effective sample size is at least a tenth of the sessions. The
            result also has an estimate without a clip.
        examination: Examination probability of each position, for an estimate of
            clicks.
        name: Name of the model. The default is the name of its class.
        of: Description of the sessions, in words.
        progress: Function that receives the completed share of the work.

    Raises:
        ValueError: There is no log, an argument has a wrong type or is out of range, or
            the log names items that `data` lacks.
    """
    policy = NewPolicy(temperature, clip, examination)
    model = getattr(model, "fitted", model)  # of `select`
    if isinstance(model, Fitted) and log is None:
        return _evaluate_tests(model, policy, name, progress)
    if isinstance(model, FittedTrees) and log is None:
        log, data = model.test
        of = f"the sessions held out by {model.held_out_by}"
    if isinstance(trees := getattr(model, "model", model), Trees):
        ranker, model = ranker or trees, trees
    elif isinstance(model, Ranker):
        ranker, model = ranker or model, model.model
    elif not isinstance(model, ClickModel):
        if not hasattr(model, "ranker"):  # a fit and a folder of debias train have one
            raise ValueError(
                "model must be a click model, a ranker, a result of debias.fit or "
                "debias.select, or an opened folder of debias train, got "
                f"{type(model).__name__}"
            )
        ranker, model = ranker or model.ranker, model.model
    if log is None or data is None:
        raise ValueError(
            "evaluate needs a log and its ranking data: evaluate(model, log, data)"
        )
    preprocess = None if ranker is None else ranker.preprocess
    data = data if ranker is None else data.arranged(ranker.feature_names, ranker.kinds)
    scores = score_items(model.score if ranker is None else ranker, data.features)
    name = name or type(model).__name__
    return scoreboards(model, preprocess, log, data, scores, policy, name, of, progress)


def _evaluate_tests(
    fitted: Fitted, policy: NewPolicy, name: str, progress: Progress
) -> Evaluation:
    """Evaluates a fit on its held-out sessions, whose features are already scaled."""
    part, by = fitted.prepared.test, fitted.prepared.held_out_by
    if part is None:
        raise ValueError("fit got its own validation sessions: give evaluate a log")
    scores = score_items(fitted.model.score, part.data.features)
    name, of = name or type(fitted.model).__name__, f"the sessions held out by {by}"
    return scoreboards(
        fitted.model, None, part.log, part.data, scores, policy, name, of, progress
    )


def scoreboards(
    model: ClickModel | Trees,
    preprocess: keras.layers.Layer | None,
    log: ClickLog | Stream,
    data: RankingData,
    scores: np.ndarray,
    policy: NewPolicy,
    name: str,
    of: str = "all sessions",
    progress: Progress = lambda share: None,
) -> Evaluation:
    """Evaluates like `evaluate`, but with given scores (items,) of the items."""
    counts = count(log, lambda share: progress(0.1 * share))
    if isinstance(log, ClickLog):
        some = log
    else:
        some = log.sample(SOME, [0], progress=lambda share: progress(0.1 + 0.1 * share))
    guess = guessed_by(model, preprocess, data, log.list_size)
    estimates, note = clicks_to_expect(some, data, scores, policy, guess)
    clicks = click_scoreboard(
        model, preprocess, log, data, scores, lambda share: progress(0.2 + 0.8 * share)
    )
    asked = np.flatnonzero(counts.asked)
    return Evaluation(
        name,
        of,
        counts.sessions,
        clicks,
        ranking_scoreboard(asked, data, scores),
        estimates,
        len(some),
        note,
    )


def click_scoreboard(
    model: ClickModel | Trees,
    preprocess: keras.layers.Layer | None,
    log: ClickLog | Stream,
    data: RankingData,
    scores: np.ndarray,
    progress: Progress = lambda share: None,
) -> dict[str, Any]:
    """Click metrics: likelihood given the clicks above, and MRR of clicks.

    For a model that does not predict clicks, the only metric is the MRR of clicks in
    the model's order. All metrics are computed from sums over sessions, so a log on
    disk is evaluated in pieces.
    """
    reciprocal, clicked = 0.0, 0
    likelihood, shown, happened, predicted = np.zeros((4, log.list_size))
    pieces = [log] if isinstance(log, ClickLog) else log.pieces()
    done, total = 0, len(log)
    for piece in even_pieces(pieces, PIECE):
        order = np.where(piece.mask, scores[piece.item], 0.0)
        found = metrics.mrr(piece.click.astype(np.int8), order, mask=piece.mask)
        reciprocal += np.nansum(found)
        clicked += int(np.count_nonzero(~np.isnan(found)))
        if model.predicts_clicks:
            logits = conditional_logits(model, preprocess, piece, data)
            value = metrics.item_log_likelihood(piece.click, logits, piece.mask)
            likelihood += value.sum(axis=0, dtype=float)
            shown += piece.mask.sum(axis=0)
            happened += (piece.click & piece.mask).sum(axis=0)
            predicted += np.where(piece.mask, expit(logits), 0).sum(axis=0, dtype=float)
        done += len(piece)
        progress(done / total)
    reranked = {"click_mrr": reciprocal / clicked if clicked else None}
    if not model.predicts_clicks:
        return reranked
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing was shown
        per_rank = np.exp(-likelihood / shown)
        rates = happened / shown, predicted / shown, per_rank
    return {
        "log_likelihood_per_item": float(likelihood.sum() / shown.sum()),
        "log_likelihood_per_session": float(likelihood.sum() / done),
        "perplexity": float(np.nanmean(per_rank)),
        **{
            f"{name}_per_rank": [None if np.isnan(p) else float(p) for p in values]
            for name, values in zip(PER_RANK, rates, strict=True)
        },
        **reranked,
    }


def conditional_logits(
    model: ClickModel | Trees,
    preprocess: keras.layers.Layer | None,
    log: ClickLog,
    data: RankingData,
) -> np.ndarray:
    """(S, L) logits of each click given the clicks above it."""
    if isinstance(model, Trees):
        return model.place_logits(log, data.features)
    seen, features = shown_only(log, data)
    scaled = applied(preprocess, features)
    table = RankingData.trusted(scaled, None, np.array([0, len(scaled)]))
    feed = batches(seen, table, JUDGED, shuffle=False, packed=PACKS)
    with argument_errors():
        parts = [
            np.asarray(model.conditional_click_logits(batch, clicks, model(batch)))
            for batch, clicks in feed
        ]
    collect(seen, table)
    return np.concatenate(parts)


def ranking_scoreboard(
    queries: np.ndarray, data: RankingData, scores: np.ndarray
) -> list[dict[str, Any]]:
    """NDCG and MRR over all items of the queries; empty if the data has no grades."""
    if data.labels is None:
        return []
    some = data.select(queries)
    assert some.labels is not None
    rows = np.repeat(data.offsets[queries] - some.offsets[:-1], some.sizes)
    score = scores[np.arange(some.items) + rows]
    ndcg = metrics.ndcg(some.labels, score, CUTOFFS, offsets=some.offsets)
    values = {f"ndcg@{k}": ndcg[:, i] for i, k in enumerate(CUTOFFS)}
    values["mrr"] = metrics.mrr(some.labels, score, offsets=some.offsets)
    found = ((name, metrics.estimate(value)) for name, value in values.items())
    return [{"metric": name, **estimate._asdict()} for name, estimate in found]


def score_items(ranker: Callable[[Any], Any], features: np.ndarray) -> np.ndarray:
    """Scores (items,) of features (items, F), computed in batches of a fixed size.

    Args:
        ranker: A Keras model or function from features (..., F) to scores (...).
    """
    if isinstance(ranker, Trees):
        return ranker(features)
    return Scorer(scored_by(ranker))(features)
