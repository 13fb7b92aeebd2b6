"""Losses of click models and rankers, in `keras.ops`: one number per list.

Every loss is a pure function of `y_true`, shape `(batch, list_size)` with -1 at
padding, and of logits `y_pred`. It returns shape `(batch,)`, so that the mean over the
batch, the default reduction of the Keras shells, is a mean over sessions. Padding is
left out before anything is computed: it adds exactly 0 to a loss and to its gradient,
whatever its logit, and a list that is all padding has loss 0. Any other negative label
makes the loss nan. Logits of half precision are computed with in single.

`weights` is one number per list, `(batch,)` or `(batch, 1)`, or one per item,
`(batch, list_size)`, such as inverse propensities. The shells take them as
`sample_weight`, so `model.fit(x, y, sample_weight=weights)` works with either.

Softplus and logsumexp throughout, never `ops.logaddexp`: its gradient on the TensorFlow
backend is wrong where the arguments tie, as they do in zero-initialised towers.

To add a loss, write the function and its shell in a file of their own, and enter the
shell in `LOSSES`: the property tests pick it up from there.
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
