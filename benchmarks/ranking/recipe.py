"""The gain of each part of the training recipe, on the tuning worlds.

Each row changes one part of the recipe: weight averaging, weight decay, batch size,
learning rate, or number of passes. `adam_alone` has no averaging, no decay, a low
learning rate and few passes. Rows of this table are parts of the recipe, so its
populations are pairs of a learner and simulated users.
"""

from collections.abc import Mapping

from benchmarks.harness.plan import Table
from benchmarks.ranking.tables import CROWDS, HALF
from benchmarks.ranking.trials import TUNING_SEED, Trial
from debias.training.config import TrainingConfig

WHOLE = "whole"
PARTS: Mapping[str, TrainingConfig] = {
    WHOLE: TrainingConfig(),
    "no_average": TrainingConfig(averaging=None),
    "short_window": TrainingConfig(averaging=15.0),
    "no_decay": TrainingConfig(decay=0.0),
    "neither": TrainingConfig(averaging=None, decay=0.0),
    "adam_alone": TrainingConfig(
        epochs=8, patience=2, rate=0.005, decay=0.0, averaging=None, min_steps=0
    ),
    "batch_128": TrainingConfig(batch_size=128),
    "batch_2048": TrainingConfig(batch_size=2048),
    "rate_.003": TrainingConfig(rate=0.003),
    "rate_.03": TrainingConfig(rate=0.03),
    **{f"passes_{n}": TrainingConfig(epochs=n) for n in (1, 2, 4, 8)},
}
LEARNERS = ("softmax_naive", "product", "listwise")

TABLE = Table(
    name="recipe",
    title="Gain from each part of the training recipe, by learner and population",
    experiments=tuple(
        Trial(part, f"{learner}-{crowd}", HALF, config, crowd, learner=learner)
        for learner in LEARNERS
        for crowd in CROWDS
        for part, config in PARTS.items()
    ),
    metrics=("ndcg@5", "ndcg@10", "click_log_likelihood", "seconds"),
    baseline=WHOLE,
    clicks="",
    lower=("seconds",),
    seeds=3,
    first_seed=TUNING_SEED,
    holm=True,
)
