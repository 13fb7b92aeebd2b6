"""The gain from daily updates of a retrieval model.

The protocol is the same for every row:

1. The model is a DSSM with vectors of 32 dimensions, one hidden layer of 64 units, and
   the last 20 items as history. The model is trained on all days before the ten test
   days. Training uses three passes, batches of 256 events, Adam with learning rate
   .003, and in-batch softmax with the logQ correction. The model knows the users and
   items of the training days.
2. Each of the ten test days is cut into four lots of equal size, in order of time. A
   lot is predicted before the model learns from it. The current model computes a vector
   for every user of the lot, from the items that the user took before the lot. The
   user's items in the lot are ranked among all items that the model knows and the user
   has not taken. `hr@50` is the share of pairs (user, lot) with at least one item among
   the first 50, and `hr@50-day-D` is this share on day D. `new_hr@50` is the share of
   events whose item is among the first 50, counting only items that the first model did
   not know. Items that the model does not know count as missed. Users that the model
   does not know get the vector of an unknown id.
3. With "never", the model does not change, but it reads current histories. With
   "incremental", the model makes one pass over each lot after predicting it, which
   updates only the embeddings of ids. New users and items get embedding rows, and the
   index gets the vectors of changed items. With "full", the model makes one pass over
   the shuffled events of each day at its end, which updates all weights. Then all items
   are encoded anew. With "both", incremental updates are made during the day. At its
   end, they are discarded, and the last fully updated model gets a full update.
4. "drifting" is generated: each day, every twentieth user changes taste, and items
   appear, are in fashion and fade. "ta-feng" has the last forty days of a log of a
   grocery, with the day on which a customer first bought an item. Events of the same
   day are in the order of the file.
5. Seeds determine the generated world, the initial weights and the order of events in
   training. No learning rate was tuned: incremental updates use the learning rate of
   the first training. `update_cpu_seconds` is the processor time of all updates of the
   ten days, including compilation.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from benchmarks.harness.plan import Table
from debias.retrieval.data.interactions import (
    FIRST,
    ID,
    FeatureTable,
    Interactions,
    from_columns,
)

DAYS, LOTS, CUTOFF = 10, 4, 50
ROWS = ("never", "incremental", "full", "both")
POPULATIONS = ("drifting", "ta-feng")


@dataclass(frozen=True)
class UpdateSize:
    """Size of a trial: users, items and events of the simulated world."""

    users: int = 3000
    items: int = 1500
    events: int = 2
    before: int = 30  # days on which the first model is trained
    dim: int = 32
    hidden: tuple[int, ...] = (64,)
    length: int = 20
    batch_size: int = 256
    epochs: int = 3
    rate: float = 0.003


def world(population: str, seed: int, size: UpdateSize) -> Interactions:
    """All events in order of time, with the zero-based day as time."""
    if population == "drifting":
        from simulators.interactions import drifting_interactions

        rng = np.random.default_rng([seed, 62])
        days = size.before + DAYS
        log = drifting_interactions(rng, size.users, size.items, days, size.events)
        day = log.time // 1000
    elif population == "ta-feng":
        log = _ta_feng()
        day = log.time - log.time.max() + size.before + DAYS - 1
    else:
        raise ValueError(
            f"population must be one of {list(POPULATIONS)}, got {population!r}"
        )
    order = np.argsort(log.time, kind="stable")
    order = order[day[order] >= 0]
    return Interactions(
        log.user[order], log.item[order], day[order], log.users, log.items
    )


@cache
def _ta_feng() -> Interactions:
    from debias.retrieval.data.datasets import ta_feng

    return ta_feng()


def raw(table: FeatureTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Raw values of categorical columns at `rows`; missing values are "".

    >>> table = FeatureTable.build({"id": ["a", "b"], "x": ["p", None]})
    >>> {name: words.tolist() for name, words in raw(table, np.array([1])).items()}
    {'id': ['b'], 'x': ['']}
    """
    return {
        name: np.append(["", ""], table.vocabularies[name])[codes]
        for name, codes in table.take(rows).items()
    }


def known_part(log: Interactions) -> Interactions:
    """The events of `log`, with feature tables of only their users and items."""
    return from_columns(
        log.users.vocabularies[ID][log.user],
        log.items.vocabularies[ID][log.item],
        log.time,
        raw(log.users, np.unique(log.user)),
        raw(log.items, np.unique(log.item)),
    )


@lru_cache(maxsize=1)
def first_model(population: str, seed: int, size: UpdateSize) -> tuple[Any, Any]:
    """The events of the world, and a learner trained on the days before the test days.

    The learner is cached, because all rows of a world start from copies of it.
    """
    from debias.retrieval.models import dssm
    from debias.retrieval.training.learner import TrainingConfig, learn, new_learner

    log = world(population, seed, size)
    build = partial(
        dssm, dim=size.dim, hidden=size.hidden, length=size.length, seed=seed
    )
    config = TrainingConfig(
        size.length, size.batch_size, size.rate, size.rate, seed=seed
    )
    learner = new_learner(build, known_part(log.take(log.time < size.before)), config)
    learn(learner, epochs=size.epochs)
    return log, learner


