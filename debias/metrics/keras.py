"""The metrics of `debias.metrics` as Keras metrics, for `fit` and `evaluate`.

The Keras metrics follow the rules of the NumPy metrics. The label -1 in `y_true` marks
padding. The metrics are exact expectations over all orders of tied items. The mean
leaves out lists without a relevant item. The variable `left_out` counts the lists
without a relevant item. The Keras metrics return nan for invalid labels and for scores
that are not finite, while the NumPy metrics raise an error. `sample_weight` weights
lists and has the shape `(batch,)` or `(batch, 1)`. The metrics compare all pairs of
items in a list, so memory is proportional to batch size times list_size^2.
"""

from typing import Any

import keras
from keras import ops

from debias.losses import click_cross_entropy, conditional_logits
from debias.types import Tensor

_registered = keras.saving.register_keras_serializable(package="debias")


class _ListMean(keras.metrics.Metric):
    """Mean of a value per list, over the lists that have a value."""

    def __init__(self, name: str, dtype: Any):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")
        self.left_out = self.add_variable((), "zeros", name="left_out")

    def values(self, y: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Value of each list, and whether the list counts, both `(batch,)`."""
        raise NotImplementedError

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y = ops.cast(ops.convert_to_tensor(y_true), self.dtype)
        scores = ops.cast(ops.convert_to_tensor(y_pred), self.dtype)
        mask = y != -1
        value, counts = self.values(ops.where(mask, y, 0.0), scores, mask)
        fine = (y >= 0) & ops.isfinite(y) & ops.isfinite(scores)
        wrong = ops.any(mask & ops.logical_not(fine), axis=1)
        value, counts = ops.where(wrong, float("nan"), value), counts | wrong
        weights = ops.cast(counts, self.dtype)
        self.left_out.assign_add(ops.sum(1.0 - weights))
        weights = weights * _list_weights(sample_weight, weights)
        self.total.assign_add(ops.sum(ops.where(counts, value, 0.0) * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total, self.count)


def _list_weights(sample_weight: Tensor | None, like: Tensor) -> Tensor:
    if sample_weight is None:
        return ops.ones_like(like)
    weights = ops.cast(ops.convert_to_tensor(sample_weight), like.dtype)
    if len(weights.shape) == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if len(weights.shape) > 1:
        raise ValueError(
            "sample_weight of a metric weighs lists, shape (batch,) or (batch, 1), got "
            f"{tuple(weights.shape)}"
        )
    return weights


def _places(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Number of items with a higher score, and with an equal score including itself."""
    rival, own = ops.expand_dims(scores, 1), ops.expand_dims(scores, 2)
    valid = ops.expand_dims(mask, 1)
    first = ops.sum(ops.cast(valid & (rival > own), "int32"), axis=2)
    size = ops.sum(ops.cast(valid & (rival == own), "int32"), axis=2)
    return ops.where(mask, first, 0), ops.where(mask, size, 1)


def _cut(worth: Tensor, k: int | None) -> Tensor:
    rank = ops.arange(1, ops.shape(worth)[0] + 1)
    return worth if k is None else ops.where(rank <= k, worth, 0.0)


def _named(name: str | None, metric: str, k: int | None) -> str:
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return name or (metric if k is None else f"{metric}@{k}")


@_registered
class NDCG(_ListMean):
    """Mean NDCG@k with gain 2^y - 1 and discount 1 / log2(1 + rank).

    The metric equals the mean of `debias.metrics.ndcg`. The metric also equals
    TF-Ranking's `NDCGMetric` if no scores tie and every list has a relevant item.
    TF-Ranking breaks ties at random and counts a list without a relevant item as 0.

    Args:
        k: int or None. Cutoff. None means the whole list.
        name: str or None. None gives the name `ndcg@k`.
        dtype: Data type of the state.

    >>> metric = NDCG(k=2)
    >>> metric.update_state([[0, 1], [0, 0]], [[1.0, 0.0], [1.0, 0.0]])
    >>> round(float(metric.result()), 6), int(metric.left_out)  # 1 / log2(3)
    (0.63093, 1)
    """

    def __init__(self, k: int | None = 10, name: str | None = None, dtype: Any = None):
        super().__init__(_named(name, "ndcg", k), dtype)
        self.k = k

    def values(self, y: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        rank = ops.cast(ops.arange(1, ops.shape(y)[1] + 1), self.dtype)
        worth = _cut(1.0 / ops.log2(1.0 + rank), self.k)
        upto = ops.concatenate([ops.zeros_like(worth[:1]), ops.cumsum(worth)])
        first, size = _places(scores, mask)
        mean = ops.take(upto, first + size) - ops.take(upto, first)
        top = ops.max(y, axis=1, keepdims=True)
        gains = 2.0 ** (y - top) - 2.0**-top  # divided by 2^top, which may overflow
        dcg = ops.sum(gains * mean / ops.cast(size, self.dtype), axis=1)
        best = ops.sum(ops.flip(ops.sort(gains, axis=1), axis=1) * worth, axis=1)
        return dcg / ops.where(best > 0, best, 1.0), best > 0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


@_registered
class MRR(_ListMean):
    """Mean reciprocal rank of the first item with label >= `relevant`.

    The metric equals the mean of `debias.metrics.mrr`. With clicks as labels, the
    metric is the click MRR.

    Args:
        k: int or None. Cutoff: the value is 0 if the first relevant item is below rank
            k.
        relevant: float. Smallest label of a relevant item.
        name: str or None. None gives the name `mrr` or `mrr@k`.
        dtype: Data type of the state.

    >>> metric = MRR()
    >>> metric.update_state([[0, 1, -1]], [[1.0, 0.0, 2.0]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        k: int | None = None,
        relevant: float = 1.0,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(_named(name, "mrr", k), dtype)
        self.k = k
        self.relevant = relevant

    def values(self, y: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        list_size = ops.shape(y)[1]
        hits = mask & (y >= self.relevant)
        first, size = _places(scores, mask)
        start = ops.min(ops.where(hits, first, list_size - 1), axis=1, keepdims=True)
        group = hits & (first == start)
        r = ops.sum(ops.cast(group, self.dtype), axis=1, keepdims=True)
        m = ops.max(ops.where(group, size, 1), axis=1, keepdims=True)
        m = ops.cast(m, self.dtype)
        # Probability that j items of the group come first: p_0 = r / m, then by ratios.
        j = ops.cast(ops.arange(1, list_size), self.dtype)
        ratio = ops.maximum(m - r - j + 1.0, 0.0) / ops.maximum(m - j, 1.0)
        p = ops.cumprod(ops.concatenate([r / m, ratio], axis=1), axis=1)
        rank = ops.cast(ops.arange(1, list_size + 1), self.dtype)
        worth = _cut(1.0 / rank, self.k)
        reached = ops.minimum(start + ops.arange(list_size), list_size - 1)
        return ops.sum(p * ops.take(worth, reached), axis=1), ops.any(hits, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "relevant": self.relevant}


class _Clicks(keras.metrics.Metric):
    """Base of the click metrics: cross-entropy of each item in nats."""

    def __init__(self, log_prior: Any, name: str, dtype: Any):
        super().__init__(name=name, dtype=dtype)
        self.log_prior = None if log_prior is None else [float(x) for x in log_prior]

    def items(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy and weight of each item, both `(batch, list_size)`."""
        y = ops.cast(ops.convert_to_tensor(y_true), self.dtype)
        z = ops.cast(ops.convert_to_tensor(y_pred), self.dtype)
        if len(z.shape) == 3:
            z = conditional_logits(y, z, self.log_prior)
        weights = ops.cast(y != -1, self.dtype)
        lists = _list_weights(sample_weight, weights[:, 0])
        weights = weights * ops.reshape(lists, (-1, 1))
        shape = ops.shape(y)
        cells = ops.reshape(y, (-1, 1)), ops.reshape(z, (-1, 1))
        return ops.reshape(click_cross_entropy(*cells), shape) * weights, weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "log_prior": self.log_prior}


@_registered
class ClickLogLikelihood(_Clicks):
    """Mean log-likelihood of the clicks of shown items, in nats; higher is better.

    The metric equals `debias.metrics.click_log_likelihood`. Mixture logits `(batch,
    list_size, K)` are first converted to conditional logits, which predict each click
    from the clicks above it.

    Args:
        log_prior: Log prior of a mixture, K numbers. None means a uniform prior.
        name: str.
        dtype: Data type of the state.

    >>> metric = ClickLogLikelihood()
    >>> metric.update_state([[1, 0, -1]], [[0.0, 0.0, 5.0]])
    >>> round(float(metric.result()), 6)  # -log 2
    -0.693147
    """

    def __init__(
        self,
        log_prior: Any = None,
        name: str = "click_log_likelihood",
        dtype: Any = None,
    ):
        super().__init__(log_prior, name, dtype)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        losses, weights = self.items(y_true, y_pred, sample_weight)
        self.total.assign_add(-ops.sum(losses))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total, self.count)


