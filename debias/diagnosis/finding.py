"""The result of a diagnosis, and the smallest effect that a test can detect."""

from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

Grade = Literal["good", "caution", "bad", "unknown"]
POWER = 0.8  # probability with which a detectable effect is found, the usual choice


@dataclass(frozen=True, eq=False, kw_only=True)
class Finding:
    """The result of a diagnosis: verdict, next step and grade.

    Attributes:
        verdict: The verdict in words.
        next_step: What to do.
        grade: "good" requires no action, "caution" limits the conclusions, and "bad"
            allows no conclusion. "unknown" means that the log is too small, or varies
            too little, to show a relevant effect.
    """

    verdict: str
    next_step: str
    grade: Grade


def detectable(error: float, critical: float) -> float:
    """The smallest effect that a z-test detects with 80% power.

    An estimate with the standard error `error` is significant if it exceeds `critical`
    standard errors. If the effect is (critical + z_.8) standard errors, the estimate is
    significant in 80% of the logs. Here z_.8 is the 80% quantile of the standard normal
    distribution.

    >>> round(detectable(0.1, 1.96), 3)
    0.28
    """
    return float((critical + norm.ppf(POWER)) * error)
