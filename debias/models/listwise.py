"""Click models that learn which of the items shown was clicked, not whether one was.

A pointwise click model must explain why one list is clicked more often than another:
the query, the hour, the patience of the user. A ranking needs none of that. `Listwise`
asks of the same model only how the clicks of a list fall on its items; what all items
of a list share drops out.
"""

from typing import Any

import keras

from debias.losses import softmax_cross_entropy
from debias.models.click_model import ClickModel
from debias.types import Batch, Tensor


@keras.saving.register_keras_serializable(package="debias")
class Listwise(ClickModel):
    """A click model trained by L = -sum_i c_i log softmax(z)_i, z its click logits.

    exp(-L) is the probability that the clicks of a session, given how many there are,
    fall on these items, each click being drawn on its own. With an additive model,
    z_i = r(x_i) + g(place_i), it is that of a position-based user, whose examination is
    exp(g) and attraction exp(r), both up to a factor. Sessions without a click count
    nothing. The model ranks by the score that it had; its logits have no scale, so it
    predicts no click.

    Listwise models are also parts of a mixture, which then knows the kinds of users by
    where in a list they click. Serve such a mixture by "relevance".

    Args:
        model: A click model that returns logits.

    Source: the softmax loss of Cao et al., Learning to Rank: From Pairwise Approach to
    Listwise Approach, ICML 2007, with clicks for labels, on any click model's logits.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Additive
    >>> model = Listwise(Additive(Tower(), BiasTower({"position": 10})))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> clicks = np.eye(2, 10, dtype="float32")  # one click on items that are alike
    >>> losses = model.session_losses(batch, clicks, model(batch))
    >>> [round(float(loss), 4) for loss in losses]  # log 10
    [2.3026, 2.3026]
    """

    predicts_clicks = False
    takes_weight = False

    def __init__(self, model: ClickModel, **kwargs: Any):
        super().__init__({"model": model}, **kwargs)
        self.model = model

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        return self.model(batch, training=training)

    def score(self, features: Tensor) -> Tensor:
        return self.model.score(features)

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        """-log P(which items were clicked) of each session in nats, `(batch,)`."""
        return softmax_cross_entropy(clicks, outputs)
