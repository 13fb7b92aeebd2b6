"""How large a trial is, what its log shows, and the seeds of its parts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How large a trial is: queries generated, training sessions, training length."""

    queries: int = 3000
    sessions: int = 100_000
    batch_size: int = 512
    epochs: int = 8
    patience: int = 2


@dataclass(frozen=True)
class Logging:
    """An expert orders all ten items by their grades, but for a share of sessions."""

    best_first: bool
    random: float


def part_seed(seed: int, part: int, parts: int) -> int:
    """A seed for each of `parts` parts that no part of another seed has.

    >>> [part_seed(seed, part, 2) for seed in (0, 1) for part in (0, 1)]
    [0, 1, 2, 3]
    """
    return parts * seed + part
