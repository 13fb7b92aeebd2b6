"""Retrieval models: a user tower, an item tower, and their inner product."""

from debias.retrieval.models.dat import DAT, alignment_loss, mimic_loss
from debias.retrieval.models.encoder import Encoder, tower
from debias.retrieval.models.mind import MIND, InterestEncoder
from debias.retrieval.models.relevance import PairRelevance
from debias.retrieval.models.two_tower import (
    RetrievalModel,
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
    "RetrievalModel",
    "TwoTower",
    "alignment_loss",
    "dssm",
    "fm_tower",
    "mimic_loss",
    "senet_tower",
    "tower",
    "youtube_dnn",
]
