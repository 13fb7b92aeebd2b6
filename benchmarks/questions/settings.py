"""How models learn on small worlds; loads no TensorFlow."""

from typing import Any

from benchmarks.ranking.settings import identity
from debias.training.config import TrainingConfig

BATCH = 128  # sessions


def config(seed: int = 0) -> TrainingConfig:
    """The defaults but for small batches, which small logs need fewer passes of."""
    return TrainingConfig(batch_size=BATCH, seed=seed)


def learning() -> dict[str, Any]:
    """All of it that decides a result, but the seed."""
    return identity(config())
