"""How large a trial is, and what its log shows."""

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
