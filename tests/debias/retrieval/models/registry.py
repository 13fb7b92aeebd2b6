"""Every retrieval model, small; a new one is tested by being entered here."""

import numpy as np

from debias.retrieval.layers.logq import StreamingFrequency
from debias.retrieval.layers.views import FeatureViews
from debias.retrieval.models import (
    DAT,
    MIND,
    Encoder,
    TwoTower,
    dssm,
    fm_tower,
    senet_tower,
    youtube_dnn,
)
from simulators.interactions import generate_interactions

LOG, TRUTH = generate_interactions(np.random.default_rng(0), 60, 40, events=8)
USERS, ITEMS = LOG.users.schema, LOG.items.schema
LENGTH = 6
SMALL = {"dim": 8, "length": LENGTH, "seed": 0}


def bare():
    """No history, streaming frequencies, self-supervision, lengths left free."""
    return TwoTower(
        Encoder(USERS, 8, normalize=False, seed=0),
        Encoder(ITEMS, 8, normalize=False, seed=1),
        temperature=1.0,
        frequency=StreamingFrequency(64),
        views=FeatureViews(ITEMS, ["complementary"], seed=0),
        self_weight=0.3,
    )


def shared():
    past = {"kind": "recency", "length": LENGTH}
    item = Encoder(ITEMS, 8, "fm", seed=1)
    user = Encoder(USERS, 8, "fm", history=past, history_table=item.id_table, seed=0)
    return TwoTower(user, item)


MODELS = {
    "dssm": lambda: dssm(USERS, ITEMS, hidden=(8,), **SMALL),
    "transformer": lambda: dssm(
        USERS, ITEMS, hidden=(8,), history="transformer", **SMALL
    ),
    "fm": lambda: fm_tower(USERS, ITEMS, **SMALL),
    "senet": lambda: senet_tower(USERS, ITEMS, hidden=(8,), **SMALL),
    "youtube": lambda: youtube_dnn(USERS, ITEMS, hidden=(8,), **SMALL),
    "mind": lambda: MIND(USERS, ITEMS, hidden=(8,), interests=3, **SMALL),
    "dat": lambda: DAT(USERS, ITEMS, "genre", hidden=(8,), **SMALL),
    "bare": bare,
    "shared": shared,
}
