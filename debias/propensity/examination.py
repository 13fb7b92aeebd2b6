"""The common result of the estimators of examination."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from debias.propensity.cells import Cells, incidence

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = ("position", "examination", "standard_error", "lower", "upper")
CHUNK = 2_000_000  # numbers held at once while sessions are summed
BLOCK = 32  # resamples computed at once, which do not affect the results
LARGEST = np.log(np.finfo(float).max)  # of log examination


@dataclass(frozen=True, eq=False)
class Examination:
    """Examination at each of K ranks relative to rank 1, with intervals.

    Attributes:
        position: (K,) int64 rank from 1.
        examination: (K,) float64 examination relative to rank 1; nan at ranks whose
            examination the log does not identify.
        standard_error: (K,) float64 standard error of `examination`, 0 at rank 1; nan
            without an interval.
        lower, upper: (K,) float64 limits of the interval, with equal tails on the log
            scale.
        n: (K,) int64 number of impressions used for the estimate at each rank.
        method: Name of the estimator.
        interval: Kind of interval: "delta", "bootstrap" or "none".
        level: Confidence level of the interval.
        confounded: Whether the estimate confounds relevance and examination.
        context: (K,) label of the context of each row; None without contexts.
        degenerate: Reason not to use the estimate, such as a maximum at the boundary of
            the model; "" if the estimate can be used.
    """

    position: np.ndarray
    examination: np.ndarray
    standard_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    n: np.ndarray
    method: str
    interval: str = "delta"
    level: float = 0.95
    confounded: bool = False
    context: np.ndarray | None = None
    degenerate: str = ""

    @classmethod
    def stack(cls, curves: Mapping[Any, "Examination"]) -> "Examination":
        """Joins the curves of several contexts, by label, into one table.

        >>> one = Examination(*np.ones((6, 2)), method="pivot")
        >>> Examination.stack({"phone": one, "laptop": one}).context.tolist()
        ['phone', 'phone', 'laptop', 'laptop']
        """
        first = next(iter(curves.values()))
        rows: dict[str, Any] = {
            name: np.concatenate([getattr(each, name) for each in curves.values()])
            for name in (*ROWS, "n")
        }
        labels = np.repeat(list(curves), [len(each) for each in curves.values()])
        wrong = [
            f"context {label}: {each.degenerate}"
            for label, each in curves.items()
            if each.degenerate
        ]
        return replace(first, **rows, context=labels, degenerate="; ".join(wrong))

    def curves(self) -> "dict[Any, Examination]":
        """The curve of each context, by label; without contexts, the label is None."""
        context = self.context
        if context is None:
            return {None: self}
        parts = {label: context == label for label in np.unique(context).tolist()}
        found = {}
        for label, part in parts.items():
            rows: dict[str, Any] = {n: getattr(self, n)[part] for n in (*ROWS, "n")}
            found[label] = replace(self, **rows, context=None)
        return found

    def __len__(self) -> int:
        return len(self.position)

    def columns(self) -> dict[str, np.ndarray]:
        """The table as columns, with one row per rank and context."""
        table = {name: getattr(self, name) for name in ROWS}
        if self.context is not None:
            table = {"context": self.context, **table}
        table["method"] = np.full(len(self), self.method)
        table["n"] = self.n
        table["confounded"] = np.full(len(self), self.confounded)
        table["degenerate"] = np.full(len(self), bool(self.degenerate))
        return table

    def records(self) -> list[dict[str, Any]]:
        """The table as one dict of plain Python values per rank."""
        return self.to_arrow().to_pylist()

    def to_arrow(self) -> "pa.Table":
        """The table as an Arrow table."""
        import pyarrow as pa

        return pa.table(self.columns())

    def __str__(self) -> str:
        note = " (confounded with relevance)" if self.confounded else ""
        note += f" (degenerate: {self.degenerate})" if self.degenerate else ""
        if self.context is not None:
            parts = self.curves().items()
            return "\n".join(f"context {label}: {each}" for label, each in parts)
        head = f"{self.method}{note}\nrank  examination  [{self.level:.0%} interval]"
        rows = (
            f"{k:4d}  {e:11.3f}  [{low:.3f}, {high:.3f}]"
            for k, e, low, high in zip(
                self.position, self.examination, self.lower, self.upper, strict=True
            )
        )
        return "\n".join([head, *rows])


class Fit(NamedTuple):
    """A point estimate at K ranks, and its influence function on M cells.

    Attributes:
        log_examination: (K,) log examination relative to rank 1; nan if unknown.
        influence: (K, M) change of `log_examination` per unexpected click in a cell. A
            session changes the estimate by the sum of influence * (click - expected)
            over its impressions.
        expected: (M,) P(click) in each cell under the estimator.
        inflation: (M,) factor that corrects the variance of a click's residual, because
            `expected` was fitted to the same click.
        n: (K,) number of impressions used at each rank.
        degenerate: Reason not to use the estimate; "" if the estimate can be used.
    """

    log_examination: np.ndarray
    influence: np.ndarray
    expected: np.ndarray
    inflation: np.ndarray
    n: np.ndarray
    degenerate: str = ""


def relative(log_examination: np.ndarray) -> np.ndarray:
    """Subtracts the value at rank 1 from (K, ...) values."""
    return log_examination - log_examination[:1]


def result(
    fit: Fit,
    variance: np.ndarray | None,
    method: str,
    interval: str,
    level: float,
    confounded: bool = False,
) -> Examination:
    """Makes an `Examination` from a fit and the (K,) variances of log examination.

    The delta method gives the standard error of examination. The interval is exp(log
    examination -+ z s), where s is the standard error of log examination.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    # Beyond the range of floats an estimator has diverged: it says nothing.
    middle = np.where(fit.log_examination < LARGEST, fit.log_examination, np.nan)
    if variance is None:
        variance, interval = np.full_like(middle, np.nan), "none"
    error = np.where(np.isnan(middle), np.nan, np.sqrt(variance))
    reach = ndtri((1 + level) / 2) * error
    with np.errstate(over="ignore"):  # an interval may reach to infinity
        high = np.exp(middle + reach)
    return Examination(
        np.arange(1, len(middle) + 1),
        np.exp(middle),
        np.exp(middle) * error,
        np.exp(middle - reach),
        high,
        fit.n.astype(np.int64),
        method,
        interval,
        level,
        confounded,
        degenerate=fit.degenerate,
    )


