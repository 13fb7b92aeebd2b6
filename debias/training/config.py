"""Settings of training. Importing this module does not load TensorFlow."""

import math
from dataclasses import dataclass
from numbers import Integral

ROUND = 1 << 19  # sessions
USUAL = 100_000  # sessions of a log for which a decay of 1 is best
WIDE = 136  # number of features of the simulated data on which decays were tuned
MOST_DECAY = 20.0  # for that number of features
PASSES = 16  # unless a small log needs more
ONE_OR_MORE = ("epochs", "patience", "batch_size", "round")
ZERO_OR_MORE = ("min_steps", "seed")
LIMIT = 1 << 32  # of the seeds of Keras, and of any number of passes or sessions
FEWEST_STEPS = 10  # steps of a round, because its start costs several steps


@dataclass(frozen=True)
class TrainingConfig:
    """Settings for training a click model.

    Attributes:
        epochs: Largest number of passes. None means 16, or enough passes for
            `min_steps` steps if the log is small.
        patience: Training stops after this many evaluations without a better held-out
            likelihood. An evaluation follows each pass. During a long pass, there are
            further evaluations.
        rate: Learning rate of Adam, in (0, 1].
        decay: Decoupled weight decay of the kernels in relevance towers, at least 0.
            Each step multiplies these kernels by 1 - rate x decay. Position tables,
            biases, priors and embeddings (except those of linear towers) do not decay.
            None means sqrt(100,000 / sessions), because towers overfit more with fewer
            clicks. This default is at most 20 and at most 0.5 / rate. For F < 136
            features, the default is also at most max(1, 20 sqrt(F / 136)).
        averaging: Parameter `averaging` of `RowWiseAdam`. Evaluated and saved weights
            are averages over a window that grows with training. None turns averaging
            off.
        min_steps: Number of steps that a fit may take even if this needs more than 16
            passes. The number applies only if `epochs` is None.
        batch_size: Sessions per step.
        seed: Random seed for initial weights, session order and dropout.
        round: Largest number of sessions between two checkpoints.

    Raises:
        ValueError: A number is out of its range.
    """

    epochs: int | None = None
    patience: int = 3
    rate: float = 0.01
    decay: float | None = None
    averaging: float | None = 3.0
    batch_size: int = 512
    min_steps: int = 400
    seed: int = 0
    round: int = ROUND

    def __post_init__(self) -> None:
        for name in (*ONE_OR_MORE, *ZERO_OR_MORE):
            value, least = getattr(self, name), int(name in ONE_OR_MORE)
            if name == "epochs" and value is None:
                continue
            if not (isinstance(value, Integral) and least <= int(value) < LIMIT):
                raise ValueError(
                    f"{name} must be a whole number from {least} to {LIMIT - 1}, "
                    f"got {value!r}"
                )
        decay = self.decay
        if decay is not None and not 0 <= decay < float("inf"):  # also rejects nan
            raise ValueError(f"decay must be 0 or more and finite, got {decay}")
        if not 0 < self.rate <= 1:
            raise ValueError(
                f"rate must be above 0 and at most 1, got {self.rate}; .001 to .02 "
                "are usual"
            )
        if self.decay is not None and self.rate * self.decay >= 1:
            raise ValueError(
                f"decay {self.decay} at rate {self.rate} removes all of a weight in a "
                "step: rate x decay must be below 1; decays of 0 to 10 are usual"
            )
        if self.averaging is not None and not 0 <= self.averaging < float("inf"):
            raise ValueError(f"averaging must be 0 or more, got {self.averaging}")

    @staticmethod
    def of(config: "TrainingConfig | None") -> "TrainingConfig":
        """The given settings, or the default settings instead of None.

        Raises:
            ValueError: The argument has another type.
        """
        if not isinstance(config, TrainingConfig | None):
            raise ValueError(
                "config must be a TrainingConfig, such as "
                f"debias.TrainingConfig(epochs=4), got {type(config).__name__}"
            )
        return TrainingConfig() if config is None else config

    def decay_of(self, sessions: int, features: int = WIDE) -> float:
        """Weight decay for a log with these numbers of sessions and features.

        >>> TrainingConfig().decay_of(100_000), TrainingConfig().decay_of(25_000)
        (1.0, 2.0)
        >>> round(TrainingConfig().decay_of(500), 1)
        14.1
        >>> round(TrainingConfig().decay_of(500, features=4), 1)
        3.4
        >>> TrainingConfig(decay=0.5).decay_of(25_000)
        0.5
        """
        if self.decay is not None:
            return self.decay
        narrow = math.sqrt(min(features / WIDE, 1.0))
        # Otherwise, a step would remove half of a weight.
        most = min(max(1.0, MOST_DECAY * narrow), 0.5 / self.rate)
        return min(most, math.sqrt(USUAL / max(sessions, 1)))

    def passes(self, sessions: int, usual: int = PASSES) -> int:
        """Largest number of passes over a log with this number of sessions.

        >>> TrainingConfig(batch_size=100, min_steps=400).passes(1000)
        40
        >>> TrainingConfig(epochs=2).passes(1000)
        2
        """
        if self.epochs is not None:
            return min(self.epochs, usual) if usual < PASSES else self.epochs
        return max(usual, -(-self.min_steps // self._steps(sessions)))

    def passes_a_round(self, sessions: int) -> int:
        """Number of passes between two evaluations; above 1 only for a small log."""
        if self.epochs is not None:
            return 1
        return max(1, FEWEST_STEPS // self._steps(sessions))

    def _steps(self, sessions: int) -> int:
        return max(1, -(-sessions // self.batch_size))
