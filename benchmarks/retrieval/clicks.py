"""Retrieval towers trained on position-biased clicks, with known tastes.

The protocol is the same for every row:

1. Each user likes one genre, and each item has a quality. So the true preference is
   known for every pair of user and item. Every user is a query whose candidates are all
   items of the catalogue. Grades 0 to 4 divide the preferences of all pairs at fixed
   quantiles.
2. The production retrieval knows the genre but not the quality, gives popularity too
   much weight, and has a random error on every pair. In each session, it shows ten
   items, drawn by Plackett-Luce from its scores. Simulated users click on these items.
   So popular items are on top and get clicks there, whatever their quality.
3. A tower is the relevance of a click model (`debias.retrieval.models.PairRelevance`).
   If the model has a bias tower, the bias tower reads the position. The model reads
   user and item features, the history of each user, and clicks. The model is trained
   with the defaults of `debias.fit`. Validation clicks decide when to stop, and
   training never uses the truth.
4. For `ndcg@k`, the tower alone ranks the whole catalogue for every user, and the true
   grades evaluate this ranking. `hr@50` is the share of users whose favourite item is
   among the first 50.
5. `recovered` is (ndcg@10 - naive) / (unbiased - naive), where all three values are
   ndcg@10 of the same tower, population and seed. "naive" and "unbiased" have no bias
   tower. "unbiased" is trained on clicks of users who examine all items of the same
   kind of lists, with fewer sessions, so that the number of clicks is the same. So its
   advantage over "naive" is the cost of the bias, not an effect of more clicks.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.plan import Table
from benchmarks.ranking.settings import identity
from debias.retrieval.training.recipe import Recipe
from debias.training.config import TrainingConfig

CROWDS = ("pbm", "mixed")
UNBIASED_CROWD = "document-ctr"
TOWERS = ("dssm", "fm", "senet", "dat", "ranker")
BIASES = ("naive", "additive", "product", "mixture", "unbiased")
ATTRACTION = "informational"  # by grade: .4 to .9, as retrieved items are seldom bad
GRADE_SHARES = (0.2, 0.08, 0.03, 0.01)  # shares of all pairs with at least grade 1 to 4


@dataclass(frozen=True)
class ClickSize:
    """Size of a trial, in which queries are users."""

    queries: int = 300
    items: int = 250
    taken: int = 10
    sessions: int = 60_000
    batch_size: int = 512
    epochs: int | None = None
    dim: int = 16
    length: int = 10

    def config(self, seed: int) -> TrainingConfig:
        """Training settings of all towers: the defaults of `debias.fit`."""
        return TrainingConfig(epochs=self.epochs, batch_size=self.batch_size, seed=seed)


class Tables(NamedTuple):
    """Features of users (with their histories) and of items, with their schemas."""

    users: Mapping[str, np.ndarray]
    items: Mapping[str, np.ndarray]
    schemas: tuple[Mapping[str, Any], Mapping[str, Any]]
    favourite: np.ndarray  # (users,) the item that each user prefers


def grades(preference: np.ndarray) -> np.ndarray:
    """Grades 0 to 4 by quantiles of preference over all pairs.

    >>> grades(np.arange(100.0))[[0, 79, 80, 92, 97, 99]].tolist()
    [0, 0, 1, 2, 3, 4]
    """
    cuts = np.sort(preference, axis=None)[
        [-round(share * preference.size) for share in GRADE_SHARES]
    ]
    return np.searchsorted(cuts, preference, side="right").astype(np.int8)


@lru_cache(maxsize=2)
def world(crowd: str, seed: int, size: ClickSize) -> tuple[Any, Tables]:
    """The `benchmarks.ranking.protocol.World` of one seed.

    The function also returns the inputs of the towers.
    """
    from benchmarks.ranking.protocol import LIST_SIZE, TEMPERATURE, Split, World
    from debias.data import RankingData
    from simulators.clicks import simulate
    from simulators.interactions import generate_interactions
    from simulators.policies import PlackettLuce
    from simulators.populations import named

    rng = np.random.default_rng([seed, 61])
    log, truth = generate_interactions(
        rng, size.queries, size.items, size.taken, genres=5, loyalty=2.0, noise=1.0
    )
    pairs = np.indices((size.queries, size.items)).reshape(2, -1).T.astype(np.float32)
    offsets = np.arange(size.queries + 1) * size.items
    data = RankingData(pairs, grades(truth.preference).ravel(), offsets)
    own_genre = truth.genre == truth.group[:, None]
    noise = rng.normal(size=truth.preference.shape)
    production = 2.0 * own_genre + truth.popularity + 0.5 * noise
    production = production.astype(np.float32).ravel()
    counts = (size.sessions, size.sessions // 4, size.sessions // 4)
    splits = [
        Split(
            data,
            production,
            simulate(
                data,
                PlackettLuce(lambda _: production, TEMPERATURE),
                named(crowd),
                sessions=count,
                seed=3 * seed + place,
                list_size=LIST_SIZE,
                attraction=ATTRACTION,
            ),
        )
        for place, count in enumerate(counts)
    ]
    history, _ = log.histories(size.length, np.arange(size.queries))
    tables = Tables(
        {**log.users.columns, "history": history},
        log.items.columns,
        (log.users.schema, log.items.schema),
        truth.preference.argmax(axis=1),
    )
    train, validation, test = splits
    return World(named(crowd), train, validation, test), tables


def tower(kind: str, tables: Tables, size: ClickSize, seed: int) -> Any:
    """A retrieval model, or a ranker with the same inputs.

    As in `debias retrieval train`, item vectors have unit length and user vectors do
    not. FM uses inner products of its vectors, because inner products gave a better
    validation likelihood of clicks than cosines for seed 1000.
    """
    from debias.retrieval.models import DAT, dssm, fm_tower, senet_tower

    if kind == "ranker":
        return _crossed()(*_sides(tables, size, seed), temperature=1.0)
    given: dict[str, Any] = {"dim": size.dim, "length": size.length, "seed": seed}
    if kind == "fm":
        given |= {"temperature": 1.0, "normalize": False, "normalize_users": False}
        return fm_tower(*tables.schemas, **given)
    given |= {"hidden": (2 * size.dim,), "normalize_users": False}
    given["temperature"] = Recipe().temperature
    if kind == "dat":
        return DAT(*tables.schemas, "genre", **given)
    builders: dict[str, Callable[..., Any]] = {"dssm": dssm, "senet": senet_tower}
    if kind in builders:
        return builders[kind](*tables.schemas, **given)
    raise ValueError(f"tower must be one of {list(TOWERS)}, got {kind!r}")


def _sides(tables: Tables, size: ClickSize, seed: int) -> list[Any]:
    from debias.retrieval.models import Encoder

    past = {"length": size.length, "size": tables.schemas[1]["id"]["size"]}
    return [
        Encoder(
            schema, size.dim, "fm", history=h, normalize=False, seed=2 * seed + side
        )
        for side, (schema, h) in enumerate(
            zip(tables.schemas, (past, None), strict=True)
        )
    ]


def _crossed() -> Any:
    from keras import ops

    from debias.layers import Tower
    from debias.retrieval.models import TwoTower

    class Crossed(TwoTower):
        """A ranker: a perceptron over both vectors and their elementwise product."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.mix = Tower((32, 16))

        def match(self, users: Any, items: Any, batch: Any, label: Any) -> Any:
            each = ops.expand_dims(users, 1) + ops.zeros_like(items)
            joined = ops.concatenate([each, items, each * items], axis=-1)
            return self.mix(joined)[..., 0]

    return Crossed


