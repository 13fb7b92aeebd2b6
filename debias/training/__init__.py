"""Fitting, choosing and evaluating click models: for users, commands and tables."""

from debias.training.fitting import (
    LOOKED_AT,
    Fitted,
    TrainingConfig,
    fit,
    held_out,
    held_out_of_stream,
    session_log_likelihoods,
    shown_only,
    standardized,
)
from debias.training.selection import Choice, choose

__all__ = [
    "LOOKED_AT",
    "Choice",
    "Fitted",
    "TrainingConfig",
    "choose",
    "fit",
    "held_out",
    "held_out_of_stream",
    "session_log_likelihoods",
    "shown_only",
    "standardized",
]
