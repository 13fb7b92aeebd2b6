"""One small instance of every click model: a new one is tested by being entered."""

from debias.layers import BiasTower, Tower
from debias.models import (
    XPA,
    Additive,
    BilinearModel,
    Disentangled,
    Dot,
    DoublyRobust,
    DualLearning,
    InverseWeighted,
    Listwise,
    Mixture,
    Naive,
    PairDebias,
    PositionFeature,
    PositionOnly,
    Product,
    RegressionEM,
)

POSITIONS = 6
CONTEXT = 2  # columns of what is known of a session


def relevance(seed: int, out: int = 1) -> Tower:
    return Tower((8,), out=out, seed=seed)


def bias(seed: int, out: int = 1, dropout: float = 0.0) -> BiasTower:
    return BiasTower(
        {"position": POSITIONS}, out=out, dropout=dropout, init_std=0.5, seed=seed
    )


EXAMINATION = [1 / rank for rank in range(1, POSITIONS + 1)]
TRUST = [0.1 / rank for rank in range(1, POSITIONS + 1)]

CLICK_MODELS = {
    "naive": lambda s: Naive(relevance(s)),
    "position_feature": lambda s: PositionFeature(relevance(s), bias(s, 3, 0.15)),
    "product": lambda s: Product(relevance(s), bias(s)),
    "additive": lambda s: Additive(relevance(s), bias(s, dropout=0.1)),
    "disentangled": lambda s: Disentangled(
        relevance(s), bias(s, 3), rate=0.2, strength=0.5, seed=s
    ),
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
    "mixture_by_context": lambda s: Mixture(
        [Naive(relevance(s)), Additive(relevance(s + 1), bias(s))],
        prior=Tower((), out=2, seed=s),
    ),
    "listwise": lambda s: Listwise(Additive(relevance(s), bias(s))),
    "listwise_mixture": lambda s: Mixture(
        [
            Listwise(Additive(relevance(s), bias(s))),
            Listwise(Dot(relevance(s, 2), bias(s, 2))),
        ],
        serving="relevance",
    ),
    "xpa": lambda s: XPA(relevance(s, 4), bias(s, 3), seed=s),
    "inverse_weighted": lambda s: InverseWeighted(relevance(s), EXAMINATION),
    "affine_listwise": lambda s: InverseWeighted(
        relevance(s), EXAMINATION, TRUST, listwise=True, least=0.2
    ),
    "doubly_robust": lambda s: DoublyRobust(
        relevance(s), relevance(s + 1), EXAMINATION, TRUST
    ),
    "regression_em": lambda s: RegressionEM(relevance(s), bias(s)),
    "dual_learning": lambda s: DualLearning(relevance(s), bias(s), most=5.0),
    "pair_debias": lambda s: PairDebias(relevance(s), POSITIONS, power=0.5),
}
