"""TensorFlow Ranking on a current TensorFlow and Keras 3.

TensorFlow Ranking 0.5.3 can be installed with a current TensorFlow, but has two
problems. First, `import tensorflow_ranking` fails, because TensorFlow has removed
Estimators; `load` imports the package nevertheless. Second, the Keras losses of
TensorFlow Ranking are silently wrong. Keras 3 swapped two arguments of its base class
of losses, so Keras reads the reduction of a loss as its name. `RankingLoss` is correct,
because it wraps the underlying loss functions. The metrics of TensorFlow Ranking work
unchanged:

    tfr = debias.tfr.load()
    model.compile(
        loss=debias.tfr.RankingLoss("approx_ndcg_loss"),
        metrics=[tfr.keras.metrics.NDCGMetric(topn=5)],
    )

After the first `load`, a plain `import tensorflow_ranking` works as well. Functions
that use Estimators raise an error when called. The module needs the TensorFlow backend
of Keras.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import keras

from debias.data.text import one_of
from debias.types import Tensor

# TF-Ranking's names of losses, and the classes that compute them.
LOSSES = {
    "pairwise_hinge_loss": "PairwiseHingeLoss",
    "pairwise_logistic_loss": "PairwiseLogisticLoss",
    "pairwise_soft_zero_one_loss": "PairwiseSoftZeroOneLoss",
    "pairwise_mse_loss": "PairwiseMSELoss",
    "softmax_loss": "SoftmaxLoss",
    "unique_softmax_loss": "UniqueSoftmaxLoss",
    "sigmoid_cross_entropy_loss": "SigmoidCrossEntropyLoss",
    "mean_squared_loss": "MeanSquaredLoss",
    "ordinal_loss": "OrdinalLoss",
    "list_mle_loss": "ListMLELoss",
    "approx_ndcg_loss": "ApproxNDCGLoss",
    "approx_mrr_loss": "ApproxMRRLoss",
    "click_em_loss": "ClickEMLoss",
    "mixture_em_loss": "MixtureEMLoss",
    "coupled_rankdistil_loss": "CoupledRankDistilLoss",
}


def _estimator() -> ModuleType:
    """A stand-in for `tf.estimator`, in which every name raises an error if called."""

    def unavailable(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(
                f"tf.estimator.{name} is gone from TensorFlow {_version()}"
            )

        return type(name, (), {"__init__": refuse})

    keys = {"TRAIN": "train", "EVAL": "eval", "PREDICT": "infer"}
    module, export = ModuleType("estimator"), ModuleType("estimator.export")
    module.__dict__["ModeKeys"] = type("ModeKeys", (), keys)
    module.__dict__["export"] = export
    for part in (module, export):
        part.__dict__["__getattr__"] = unavailable
    return module


def _version() -> str:
    return importlib.import_module("tensorflow").__version__


def load() -> ModuleType:
    """Imports and returns `tensorflow_ranking`, without changing TensorFlow.

    Raises:
        ImportError: TensorFlow Ranking is not installed, or Keras runs on another
            backend.

    >>> load().keras.metrics.NDCGMetric(name="ndcg", topn=5).name
    'ndcg'
    """
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "TensorFlow Ranking needs KERAS_BACKEND=tensorflow, Keras runs on "
            f"{keras.backend.backend()}"
        )
    if importlib.util.find_spec("tensorflow_ranking") is None:
        raise ImportError(
            "TensorFlow Ranking is not installed: pip install tensorflow-ranking"
        )
    if "tensorflow_ranking" in sys.modules:
        return sys.modules["tensorflow_ranking"]
    # By name: the attribute `tf.compat.v1` differs from the module of a first import.
    modules = map(importlib.import_module, ["tensorflow", "tensorflow.compat.v1"])
    lacking: list[Any] = [of for of in modules if not hasattr(of, "estimator")]
    stand_in = _estimator()
    try:
        for module in lacking:
            module.estimator = stand_in
        return importlib.import_module("tensorflow_ranking")
    finally:
        for module in lacking:
            del module.estimator


@keras.saving.register_keras_serializable(package="debias")
class RankingLoss(keras.losses.Loss):
    """A loss of TensorFlow Ranking as a Keras 3 loss.

    Values and reductions equal those of TF-Ranking's Keras 2 losses. Pointwise and
    pairwise losses are averaged over `batch * list_size` cells including padding.
    Padding a batch therefore makes these losses smaller, but not the losses of
    `debias.losses`. All losses use `temperature`. TensorFlow Ranking 0.5.3 ignored
    `temperature` in pairwise losses. Only dense tensors are supported, not ragged
    tensors.

    Args:
        loss: str. A name in `debias.tfr.LOSSES`.
        lambda_weight: None or an object such as
            `load().keras.losses.NDCGLambdaWeight()`.
        reduction: str. Reduction of a Keras loss.
        name: str or None. None uses the name of the loss.
        **arguments: Arguments of the loss in TensorFlow Ranking, such as `temperature`
            or `alpha`.

    Call arguments:
        y_true: `(batch, list_size)` labels, -1 at padding.
        y_pred: `(batch, list_size)` scores. For `mixture_em_loss`, `click_em_loss` and
            `ordinal_loss`, scores have a third axis.
        sample_weight: Weights of lists, `(batch,)` or `(batch, 1)`, or of items,
            `(batch, list_size)`.

    >>> loss = RankingLoss("mixture_em_loss")
    >>> round(float(loss([[1, 0]], [[[0.6, 0.9], [0.8, 0.2]]])), 6)
    1.31987
    """

    def __init__(
        self,
        loss: str,
        lambda_weight: Any = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        **arguments: Any,
    ):
        if loss not in LOSSES:
            raise ValueError(one_of("loss", LOSSES, loss))
        super().__init__(name=name or loss, reduction=reduction)
        self.loss = loss
        self.lambda_weight = lambda_weight
        self.arguments = arguments
        if lambda_weight is not None:
            arguments = {**arguments, "lambda_weight": lambda_weight}
        load()
        module = importlib.import_module("tensorflow_ranking.python.losses_impl")
        self.implementation = getattr(module, LOSSES[loss])(self.name, **arguments)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        # TF-Ranking applies weights before it reduces a list, so `call` needs them.
        labels = (y_true,) if sample_weight is None else (y_true, sample_weight)
        return super().__call__(labels, y_pred)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        import tensorflow as tf

        labels, weights = (*y_true, None)[:2]
        if weights is not None and weights.shape.rank == 1:
            weights = tf.expand_dims(weights, -1)
        if self.loss == "softmax_loss":
            losses, weights = self.implementation.compute_per_list(
                labels, y_pred, weights
            )
            return losses * weights
        losses, valid = self.implementation.compute_unreduced_loss(
            labels, self.implementation.get_logits(y_pred)
        )
        losses *= valid * self.implementation.normalize_weights(labels, weights)
        return tf.reduce_sum(losses, axis=2) if losses.shape.rank == 3 else losses

    def get_config(self) -> dict[str, Any]:
        weight = keras.saving.serialize_keras_object(self.lambda_weight)
        own = {"loss": self.loss, "lambda_weight": weight}
        return {**super().get_config(), **own, **self.arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RankingLoss":
        load()  # registers the classes of lambda weights, which have no from_config
        weight = config["lambda_weight"]
        if weight is not None:
            kind = keras.saving.get_registered_object(weight["registered_name"])
            parts = weight["config"].items()
            each = {k: keras.saving.deserialize_keras_object(v) for k, v in parts}
            weight = kind(**each)
        return cls(**{**config, "lambda_weight": weight})
