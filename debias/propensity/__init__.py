"""NumPy estimators of examination from click logs, and classic click models."""

from debias.propensity.cells import count_cells
from debias.propensity.choice import propensities
from debias.propensity.estimate import (
    ESTIMATORS,
    estimate,
    estimate_counts,
    estimate_stream,
)
from debias.propensity.examination import Examination
from debias.propensity.impression_files import write_impressions
from debias.propensity.impressions import Impressions, choose_clip, impressions
from debias.propensity.judgment_files import write_judgments
from debias.propensity.judgments import Judgments, judge
from debias.propensity.merging import merge_places
from debias.propensity.places import Propensities, read_propensities
from debias.propensity.planning import Plan, plan
from debias.propensity.policy_weights import PolicyWeights, policy_weights

__all__ = [
    "ESTIMATORS",
    "Examination",
    "Impressions",
    "Judgments",
    "Plan",
    "PolicyWeights",
    "Propensities",
    "choose_clip",
    "count_cells",
    "estimate",
    "estimate_counts",
    "estimate_stream",
    "impressions",
    "judge",
    "merge_places",
    "plan",
    "policy_weights",
    "propensities",
    "read_propensities",
    "write_impressions",
    "write_judgments",
]
