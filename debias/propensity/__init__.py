"""Examination estimated from a click log, and classic click models, in NumPy."""

from debias.propensity.cells import count_cells
from debias.propensity.estimate import ESTIMATORS, estimate, estimate_counts
from debias.propensity.examination import Examination
from debias.propensity.merging import merge_places
from debias.propensity.policy_weights import PolicyWeights, policy_weights

__all__ = [
    "ESTIMATORS",
    "Examination",
    "PolicyWeights",
    "count_cells",
    "estimate",
    "estimate_counts",
    "merge_places",
    "policy_weights",
]
