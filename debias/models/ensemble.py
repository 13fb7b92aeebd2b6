"""Ensembles of click models, with separate losses and averaged scores.

The errors of the models differ, so the mean score has less noise than each score. A
fair baseline for a mixture is an ensemble with the same number of towers, because the
two have the same capacity.
"""

from collections.abc import Sequence
from typing import Any

import keras

from debias.models.click_model import ClickModel
from debias.types import Batch, Tensor


@keras.saving.register_keras_serializable(package="debias")
class Ensemble(ClickModel):
    """The mean of several click models, each of which is trained by its own loss.

    The score is the mean score of the K models, and the click logit is the mean of the
    K click logits. In training, the loss of a session is the sum of the losses of all
    models, so each model learns only from its own errors. Evaluation uses the loss of
    the mean logit.

    Args:
        parts: K models of one class that return click logits. Give the models different
            seeds. Models with equal initial weights stay identical, and their mean is
            no better than a single model.

    Raises:
        ValueError: `parts` is empty, or only some of the models predict clicks.

    Source: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles, NeurIPS 2017.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Product
    >>> parts = [Product(Tower(seed=k), BiasTower({"position": 10})) for k in (0, 1)]
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> [tuple(logits.shape) for logits in Ensemble(parts)(batch)]
    [(2, 10), (2, 10)]
    """

    def __init__(self, parts: Sequence[ClickModel], **kwargs: Any):
        if len({part.predicts_clicks for part in parts}) != 1:
            raise ValueError(
                "parts must be click models of one kind: all predict clicks, or none "
                f"does, got {[type(part).__name__ for part in parts]}"
            )
        super().__init__({"parts": list(parts)}, **kwargs)
        self.parts = list(parts)
        self.predicts_clicks = self.parts[0].predicts_clicks
        self.takes_weight = all(part.takes_weight for part in self.parts)

    def call(self, batch: Batch, training: bool = False) -> list[Tensor]:
        return [part(batch, training=training) for part in self.parts]

    def click_logits(self, batch: Batch, outputs: list[Tensor]) -> Tensor:
        return sum(outputs[1:], outputs[0]) / len(outputs)

    def intercepts(self) -> list[tuple[Any, Any]]:
        return [each for part in self.parts for each in part.intercepts()]

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Any, training: bool = False
    ) -> Tensor:
        """Sum of the models' losses in training, or loss of the mean in evaluation."""
        if not training:
            mean = self.click_logits(batch, outputs)
            return self.parts[0].session_losses(batch, clicks, mean)
        each = zip(self.parts, outputs, strict=True)
        losses = [part.session_losses(batch, clicks, z, True) for part, z in each]
        return sum(losses[1:], losses[0])

    def learn_from(self, batch: Batch, clicks: Tensor, outputs: list[Tensor]) -> None:
        for part, logits in zip(self.parts, outputs, strict=True):
            part.learn_from(batch, clicks, logits)

    def score(self, features: Tensor) -> Tensor:
        scores = [part.score(features) for part in self.parts]
        return sum(scores[1:], scores[0]) / len(scores)
