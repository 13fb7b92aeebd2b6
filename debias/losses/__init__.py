"""Losses for click models and rankers, in `keras.ops`.

Every loss is a pure function of labels `y_true` and logits `y_pred`. Labels have the
shape `(batch, list_size)`, with -1 at padding. A loss returns one number per list, in
shape `(batch,)`, so the default reduction of the Keras classes is a mean over sessions.
Padding adds exactly 0 to a loss and to the gradient, for any logit at padding. A list
that contains only padding has loss 0. A negative label other than -1 makes the loss
nan. Logits in half precision are converted to single precision.

`weights` has one number per list, in shape `(batch,)` or `(batch, 1)`, or one number
per item, in shape `(batch, list_size)`. Inverse propensities are an example of item
weights. The Keras classes take weights as `sample_weight`, so `model.fit(x, y,
sample_weight=weights)` works with weights of lists and of items.

All losses use softplus and logsumexp instead of `ops.logaddexp`. On TensorFlow, the
gradient of `logaddexp` is wrong for equal arguments, which occur in zero-initialised
towers.

To add a loss, write a function and its Keras class, and add the class to `LOSSES`. The
property tests then include the new loss.
"""

from debias.losses.click import click_cross_entropy
from debias.losses.keras import (
    LOSSES,
    ApproxNDCG,
    ClickCrossEntropy,
    MixtureLikelihood,
    PairwiseLogistic,
    SoftmaxCrossEntropy,
)
from debias.losses.lists import ListLoss
from debias.losses.mixture import (
    component_losses,
    conditional_logits,
    mixture_likelihood,
    mixture_logits,
    mixture_of_logits,
    responsibilities,
)
from debias.losses.ranking import approx_ndcg, pairwise_logistic, softmax_cross_entropy

__all__ = [
    "LOSSES",
    "ApproxNDCG",
    "ClickCrossEntropy",
    "ListLoss",
    "MixtureLikelihood",
    "PairwiseLogistic",
    "SoftmaxCrossEntropy",
    "approx_ndcg",
    "click_cross_entropy",
    "component_losses",
    "conditional_logits",
    "mixture_likelihood",
    "mixture_logits",
    "mixture_of_logits",
    "pairwise_logistic",
    "responsibilities",
    "softmax_cross_entropy",
]
