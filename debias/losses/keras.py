"""The losses as Keras classes, to pass to `compile`."""

from collections.abc import Sequence

from debias.losses.click import click_cross_entropy
from debias.losses.lists import ListLoss, serializable
from debias.losses.mixture import mixture_of_logits
from debias.losses.ranking import approx_ndcg, pairwise_logistic, softmax_cross_entropy


@serializable
class ClickCrossEntropy(ListLoss):
    """`click_cross_entropy` as a Keras loss."""

    function = staticmethod(click_cross_entropy)

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str | None = "click_cross_entropy",
    ):
        super().__init__(reduction, name)


@serializable
class MixtureLikelihood(ListLoss):
    """`mixture_of_logits` as a Keras loss, with one prior for all sessions."""

    function = staticmethod(mixture_of_logits)

    def __init__(
        self,
        log_prior: Sequence[float] | None = None,
        temperature: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "mixture_likelihood",
    ):
        super().__init__(
            reduction, name, log_prior=_listed(log_prior), temperature=temperature
        )


@serializable
class SoftmaxCrossEntropy(ListLoss):
    """`softmax_cross_entropy` as a Keras loss."""

    function = staticmethod(softmax_cross_entropy)

    def __init__(
        self,
        gain: bool = False,
        temperature: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "softmax_cross_entropy",
    ):
        super().__init__(reduction, name, gain=gain, temperature=temperature)


@serializable
class PairwiseLogistic(ListLoss):
    """`pairwise_logistic` as a Keras loss."""

    function = staticmethod(pairwise_logistic)

    def __init__(
        self,
        temperature: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "pairwise_logistic",
    ):
        super().__init__(reduction, name, temperature=temperature)


@serializable
class ApproxNDCG(ListLoss):
    """`approx_ndcg` as a Keras loss."""

    function = staticmethod(approx_ndcg)

    def __init__(
        self,
        temperature: float = 0.1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "approx_ndcg",
    ):
        super().__init__(reduction, name, temperature=temperature)


def _listed(log_prior: Sequence[float] | None) -> list[float] | None:
    """Converts the prior to Python floats, which a configuration can hold."""
    return None if log_prior is None else [float(value) for value in log_prior]


LOSSES: dict[str, type[ListLoss]] = {
    "click_cross_entropy": ClickCrossEntropy,
    "mixture_likelihood": MixtureLikelihood,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "pairwise_logistic": PairwiseLogistic,
    "approx_ndcg": ApproxNDCG,
}
