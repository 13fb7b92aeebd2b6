"""Chooses a model by held-out clicks, with NumPy only."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from debias.data import ClickLog
from debias.metrics import concordant_pairs
from debias.metrics.statistics import grouped_standard_error
from debias.presets import PRESETS

BASELINE = "softmax_naive"
RANKERS = (*("listwise", "listwise_mixture", "xpa", "product", "mixture", BASELINE),)
"""Candidates of a choice by ranking, in order of preference.

Models that rank at a reference place (`dot`, `bilinear`, `position_feature`) are not
included, because their order depends on that place.
"""
LINEAR = ("listwise_linear", "product_linear")
"""Further candidates for logs with few queries; they come before all others."""
BOOSTED = ("trees",)
"""Boosted trees, which replace the chosen model if held-out clicks prefer them."""
TOWER = "product"  # the model that differs from trees in the relevance function only
LEAST_FOR_TREES = 10_000  # training sessions
"""With fewer sessions, trees are no candidate unless they are named.

On tuning worlds with 2,500 sessions, trees often predicted held-out clicks better than
`product`, and yet ranked worse. With 10,000 sessions, neither was better by two
standard errors on generated features, where trees rank worse. On real features, trees
ranked better, and in seven of ten trials with 20,000 sessions, their likelihood was
higher by more than two standard errors.
"""
CLEAR_TREES = 2.0  # standard errors by which trees must exceed `TOWER` in likelihood
CLEAR = 2.5  # standard errors by which the best must exceed the worst
FEW = 20  # queries; below, places are the units of standard errors
TOO_FEW = "held-out clicks are too few to tell the rankings of the candidates apart"
NOT_COMPARABLE = (
    "no two items were held out at the same place of a query with different clicks, so "
    "no ranking can be judged (debias diagnose says what to randomise)"
)
NOT_CLEAR = (
    f"no candidate orders held-out clicks better than {BASELINE} by "
    f"{CLEAR} standard errors"
)
RAW = f"{BASELINE} (raw clicks) usually ranks better than a model of the bias"
LEAST = 2_000  # training sessions
"""With fewer sessions, raw clicks are chosen unless a candidate is clearly better.

