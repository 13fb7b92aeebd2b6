"""Click models trained by a softmax loss over the items of a list.

A pointwise click model must also explain why one list gets more clicks than another.
The number of clicks depends on the query, the time of day and the patience of the user.
Effects on a whole list do not change the order of the items in the list. `Listwise`
trains a click model only to predict which items of a list are clicked. An effect that
is equal for all items of a list cancels out.
"""

from typing import Any

import keras

from debias.losses import softmax_cross_entropy
from debias.models.click_model import ClickModel
from debias.types import Batch, Tensor


@keras.saving.register_keras_serializable(package="debias")
class Listwise(ClickModel):
    """A click model trained by L = -sum_i c_i log softmax(z)_i, with click logits z.

    If each click is an independent draw from softmax(z), then exp(-L) is the
    probability of the clicks given the number of clicks. An additive model, z_i =
    r(x_i) + g(place_i), then acts like a position-based model with examination exp(g)
    and attraction exp(r), up to constant factors. Sessions without a click add nothing
    to the loss. The model ranks by the score of the wrapped model. The loss does not
    change if a constant is added to all logits of a list. So the model does not predict
    click probabilities.

    Listwise models can be components of a mixture, which then infers the type of user
    from the positions of the clicks. A mixture of listwise models needs
    `serving="relevance"`.

    Args:
        model: A click model that returns logits.

    Source: the softmax loss of Cao et al., Learning to Rank: From Pairwise Approach to
    Listwise Approach, ICML 2007, with clicks as labels.

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
        """Softmax loss of the clicked items in each session, in nats, `(batch,)`."""
        return softmax_cross_entropy(clicks, outputs)