def click_model(
    kind: str, bias: str, tables: Tables, size: ClickSize, seed: int
) -> Any:
    """A click model with the tower as its relevance."""
    from benchmarks.ranking.protocol import LIST_SIZE
    from debias.layers import BiasTower
    from debias.models import Additive, Mixture, Naive, Product
    from debias.retrieval.models import PairRelevance

    def relevance(seed: int, shared_by: int = 1) -> Any:
        model = tower(kind, tables, size, seed)
        return PairRelevance(model, tables.users, tables.items, shared_by)

    def place(seed: int, init_std: float = 0.05) -> Any:
        return BiasTower({"position": LIST_SIZE}, init_std=init_std, seed=seed)

    if bias == "additive":
        return Additive(relevance(seed), place(seed))
    if bias == "product":
        return Product(relevance(seed), place(seed))
    if bias == "mixture":
        # One tower, because kinds of users differ only in how they read the list.
        shared = relevance(seed, shared_by=3)
        return Mixture([Product(shared, place(3 * seed + k, 1.0)) for k in range(3)])
    if bias in ("naive", "unbiased"):
        return Naive(relevance(seed))
    raise ValueError(f"bias must be one of {list(BIASES)}, got {bias!r}")


def sessions_of_as_many_clicks(split: Any) -> int:
    """Number of lists that would get as many clicks if users examined every item."""
    from simulators.clicks import item_attraction

    shown = item_attraction(split.data, ATTRACTION)[split.log.item]
    return round(split.log.click.sum() / shown.sum(axis=1).mean())


