"""Metrics of rankings and click predictions, in NumPy.

Ranking metrics read labels and scores of the same shape, in one of two layouts:

- The padded layout has the shape `(lists, list_size)`. A boolean `mask`, or the label
  -1, marks padding.

- The ragged layout has the shape `(items,)`, as in `RankingData`. With `offsets` of
  shape `(lists + 1,)`, list q consists of the items `offsets[q]:offsets[q + 1]`.

Ranking metrics return one value per list, `(lists,)`. If `k` is a sequence, ranking
metrics return `(lists, len(k))`. Several cutoffs take little more time than one cutoff.
`estimate` computes the mean over lists. All ranking metrics follow the same rules:

- For tied scores, the value is the exact expectation over all orders of the tied items.
  So constant scores give chance level, and the metrics need no random seed. Lists
  without ties take no extra time.

- The value is nan for an empty list and for a list without a relevant item, because
  such a list says nothing about a ranker. `estimate` excludes lists with value nan from
  the mean and counts them as `left_out`.

- A list may be shorter than k. Ranks without an item have gain 0.

- Scores must be finite. To exclude an item from a ranking, mask the item.

Click metrics read clicks and predictions of shape `(sessions, list_size)`, in display
order. A boolean `mask`, or the click -1, marks padding. Log-likelihoods are in nats.
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
