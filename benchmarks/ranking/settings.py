"""How large a trial is, how it learns, what its log shows; the seeds of its parts."""

from dataclasses import asdict, dataclass
from typing import Any

from debias.training.config import TrainingConfig


@dataclass(frozen=True)
class Size:
    """How large a trial is: queries generated, training sessions."""

    queries: int = 3000
    sessions: int = 100_000


def identity(config: TrainingConfig) -> dict[str, Any]:
    """All of a training that decides its result, but the seed."""
    found = asdict(config)
    return {n: v for n, v in found.items() if n not in ("seed", "round")}


@dataclass(frozen=True)
class Logging:
    """An expert orders all ten items by their grades, but for a share of sessions."""

    best_first: bool
    random: float


@dataclass(frozen=True)
class Drawn:
    """A world of each seed's own: what makes an item relevant is drawn by the seed."""

    attraction: str = "graded"  # how it follows the grade, of `simulators.ATTRACTIONS`


def part_seed(seed: int, part: int, parts: int) -> int:
    """A seed for each of `parts` parts that no part of another seed has.

    >>> [part_seed(seed, part, 2) for seed in (0, 1) for part in (0, 1)]
    [0, 1, 2, 3]
    """
    return parts * seed + part
