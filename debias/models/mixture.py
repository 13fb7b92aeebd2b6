"""Mix-EM: several kinds of users, one click model for each, nobody says who is who.

A session belongs to a hidden type m of K. Component m predicts its clicks with logits
z_lm, and the session's likelihood is

    P(c_1..c_L) = sum_m prior_m prod_l P(c_l | z_lm).

Its gradient is expectation-maximisation: each component learns from the sessions it
explains, weighted by its responsibility for them, with the E-step as fresh as the
weights. Source: Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
SIGIR 2022, which fixes the prior to be uniform and drops sessions without clicks; here
the prior may be learned and every session counts.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from debias.layers.tensors import Tensor
from debias.losses import mixture_likelihood, mixture_logits, responsibilities
from debias.models.click_model import Batch, ClickModel, Place

Serving = Literal["click", "relevance"]


@keras.saving.register_keras_serializable(package="debias")
class Mixture(ClickModel):
    """A mixture of K click models over the hidden type of a session.

    Args:
        components: K click models; each starts from weights of its own (different
            seeds), for alike components would stay alike.
        prior: "learned", K shares trained with the rest, or "uniform".
        temperature: Above 0. Divides the log-likelihoods inside the posterior; 1 is
            exact maximum likelihood, more keeps the posterior soft on long lists.
        serving: What `score` is. "click": expected click probability of the item
            standing at the reference place, sum_m prior_m P(click | m), on the logit
            scale; "relevance": sum_m prior_m r_m(x), the mean of the components' own
            scores.
        reference: Place for serving="click".

    `call` returns the components' click logits `(batch, list_size, K)`; metrics given
    to `compile` see the marginal click logits of `click_logits`. On the JAX backend
    `fit` hides the weights from metrics, so there a mixture goes without them.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Additive
    >>> places = {"position": 10}
    >>> pair = [Additive(Tower(seed=m), BiasTower(places, seed=m)) for m in (0, 1)]
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> tuple(Mixture(pair)(batch).shape)
    (2, 10, 2)
    """

    def __init__(
        self,
        components: Sequence[ClickModel],
        prior: Literal["learned", "uniform"] = "learned",
        temperature: float = 1.0,
        serving: Serving = "click",
        reference: Place = 1,
        **kwargs: Any,
    ):
        if len(components) == 0:
            raise ValueError("components must hold at least one click model, got none")
        if prior not in ("learned", "uniform"):
            raise ValueError(f"prior must be 'learned' or 'uniform', got {prior!r}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if serving not in ("click", "relevance"):
            raise ValueError(f"serving must be 'click' or 'relevance', got {serving!r}")
        arguments = {
            "components": list(components),
            "prior": prior,
            "temperature": temperature,
            "serving": serving,
            "reference": reference,
        }
        super().__init__(arguments, **kwargs)
        self.components = list(components)
        self.prior = prior
        self.temperature = temperature
        self.serving = serving
        self.reference = reference
        self.prior_logits = self.add_weight(
            shape=(len(self.components),),
            initializer="zeros",
            trainable=prior == "learned",
            name="prior_logits",
        )

    def log_prior(self) -> Tensor:
        """Log shares of the types, `(K,)`."""
        return ops.log_softmax(self.prior_logits)

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        return ops.stack(
            [part(batch, training=training) for part in self.components], -1
        )

    def click_logits(self, batch: Batch, outputs: Tensor) -> Tensor:
        return mixture_logits(self.log_prior(), outputs)

    def score(self, features: Tensor) -> Tensor:
        if self.serving == "click":
            return self.logits_at(features, self.reference)
        scores = ops.stack([part.score(features) for part in self.components], -1)
        return ops.sum(scores * ops.exp(self.log_prior()), axis=-1)

    def session_losses(self, batch: Batch, clicks: Tensor, outputs: Tensor) -> Tensor:
        """-log of the mixture likelihood of each session in nats, `(batch,)`."""
        return mixture_likelihood(clicks, outputs, self.log_prior(), self.temperature)

    def responsibilities(self, batch: Batch, clicks: Tensor) -> Tensor:
        """P(type | clicks of the session), `(batch, K)`; clicks are -1 at padding."""
        return responsibilities(clicks, self(batch), self.log_prior())
