"""Click models trained by a softmax over the list: which item was clicked.

A pointwise click model must also explain why one list gets more clicks than another.
The query, the hour and the patience of the user matter for this, but not for a ranking.
`Listwise` trains the same model only on which items of a list were clicked. Effects
that all items of a list share cancel out.
"""

from typing import Any

import keras

from debias.losses import softmax_cross_entropy
from debias.models.click_model import ClickModel
from debias.types import Batch, Tensor


@keras.saving.register_keras_serializable(package="debias")
class Listwise(ClickModel):
    """A click model trained by L = -sum_i c_i log softmax(z)_i, with click logits z.

    exp(-L) is the probability of the clicked items given the number of clicks, if
    clicks are drawn independently. An additive model has z_i = r(x_i) + g(place_i).
    exp(-L) is then the probability for a position-based user with examination exp(g)
    and attraction exp(r), both up to a factor. Sessions without a click add nothing to
    the loss. The model ranks by the score of the wrapped model. The logits have no
    absolute level, so the model does not predict clicks.

    Listwise models can be components of a mixture, which then infers the kind of user
    from the positions of the clicks. Serve such a mixture by "relevance".

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
        """-log P(which items were clicked) of each session in nats, `(batch,)`."""
        return softmax_cross_entropy(clicks, outputs)
