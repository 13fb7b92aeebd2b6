"""Metrics of rankings and of click predictions, in NumPy.

Ranking metrics read labels and scores of the same shape, in one of two layouts:

- padded: `(lists, list_size)`, with a boolean `mask` or with label -1 at padding;
- ragged: `(items,)` with `offsets` `(lists + 1,)`, list q owning
  `offsets[q]:offsets[q + 1]`, as `RankingData` stores them.

They return one value a list, `(lists,)`, or `(lists, len(k))` where `k` is a sequence,
at little more than the cost of one cutoff. `estimate` makes means of them. The policies
are the same for all:

- Ties: the exact expectation over all orders of tied items, so that a collapsed model
  gets chance level and no seed is needed. Costs nothing where there are none.
- An empty list, and a list without a relevant item, says nothing about a ranker: its
  value is nan, which `estimate` leaves out and counts.
- A list shorter than k is not an error; what is not there has gain 0.
- Scores must be finite: to keep an item out of a ranking, mask it.

Click metrics read clicks and predictions of shape `(sessions, list_size)` in display
order, padding given by `mask` or by -1. Likelihoods are in nats.
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
