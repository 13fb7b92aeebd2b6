"""Ablations of retrieval models, all with the same budget.

Table `retrieval` of `benchmarks.retrieval.recipes` compares the defaults with tuned
baselines. The rows of this module compare losses, negatives, views and the parts of
towers. The settings of these rows are older than the default recipe.

The protocol is the same for every row:

1. MovieLens-100K is split by leave-last-one-out: each user's latest item is the target.
   If several items of a user have the same time, the last of them in the file is the
   target. Ta-Feng is split by time: targets are the purchases of the last two weeks, by
   customers who had bought before. Two generated data sets are split like MovieLens. In
   both data sets, the genre of an item decides which users like it. The features
   contain this genre in `genre-told`, and a random genre in `genre-shuffled`. Targets
   are ranked among all items that the user has not taken before; ties count by half.
2. All towers have the same budget: vectors of 64 dimensions, one hidden layer of 128
   units, the last 20 items as history, batches of 512 events, Adam with learning rate
   .003, and 3 passes. The loss is in-batch softmax with the logQ correction, on cosines
   divided by a temperature of .1. The weights of the last step are used. The number of
   passes was chosen among 3, 6 and 9, on the FM tower only, by HR@50 of
   `part="validation"`. This part holds out each user's last item but one (in Ta-Feng,
   the two weeks before the last two), and never uses the targets. No other setting and
   no other tower was tuned. The name and the `config` of a row show what the row
   changes.
3. Seeds determine the initial weights and the order of events. The split is always the
   same, so intervals describe the variance of training, but not the variance of the
   sample of users.
4. `train_seconds` is wall-clock time on a shared machine, including compilation.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from benchmarks.harness.plan import Table
from debias.retrieval.data.datasets import movielens_100k, ta_feng
from debias.retrieval.data.interactions import (
    FeatureTable,
    Interactions,
    leave_last_out,
    mutual_information,
    time_split,
)
from debias.retrieval.data.negatives import (
    Listed,
    Mixture,
    Queue,
    Sampler,
    by_popularity,
    from_ranking,
    uniform,
)
from debias.retrieval.training.evaluation import (
    Scorer,
    dot_scores,
    evaluate_scores,
    head_items,
    ranks,
)
from debias.retrieval.training.mining import by_ranker
from simulators.interactions import generate_interactions


def known_tastes(true_genres: bool) -> Interactions:
    """Log of 2,000 users, each of whom prefers one of 50 genres of items.

    Without `true_genres`, the genres of the items are shuffled.
    """
    rng = np.random.default_rng(0)
    log, truth = generate_interactions(rng, 2000, 2000, 30, genres=50)
    if true_genres:
        return log
    wrong = {"id": np.arange(2000), "genre": rng.permutation(truth.genre)}
    return replace(log, items=FeatureTable.build(wrong))


DATASETS: dict[str, Callable[[], Interactions]] = {
    "movielens-100k": movielens_100k,
    "ta-feng": ta_feng,
    "genre-told": partial(known_tastes, True),
    "genre-shuffled": partial(known_tastes, False),
}
DAYS = 14  # days that are held out in a split by time
METRICS = (
    *("hr@10", "hr@50", "hr@100", "ndcg@10", "mrr", "mrr/10"),
    *("tail_hr@50", "head_hr@50", "coverage@50"),
)
BASELINES = ("popularity", "ease", "wals")
TOWERS = ("dssm", "fm", "senet", "transformer", "youtube", "mind", "dat")
DENSE_ROWS = 1 << 15  # tables up to this size are updated as a whole, with XLA


@dataclass(frozen=True)
class RetrievalConfig:
    """All settings that determine a retrieval row, except data and seed."""

    model: str
    loss: str = "softmax"
    candidates: str = "batch"  # "batch", "catalogue" or "own"
    sampler: str = "uniform"  # a key of SAMPLERS, for `negatives`
    negatives: int = 0
    own_sampler: str = "uniform"
    own_negatives: int = 0
    log_q: bool = True
    streaming: bool = False
    exclude_known: bool = True
    dim: int = 64
    hidden: tuple[int, ...] = (128,)
    history: str = "recency"
    length: int = 20
    features: bool = True
    temperature: float = 0.1
    normalize_users: bool = True
    dropout: float = 0.0
    unknown_rate: float = 0.0
    batch_size: int = 512
    epochs: int = 3
    learning_rate: float = 0.003
    margin: float = 1.0
    transforms: tuple[str, ...] = ()
    self_weight: float = 0.1
    self_items: int = 512
    mimic: float = 0.5
    alignment: float = 1.0
    regularisation: float = 100.0  # for EASE and WALS
    confidence: float = 1.0  # alpha of WALS
    options: Mapping[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=2)
def split(dataset: str, part: str = "test") -> tuple[Interactions, Interactions]:
    """Training and held-out events of the users that have both."""
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {list(DATASETS)}, got {dataset!r}")
    if part not in ("test", "validation"):
        raise ValueError(f"part must be 'test' or 'validation', got {part!r}")
    divide = _last_days if dataset == "ta-feng" else partial(leave_last_out, seed=None)
    rest, last = divide(DATASETS[dataset]())
    if part == "validation":
        rest, last = divide(rest)
    return rest, last


def _last_days(log: Interactions) -> tuple[Interactions, Interactions]:
    rest, last = time_split(log, log.time.max() - DAYS + 1)
    return rest, last.take(np.isin(last.user, rest.user))


def measure(
    config: RetrievalConfig, dataset: str, seed: int, part: str = "test"
) -> dict[str, float]:
    """Trains one configuration and evaluates it.

    Returns:
        `METRICS`, train_seconds and evaluate_seconds. A DSSM also has `tail_metrics`,
        and a SENet has the mean weight of each field, such as `item_year_weight`.
    """
    train, held_out = split(dataset, part)
    start = time.perf_counter()
    model: Any = None
    if config.model in BASELINES:
        score = baseline(config, train, seed)
    else:
        model = fit_tower(config, train, seed)
        score = scorer(model, train, config.length)
    trained = time.perf_counter()
    metrics = evaluate_on(score, train, held_out)
    done = time.perf_counter()
    shown = {name: metrics[name] for name in METRICS}
    seconds = {"train_seconds": trained - start, "evaluate_seconds": done - trained}
    more: dict[str, float] = {}
    if config.model == "senet":
        more = field_weights(model, train)
    elif config.model == "dssm":
        vectors = model.item_vectors(train.items.columns)
        more = tail_metrics(score, vectors, train, held_out)
    return {**shown, **seconds, **more}


def tail_metrics(
    score: Scorer, items: np.ndarray, train: Interactions, held_out: Interactions
) -> dict[str, float]:
    """Ranking quality among tail items, and uniformity of their vectors.

    tail_only_hr@10: share of the targets in the tail that are among the 10 best unseen
    items of the tail. This metric does not measure how often the model ranks tail items
    above other items.

    tail_uniformity: log of the mean of exp(-2 |v - w|^2) over pairs of vectors of tail
    items. Lower values mean more uniform vectors. Source: Wang and Isola, Understanding
    Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, ICML 2020.

    Args:
        score: Function that scores the catalogue for users.
        items: (N, d) vectors of length 1.
        train, held_out: Training and held-out events, see `evaluate_on`.
    """
    head = head_items(train.popularity())
    some = held_out.take(~head[held_out.item])
    users, query = np.unique(some.user, return_inverse=True)
    found, _ = ranks(
        lambda q: np.where(head, -np.inf, score(users[q])),
        query,
        some.item,
        train.seen(users),
    )
    tail = items[~head]
    total = sum(
        np.exp(4 * (tail[i : i + 1024] @ tail.T - 1)).sum(dtype=float)
        for i in range(0, len(tail), 1024)
    )
    pairs = (total - len(tail)) / (len(tail) * (len(tail) - 1))
    return {
        "tail_only_hr@10": float((found <= 10).mean()),
        "tail_uniformity": float(np.log(pairs)),
    }


def field_weights(model: Any, train: Interactions) -> dict[str, float]:
    """Mean SENet weight of each field, over all users or over all items."""
    users = np.arange(len(train.users))
    history, _ = train.histories(model.user.history["length"], users)
    sides = {
        "user": (model.user, {**train.users.columns, "history": history}),
        "item": (model.item, train.items.columns),
    }
    return {
        f"{side}_{name}_weight": float(weight)
        for side, (encoder, features) in sides.items()
        for name, weight in zip(
            encoder.field_names,
            np.asarray(encoder.importance(features)).mean(axis=0),
            strict=True,
        )
    }


def evaluate_on(
    score: Scorer, train: Interactions, held_out: Interactions
) -> dict[str, float]:
    """`evaluate_scores` on the held-out events, over all users who have such events."""
    users, query = np.unique(held_out.user, return_inverse=True)
    return evaluate_scores(
        lambda q: score(users[q]),
        query,
        held_out.item,
        train.seen(users),
        train.popularity(),
    )


def baseline(config: RetrievalConfig, train: Interactions, seed: int) -> Scorer:
    """Fits a baseline; returns a function that scores the catalogue for users."""
    if config.model == "popularity":
        counts = train.popularity().astype(np.float32)
        return lambda users: np.tile(counts, (len(users), 1))
    if config.model == "ease":
        return ease(train, config.regularisation)
    return wals(train, config, seed)


def ease(train: Interactions, regularisation: float) -> Scorer:
    """Fits EASE; returns a function that scores the catalogue for users.

    The scores are X B, where X is `matrix(train)`, P = (X'X + `regularisation` I)^-1,
    and B is -P / diag(P) with diagonal 0. Source: Steck, Embarrassingly Shallow
    Autoencoders for Sparse Data, WWW 2019.
    """
    seen = matrix(train)
    gram = (seen.T @ seen).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += regularisation
    inverse = np.linalg.inv(gram)
    weight = (-inverse / np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weight, 0.0)
    return lambda users: seen[users] @ weight


def wals(train: Interactions, config: RetrievalConfig, seed: int) -> Scorer:
    """Weighted alternating least squares of the library `implicit`, with one thread."""
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # it warns that more threads are slower
        model = AlternatingLeastSquares(
            factors=config.dim,
            regularization=config.regularisation,
            alpha=config.confidence,
            iterations=config.epochs,
            num_threads=1,
            random_state=seed,
        )
        model.fit(matrix(train), show_progress=False)
    users, items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    return lambda rows: users[rows] @ items.T


def matrix(train: Interactions) -> Any:
    """(users, items) sparse matrix that is 1 if a user took an item."""
    from scipy import sparse

    ones = np.ones(len(train), np.float32)
    shape = (len(train.users), len(train.items))
    found = sparse.csr_matrix((ones, (train.user, train.item)), shape)
    found.data[:] = 1.0
    return found


def build(config: RetrievalConfig, train: Interactions, seed: int) -> Any:
    """The untrained model of a configuration."""
    from debias.retrieval.layers.logq import StreamingFrequency
    from debias.retrieval.layers.views import FeatureViews
    from debias.retrieval.models import (
        DAT,
        MIND,
        dssm,
        fm_tower,
        senet_tower,
        youtube_dnn,
    )

    users, items = train.users.schema, train.items.schema
    if not config.features:
        users, items = {"id": users["id"]}, {"id": items["id"]}
    given: dict[str, Any] = {
        "dim": config.dim,
        "length": config.length,
        "temperature": config.temperature,
        "normalize_users": config.normalize_users,
        "unknown_rate": config.unknown_rate,
        "seed": seed,
        **config.options,
    }
    if config.streaming:
        given["frequency"] = StreamingFrequency(items["id"]["size"])
    if config.transforms:
        relation = mutual_information(train.items)
        given["views"] = FeatureViews(
            items, config.transforms, relation=relation, seed=seed
        )
        given["self_weight"] = config.self_weight
    deep = {**given, "hidden": config.hidden}
    drop: dict[str, Any] = {"dropout": config.dropout}
    if config.model == "dssm":
        model = dssm(users, items, history=config.history, **deep, **drop)
    elif config.model == "transformer":
        model = dssm(users, items, history="transformer", **deep, **drop)
    elif config.model == "senet":
        model = senet_tower(users, items, history=config.history, **deep, **drop)
    elif config.model == "fm":
        model = fm_tower(users, items, history=config.history, **given, **drop)
    elif config.model == "youtube":
        model = youtube_dnn(users, items, **deep, **drop)
    elif config.model == "mind":
        model = MIND(users, items, **deep)
    elif config.model == "dat":
        category = "category" if config.alignment and "category" in items else None
        weights: dict[str, Any] = {"mimic": config.mimic, "alignment": config.alignment}
        model = DAT(
            users, items, category, history=config.history, **weights, **deep, **drop
        )
    else:
        raise ValueError(
            f"model must be one of {[*BASELINES, *TOWERS]}, got {config.model!r}"
        )
    return model


def fit_tower(config: RetrievalConfig, train: Interactions, seed: int) -> Any:
    """A trained retrieval model."""
    from debias.engine.optimizers import RowWiseAdam
    from debias.retrieval.losses import RetrievalLoss
    from debias.retrieval.training.batches import Batches
    from debias.retrieval.training.fitting import fit

    model = build(config, train, seed)
    sizes = [
        kind.get("size", 0)
        for side in (train.users, train.items)
        for kind in side.schema.values()
    ]
    model.compile(
        RowWiseAdam(config.learning_rate, dense_rows=DENSE_ROWS),
        RetrievalLoss(config.loss, config.margin),
        jit_compile=max(sizes) <= DENSE_ROWS,
    )
    batches = Batches(
        train,
        config.batch_size,
        config.candidates,
        negatives=config.negatives,
        sampler=sampler(config.sampler, train, seed),
        own_negatives=config.own_negatives,
        own_sampler=sampler(config.own_sampler, train, seed)
        if config.own_negatives
        else None,
        log_q=config.log_q,
        exclude_known=config.exclude_known,
        history=config.length,
        self_items=config.self_items if config.transforms else 0,
        seed=seed,
    )
    fit(model, batches, epochs=config.epochs)
    return model


def scorer(model: Any, train: Interactions, length: int) -> Scorer:
    """A function that scores the catalogue for users, after all events of `train`."""
    items = model.item_vectors(train.items.columns)

    def score(users: np.ndarray) -> np.ndarray:
        history, _ = train.histories(length, users)
        features = {**train.users.take(users), "history": history}
        return dot_scores(model.user_vectors(features), items)

    return score


def sampler(name: str, train: Interactions, seed: int) -> Sampler:
    """The sampler of negatives with this name.

    Some samplers use an EASE ranking of unseen items, as a stand-in for the list of a
    production ranker. "hard" draws from ranks 101 to 500. "rejected" draws from ranks
    501 to 1,000, which a pre-ranker would remove. "impressions" draws from ranks 1 to
    20, which stand for items that were shown but not taken. "hard-1-in-100" and
    "hard-1-in-500" mix hard negatives and uniform negatives in ratios of 1 to 100 and 1
    to 500. "hard-by-ranker" draws from ranks 101 to 500 of the list of a tower with
    in-batch negatives, after a click model has ordered this list.
    """
    items = len(train.items)
    easy = uniform(items)
    if name == "uniform":
        return easy
    if name == "popularity":
        return by_popularity(train.popularity())
    if name == "queue":
        return Queue(4096, easy, items)
    if name == "mixed":
        return Mixture([(0.5, easy), (0.5, by_popularity(train.popularity(), 1.0))])
    if name == "hard-by-ranker":
        from benchmarks.retrieval.ranker import click_ranker

        plain = RetrievalConfig("fm")
        scores = scorer(fit_tower(plain, train, seed), train, plain.length)
        return by_ranker(scores, click_ranker(train, scores, seed), train.seen(), easy)
    bounds = {"impressions": (1, 20), "rejected": (501, 1000)}
    kind, _, share = name.partition("-1-in-")
    if kind in ("hard", *bounds):
        first, last = bounds.get(kind, (101, 500))
        hard: Listed = from_ranking(_ranking(train, last), easy, first, last)
        if not share:
            return hard
        part = 1 / (1 + int(share))
        return Mixture([(1 - part, easy), (part, hard)])
    raise ValueError(
        "sampler must be uniform, popularity, queue, mixed, hard-by-ranker, hard, "
        f"rejected, impressions or one of these with -1-in-N, got {name!r}"
    )


def _ranking(train: Interactions, top: int) -> np.ndarray:
    users, none = np.arange(len(train.users)), np.empty(0, int)
    score = ease(train, 100.0)
    return ranks(lambda q: score(users[q]), none, none, train.seen(), top=top)[1]


@dataclass(frozen=True)
class RetrievalExperiment:
    """A row of a retrieval table; implements `benchmarks.harness.plan.Experiment`."""

    row: str
    config: RetrievalConfig
    population: str = "movielens-100k"

    def settings(self) -> Mapping[str, Any]:
        """The name of the model, and all settings that differ from the defaults."""
        given = asdict(self.config)
        plain = asdict(RetrievalConfig(self.config.model))
        return {
            f.name: given[f.name]
            for f in fields(RetrievalConfig)
            if f.name == "model" or given[f.name] != plain[f.name]
        }

    def measure(self, seed: int, data: str | None = None) -> Mapping[str, float]:
        """Metrics on the test part of the data set `population`; `data` is ignored."""
        from benchmarks.harness.memory import forget

        forget()
        return measure(self.config, self.population, seed)


RETRIEVAL = {
    "popularity": RetrievalConfig("popularity"),
    "ease": RetrievalConfig("ease"),
    "wals": RetrievalConfig("wals", regularisation=0.1, confidence=1.0, epochs=15),
    "dssm": RetrievalConfig("dssm"),
    "fm": RetrievalConfig("fm"),
    "senet": RetrievalConfig("senet"),
    "youtube": RetrievalConfig("youtube"),
    "mind": RetrievalConfig("mind"),
    "dat": RetrievalConfig("dat"),
    "dat-without-mimic": RetrievalConfig("dat", mimic=0.0),
    "dat-without-alignment": RetrievalConfig("dat", alignment=0.0),
    "dat-without-both": RetrievalConfig("dat", alignment=0.0, mimic=0.0),
    "fm-catalogue": RetrievalConfig("fm", candidates="catalogue"),
}
TA_FENG = (
    "popularity",
    "ease",
    "wals",
    "dssm",
    "fm",
    "senet",
    "youtube",
    "mind",
    "dat",
)
LOSSES = {
    "softmax": RetrievalConfig("fm"),
    "softmax-without-logq": RetrievalConfig("fm", log_q=False),
    "softmax-streaming-logq": RetrievalConfig("fm", streaming=True),
    "softmax-catalogue": RetrievalConfig("fm", candidates="catalogue"),
    **{
        f"{loss}-1-to-{count}": RetrievalConfig("fm", loss, "own", negatives=count)
        for loss in ("pointwise", "hinge", "logistic", "bpr")
        for count in (2, 3)
    },
}
NEGATIVES = {
    "in-batch": RetrievalConfig("fm"),
    "in-batch-without-logq": RetrievalConfig("fm", log_q=False),
    "queue": RetrievalConfig("fm", negatives=512, sampler="queue"),
    "mixed": RetrievalConfig("fm", negatives=512),
    **{
        name: RetrievalConfig("fm", candidates="own", negatives=20, sampler=name)
        for name in (
            *("uniform", "popularity", "hard", "rejected", "impressions"),
            *("hard-1-in-1", "hard-1-in-100", "hard-1-in-500", "hard-by-ranker"),
        )
    },
}
SELF_SUPERVISION = {
    "without": RetrievalConfig("dssm"),
    **{
        "+".join(transforms): RetrievalConfig("dssm", transforms=transforms)
        for transforms in (
            *(("mask",), ("dropout",), ("complementary",), ("correlated",)),
            ("correlated", "dropout"),
        )
    },
}
VIEWS = ("without", "mask", "dropout", "complementary", "correlated")
SENET = {"dssm": RetrievalConfig("dssm"), "senet": RetrievalConfig("senet")}

COLUMNS = (
    *("hr@10", "hr@50", "hr@100", "ndcg@10", "mrr"),
    *("tail_hr@50", "coverage@50", "train_seconds"),
)
WEIGHTS = (
    *("user_id_weight", "user_age_weight", "user_gender_weight"),
    *("user_occupation_weight", "user_history_0_weight", "user_history_1_weight"),
    *("item_id_weight", "item_year_weight", "item_genres_weight"),
    "item_category_weight",
)


def rows(
    configs: Mapping[str, RetrievalConfig], dataset: str = "movielens-100k"
) -> tuple[RetrievalExperiment, ...]:
    return tuple(RetrievalExperiment(row, of, dataset) for row, of in configs.items())


def table(
    name: str,
    title: str,
    experiments: tuple[RetrievalExperiment, ...],
    baseline: str,
    **options: Any,
) -> Table:
    """A table of retrieval rows, with the settings that these tables share."""
    given: dict[str, Any] = {"metrics": COLUMNS, "paired": ("hr@50",), "seeds": 5}
    given |= {"lower": ("train_seconds",), **options}
    return Table(
        name=name,
        title=title,
        experiments=experiments,
        baseline=baseline,
        clicks="",
        dataset="public",
        **given,
    )


TABLES = (
    table(
        "towers",
        "Towers with equal budgets, and the gain from their parts",
        rows(RETRIEVAL) + rows({name: RETRIEVAL[name] for name in TA_FENG}, "ta-feng"),
        "ease",
        paired=("hr@50", "ndcg@10"),
        bounds=("popularity",),
    ),
    table("losses", "One tower with several losses", rows(LOSSES), "softmax"),
    table(
        "negatives",
        "One tower with several kinds of negatives",
        rows(NEGATIVES),
        "in-batch",
    ),
    table(
        "self-supervision",
        "Gain from two views of an item, by how the views are drawn",
        rows(SELF_SUPERVISION)
        + rows({n: SELF_SUPERVISION[n] for n in VIEWS}, "genre-told")
        + rows({n: SELF_SUPERVISION[n] for n in VIEWS}, "genre-shuffled"),
        "without",
        metrics=(*COLUMNS, "head_hr@50", "tail_only_hr@10", "tail_uniformity"),
        lower=("train_seconds", "tail_uniformity"),
        paired=("tail_hr@50", "hr@50"),
    ),
    table(
        "senet",
        "Gain from squeeze and excitation, and the learned weights",
        rows(SENET),
        "dssm",
        metrics=(*COLUMNS, *WEIGHTS),
    ),
)
