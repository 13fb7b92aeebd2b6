"""One small instance of every click model: a new one is tested by being entered."""

from debias.layers import BiasTower, Tower
from debias.models import (
    XPA,
    Additive,
    BilinearModel,
    Dot,
    Mixture,
    Naive,
    PositionFeature,
    PositionOnly,
    Product,
)

POSITIONS = 6


def relevance(seed: int, out: int = 1) -> Tower:
    return Tower((8,), out=out, seed=seed)


def bias(seed: int, out: int = 1, dropout: float = 0.0) -> BiasTower:
    return BiasTower(
        {"position": POSITIONS}, out=out, dropout=dropout, spread=0.5, seed=seed
    )


CLICK_MODELS = {
    "naive": lambda s: Naive(relevance(s)),
    "position_feature": lambda s: PositionFeature(relevance(s), bias(s, 3, 0.15)),
    "product": lambda s: Product(relevance(s), bias(s)),
    "additive": lambda s: Additive(relevance(s), bias(s, dropout=0.1)),
    "dot": lambda s: Dot(relevance(s, 4), bias(s, 4), reference=2),
    "bilinear": lambda s: BilinearModel(relevance(s, 4), bias(s, 3), seed=s),
    "position_only": lambda s: PositionOnly(bias(s)),
    "mixture": lambda s: Mixture(
        [Additive(relevance(s), bias(s)), Product(relevance(s + 1), bias(s + 1))]
    ),
    "mixture_of_relevance": lambda s: Mixture(
        [Dot(relevance(s, 2), bias(s, 2)), PositionOnly(bias(s + 1))],
        prior="uniform",
        temperature=2.0,
        serving="relevance",
    ),
    "xpa": lambda s: XPA(relevance(s, 4), bias(s, 3), seed=s),
}
