"""Click models with one relevance tower and at most two bias towers.

| model | click logit | ranks by |
|---|---|---|
| `Naive` | r(x) | r(x) |
| `PositionFeature` | r(x, e(place)) | r(x, e(reference)) |
| `Product` | logit of sigmoid(r(x)) sigmoid(g(place)) | r(x) |
| `TrustBiased` | logit of s(g(place)) (1 - s(-r(x)) s(-t(place))), s = sigmoid | r(x) |
| `Additive` | r(x) + g(place) | r(x) |
| `Dot` | r(x) . e(place) | mean P(click) over reference places |
| `BilinearModel` | r'Be + b_r.r + b_e.e + b | mean P(click) over reference places |

In the table, x are the features of an item, and r is the relevance tower. The towers g
and t return a logit of a place, and e returns an embedding of a place.

`Dot`, `BilinearModel` and `PositionFeature` need a reference place for scoring. The
reference place is an argument, because the ranking may depend on the place. With
several reference places, the score of `Dot` and `BilinearModel` is the logit of the
mean click probability over these places. A single reference place is risky: its
embedding may fit the clicks, but be small or point away from the other embeddings. A
mean of logits would give the most weight to rarely clicked places, about which the log
has the least information.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.layers import Bilinear, additive, dot, product, trust_biased
from debias.losses.lists import exact
from debias.models.click_model import (
    ClickModel,
    intercepts_of,
    layout_of,
    on_rows,
    only_output,
    to_cells,
)
from debias.types import Batch, Place, Tensor

Places = Place | Sequence[Place]


class RankedByRelevance(ClickModel):
    """A click model that ranks by the logit of its tower `relevance`."""

    relevance: keras.layers.Layer

    def relevance_of(self, batch: Batch, training: bool) -> Tensor:
        """Relevance logits of the cells of a batch, `(batch, list_size)`."""
        relevance = on_rows(self.relevance, batch["features"], training)
        return to_cells(only_output(self.relevance, relevance), batch)

    def score(self, features: Tensor) -> Tensor:
        return only_output(self.relevance, on_rows(self.relevance, features))

    def intercepts(self) -> list[tuple[Any, Any]]:
        return intercepts_of(self.relevance)


class OneTowerClickModel(RankedByRelevance):
    """A click model with a single tower, which ranks by the logit of the tower.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
    """

    def __init__(self, relevance: keras.layers.Layer, **kwargs: Any):
        super().__init__({"relevance": relevance}, **kwargs)
        self.relevance = relevance

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        return self.relevance_of(batch, training)


@keras.saving.register_keras_serializable(package="debias")
class Naive(OneTowerClickModel):
    """Treats clicks as relevance, with logit P(click) = r(x).

    The result tables of the documentation use this model as the baseline.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.

    >>> import numpy as np
    >>> from debias.layers import Tower
    >>> Naive(Tower())({"features": np.zeros((2, 10, 5))}).shape[1]
    10
    """


class TwoTowerClickModel(RankedByRelevance):
    """Combines a relevance logit and a bias logit, and ranks by relevance.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`.
    """

    def __init__(
        self, relevance: keras.layers.Layer, bias: keras.layers.Layer, **kwargs: Any
    ):
        super().__init__({"relevance": relevance, "bias": bias}, **kwargs)
        self.relevance = relevance
        self.bias = bias

    def combine(self, relevance: Tensor, bias: Tensor) -> Tensor:
        raise NotImplementedError

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        relevance = self.relevance_of(batch, training)
        bias = only_output(self.bias, self.bias(batch, training=training))
        return self.combine(relevance, bias)


@keras.saving.register_keras_serializable(package="debias")
class Additive(TwoTowerClickModel):
    """Additive model, logit P(click) = r(x) + g(place), which ranks by r(x).

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`. The `dropout`
            of a `BiasTower` is the position dropout of Zhao et al.

    Source: Zhao et al., Recommending What Video to Watch Next, RecSys 2019.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = Additive(Tower(), BiasTower({"position": 10}, dropout=0.1))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> model(batch).shape[1]
    10
    """

    def combine(self, relevance: Tensor, bias: Tensor) -> Tensor:
        return additive(relevance, bias)


@keras.saving.register_keras_serializable(package="debias")
class Product(TwoTowerClickModel):
    """Product model, P(click) = sigmoid(r(x)) sigmoid(g(place)), which ranks by r(x).

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`.

    Source: after Guo et al., PAL, RecSys 2019.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = Product(Tower(), BiasTower({"position": 10}))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> model(batch).shape[1]
    10
    """

    def combine(self, relevance: Tensor, bias: Tensor) -> Tensor:
        return product(relevance, bias)


@keras.saving.register_keras_serializable(package="debias")
class TrustBiased(RankedByRelevance):
    """P(click) = sigmoid(g(place)) (1 - sigmoid(-r(x)) sigmoid(-t(place))); ranks by r.

    A user who sees an item clicks the item if it is attractive, with probability
    sigmoid(r), or if the user trusts the place, with probability sigmoid(t). The click
    probability is an affine function of the attraction sigmoid(r),

        P(click) = alpha attraction + beta,
        alpha = sigmoid(g) sigmoid(-t),    beta = sigmoid(g) sigmoid(t).

    The affine correction of trust bias uses the same function with known alpha and
    beta. This model learns alpha and beta together with r. Clicks determine attraction
    only up to an affine map. For example, the model may explain a minimum attraction of
    all items as trust in all places. An affine map of attraction does not change the
    ranking.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`, for
            examination.
        trust: Layer with the same input and output as `bias`, for clicks that are
            caused by trust. If the initial output is far below 0, the model starts
            close to `Product` and learns trust slowly. The argument `center` of
            `BiasTower` sets the initial output.

    Source: after Agarwal et al., Addressing Trust Bias for Unbiased Learning-to-Rank,
    WWW 2019, and Vardasbi et al., When Inverse Propensity Scoring does not Work, CIKM
    2020.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> bias, trust = BiasTower({"position": 10}), BiasTower({"position": 10})
    >>> model = TrustBiased(Tower(), bias, trust)
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> model(batch).shape[1]
    10
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        trust: keras.layers.Layer,
        **kwargs: Any,
    ):
        arguments = {"relevance": relevance, "bias": bias, "trust": trust}
        super().__init__(arguments, **kwargs)
        self.relevance = relevance
        self.bias = bias
        self.trust = trust

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        return trust_biased(
            self.relevance_of(batch, training),
            only_output(self.bias, self.bias(batch, training=training)),
            only_output(self.trust, self.trust(batch, training=training)),
        )