@_registered
class Perplexity(_Clicks):
    """Click perplexity, averaged over the ranks that have items.

    The metric equals `debias.metrics.perplexity`. Mixture logits are converted to
    conditional logits, as in `ClickLogLikelihood`.

    Args:
        list_size: int. Number of ranks.
        log_prior: Log prior of a mixture, K numbers. None means a uniform prior.
        name: str.
        dtype: Data type of the state.

    >>> metric = Perplexity(list_size=3)
    >>> metric.update_state([[1, 0, -1]], [[0.0, 0.0, 5.0]])
    >>> round(float(metric.result()), 6)
    2.0
    """

    def __init__(
        self,
        list_size: int,
        log_prior: Any = None,
        name: str = "perplexity",
        dtype: Any = None,
    ):
        if list_size < 1:
            raise ValueError(f"list_size must be at least 1, got {list_size}")
        super().__init__(log_prior, name, dtype)
        self.list_size = list_size
        self.total = self.add_variable((list_size,), "zeros", name="total")
        self.count = self.add_variable((list_size,), "zeros", name="count")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        losses, weights = self.items(y_true, y_pred, sample_weight)
        if losses.shape[1] not in (None, self.list_size):
            raise ValueError(
                f"Perplexity(list_size={self.list_size}) got lists of {losses.shape[1]}"
            )
        self.total.assign_add(ops.sum(losses, axis=0))
        self.count.assign_add(ops.sum(weights, axis=0))

    def result(self) -> Tensor:
        shown = self.count > 0
        each = ops.exp(ops.divide_no_nan(self.total, self.count))
        ranks = ops.sum(ops.cast(shown, each.dtype))
        return ops.divide_no_nan(ops.sum(ops.where(shown, each, 0.0)), ranks)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "list_size": self.list_size}


METRICS: dict[str, type[keras.metrics.Metric]] = {
    "ndcg": NDCG,
    "mrr": MRR,
    "click_log_likelihood": ClickLogLikelihood,
    "perplexity": Perplexity,
}
