"""Settings of trials: size, training, logs and seeds."""

from dataclasses import asdict, dataclass
from typing import Any

from debias.training.config import TrainingConfig


@dataclass(frozen=True)
class Size:
    """Size of a trial: numbers of queries and training sessions."""

    queries: int = 3000
    sessions: int = 100_000


def identity(config: TrainingConfig) -> dict[str, Any]:
    """All training settings that determine the result, except the seed."""
    found = asdict(config)
    return {n: v for n, v in found.items() if n not in ("seed", "round")}


@dataclass(frozen=True)
class Logging:
    """Policy that shows items by grade, or at random in a share of sessions."""

    best_first: bool
    random: float


@dataclass(frozen=True)
class Drawn:
    """A separate world for each seed, with its own relevance function."""

    attraction: str = "graded"  # by grade, a name of `simulators.ATTRACTIONS`


def part_seed(seed: int, part: int, parts: int) -> int:
    """A seed that no other pair (`seed`, `part`) has.

    >>> [part_seed(seed, part, 2) for seed in (0, 1) for part in (0, 1)]
    [0, 1, 2, 3]
    """
    return parts * seed + part
