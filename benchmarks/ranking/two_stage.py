"""Two-stage corrections that first model the logging policy or the clicks.

| row | first stage | second stage |
|---|---|---|
| `control_function` | rank regression on features | clicks by features, residual |
| `control_function_softmax` | rank regression | softmax of features and residual |
| `upe` | rank regression | dual learning, propensities averaged over logging scores |
| `ips_dcm_softmax` | dependent click model, by EM | softmax of clicks / examination |

The residual of a rank is the part that features do not explain. Its sources are
randomness, and information that only the logging ranker has. In serving, the residual
is set to 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from benchmarks.ranking.protocol import Split, World
from debias.engine.tensors import lookup
from debias.losses.corrected import corrected_clicks, dual_learning, soft_softmax
from debias.losses.lists import exact
from debias.models import ClickModel
from debias.models.click_model import on_rows, only_output, to_cells
from debias.propensity.click_models import DependentClick
from debias.types import Batch, Tensor

RIDGE = 10.0  # pseudo-impressions of the ridge on standardised features
QUANTILES = 9  # quantiles of logging scores over which propensities are averaged


class Stage(NamedTuple):
    """A linear model of the logged rank: rank = constant + x . slope + error.

    Attributes:
        slope: (F,) coefficients of standardised features.
        constant: Rank of an item whose features are all 0.
        error: Standard deviation of the residual.
        ranks: (QUANTILES,) evenly spaced quantiles of the expected ranks of
            impressions.
    """

    slope: list[float]
    constant: float
    error: float
    ranks: list[float]


def first_stage(split: Split) -> Stage:
    """Ridge regression of the rank on features, over the impressions of a log."""
    row, column = np.nonzero(split.log.mask)
    item, rank = split.log.item[row, column], column + 1.0
    shown = np.bincount(item, minlength=split.data.items).astype(float)
    total = np.bincount(item, rank, minlength=split.data.items)
    x = split.data.features.astype(float)
    mean = shown @ x / shown.sum()
    centred = x - mean
    gram = centred.T @ (shown[:, None] * centred) + RIDGE * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, centred.T @ (total - shown * rank.mean()))
    constant = float(rank.mean() - mean @ slope)
    expected = x @ slope + constant
    error = float((rank - expected[item]).std())
    places = (np.arange(QUANTILES) + 0.5) / QUANTILES
    ranks = np.quantile(expected[item], places)
    return Stage(slope.tolist(), constant, error, ranks.tolist())


class ControlFunction(ClickModel):
    """Click model that reads the residual of the rank, and ranks by residual 0.

    The model is logit P(click) = r(x, v), where v = (rank - constant - x . slope) /
    error is the residual. Items are ranked by r(x, 0). If features do not explain all
    variation of the rank, v captures the effect of position on clicks. Then r(x, 0) is
    relevance at the expected rank of each item.

    Args:
        relevance: Layer `(..., F + 1)` to `(..., 1)`.
        slope, constant, error: Fields of `Stage`, from `first_stage`.

    Source: after Petrin and Train, A Control Function Approach to Endogeneity in
    Consumer Choice Models, Journal of Marketing Research 2010, with the rank in place
    of the price.
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        slope: Sequence[float],
        constant: float,
        error: float,
        **kwargs: Any,
    ):
        own = {"slope": list(slope), "constant": constant, "error": error}
        super().__init__({"relevance": relevance, **own}, **kwargs)
        self.relevance = relevance
        self.slope, self.constant, self.error = np.asarray(slope), constant, error

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        features = to_cells(batch["features"], batch)
        rank = exact(batch["position"])
        residual = (rank - _expected(features, self.slope, self.constant)) / self.error
        return self._logits(features, residual, training)

    def score(self, features: Tensor) -> Tensor:
        return self._logits(features, ops.zeros_like(features[..., 0]), False)

    def _logits(self, features: Tensor, residual: Tensor, training: bool) -> Tensor:
        own = ops.cast(ops.expand_dims(residual, -1), features.dtype)
        seen = ops.concatenate([features, own], axis=-1)
        return only_output(self.relevance, on_rows(self.relevance, seen, training))


def _expected(features: Tensor, slope: np.ndarray, constant: float) -> Tensor:
    return ops.sum(exact(features) * slope.astype("float32"), axis=-1) + constant