With 1,000 sessions of small tuning worlds, `softmax_naive` ranked better than `product`
and `listwise`, and a candidate clearly better on held-out clicks was never found. With
4,000 sessions, `listwise` ranked better unless the production ranker was strong.
"""


def advised(found: Collection[str] = ()) -> str:
    """Recommends a model for a log that identifies examination.

    Args:
        found: Effects that a diagnosis found: "neighbours", "populations" or both. Each
            effect adds a hint on candidates that model it.

    >>> advised(["neighbours"])
    'try `debias train --model auto`: it compares listwise, listwise_mixture, xpa, \
product, mixture and raw clicks, and keeps the best at ordering held-out clicks; \
xpa reads neighbours.'
    """
    others = ", ".join(name for name in RANKERS if name != BASELINE)
    kinds = {
        "neighbours": "xpa reads neighbours",
        "populations": "mixtures learn kinds of users",
    }
    reasons = [f"; {why}" for name, why in kinds.items() if name in found]
    return (
        f"try `debias train --model auto`: it compares {others} and raw clicks, and "
        f"keeps the best at ordering held-out clicks{''.join(reasons)}."
    )


class Choice(NamedTuple):
    """The chosen candidate and the reasons.

    Attributes:
        name: Name of the candidate.
        why: Reason in words.
        table: Results of every candidate; see `choose` and `choose_ranking`.
        by: The criterion that decided, "ranking" or "clicks".
    """

    name: str
    why: str
    table: list[dict[str, Any]]
    by: str = "clicks"


def strata(log: ClickLog, columns: tuple[str, ...]) -> np.ndarray:
    """Number (S, L) of the stratum of each cell.

    A stratum is a combination of a query, a rank and the values of `columns`. All cells
    of a stratum have the same examination, even if its value is unknown.

    Args:
        log: Sessions.
        columns: Names of further layout and presentation columns, such as "device".
            Columns that the log lacks are ignored.
    """
    shape, there = log.item.shape, log.columns()
    parts = [log.query[:, None], np.arange(shape[1])[None, :]]
    for name in columns:
        if name in there:
            value = there[name]
            parts.append(value[:, None] if value.ndim == 1 else value)
    number = np.zeros(shape, np.int64)
    for part in parts:
        values, codes = np.unique(part, return_inverse=True)
        number = number * len(values) + codes.reshape(part.shape)
    return number


class Verdict(NamedTuple):
    """Agreement of a ranking with held-out clicks, in G groups of pairs.

    A group is a query, or a stratum if the log has fewer than 20 queries.

    Attributes:
        concordant: (G,) number of correctly ordered pairs; see
            `debias.metrics.concordant_pairs`.
        pairs: (G,) number of all pairs, which is the same for all candidates.
        likelihood: (S,) log-likelihood of each session, or None if the model does not
            predict clicks.
    """

    concordant: np.ndarray
    pairs: np.ndarray
    likelihood: np.ndarray | None = None


def verdict(
    log: ClickLog,
    scores: np.ndarray,
    columns: tuple[str, ...] = (),
    likelihood: np.ndarray | None = None,
) -> Verdict:
    """Evaluates the scores (items,) of a model by the clicks of a log."""
    number = strata(log, columns)
    shown = np.where(log.mask, np.asarray(scores)[log.item], 0.0)
    found, concordant, pairs = concordant_pairs(log.click, shown, number, log.mask)
    queries, of_session = np.unique(log.query, return_inverse=True)
    if len(queries) < FEW:
        return Verdict(concordant, pairs, likelihood)
    query = np.zeros(len(found), np.int64)
    cells = np.searchsorted(found, number[log.mask])
    query[cells] = np.broadcast_to(of_session[:, None], number.shape)[log.mask]
    one, both = (np.bincount(query, n, len(queries)) for n in (concordant, pairs))
    return Verdict(one, both, likelihood)


def choose_ranking(
    verdicts: Mapping[str, Verdict],
    query: np.ndarray | None = None,
    by: str | None = None,
    sessions: int = LEAST,
) -> Choice:
    """Chooses the first candidate within one standard error of the best in ranking.

    The criterion is the share of correctly ordered pairs of a clicked and an unclicked
    item. Both items of a pair were shown at the same place for the same query, so they
    have the same examination. Let n_g be the number of pairs of query g, and d_g the
    difference between two candidates in correctly ordered pairs. The difference in
    shares, sum_g d_g / sum_g n_g, has the standard error of a ratio.

    Clicks are too few to compare rankings if the best candidate is at most 2.5 standard
    errors above the worst candidate. If clicks are too few, `choose` decides by click
    likelihood among the candidates that predict clicks.

    On a small log, with fewer than `LEAST` training sessions and no linear candidate,
    `softmax_naive` is chosen unless the best candidate is also more than 2.5 standard
    errors above it.

    Args:
        verdicts: Verdicts by candidate in order of preference, including
            `softmax_naive`.
        query: (S,) query of each session, for comparing likelihoods.
        by: Criterion, "ranking" or "clicks". None means "ranking" if there are enough
            clicks to compare rankings, and "clicks" otherwise.
        sessions: Number of training sessions.

    Returns:
        The choice. Its table has one row per candidate, the best candidate first. A row
        has the share of correctly ordered pairs, the difference of this share from
        `softmax_naive`, and the standard error of the difference.

    Raises:
        ValueError: Training diverged for every candidate.
    """
    finite = {n: v for n, v in verdicts.items() if np.isfinite(v.concordant).all()}
    out = [name for name in verdicts if name not in finite]
    if not finite:
        raise ValueError(
            f"no candidate of {' '.join(verdicts)} learned: every score is nan or "
            "infinite; try a lower rate"
        )
    pairs = next(iter(finite.values())).pairs
    sums = {name: float(v.concordant.sum()) for name, v in finite.items()}
    best, worst = (pick(sums, key=sums.__getitem__) for pick in (max, min))
    base = BASELINE if BASELINE in finite else worst
    table = _table(finite, base)
    lost = f"; excluded after divergence: {' '.join(out)}" if out else ""
    small = sessions < LEAST and not finite.keys() & {*LINEAR}
    keep_raw = small and BASELINE in finite
    if by is None:
        below = [worst, BASELINE] if keep_raw else [worst]
        gaps = [difference(finite[best], finite[name]) for name in below]
        clear = all(gap > CLEAR * error for gap, error in gaps)
        by = "ranking" if clear else "clicks"
    if by == "clicks" and keep_raw:
        reason = NOT_CLEAR if pairs.sum() else NOT_COMPARABLE
        why = f"{reason}; with fewer than {LEAST:,} training sessions, {RAW}{lost}"
        return Choice(BASELINE, why, table)
    if by == "clicks":
        reason = TOO_FEW if pairs.sum() else NOT_COMPARABLE
        return _by_likelihood(finite, query, table, reason, lost)
    name = best
    for each, value in finite.items():
        apart, error = difference(finite[best], value)
        if apart <= error:  # for the best itself, both are 0
            name = each
            break
    why = _why_ranking(name, best, base, finite) + lost
    return Choice(name, why, table, "ranking")


def compared_with_trees(
    choice: Choice,
    verdicts: Mapping[str, Verdict],
    name: str,
    query: np.ndarray,
    sessions: int,
) -> Choice:
    """The choice, or trees that describe held-out clicks better.

    Trees and `product` are the same click model, with different relevance functions.
    Trees replace the chosen model on two conditions: their mean log-likelihood exceeds
    that of `product` by more than two standard errors (by query, as in `choose`), and
    they do not have fewer pairs in order than the chosen model by more than a standard
    error.

    Args:
        choice: A choice among the other candidates, with the number of sessions that
            each row of its table was trained on.
        verdicts: Verdicts by candidate, including the trees, `product` and the chosen
            model, after training on the same sessions.
        name: Name of the trees.
        query: (S,) query of each held-out session.
        sessions: Number of training sessions of the verdicts.
    """
    if not np.isfinite(verdicts[name].concordant).all():
        return choice  # the trees could not grow
    base = BASELINE if BASELINE in verdicts else choice.name
    row = next(row for row in _table(verdicts, base) if row["model"] == name)
    table = [*choice.table, {**row, "sessions_trained_on": sessions}]
    table.sort(key=lambda r: (-r["sessions_trained_on"], -(r["pairs_in_order"] or 0.0)))
    own, other = verdicts[name].likelihood, verdicts[TOWER].likelihood
    assert own is not None and other is not None
    apart = own.astype(float) - other
    gain, error = float(apart.mean()), grouped_standard_error(apart, query)
    ahead, spread = difference(verdicts[name], verdicts[choice.name])
    if not gain > CLEAR_TREES * error:
        why = f"{choice.why}; the click likelihood of {name} is not clearly higher"
        return choice._replace(table=table, why=f"{why} than that of {TOWER}")
    if ahead < -spread:
        why = f"{choice.why}; {name} has fewer comparable pairs in order"
        return choice._replace(table=table, why=why)
    why = (
        f"{name} gives held-out clicks a higher likelihood than {TOWER}, by {gain:.5f} "
        f"nats per session (standard error {error:.5f}); its share of comparable pairs "
        f"in order differs from that of {choice.name} by {100 * ahead:+.2f} points "
        f"(standard error {100 * spread:.2f})"
    )
    return Choice(name, why, table, "ranking")


def _why_ranking(
    name: str, best: str, base: str, verdicts: Mapping[str, Verdict]
) -> str:
    """The reason to choose `name`, compared with the baseline."""
    both = verdicts[name], verdicts[base]
    own, other = (each.concordant.sum() / each.pairs.sum() for each in both)
    gain, error = difference(*both)
    why = (
        f"{name} has {own:.2%} of comparable pairs of held-out clicks in order, "
        f"{base} {other:.2%} (difference {100 * gain:+.2f} points, standard error "
        f"{100 * error:.2f})"
    )
    if name != best:
        why += f"; {best} is not better by more than a standard error"
    return why


def difference(one: Verdict, other: Verdict) -> tuple[float, float]:
    """Difference of two shares of correctly ordered pairs, and its standard error."""
    pairs = one.pairs
    total, apart = pairs.sum(), one.concordant - other.concordant
    units = np.count_nonzero(pairs)
    if units < 2:
        return 0.0, float("inf")
    mean = apart.sum() / total
    scatter = np.sum((apart - mean * pairs) ** 2)
    return float(mean), float(np.sqrt(units / (units - 1) * scatter) / total)


def _table(finite: Mapping[str, Verdict], base: str) -> list[dict[str, Any]]:
    """Results of the candidates, the best ranking first."""
    rows = []
    for name, value in finite.items():
        total = value.pairs.sum()
        gain, error = difference(value, finite[base])
        likely = None if value.likelihood is None else float(value.likelihood.mean())
        share = float(value.concordant.sum() / total) if total else None
        rows.append(
            {
                "model": name,
                "pairs_in_order": share,
                "above_naive": gain if np.isfinite(error) else None,
                "standard_error": error if np.isfinite(error) else None,
                "log_likelihood": likely,
            }
        )
    return sorted(rows, key=lambda row: -(row["pairs_in_order"] or 0.0))


def _by_likelihood(
    finite: Mapping[str, Verdict],
    query: np.ndarray | None,
    table: list[dict[str, Any]],
    reason: str,
    lost: str,
) -> Choice:
    """The choice if held-out clicks cannot compare rankings."""
    # `choose` takes the first candidate near the best, so simple models come first.
    simplest = sorted(finite, key=[*PRESETS, *finite].index)
    each = {name: finite[name].likelihood for name in simplest}
    likely = {name: value for name, value in each.items() if value is not None}
    if not likely or query is None:
        name = next(iter(finite))
        return Choice(name, f"{reason}; {name} is the first of them{lost}", table)
    chosen = choose(likely, query)
    why = f"{reason}; by click likelihood, {chosen.why}{lost}"
    return Choice(chosen.name, why, table)


def choose(likelihoods: Mapping[str, np.ndarray], query: np.ndarray) -> Choice:
    """Chooses the simplest candidate within a standard error of the best likelihood.

    Let d_s be the difference of two candidates' log-likelihoods of session s. Sessions
    of a query depend on each other. So the mean of d_s over S sessions and G queries
    has the standard error sqrt(G / (G - 1) sum_g e_g^2) / S. Here e_g is the sum of
    (d_s - mean) over the sessions of query g. If the log has only one query, each
    session counts as a query. The rule of one standard error is from Breiman et al.,
    Classification and Regression Trees, 1984, section 3.4.3.

    Args:
        likelihoods: (S,) held-out log-likelihoods by candidate, the simplest first.
        query: (S,) query of each session.

    Raises:
        ValueError: Training diverged for every candidate.

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
    units = query if np.ptp(query) > 0 else np.arange(len(query))
    table: list[dict[str, Any]] = []
    for name, value in finite.items():
        apart = np.asarray(finite[best] - value, dtype=float)
        error = grouped_standard_error(apart, units)
        below = float(apart.mean())
        row = {"model": name, "log_likelihood": means[name]}
        table.append({**row, "below_best": below, "standard_error": error})
    near = [row for row in table if row["below_best"] <= row["standard_error"]]
    name = near[0]["model"]
    why = _why(name, best, near)
    if out:
        why += f"; excluded after divergence: {' '.join(out)}"
        empty = {"log_likelihood": None, "below_best": None, "standard_error": None}
        table += [{"model": each, **empty} for each in out]
    return Choice(name, why, table)


def _why(name: str, best: str, near: list[dict[str, Any]]) -> str:
    """The reason to choose `name` among candidates within one standard error."""
    if name == best:
        why = f"{name} gives held-out clicks the highest likelihood"
        if len(near) == 1:
            why += ", and no simpler model is within one standard error"
        return why
    return (
        f"{name} is the simplest within one standard error of {best}: "
        f"{near[0]['below_best']:.5f} nats per session lower, standard error "
        f"{near[0]['standard_error']:.5f}"
    )
