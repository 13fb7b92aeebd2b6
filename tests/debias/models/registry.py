"""One small instance of every click model: a new one is tested by being entered.

An entry takes a seed and, of another kind than `relevance`, the maker of its towers.
"""

import keras

from debias.layers import BiasTower, Tower
from debias.models import (
    XPA,
    Additive,
    BilinearModel,
    Disentangled,
    Dot,
    DoublyRobust,
    DualLearning,
    Ensemble,
    InverseWeighted,
    Listwise,
    Mixture,
    MultiTarget,
    Naive,
    PairDebias,
    PositionFeature,
    PositionOnly,
    Product,
    RegressionEM,
    TrustBiased,
)

POSITIONS = 6
WIDTH = 7  # features of an item
CONTEXT = 2  # columns of what is known of a session


def relevance(seed: int, out: int = 1, width: int = WIDTH) -> keras.layers.Layer:
    return Tower((8,), out=out, seed=seed)


def sequential(seed: int, out: int = 1, width: int = WIDTH) -> keras.layers.Layer:
    first = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.layers.Dense(8, "relu", kernel_initializer=first),
            keras.layers.Dense(out, kernel_initializer=first),
        ]
    )


def of_rows(seed: int, out: int = 1, width: int = WIDTH) -> keras.layers.Layer:
    inputs = keras.Input((width,))
    return keras.Model(inputs, sequential(seed, out)(inputs))


def of_lists(seed: int, out: int = 1, width: int = WIDTH) -> keras.layers.Layer:
    inputs = keras.Input((None, width))
    return keras.Model(inputs, sequential(seed, out)(inputs))


TOWERS = {
    "tower": relevance,
    "sequential": sequential,
    "of rows": of_rows,
    "of lists": of_lists,
}


def bias(seed: int, out: int = 1, dropout: float = 0.0) -> BiasTower:
    return BiasTower(
        {"position": POSITIONS}, out=out, dropout=dropout, init_std=0.5, seed=seed
    )


EXAMINATION = [1 / rank for rank in range(1, POSITIONS + 1)]
TRUST = [0.1 / rank for rank in range(1, POSITIONS + 1)]

CLICK_MODELS = {
    "naive": lambda s, r=relevance: Naive(r(s)),
    "position_feature": lambda s, r=relevance: PositionFeature(
        r(s, 1, WIDTH + 3), bias(s, 3, 0.15)
    ),
    "product": lambda s, r=relevance: Product(r(s), bias(s)),
    "trust": lambda s, r=relevance: TrustBiased(r(s), bias(s), bias(s + 1)),
    "additive": lambda s, r=relevance: Additive(r(s), bias(s, dropout=0.1)),
    "disentangled": lambda s, r=relevance: Disentangled(
        r(s), bias(s, 3), dropout=0.2, strength=0.5, seed=s
    ),
    "dot": lambda s, r=relevance: Dot(r(s, 4), bias(s, 4), reference=2),
    "bilinear": lambda s, r=relevance: BilinearModel(r(s, 4), bias(s, 3), seed=s),
    "position_only": lambda s, r=relevance: PositionOnly(bias(s)),
    "mixture": lambda s, r=relevance: Mixture(
        [Additive(r(s), bias(s)), Product(r(s + 1), bias(s + 1))]
    ),
    "mixture_of_relevance": lambda s, r=relevance: Mixture(
        [Dot(r(s, 2), bias(s, 2)), PositionOnly(bias(s + 1))],
        prior="uniform",
        temperature=2.0,
        serving="relevance",
    ),
    "mixture_by_context": lambda s, r=relevance: Mixture(
        [Naive(r(s)), Additive(r(s + 1), bias(s))],
        prior=Tower((), out=2, seed=s),
    ),
    "listwise": lambda s, r=relevance: Listwise(Additive(r(s), bias(s))),
    "listwise_mixture": lambda s, r=relevance: Mixture(
        [Listwise(Additive(r(s), bias(s))), Listwise(Dot(r(s, 2), bias(s, 2)))],
        serving="relevance",
    ),
    "ensemble": lambda s, r=relevance: Ensemble(
        [Product(r(s), bias(s)), Product(r(s + 1), bias(s + 1))]
    ),
    "listwise_ensemble": lambda s, r=relevance: Ensemble(
        [Listwise(Additive(r(s + k), bias(s + k))) for k in (0, 1)]
    ),
    "xpa": lambda s, r=relevance: XPA(r(s, 4), bias(s, 3), seed=s),
    "inverse_weighted": lambda s, r=relevance: InverseWeighted(r(s), EXAMINATION),
    "affine_listwise": lambda s, r=relevance: InverseWeighted(
        r(s), EXAMINATION, TRUST, listwise=True, clip=5.0
    ),
    "doubly_robust": lambda s, r=relevance: DoublyRobust(
        r(s), r(s + 1), EXAMINATION, TRUST
    ),
    "regression_em": lambda s, r=relevance: RegressionEM(r(s), bias(s)),
    "dual_learning": lambda s, r=relevance: DualLearning(r(s), bias(s), clip=5.0),
    "multi_target": lambda s, r=relevance: MultiTarget(
        r(s, 3),
        bias(s),
        {"order": (0,), "dwell": (10, 60)},
        {"click": 0.5, "order": 50, "dwell": 1},
    ),
    "pair_debias": lambda s, r=relevance: PairDebias(r(s), POSITIONS, power=0.5),
}
