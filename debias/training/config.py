"""How long and how fast a click model learns; loads no TensorFlow."""

from dataclasses import dataclass

ROUND = 1 << 19  # sessions


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast a model learns.

    Attributes:
        epochs: Passes at most.
        patience: Passes without a better held-out likelihood after which to stop.
        rate: Learning rate of Adam, in (0, 1].
        batch_size: Sessions a step.
        seed: Names initial weights, orders and dropout.
        round: Sessions between two checkpoints, at most.

    Raises:
        ValueError: A number is out of its range.
    """

    epochs: int = 8
    patience: int = 2
    rate: float = 0.01
    batch_size: int = 512
    seed: int = 0
    round: int = ROUND

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "round"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        if not 0 < self.rate <= 1:  # nan is not either
            raise ValueError(
                f"rate must be above 0 and at most 1, got {self.rate}; .001 to .02 "
                "are usual"
            )
