"""Base of the click models: parameters with intervals, prediction, metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import expit, logit, ndtri

from debias.data import ClickLog
from debias.propensity.cells import Pairs

UNKNOWN = 0.5  # attraction and satisfaction of a pair that is not in the log
FLOOR = 1e-10  # smallest probability in a score


@dataclass(frozen=True, eq=False)
class Parameter:
    """Estimated probabilities with intervals that are normal on the logit scale.

    Attributes:
        value: Probabilities, of any shape.
        error: Standard errors of the logits of `value`; inf if unknown.
    """

    value: np.ndarray
    error: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Confidence limits: sigmoid(logit(value) -+ z error).

        >>> low, high = Parameter(np.array(0.5), np.array(0.1)).interval()
        >>> round(float(low), 3), round(float(high), 3)
        (0.451, 0.549)
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be in (0, 1), got {level}")
        middle, reach = logit(self.value), ndtri((1 + level) / 2) * self.error
        return expit(middle - reach), expit(middle + reach)


@dataclass(frozen=True, eq=False)
class ClickModel(ABC):
    """A fitted click model.

    Attributes:
        pairs: The P (query, item) pairs of the training log.
        parameters: Parameters by name. Parameters of pairs have shape (P,);
            "examination" and "continuation" belong to ranks or to the whole model.
    """

    pairs: Pairs
    parameters: Mapping[str, Parameter]
    name: ClassVar[str]
    of_pairs: ClassVar[tuple[str, ...]] = ("attraction",)

    @classmethod
    @abstractmethod
    def fit(cls, log: ClickLog) -> Self:
        """Estimates the model from a log."""

    @abstractmethod
    def conditional(self, log: ClickLog) -> np.ndarray:
        """(S, L) P(click at k | the session's clicks above k); 0 at padding."""

    @abstractmethod
    def marginal(self, log: ClickLog) -> np.ndarray:
        """(S, L) P(click at k), not conditional on other clicks; 0 at padding."""

    def value(self, name: str) -> np.ndarray:
        """The estimated values of a parameter."""
        return self.parameters[name].value

    def gather(self, name: str, log: ClickLog) -> np.ndarray:
        """(S, L) parameter of the pair in each cell; .5 for unknown pairs."""
        return np.append(self.value(name), UNKNOWN)[self.pairs.index(log)]

    def log_probability(self, log: ClickLog, conditional: bool = True) -> np.ndarray:
        """(S, L) log-probability of each observed click or skip in nats, 0 at padding.

        Probabilities below 1e-10 count as 1e-10. So an event that the model excludes,
        such as a second click in the cascade model, costs 23 nats.
        """
        p = self.conditional(log) if conditional else self.marginal(log)
        happened = np.where(log.click, p, 1 - p)
        return np.where(log.mask, np.log(np.maximum(happened, FLOOR)), 0.0)

    def log_likelihood(self, log: ClickLog, conditional: bool = True) -> float:
        """Mean over sessions of the mean log-likelihood per impression, in nats."""
        total = self.log_probability(log, conditional).sum(axis=1)
        return float((total / log.mask.sum(axis=1)).mean())

    def perplexity(self, log: ClickLog, conditional: bool = True) -> np.ndarray:
        """(L,) click perplexity by rank, 2^(-mean log2 P) over the lists with an item.

        A perfect model has perplexity 1, and a fair coin has 2. The score of a model is
        its mean perplexity over ranks. The perplexity is nan at ranks without items.

        Args:
            log: Sessions, usually held-out ones.
            conditional: Whether to condition on the clicks above a rank.
        """
        shown = log.mask.sum(axis=0)
        total = self.log_probability(log, conditional).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.exp(-total / shown)

    def records(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One dict per estimate: parameter name, pair or index, value and interval."""
        rows: list[dict[str, Any]] = []
        for name, parameter in self.parameters.items():
            low, high = parameter.interval(level)
            for at in np.ndindex(parameter.value.shape):
                row: dict[str, Any] = {"parameter": name, "query": None, "item": None}
                row["index"] = None
                if name in self.of_pairs:
                    row["query"] = int(self.pairs.query[at[0]])
                    row["item"] = int(self.pairs.item[at[0]])
                else:
                    row["index"] = at
                ends = {"lower": float(low[at]), "upper": float(high[at])}
                rows.append({**row, "value": float(parameter.value[at]), **ends})
        return rows


def check(iterations: int, prior: tuple[float, float]) -> None:
    """Raises ValueError for invalid settings of EM."""
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if not 0 <= prior[0] <= prior[1]:
        raise ValueError(
            "prior must be (successes, trials) with 0 <= successes <= trials, got "
            f"{prior}"
        )


def logit_error(information: np.ndarray) -> np.ndarray:
    """Standard errors of logits from Fisher information; inf if it is 0."""
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(np.maximum(information, 0.0))
