"""Mix-EM: a mixture of click models, one for each hidden type of user.

Each session belongs to one of K hidden types. For a session of type m, component m
predicts the click at position l with logit z_lm. The likelihood of a session is

    P(c_1..c_L) = sum_m prior_m prod_l P(c_l | z_lm).

Training by the gradient of this likelihood is a form of expectation maximisation. In
the gradient, component m weights each session by the posterior probability of type m.
Every training step computes new posterior probabilities.

Source: Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
SIGIR 2022. Yan et al. fix a uniform prior and drop sessions without clicks. In this
module, the prior may be learned or depend on context, and every session counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from debias.losses import (
    conditional_logits,
    mixture_likelihood,
    mixture_logits,
    responsibilities,
)
from debias.losses.lists import exact
from debias.models.click_model import ClickModel
from debias.types import Batch, Place, Tensor

Serving = Literal["click", "relevance"]
MOMENTUM = 0.99  # of the running mean of context-dependent shares


@keras.saving.register_keras_serializable(package="debias")
class Mixture(ClickModel):
    """A mixture of K click models, one for each hidden type of session.

    Args:
        components: K click models. Give the components different seeds, because
            identical components stay identical. Components may share towers. Each
            component uses its own loss, so `Listwise` components model only which items
            are clicked.
        prior: "learned", "uniform", or a layer. With "learned", the K prior
            probabilities are trained with the components. A layer maps the `context` of
            a batch, `(batch, C)`, to the logits of the prior, `(batch, K)`. The context
            must be known before any click.
        temperature: Divisor of the log-likelihoods in the posterior during training,
            above 0. Temperature 1 gives exact maximum likelihood. Higher temperatures
            keep the posterior soft on long lists. The callback `Annealing` starts at a
            higher temperature.
        serving: Definition of `score`, "click" or "relevance". With "click", the score
            is the logit of sum_m prior_m P(click | m) for an item at the reference
            place. With "relevance", the score is sum_m prior_m r_m(x), the mean of the
            components' scores. A prior that depends on context is replaced by its mean.
        reference: Reference place for serving="click".

    `call` returns a dict. The entry `logits` (batch, list_size, K) has the click logits
    of the components, and `log_prior` (batch, K) has the log prior of each session.
    Metrics that are passed to `compile` receive the marginal click logits of
    `click_logits`.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Additive
    >>> places = {"position": 10}
    >>> pair = [Additive(Tower(seed=m), BiasTower(places, seed=m)) for m in (0, 1)]
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> {name: tuple(x.shape) for name, x in Mixture(pair)(batch).items()}
    {'logits': (2, 10, 2), 'log_prior': (2, 2)}
    """

    takes_weight = False

    def __init__(
        self,
        components: Sequence[ClickModel],
        prior: Literal["learned", "uniform"] | keras.layers.Layer = "learned",
        temperature: float = 1.0,
        serving: Serving = "click",
        reference: Place = 1,
        **kwargs: Any,
    ):
        if len(components) == 0:
            raise ValueError("components must hold at least one click model, got none")
        if isinstance(prior, str) and prior not in ("learned", "uniform"):
            raise ValueError(
                f"prior must be 'learned', 'uniform' or a layer, got {prior!r}"
            )
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if serving not in ("click", "relevance"):
            raise ValueError(f"serving must be 'click' or 'relevance', got {serving!r}")
        predicts_clicks = all(part.predicts_clicks for part in components)
        if serving == "click" and not predicts_clicks:
            raise ValueError(
                "serving must be 'relevance' if a component does not predict clicks"
            )
        arguments = {
            "components": list(components),
            "prior": prior,
            "temperature": temperature,
            "serving": serving,
            "reference": reference,
        }
        super().__init__(arguments, **kwargs)
        self.predicts_clicks = predicts_clicks
        self.components = list(components)
        self.prior = prior
        self.temperature = temperature
        self.serving = serving
        self.reference = reference
        # Learned shares, or the running mean of shares that a layer predicts.
        self.prior_logits = self.add_weight(
            shape=(len(self.components),),
            initializer="zeros",
            trainable=prior == "learned",
            autocast=False,
            name="prior_logits",
        )
        # The current temperature is a weight, so compiled steps read its changes.
        self.current_temperature = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(temperature),
            trainable=False,
            autocast=False,
            name="temperature",
        )

    def log_prior(self) -> Tensor:
        """Log prior of the types, `(K,)`; a running mean if the prior reads context."""
        return ops.log_softmax(self.prior_logits)

    def call(self, batch: Batch, training: bool = False) -> dict[str, Tensor]:
        parts = [part(batch, training=training) for part in self.components]
        return {
            "logits": ops.stack(parts, -1),
            "log_prior": self._log_prior_of(batch, parts[0], training),
        }

    def _log_prior_of(self, batch: Batch, like: Tensor, training: bool) -> Tensor:
        if isinstance(self.prior, str) or "context" not in batch:
            nothing = ops.zeros_like(like[:, :1])
            return nothing + self.log_prior()
        logits = self.prior(batch["context"], training=training)
        log_prior = ops.log_softmax(exact(logits))
        if training:
            shares = MOMENTUM * ops.exp(self.log_prior())
            shares = shares + (1 - MOMENTUM) * ops.mean(ops.exp(log_prior), axis=0)
            self.prior_logits.assign(ops.log(ops.maximum(shares, 1e-30)))
        return log_prior

    def click_logits(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        log_prior = ops.expand_dims(outputs["log_prior"], 1)
        return mixture_logits(log_prior, outputs["logits"])

    def conditional_click_logits(
        self, batch: Batch, clicks: Tensor, outputs: Mapping[str, Tensor]
    ) -> Tensor:
        return conditional_logits(clicks, outputs["logits"], outputs["log_prior"])

    def score(self, features: Tensor) -> Tensor:
        if self.serving == "click":
            return self.logits_at(features, self.reference)
        scores = ops.stack([part.score(features) for part in self.components], -1)
        return ops.sum(scores * ops.exp(self.log_prior()), axis=-1)

    def intercepts(self) -> list[tuple[Any, Any]]:
        return [each for part in self.components for each in part.intercepts()]

    def without_decay(self) -> list[keras.layers.Layer]:
        prior = [] if isinstance(self.prior, str) else [self.prior]
        return [*super().without_decay(), *prior]

    def session_losses(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        """Negative log-likelihood of each session in nats, `(batch,)`.

        Training applies the temperature to the posterior, and evaluation uses
        temperature 1.
        """
        temperature = (
            ops.convert_to_tensor(self.current_temperature) if training else 1.0
        )
        each = self._losses_of_parts(batch, clicks, outputs, training)
        return mixture_likelihood(each, outputs["log_prior"], temperature)

    def learn_from(
        self, batch: Batch, clicks: Tensor, outputs: Mapping[str, Tensor]
    ) -> None:
        logits = ops.unstack(outputs["logits"], axis=-1)
        for part, z in zip(self.components, logits, strict=True):
            part.learn_from(batch, clicks, z)

    def _losses_of_parts(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        """-log P(clicks | type) of each component, `(batch, K)`."""
        logits = ops.unstack(outputs["logits"], axis=-1)
        parts = zip(self.components, logits, strict=True)
        losses = [part.session_losses(batch, clicks, z, training) for part, z in parts]
        return ops.stack(losses, -1)

    def responsibilities(self, batch: Batch, clicks: Tensor) -> Tensor:
        """P(type | clicks of the session), `(batch, K)`; clicks are -1 at padding."""
        outputs = self(batch)
        each = self._losses_of_parts(batch, clicks, outputs)
        return responsibilities(each, outputs["log_prior"])


class Annealing(keras.callbacks.Callback):
    """Callback that lowers the temperature of a mixture after each epoch.

    Epoch e uses the temperature start^(1 - e / epochs) T^(e / epochs), where T is the
    temperature of the model. The first epoch is e = 0, and all epochs with e >=
    `epochs` use T. The posterior is soft at first and becomes sharper as the components
    separate.

    Args:
        start: Temperature of the first epoch, above 0.
        epochs: Number of epochs until the temperature is T, at least 1.

    >>> Annealing(start=4.0, epochs=2).temperatures(own=1.0, count=3)
    [4.0, 2.0, 1.0]
    """

    def __init__(self, start: float, epochs: int):
        super().__init__()
        if start <= 0:
            raise ValueError(f"start must be above 0, got {start}")
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        self.start = start
        self.epochs = epochs

    def temperatures(self, own: float, count: int) -> list[float]:
        """The temperature of each of the first `count` epochs."""
        parts = (min(1.0, epoch / self.epochs) for epoch in range(count))
        return [self.start ** (1 - part) * own**part for part in parts]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        own = self.model.temperature
        self.model.current_temperature.assign(self.temperatures(own, epoch + 1)[-1])


class WatchComponents(keras.callbacks.Callback):
    """Callback that logs after every epoch how many components a mixture uses.

    The callback adds three values to the logs. These values show whether the mixture
    collapses. `components` is the effective number of components, exp(H) for the
    entropy H of the mean posterior. `entropy` is the mean entropy of the posteriors, in
    nats. `switching` is the share of sessions whose most likely component changed since
    the previous epoch. Put this callback before callbacks that read the logs.

    Args:
        batch: Batch of sessions to evaluate after every epoch.
        clicks: `(batch, list_size)` clicks of these sessions, -1 at padding.
    """

    def __init__(self, batch: Batch, clicks: Tensor):
        super().__init__()
        self.batch = batch
        self.clicks = clicks
        self.before: np.ndarray | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        now = ops.convert_to_numpy(self.model.responsibilities(self.batch, self.clicks))
        likeliest = now.argmax(axis=-1)
        before = likeliest if self.before is None else self.before
        self.before = likeliest
        if logs is not None:
            logs["components"] = float(np.exp(_entropy(now.mean(axis=0))))
            logs["entropy"] = float(_entropy(now).mean())
            logs["switching"] = float((likeliest != before).mean())


def _entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis."""
    return -(p * np.log(np.maximum(p, 1e-30))).sum(axis=-1)
