"""Metrics of rankings and click predictions, in NumPy.

Ranking metrics read labels and scores of the same shape, in one of two layouts:

- padded: `(lists, list_size)`, with a boolean `mask` or with label -1 at padding;
- ragged: `(items,)` with `offsets` `(lists + 1,)`, list q owning
  `offsets[q]:offsets[q + 1]`, as `RankingData` stores them.

They return one value per list, `(lists,)`. If `k` is a sequence, they return `(lists,
len(k))`; several cutoffs cost little more than one. `estimate` computes their mean. All
metrics have the same policies:

- If scores tie, the value is the exact expectation over all orders of tied items. So a
  model with constant scores gets chance level, and no seed is needed. Without ties, the
  expectation costs no extra time.
- An empty list, or a list without a relevant item, says nothing about a ranker. The
  value of such a list is nan. `estimate` leaves out these lists and counts them.
- A list shorter than k is not an error; missing items have gain 0.
- Scores must be finite. To exclude an item from a ranking, mask it.

Click metrics read clicks and predictions of shape `(sessions, list_size)` in display
order, with padding by `mask` or -1. Likelihoods are in nats.
"""

from debias.metrics.clicks import (
    click_concordance,
    click_log_likelihood,
    click_mrr,
    click_share,
    concordant_pairs,
    item_log_likelihood,
    perplexity,
    perplexity_per_rank,
    session_log_likelihood,
)
from debias.metrics.ranking import Cutoff, dcg, hit_rate, mrr, ndcg, precision, recall
from debias.metrics.statistics import (
    Difference,
    Estimate,
    effective_sample_size,
    estimate,
    paired_difference,
)

__all__ = [
    "Cutoff",
    "Difference",
    "Estimate",
    "click_concordance",
    "click_log_likelihood",
    "click_mrr",
    "click_share",
    "concordant_pairs",
    "dcg",
    "effective_sample_size",
    "estimate",
    "hit_rate",
    "item_log_likelihood",
    "mrr",
    "ndcg",
    "paired_difference",
    "perplexity",
    "perplexity_per_rank",
    "precision",
    "recall",
    "session_log_likelihood",
]
