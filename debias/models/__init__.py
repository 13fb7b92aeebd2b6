"""Click models with a relevance tower and a bias tower.

Importing this package registers all classes that a saved model may need.
"""

import debias.engine.optimizers
import debias.metrics.keras  # noqa: F401
from debias.models.click_model import ClickModel, Ranker, ranker
from debias.models.corrected import (
    DoublyRobust,
    DualLearning,
    InverseWeighted,
    PairDebias,
    RegressionEM,
)
from debias.models.disentangled import Disentangled
from debias.models.ensemble import Ensemble
from debias.models.listwise import Listwise
from debias.models.mixture import Annealing, Mixture, WatchComponents
from debias.models.targets import MultiTarget
from debias.models.towers import (
    Additive,
    BilinearModel,
    Dot,
    Naive,
    PositionFeature,
    PositionOnly,
    Product,
    TrustBiased,
)
from debias.models.xpa import XPA

__all__ = [
    "XPA",
    "Additive",
    "Annealing",
    "BilinearModel",
    "ClickModel",
    "Disentangled",
    "Dot",
    "DoublyRobust",
    "DualLearning",
    "Ensemble",
    "InverseWeighted",
    "Listwise",
    "Mixture",
    "MultiTarget",
    "Naive",
    "PairDebias",
    "PositionFeature",
    "PositionOnly",
    "Product",
    "Ranker",
    "RegressionEM",
    "TrustBiased",
    "WatchComponents",
    "ranker",
]
