"""Keras layers: towers, combinations of logits, and attention within a list."""

from debias.layers.attention import CrossPositionAttention
from debias.layers.bias import BiasTower
from debias.layers.combination import (
    Bilinear,
    additive,
    dot,
    product,
    trust_biased,
)
from debias.layers.features import Features
from debias.layers.reversal import GradientReversal, reversed_gradient
from debias.layers.shared import SharedBottom
from debias.layers.tower import Standardize, Tower, symlog

__all__ = [
    "BiasTower",
    "Bilinear",
    "CrossPositionAttention",
    "Features",
    "GradientReversal",
    "SharedBottom",
    "Standardize",
    "Tower",
    "additive",
    "dot",
    "product",
    "reversed_gradient",
    "symlog",
    "trust_biased",
]
