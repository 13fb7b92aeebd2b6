"""Click models: a relevance tower, a bias tower, and how they make a click."""

from debias.models.click_model import ClickModel, Ranker, ranker
from debias.models.mixture import Mixture
from debias.models.towers import (
    Additive,
    BilinearModel,
    Dot,
    Naive,
    PositionFeature,
    PositionOnly,
    Product,
)
from debias.models.xpa import XPA

__all__ = [
    "XPA",
    "Additive",
    "BilinearModel",
    "ClickModel",
    "Dot",
    "Mixture",
    "Naive",
    "PositionFeature",
    "PositionOnly",
    "Product",
    "Ranker",
    "ranker",
]