class Unconfounded(ClickModel):
    """Dual learning with propensities that do not depend on the items.

    Plain dual learning attributes the relevance of the items at a rank to the rank,
    because the logging ranker puts relevant items on top. Here, the bias logit g(k, s)
    reads the rank k and the logging score s, so that s explains this relevance. The
    ranker's training weights clicks by the inverse of

        theta_k = mean over logging scores s of exp g(k, s).

    This mean adjusts for the observed confounder s.

    Args:
        relevance: Layer `(..., F)` to `(..., 1)`.
        bias: Layer `(..., positions + 2)` to `(..., 1)` that reads one-hot rank and
            score.
        positions: The largest rank.
        slope, constant, ranks: Fields of `Stage`, from `first_stage`.
        clip: Largest weight.

    Source: after Luo et al., Unconfounded Propensity Estimation for Unbiased Ranking,
    SIGIR 2024; here, the logging score is a linear function that is fitted before
    training and then fixed.
    """

    predicts_clicks = False
    takes_weight = False

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        positions: int,
        slope: Sequence[float],
        constant: float,
        ranks: Sequence[float],
        clip: float = 10.0,
        **kwargs: Any,
    ):
        own = {"positions": positions, "slope": list(slope), "constant": constant}
        own |= {"ranks": list(ranks), "clip": clip}
        super().__init__({"relevance": relevance, "bias": bias, **own}, **kwargs)
        self.relevance, self.bias, self.positions = relevance, bias, positions
        self.slope, self.constant, self.clip = np.asarray(slope), constant, clip
        self.ranks = np.asarray(ranks, "float32")

    def call(self, batch: Batch, training: bool = False) -> dict[str, Tensor]:
        features = batch["features"]
        relevance = only_output(
            self.relevance, on_rows(self.relevance, features, training)
        )
        expected = to_cells(_expected(features, self.slope, self.constant), batch)
        position = ops.convert_to_tensor(batch["position"])
        return {
            "relevance": to_cells(relevance, batch),
            "bias": self._bias(position, expected),
            "rank_alone": self._alone(position),
        }

    def click_logits(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["relevance"] + outputs["bias"]

    def session_losses(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        first = ops.convert_to_tensor(batch["position"]) == 1
        relevance, bias, alone = (
            outputs[name] for name in ("relevance", "bias", "rank_alone")
        )
        held = ops.stop_gradient
        ranker = dual_learning(clicks, relevance, held(alone), first, self.clip)
        return ranker + dual_learning(clicks, held(relevance), bias, first, self.clip)

    def score(self, features: Tensor) -> Tensor:
        return only_output(self.relevance, on_rows(self.relevance, features))

    def _bias(self, position: Tensor, expected: Tensor) -> Tensor:
        """g(k, s) for shown ranks k and expected ranks s of the same shape."""
        hot = ops.one_hot(position, self.positions + 1, dtype="float32")
        score = ops.expand_dims(expected / self.positions, -1)
        seen = ops.concatenate([hot, exact(score)], axis=-1)
        return only_output(self.bias, self.bias(seen))

    def _alone(self, position: Tensor) -> Tensor:
        """log theta_k for an array of ranks k."""
        ranks = ops.repeat(ops.arange(self.positions + 1)[:, None], len(self.ranks), 1)
        scores = ops.zeros_like(exact(ranks)) + self.ranks
        by_score = self._bias(ranks, scores)
        theta = ops.logsumexp(by_score, axis=1) - np.log(len(self.ranks))
        return lookup(theta[:, None], position)[..., 0]


class CellWeighted(ClickModel):
    """Softmax ranker whose clicks are divided by the examination of their cells.

    Args:
        relevance: Layer `(..., F)` to `(..., 1)`.
        clip: Largest weight.
    """

    predicts_clicks = False
    takes_weight = False

    def __init__(
        self, relevance: keras.layers.Layer, clip: float = 10.0, **kwargs: Any
    ):
        super().__init__({"relevance": relevance, "clip": clip}, **kwargs)
        self.relevance, self.clip = relevance, clip

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        relevance = on_rows(self.relevance, batch["features"], training)
        return to_cells(only_output(self.relevance, relevance), batch)

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        labels = corrected_clicks(clicks, batch["context"], clip=self.clip)
        return soft_softmax(labels, outputs, ops.convert_to_tensor(clicks) >= 0)

    def score(self, features: Tensor) -> Tensor:
        return only_output(self.relevance, on_rows(self.relevance, features))


def examined_by_dcm(world: World) -> World:
    """Adds examination by a dependent click model to training and validation logs.

    Each split has its own fit, because the splits have different queries. Source:
    Vardasbi, de Rijke and Markov, Cascade Model-based Propensity Estimation for
    Counterfactual Learning to Rank, SIGIR 2020.
    """

    def with_examination(split: Split) -> Split:
        model = DependentClick.fit(split.log)
        attraction = model.gather("attraction", split.log)
        examined = model.conditional(split.log) / np.maximum(attraction, 1e-9)
        examined = np.where(split.log.mask, np.clip(examined, 0.0, 1.0), 1.0)
        return split._replace(
            log=replace(split.log, context=examined.astype("float32"))
        )

    train, validation = map(with_examination, (world.train, world.validation))
    return world._replace(train=train, validation=validation)