def delta_variance(fit: Fit, counted: Cells, click: np.ndarray) -> np.ndarray:
    """(K,) variances of log examination by the delta method over sessions.

    To compute a variance, influence * (click - expected) is summed over the impressions
    of a session, and the squares of these sums are added up. The formula assumes
    independent sessions. Clicks within a session may depend on each other in any way.

    Args:
        fit: The estimate.
        counted: The counts, with the `index` of their sessions.
        click: (S, L) bool clicks.
    """
    assert counted.index is not None
    keep = fit.influence.any(axis=1) & ~np.isnan(fit.log_examination)
    # Padding reads an extra cell of influence 0.
    weight = np.zeros((keep.sum(), len(fit.expected) + 1))
    np.multiply(fit.influence[keep], np.sqrt(fit.inflation), out=weight[:, :-1])
    expected = np.append(fit.expected, 0.0)
    total = np.zeros(keep.sum())
    step = max(1, CHUNK // counted.index.shape[1])
    for start in range(0, len(counted.index), step):
        cell = counted.index[start : start + step]
        rest = click[start : start + step] - expected[cell]
        for k, own in enumerate(weight):
            total[k] += np.square(np.einsum("sl,sl->s", own[cell], rest)).sum()
    variance = np.zeros(len(keep))
    variance[keep] = total
    return variance


def bootstrap_variance(
    refit: Callable[[np.ndarray], np.ndarray],
    sessions: int,
    replicates: int,
    seed: int,
) -> np.ndarray:
    """(K,) variances of log examination over Poisson resamples of the sessions.

    Args:
        refit: Function from (S, B) float32 session weights to log examination (B, K).
        sessions: Number of sessions S. In each resample, every session has a
            Poisson(1) weight.
        replicates: Number of resamples.
        seed: Random seed of the resamples.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=1000)
    >>> mean = lambda weight: (x @ weight / weight.sum(axis=0))[:, None]
    >>> bool(abs(bootstrap_variance(mean, 1000, 500, 0)[0] * 1000 - 1) < 0.2)
    True
    """
    if replicates < 2:
        raise ValueError(f"replicates must be at least 2, got {replicates}")
    rng = np.random.default_rng(seed)
    block = int(np.clip(5 * CHUNK // sessions, 1, BLOCK))
    drawn = []
    for start in range(0, replicates, block):
        columns = min(block, replicates - start)
        weight = rng.poisson(1.0, (columns, sessions)).T.astype(np.float32)
        drawn.append(refit(weight))
    return np.var(np.concatenate(drawn), axis=0, ddof=1)


def recount(
    fit: Callable[[Cells], np.ndarray], counted: Cells, click: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the argument `refit` of `bootstrap_variance` from an estimator on cells.

    One product with a sparse matrix computes the counts for all resamples.
    """
    assert counted.index is not None
    only = np.where(click, counted.index, len(counted.rank))
    shown, clicked = incidence(counted), incidence(replace(counted, index=only))

    def refit(weight: np.ndarray) -> np.ndarray:
        n, c = (np.asarray(m @ weight, np.float64).T for m in (shown, clicked))
        pair = zip(n, c, strict=True)
        return np.array([fit(replace(counted, shown=a, clicked=b)) for a, b in pair])

    return refit