@cache
def fitted(
    kind: str, bias: str, crowd: str, seed: int, size: ClickSize
) -> dict[str, float]:
    """Trains and measures one row, and caches the result for other rows."""
    from benchmarks.ranking.protocol import (
        click_metrics,
        predicted_logits,
        scores,
        trained,
    )

    found, tables = world(crowd, seed, size)
    if bias == "unbiased":
        size = replace(size, sessions=sessions_of_as_many_clicks(found.train))
        found, tables = world(UNBIASED_CROWD, seed, size)
    model, _ = trained(
        found, lambda s: click_model(kind, bias, tables, size, s), size.config(seed)
    )
    metrics = preference_metrics(found, tables, scores(model.score, found.test.data))
    if bias != "unbiased":
        metrics |= click_metrics(found.test.log, predicted_logits(model, found.test))
    return metrics


def preference_metrics(
    found: Any, tables: Tables, score: np.ndarray
) -> dict[str, float]:
    """`ranking_metrics` and the hit rate of favourites, for scores (users * items,)."""
    from benchmarks.ranking.protocol import ranking_metrics
    from debias.retrieval.training.evaluation import ranks, recall_metrics

    users = np.arange(len(tables.favourite))
    table = score.reshape(len(users), -1)
    none = np.empty(0, int), np.zeros(len(users) + 1, int)
    rank, _ = ranks(lambda q: table[q], users, tables.favourite, none)
    return ranking_metrics(found, score) | {
        name: value
        for name, value in recall_metrics(rank, users, (50,)).items()
        if name == "hr@50"
    }


@dataclass(frozen=True)
class RetrievalTrial:
    """A row of table `retrieval-debiased`."""

    tower: str
    bias: str
    population: str
    size: ClickSize = ClickSize()

    @property
    def row(self) -> str:
        return self.tower if not self.bias else f"{self.tower}-{self.bias}"

    def settings(self) -> dict[str, Any]:
        learned = identity(self.size.config(0))
        return {**asdict(self.size), **learned, "revision": 3}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.harness.memory import forget

        forget()
        if not self.bias:
            found, tables = world(self.population, seed, self.size)
            return preference_metrics(found, tables, found.test.logging)

        def of(bias: str) -> dict[str, float]:
            return fitted(self.tower, bias, self.population, seed, self.size)

        metrics = dict(of(self.bias))
        if self.bias not in ("naive", "unbiased"):
            low, high = (of(bias)["ndcg@10"] for bias in ("naive", "unbiased"))
            metrics["recovered"] = (metrics["ndcg@10"] - low) / (high - low)
        return metrics


LEARNERS = tuple(
    RetrievalTrial(tower, bias, crowd)
    for crowd in CROWDS
    for tower in TOWERS
    for bias in BIASES
    if crowd == "mixed" or bias != "mixture"  # for a single kind of users
)
TABLE = Table(
    name="retrieval-debiased",
    title="Retrieval towers that learn from clicks, with and without a bias tower",
    experiments=(
        *(RetrievalTrial("production", "", crowd) for crowd in CROWDS),
        *LEARNERS,
    ),
    metrics=("ndcg@5", "ndcg@10", "hr@50", "recovered", "click_log_likelihood"),
    paired=("ndcg@10",),
    bounds=("production", *(f"{tower}-unbiased" for tower in TOWERS)),
    seeds=5,
)