@keras.saving.register_keras_serializable(package="debias")
class PositionFeature(ClickModel):
    """Uses the place as an additional feature: logit P(click) = r(x, e(place)).

    Args:
        relevance: Layer that maps `(..., F + E)` to `(..., 1)`.
        place: Layer that maps the batch dict to `(batch, list_size, E)`. The `dropout`
            of a `BiasTower` hides the places of random lists. Haldar et al. use a
            dropout rate of 0.15.
        reference: Place that serving assumes for every item. The default 0 means a
            missing place. In training, dropout also replaces places by 0.

    Source: after Haldar et al., Improving Deep Learning for Airbnb Search, KDD 2020.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> place = BiasTower({"position": 10}, out=4, dropout=0.15)
    >>> model = PositionFeature(Tower(), place)
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> model(batch).shape[1]
    10
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        place: keras.layers.Layer,
        reference: Place = 0,
        **kwargs: Any,
    ):
        arguments = {"relevance": relevance, "place": place, "reference": reference}
        super().__init__(arguments, **kwargs)
        self.relevance = relevance
        self.place = place
        self.reference = reference

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        place = self.place(batch, training=training)
        features = ops.cast(to_cells(batch["features"], batch), place.dtype)
        seen = ops.concatenate([features, place], axis=-1)
        return only_output(self.relevance, on_rows(self.relevance, seen, training))

    def score(self, features: Tensor) -> Tensor:
        return self.logits_at(features, self.reference)

    def intercepts(self) -> list[tuple[Any, Any]]:
        return intercepts_of(self.relevance)


@keras.saving.register_keras_serializable(package="debias")
class PositionOnly(ClickModel):
    """Models users whose clicks depend only on the place: logit P(click) = g(place).

    Args:
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`.

    `PositionOnly` can be a component of a mixture. The method `score` returns 0 for all
    items.

    >>> import numpy as np
    >>> from debias.layers import BiasTower
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> PositionOnly(BiasTower({"position": 10}))(batch).shape[1]
    10
    """

    def __init__(self, bias: keras.layers.Layer, **kwargs: Any):
        super().__init__({"bias": bias}, **kwargs)
        self.bias = bias

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        bias = only_output(self.bias, self.bias(batch, training=training))
        shown = to_cells(batch["features"][..., 0], batch)
        return bias + ops.zeros_like(ops.cast(shown, bias.dtype))

    def score(self, features: Tensor) -> Tensor:
        return ops.zeros_like(features[..., 0])


@keras.saving.register_keras_serializable(package="debias")
class Dot(ClickModel):
    """Dot product of two embeddings, logit P(click) = r(x) . e(place).

    Args:
        relevance: Layer that maps `(..., F)` to `(..., D)`.
        bias: Layer that maps the batch dict to `(batch, list_size, D)`.
        reference: Place at which serving scores the items: a dict from layout column to
            id, or an int to use as the id of position, row and column. For a sequence
            of places, the score is the logit of the mean click probability over these
            places.

    Source: after Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
    SIGIR 2022.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = Dot(Tower(out=4), BiasTower({"position": 10}, out=4))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> model(batch).shape[1]
    10
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        reference: Places = 1,
        **kwargs: Any,
    ):
        arguments = {"relevance": relevance, "bias": bias, "reference": reference}
        super().__init__(arguments, **kwargs)
        self.relevance = relevance
        self.bias = bias
        self.reference = reference

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        relevance = on_rows(self.relevance, batch["features"], training)
        relevance = to_cells(relevance, batch)
        return exact(dot(relevance, self.bias(batch, training=training)))

    def score(self, features: Tensor) -> Tensor:
        relevance = ops.expand_dims(on_rows(self.relevance, features), -2)
        return log_odds_of_mean(dot(relevance, embeddings(self.bias, self.reference)))

    def intercepts(self) -> list[tuple[Any, Any]]:
        """The bias vector of the relevance tower, with the increment e / |e|^2.

        Let e be the mean embedding of the places. Adding the increment to the relevance
        embedding r adds 1 to the dot product e . r.
        """
        columns = getattr(self.bias, "columns", None)
        if not columns:
            return []
        every = [
            {name: min(place, size) for name, size in columns.items()}
            for place in range(1, max(columns.values()) + 1)
        ]
        places = ops.convert_to_numpy(embeddings(self.bias, every)).astype(float)
        mean = places.mean(axis=0)
        square = float(mean @ mean)
        if square < 0.5 * np.square(places).sum(axis=1).mean():
            return []
        return [(each, mean / square) for each, _ in intercepts_of(self.relevance)]


@keras.saving.register_keras_serializable(package="debias")
class BilinearModel(ClickModel):
    """Bilinear model of r = r(x) and e = e(place), with logit r'Be + b_r.r + b_e.e + b.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., D)`.
        bias: Layer that maps the batch dict to `(batch, list_size, E)`.
        reference: One or several reference places for serving, as in `Dot`.
        seed: int or None. Random seed of the initial weights of the bilinear form.

    Source: Yan et al., SIGIR 2022, where the model is called EInter.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = BilinearModel(Tower(out=4), BiasTower({"position": 10}, out=3))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> model(batch).shape[1]
    10
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        reference: Places = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        arguments = {
            "relevance": relevance,
            "bias": bias,
            "reference": reference,
            "seed": seed,
        }
        super().__init__(arguments, **kwargs)
        self.relevance = relevance
        self.bias = bias
        self.reference = reference
        self.meet = Bilinear(seed)

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        relevance = on_rows(self.relevance, batch["features"], training)
        relevance = to_cells(relevance, batch)
        return exact(self.meet(relevance, self.bias(batch, training=training)))

    def score(self, features: Tensor) -> Tensor:
        relevance = ops.expand_dims(on_rows(self.relevance, features), -2)
        place = embeddings(self.bias, self.reference)
        return log_odds_of_mean(self.meet(relevance, place))

    def intercepts(self) -> list[tuple[Any, Any]]:
        return [(self.meet.constant, 1.0)]


def log_odds_of_mean(logits: Tensor) -> Tensor:
    """Logit of the mean of sigmoid(z_k) over k, `(..., K)` to `(...)`, in log space.

    >>> round(float(log_odds_of_mean(ops.array([0.0, -100.0]))), 4)  # P = 1/4
    -1.0986
    """
    logits = exact(logits)
    yes, no = (
        ops.logsumexp(ops.log_sigmoid(each), axis=-1) for each in (logits, -logits)
    )
    return yes - no


def embeddings(bias: keras.layers.Layer, reference: Places) -> Tensor:
    """Embeddings `(K, E)` of the reference places.

    Args:
        bias: Layer that maps a dict of layout columns to `(batch, list_size, E)`.
        reference: One place, or a sequence of places.

    Raises:
        ValueError: `reference` contains no place.
    """
    places = [reference] if isinstance(reference, int | Mapping) else list(reference)
    if not places:
        raise ValueError("reference must name at least one place, got none")
    layouts = [layout_of(place, getattr(bias, "columns", ())) for place in places]
    columns = {  # lists of one item: places may exceed the length of a list
        name: ops.convert_to_tensor([[each[name]] for each in layouts], "int32")
        for name in layouts[0]
    }
    return bias(columns)[:, 0]
