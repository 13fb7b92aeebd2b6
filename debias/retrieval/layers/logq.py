"""The logQ correction of sampled candidates, masks, and streaming frequencies.

A column of a score matrix is a sampled candidate: the positive of another row, or an
item that a sampler drew. Popular items are sampled often. So a softmax over candidates
learns to penalise popularity, unless the log of the sampling probability is subtracted
from the scores.
"""

from typing import Any

import keras
from keras import ops

from debias.types import Tensor

MASKED = -1e9


def correct(scores: Tensor, log_q: Tensor) -> Tensor:
    """Subtracts log q_c from the score of each column c, including the positive.

    The scores must already be divided by the temperature; log q is not divided by the
    temperature. Since log q is negative, all scores rise, and the scores of rare items
    rise most.

    Source: Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, RecSys 2019; Bengio and Senecal, IEEE TNN 2008.

    >>> corrected = correct(ops.array([2.0, 2.0]), ops.log(ops.array([0.5, 0.25])))
    >>> [round(float(score), 4) for score in corrected]  # 2 + log 2, 2 + log 4
    [2.6931, 3.3863]
    """
    return scores - ops.cast(log_q, scores.dtype)


def mask_columns(scores: Tensor, mask: Tensor) -> Tensor:
    """Sets scores at masked columns to -1e9, so that exp gives exactly 0.

    >>> float(mask_columns(ops.array([1.0, 2.0]), ops.array([False, True]))[1])
    -1000000000.0
    """
    return ops.where(mask, MASKED, scores)


