"""Recall models: a user tower and an item tower that meet in an inner product."""

from debias.models.recall.dat import DAT, alignment_loss, mimic_loss
from debias.models.recall.encoder import Encoder, tower
from debias.models.recall.mind import MIND, InterestEncoder
from debias.models.recall.relevance import PairRelevance
from debias.models.recall.two_tower import (
    RecallModel,
    TwoTower,
    dssm,
    fm_tower,
    senet_tower,
    youtube_dnn,
)

__all__ = [
    "DAT",
    "MIND",
    "Encoder",
    "InterestEncoder",
    "PairRelevance",
    "RecallModel",
    "TwoTower",
    "alignment_loss",
    "dssm",
    "fm_tower",
    "mimic_loss",
    "senet_tower",
    "tower",
    "youtube_dnn",
]
