"""Recall in use: evaluation over the whole catalogue; training batches in `batches`."""

from debias.retrieval.training.evaluate import (
    dot_scores,
    evaluate,
    ranks,
    recall_metrics,
)

__all__ = ["dot_scores", "evaluate", "ranks", "recall_metrics"]