def accidental_hits(candidate: Tensor, positive: Tensor) -> Tensor:
    """(B, C) bool, marks further columns that contain the item of the row's positive.

    Args:
        candidate: (C,) or (B, C) id codes.
        positive: (B,) int, the column of each row's positive.

    >>> hits = accidental_hits(ops.array([7, 8, 7]), ops.array([0, 1, 2]))
    >>> ops.convert_to_numpy(hits).astype(int).tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    positive = ops.expand_dims(ops.cast(positive, "int32"), -1)
    if len(candidate.shape) == 1:
        candidate = ops.expand_dims(candidate, 0)
        own = ops.take(candidate[0], positive, axis=0)
    else:
        own = ops.take_along_axis(candidate, positive, axis=1)
    columns = ops.arange(candidate.shape[1] or ops.shape(candidate)[1])
    return (candidate == own) & (ops.cast(columns, "int32") != positive)


@keras.saving.register_keras_serializable(package="debias")
class StreamingFrequency(keras.layers.Layer):
    """Streaming estimates of sampling probabilities in fixed memory.

    Samples are numbered across batches. Suppose that an item has slot h and occurs c
    times in a batch, the last time as sample t. Each of the `hashes` pairs of arrays A
    and B is updated by

        gap = (t - A[h]) / c,   B[h] <- (1 - a)^c B[h] + (1 - (1 - a)^c) gap,
        A[h] <- t

    The estimate is p = 1 / B[h], from the array with the largest B[h]. Items that share
    a slot look more frequent, so an array without a collision has the largest B[h]. For
    c = 1, the update is algorithm 2 of Yi et al. with a clock that counts samples
    instead of batches. If the clock counted batches, an item in every batch would have
    probability 1, however often it occurs in a batch. After n updates of a slot h, B[h]
    is divided by 1 - (1 - a)^n to correct the bias of early estimates. An unseen item
    has p = 1 / t after t samples.

    An update costs O(size) per batch. The layer is not trained; only `update` changes
    it.

    Source: Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, RecSys 2019, algorithm 2.

    Args:
        size: Number of slots per array.
        hashes: Number of arrays. A single array whose `size` exceeds every id code has
            no collisions.
        alpha: a, the step size of the updates, in (0, 1). The estimate's relative
            standard error is near sqrt(a / 2).

    >>> frequency = StreamingFrequency(size=10, alpha=0.1)
    >>> for _ in range(40):
    ...     frequency.update(ops.array([2, 2, 2, 5]))
    >>> [round(float(p), 2) for p in ops.exp(frequency.log_q(ops.array([2, 5])))]
    [0.75, 0.25]
    """

    def __init__(
        self, size: int = 1 << 16, hashes: int = 1, alpha: float = 0.01, **kwargs: Any
    ):
        super().__init__(**{"trainable": False, **kwargs})
        if size < 1 or hashes < 1:
            raise ValueError(
                f"size and hashes must be at least 1, got {size} and {hashes}"
            )
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        self.size, self.hashes, self.alpha = size, hashes, alpha

        def zeros(shape: tuple[int, ...], dtype: str, name: str) -> Any:
            return self.add_weight(
                shape=shape,
                initializer="zeros",
                dtype=dtype,
                trainable=False,
                autocast=False,
                name=name,
            )

        self.clock = zeros((), "int32", "clock")
        self.last = zeros((hashes, size), "int32", "last")
        self.gap = zeros((hashes, size), "float32", "gap")
        self.weight = zeros((hashes, size), "float32", "weight")
        self.built = True

    def _place(self, ids: Tensor, array: int) -> Tensor:
        if array == 0:
            return ops.cast(ids, "int32") % self.size
        # Multiplicative hashing in 32 bits, with one odd multiplier per array.
        factor = (2654435761 + 2 * array * 40503 * 65537) % 2**32
        mixed = ops.cast(ids, "uint32") * ops.cast(factor, "uint32")
        mixed = ops.bitwise_xor(mixed, ops.right_shift(mixed, ops.cast(15, "uint32")))
        return ops.cast(mixed % ops.cast(self.size, "uint32"), "int32")

    def update(self, ids: Tensor) -> None:
        """Updates the estimates with a batch of id codes (n,), in sampling order."""
        ids = ops.cast(ids, "int32")
        n = ops.shape(ids)[0]
        number = self.clock + 1 + ops.arange(n, dtype="int32")
        last, gap, weight = [], [], []
        for array in range(self.hashes):
            place = self._place(ids, array)
            ones = ops.ones_like(place, dtype="float32")
            count = ops.segment_sum(ones, place, self.size)
            came = count > 0
            latest = ops.segment_max(number, place, self.size)
            latest = ops.where(came, latest, self.last[array])
            mean = ops.cast(latest - self.last[array], "float32")
            mean = mean / ops.maximum(count, 1.0)
            keep = ops.power(1.0 - self.alpha, count)
            last.append(latest)
            gap.append(keep * self.gap[array] + (1.0 - keep) * mean)
            weight.append(keep * self.weight[array] + (1.0 - keep))
        self.last.assign(ops.stack(last))
        self.gap.assign(ops.stack(gap))
        self.weight.assign(ops.stack(weight))
        self.clock.assign(self.clock + ops.cast(n, "int32"))

    def log_q(self, ids: Tensor) -> Tensor:
        """Log of the sampling probabilities of id codes, an array of any shape."""
        unseen = ops.cast(ops.maximum(self.clock, 1), "float32")
        gaps = []
        for array in range(self.hashes):
            place = self._place(ids, array)
            weight = ops.take(self.weight[array], place, axis=0)
            gap = ops.take(self.gap[array], place, axis=0)
            mean = gap / ops.maximum(weight, 1e-12)
            gaps.append(ops.where(weight > 0, mean, unseen))
        longest = gaps[0]
        for gap in gaps[1:]:
            longest = ops.maximum(longest, gap)
        return -ops.log(ops.maximum(longest, 1.0))

    def call(self, ids: Tensor, training: bool = False) -> Tensor:
        if training:
            self.update(ids)
        return self.log_q(ids)

    def get_config(self) -> dict[str, Any]:
        own = {"size": self.size, "hashes": self.hashes, "alpha": self.alpha}
        return {**super().get_config(), **own}
