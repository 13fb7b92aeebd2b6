"""Examination estimated from a click log, and classic click models, in NumPy."""

from debias.propensity.estimate import ESTIMATORS, estimate
from debias.propensity.examination import Examination

__all__ = ["ESTIMATORS", "Examination", "estimate"]
