"""XPA, a click model in which neighbouring items affect a click."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from debias.engine.seeds import seed_at
from debias.engine.tensors import glorot, rowwise
from debias.layers import CrossPositionAttention
from debias.losses.lists import exact
from debias.models.click_model import ClickModel, on_rows, to_cells
from debias.types import Batch, Tensor

HEARD = ("relevance", "places")


@keras.saving.register_keras_serializable(package="debias")
class XPA(ClickModel):
    """Click model with cross-position attention (XPA) between the items of a list.

    Let h be the relevance embeddings and z the embeddings of the places. Item i has the
    click logit

        logit_i = w1 . h_i + w2 . z_i
                  + w3 . sum_j A_ij V_r h_j + w4 . sum_j A'_ij V_b z_j.

    The first two terms of the logit are the item's relevance and place. The last two
    terms of the logit are the effects of the neighbours' relevance and places. The
    attention weights A and A' depend only on places. Serving uses only w1 . h_i, the
    relevance of the item. By default (`attend_self=False`), the other terms of the
    logit do not depend on the item's features.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., D)`.
        bias: Layer that maps the batch dict to `(batch, list_size, E)`. For a grid,
            give a layer that reads row and column.
        dim: Dimension of the queries and keys.
        hears: Properties of the neighbours that affect a click, "relevance" (term w3),
            "places" (term w4), or both.
        attend_self: Whether an item attends to itself.
        seed: int or None. Random seed of the initial weights.

    Source: after Zhuang et al., Cross-Positional Attention for Debiasing Clicks, WWW
    2021.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = XPA(Tower(out=4), BiasTower({"position": 10}, out=4))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int),
    ...          "mask": np.ones((2, 10), bool)}
    >>> tuple(model(batch).shape), tuple(model.attention(batch).shape)
    ((2, 10), (2, 10, 10))
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        dim: int = 8,
        hears: Sequence[str] = HEARD,
        attend_self: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if not set(hears) <= set(HEARD):
            raise ValueError(f"hears must be some of {HEARD}, got {tuple(hears)}")
        arguments = {
            "relevance": relevance,
            "bias": bias,
            "dim": dim,
            "hears": list(hears),
            "attend_self": attend_self,
            "seed": seed,
        }
        super().__init__(arguments, **kwargs)
        self.relevance = relevance
        self.bias = bias
        self.own_relevance = keras.layers.Dense(1, kernel_initializer=glorot(seed, 0))
        self.own_place = keras.layers.Dense(
            1, use_bias=False, kernel_initializer=glorot(seed, 1)
        )
        # w3 V_r and w4 V_b are products of linear maps, so each is learned as one map.
        self.heard = {
            name: CrossPositionAttention(dim, 1, attend_self, seed_at(seed, 2 + place))
            for place, name in enumerate(HEARD)
            if name in hears
        }

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        h = to_cells(on_rows(self.relevance, batch["features"], training), batch)
        z = self.bias(batch, training=training)
        logit = exact(rowwise(self.own_relevance, h) + rowwise(self.own_place, z))
        for name, attention in self.heard.items():
            heard, _ = attention(h if name == "relevance" else z, z, batch["mask"])
            logit += exact(heard)
        return ops.squeeze(logit, -1)

    def attention(self, batch: Batch) -> Tensor:
        """Attention weights A of the relevance term, `(batch, list_size, list_size)`.

        Raises:
            ValueError: `hears` does not include "relevance".
        """
        if "relevance" not in self.heard:
            raise ValueError('attention needs "relevance" in hears')
        return self.heard["relevance"].weights_between(self.bias(batch), batch["mask"])

    def score(self, features: Tensor) -> Tensor:
        relevance = on_rows(self.relevance, features)
        return exact(ops.squeeze(rowwise(self.own_relevance, relevance), -1))

    def intercepts(self) -> list[tuple[Any, Any]]:
        return [(self.own_relevance.bias, 1.0)]

    def without_decay(self) -> list[keras.layers.Layer]:
        """Layers without weight decay: all layers except the relevance tower.

        On small logs, weight decay on all layers would shrink relevance to zero before
        the model learns relevance.
        """
        own = [self.own_relevance, self.own_place, *self.heard.values()]
        return [*super().without_decay(), *own]
