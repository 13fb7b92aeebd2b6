"""A ranker for data sets without a log of shown items.

Simulated users examine by position. A simulated user sees the retrieved items of a real
user, and the items that this user took. The attraction of an item depends on the stars
that the user gave. Items that the user did not take have the lowest attraction. A click
model learns from these clicks only, with a separate tower for the position. The ranker
never sees held-out events.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from debias.retrieval.data.interactions import Interactions
from debias.retrieval.training.evaluation import Scorer, ranks

SHOWN = 100  # length of the retrieved list, without taken items
SESSIONS = 60  # sessions per user
LIST_SIZE, TEMPERATURE = 10, 1.0
DIM, EPOCHS, RATE = 32, 3, 0.01


def candidates(train: Interactions, retrieval: Scorer) -> Any:
    """Ranking data with users as queries, pairs as items, and stars - 1 as grades.

    If the log has no stars, items that the user took have grade 3.
    """
    from debias.data import RankingData

    none = np.empty(0, int)
    _, best = ranks(retrieval, none, none, train.seen(), top=SHOWN)
    user, place = np.nonzero(best >= 0)
    stars = np.full(len(train), 4.0) if train.weight is None else train.weight
    users = np.concatenate([train.user, user])
    items = np.concatenate([train.item, best[user, place]])
    grades = np.concatenate([np.clip(stars, 1, 5) - 1, np.zeros(len(user))])
    order = np.argsort(users, kind="stable")
    pairs = np.stack([users, items], axis=1)[order].astype(np.float32)
    counts = np.bincount(users, minlength=len(train.users))
    return RankingData(
        pairs, grades[order].astype(np.int8), np.append(0, np.cumsum(counts))
    )


def click_ranker(
    train: Interactions, retrieval: Scorer, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains a click model on simulated sessions; returns its score of pairs (P, 2)."""
    import keras

    from debias.engine.optimizers import RowWiseAdam
    from debias.layers import BiasTower
    from debias.models import Product
    from debias.models.batches import batches
    from debias.retrieval.models import PairRelevance, dssm
    from simulators.clicks import simulate
    from simulators.policies import PlackettLuce

    data = candidates(train, retrieval)
    user, item = data.features.astype(int).T
    logging = np.empty(len(user), np.float32)
    for start in range(0, len(train.users), 512):
        users = np.arange(start, min(start + 512, len(train.users)))
        own = slice(data.offsets[users[0]], data.offsets[users[-1] + 1])
        logging[own] = retrieval(users)[user[own] - start, item[own]]
    log = simulate(
        data,
        PlackettLuce(lambda _: logging, TEMPERATURE),
        "pbm",
        sessions=SESSIONS * len(train.users),
        seed=seed,
        list_size=LIST_SIZE,
    )
    schemas = train.users.schema, train.items.schema
    tower = dssm(*schemas, dim=DIM, hidden=(DIM,), history=None, seed=seed)
    model = Product(
        PairRelevance(tower, train.users.columns, train.items.columns),
        BiasTower({"position": LIST_SIZE}, seed=seed),
    )
    model.compile(RowWiseAdam(RATE), jit_compile=False)
    model.fit(batches(log, data, seed=seed), epochs=EPOCHS, verbose=0)
    return lambda pairs: keras.ops.convert_to_numpy(model.score(pairs))