def copied(learner: Any) -> Any:
    """An independent copy of a learner."""
    from debias.retrieval.training.learner import copy_state, new_learner

    other = new_learner(learner.build, learner.log, learner.config)
    copy_state(other, learner)
    return other


def target_ranks(
    learner: Any, vectors: np.ndarray, past: Interactions, lot: Interactions
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each target; infinite if the model does not know the item.

    Args:
        learner: The current model, with the ids that it knows.
        vectors: Vectors of the items that the model knows.
        past: All events before the lot, with the feature tables of the world.
        lot: The events to predict.

    Returns:
        (T,) ranks of the targets, and (T,) the user of each target as a query number.
    """
    from debias.retrieval.training.evaluation import dot_scores, ranks

    users, query = np.unique(lot.user, return_inverse=True)
    code = learner.log.items.encode({ID: past.items.vocabularies[ID]})[0][ID]
    row = np.where(code >= FIRST, code, FIRST - 1) - FIRST  # -1 if unknown
    histories, _ = past.histories(learner.config.length, users)
    # As in serving, items unknown to the model are ignored.
    codes = np.append([0, 0], np.where(row >= 0, code, 0))[histories]
    codes = np.take_along_axis(codes, np.argsort(codes == 0, 1, "stable"), axis=1)
    features = learner.log.users.encode(raw(past.users, users))[0]
    queries = learner.model.user_vectors({**features, "history": codes.astype("int32")})
    taken, offsets = past.seen(users)
    kept = row[taken] >= 0
    seen = row[taken][kept], np.append(0, np.cumsum(kept))[offsets]
    target, rank = row[lot.item], np.full(len(lot), np.inf)
    rank[target >= 0], _ = ranks(
        lambda q: dot_scores(queries[q], vectors),
        query[target >= 0],
        target[target >= 0],
        seen,
    )
    return rank, query


def simulated(
    row: str, log: Interactions, first: Any, size: UpdateSize
) -> dict[str, float]:
    """Simulates ten days of predictions and updates, and returns the metrics.

    Args:
        row: One of `ROWS`.
        log: The world.
        first: The first model, which is not changed.
        size: Size of the world.
    """
    from debias.retrieval.serving.index import Index
    from debias.retrieval.serving.update import full_update, incremental_update
    from debias.retrieval.training.learner import copy_state

    live = copied(first)
    nightly = copied(first) if row == "both" else live
    known = live.log.items.encode({ID: log.items.vocabularies[ID]})[0][ID] >= FIRST
    index = Index(live.model.item_vectors(live.log.items.columns))
    daily, new_hits, seconds = [], [], 0.0
    for day in range(size.before, size.before + DAYS):
        hits = []
        today = np.flatnonzero(log.time == day)
        for rows in np.array_split(today, LOTS):
            past, lot = log.take(np.arange(rows[0])), log.take(rows)
            rank, query = target_ranks(live, index.vectors, past, lot)
            found = rank <= CUTOFF
            hits.append(np.bincount(query, found) > 0)
            new_hits.append(found[~known[lot.item]])
            if row in ("incremental", "both"):
                begun = time.process_time()
                step = incremental_update(live, *_events(lot))
                index = index.upsert(step.items, step.vectors)
                seconds += time.process_time() - begun
        if row in ("full", "both"):
            begun = time.process_time()
            full_update(nightly, *_events(log.take(today)))
            if row == "both":
                copy_state(live, nightly)
            index = Index(live.model.item_vectors(live.log.items.columns))
            seconds += time.process_time() - begun
        daily.append(float(np.concatenate(hits).mean()))
    of_new = np.concatenate(new_hits)
    return {
        "hr@50": float(np.mean(daily)),
        **({"new_hr@50": float(of_new.mean())} if len(of_new) else {}),
        **{f"hr@50-day-{day}": value for day, value in enumerate(daily, 1)},
        "update_cpu_seconds": seconds,
    }


def _events(log: Interactions) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Events by raw ids, with the raw features of their users and items."""
    from debias.retrieval.data.events import Events

    ids = [table.vocabularies[ID] for table in (log.users, log.items)]
    return (
        Events(ids[0][log.user], ids[1][log.item], log.time),
        raw(log.users, np.unique(log.user)),
        raw(log.items, np.unique(log.item)),
    )


@dataclass(frozen=True)
class UpdateTrial:
    """A row of table `updates`."""

    row: str
    population: str
    size: UpdateSize = UpdateSize()

    def settings(self) -> Mapping[str, Any]:
        size = asdict(self.size)
        return {**size, "hidden": list(self.size.hidden), "days": DAYS, "lots": LOTS}

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        from benchmarks.harness.memory import forget

        forget()
        log, first = first_model(self.population, seed, self.size)
        return simulated(self.row, log, first, self.size)


TABLE = Table(
    name="updates",
    title="Hit rate of retrieval on ten days, by kind of update",
    experiments=tuple(
        UpdateTrial(row, population) for population in POPULATIONS for row in ROWS
    ),
    metrics=(
        *("hr@50", "new_hr@50"),
        *(f"hr@50-day-{day}" for day in (1, 4, 7, 10)),
        "update_cpu_seconds",
    ),
    baseline="never",
    paired=("hr@50",),
    clicks="",
    lower=("update_cpu_seconds",),
    seeds=5,
    workers=1,
)
