"""What every diagnosis ends in."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["good", "caution", "bad"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Finding:
    """A verdict.

    Attributes:
        verdict: In words.
        next_step: What to do.
        grade: "good" asks for nothing, "caution" limits what may be concluded, "bad"
            forbids it.
    """

    verdict: str
    next_step: str
    grade: Grade
