"""Training settings for small worlds; importing it does not load TensorFlow."""

from typing import Any

from benchmarks.ranking.settings import identity
from debias.training.config import TrainingConfig

BATCH = 128  # sessions


def config(seed: int = 0) -> TrainingConfig:
    """The default settings with small batches, which need fewer passes."""
    return TrainingConfig(batch_size=BATCH, seed=seed)


def learning() -> dict[str, Any]:
    """All settings that determine a result, except the seed."""
    return identity(config())
