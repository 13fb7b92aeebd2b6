"""The tables: which rows, on which crowds, at which size. Loads no TensorFlow.

One experiment is one row on one population; entering it in a `Table` is all it takes to
have it run, resumed, compared and rendered.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import Table
from benchmarks.questions import graph, horizons, kinds, offline, production
from benchmarks.ranking import columns, coverage, judgments, targets, tree_rows
from benchmarks.ranking.settings import Logging, Size, adam_alone, identity
from benchmarks.rates import ann, costs, growth, large, service_attack, service_load
from benchmarks.rates import retrieval as retrieval_speed
from benchmarks.rates.speed import CASES
from benchmarks.retrieval import clicks, recipes, updates
from benchmarks.retrieval import rows as retrieval
from debias.training.config import TrainingConfig

RESULTS = Path(__file__).with_name("results")

LEARNERS = (
    *("naive", "position_feature", "product", "product_three", "additive", "dot"),
    *("bilinear", "mixture", "mixture_2", "xpa", "softmax_naive"),
    *("softmax_naive_three", "listwise", "listwise_three", "listwise_mixture"),
    "listwise_xpa",
)
TOLD = (
    *("oracle_examination", "oracle_listwise", "full_information"),
    "full_information_softmax",
)
BOUNDS = ("logging", *TOLD, "ceiling")
FEWER = (
    *("naive", "product", "additive", "dot", "mixture", "xpa", "softmax_naive"),
    *("listwise", "listwise_three", "listwise_mixture"),
)
CROWDS = ("mixed", "grid", "pbm")

QUICK_ROWS = (
    *("naive", "softmax_naive", "additive", "product", "listwise"),
    "full_information",
)
RATED_ROWS = (
    *("naive", "softmax_naive", "position_feature", "product", "additive", "dot"),
    *("bilinear", "mixture", "xpa", "listwise", "listwise_mixture", "listwise_xpa"),
    "oracle_examination",
)
TRUSTING = ("pbm", "trust")
ESTIMATORS = (
    "naive",
    "softmax_naive",
    "ips_known",
    "ips_estimated",
    "affine_known",
    "doubly_robust_known",
    "ips_known_softmax",
    "ips_estimated_softmax",
    "affine_known_softmax",
    "dual_learning",
    "regression_em",
    "pair_debias",
    "control_function",
    "control_function_softmax",
    "upe",
    "ips_dcm_softmax",
    "product",
    "additive",
    "mixture",
    "listwise",
    "listwise_mixture",
)

DECAYS = (0.1, 0.3, 1.0, 3.0)
TUNING_SEED = 1000  # the worlds of tuning are those of no other table
FRESH = (
    100  # the first seed of tables whose settings were fixed before it was looked at
)
REVISIONS = {"dot": 3, "bilinear": 3}  # of a row; raise it when its results change


@dataclass(frozen=True)
class Trial:
    """A row of a table of rankers: a model trained on the clicks of one crowd.

    Where `crowd` is given, `population` names what else is special: size or `logging`.
    """

    row: str
    population: str
    size: Size
    config: TrainingConfig
    crowd: str = ""
    logging: Logging | None = None

    def settings(self) -> dict[str, Any]:
        revision = REVISIONS.get(self.row, 1)
        found = {**asdict(self.size), **identity(self.config), "revision": revision}
        if self.crowd:
            found["crowd"] = self.crowd
        return found if self.logging is None else found | asdict(self.logging)

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import world
        from benchmarks.ranking.rows import measure

        forget()
        crowd = self.crowd or self.population
        found = world(crowd, seed, data, self.size, self.logging)
        return measure(self.row, found, replace(self.config, seed=seed))


@dataclass(frozen=True)
class Tuning:
    """One learner in one setting, judged by validation clicks alone."""

    learner: str
    population: str
    size: Size
    setting: float
    config: TrainingConfig

    @property
    def row(self) -> str:
        return f"{self.learner}@{self.setting}"

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.size), **identity(self.config), "revision": 1}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import world
        from benchmarks.ranking.rows import fit

        forget()
        found = world(self.population, seed, data, self.size)
        fitted = fit(self.learner, found, replace(self.config, seed=seed))
        return {"validation": fitted.validation}


def tuning(
    name: str,
    title: str,
    crowds: Iterable[str],
    rows: Iterable[str],
    size: Size,
    settings: Mapping[float, TrainingConfig],
) -> Table:
    """Rows in several settings, by validation clicks on worlds of no other table."""
    return Table(
        name=name,
        title=f"Validation likelihood by {title}",
        experiments=tuple(
            Tuning(row, crowd, size, setting, config)
            for crowd in crowds
            for row in rows
            for setting, config in settings.items()
        ),
        metrics=("validation",),
        paired=(),
        clicks="",
        first_seed=TUNING_SEED,
        seeds=1,
    )


Tuned = Mapping[str, Mapping[str, float]]


def tuned(table: str) -> Tuned:
    """Row to population to the setting that predicted validation clicks best.

    Read off the published results of the tuning table, so that a setting is always the
    one that won. Under "" stands the setting of the best mean over the populations.
    """
    path = RESULTS / f"{table}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found: dict[str, dict[str, dict[float, float]]] = {}
    for record in map(json.loads, lines):
        row, setting = record["row"].split("@")
        value = record["metrics"]["validation"]
        each = found.setdefault(row, {})
        each.setdefault(record["population"], {})[float(setting)] = value
    for each in found.values():
        every = list(each.values())
        common = set(every[0]).intersection(*every)
        each[""] = {setting: sum(of[setting] for of in every) for setting in common}
    return {
        row: {name: max(by, key=by.__getitem__) for name, by in each.items()}
        for row, each in found.items()
    }


def setting_of(settings: Tuned, row: str, population: str, otherwise: float) -> float:
    """The setting of a row on a population: tuned there, else best on those it was.

    A variant learns as what it varies, `xpa_self` as `xpa`. Where a row was not tuned,
    `otherwise` is taken.
    """
    other = {"disentangled": "additive", "per_item": "product"}
    stem = other.get(row, row.partition("_")[0])
    each = settings.get(row, settings.get(stem, {}))
    return each.get(population, each.get("", otherwise))


def trials(crowds: Iterable[str], rows: Iterable[str], size: Size) -> tuple[Trial, ...]:
    """Every row on every crowd, as `debias.fit` trains it, between the bounds."""
    return tuple(
        Trial(row, name, size, TrainingConfig())
        for name in crowds
        for row in ("logging", *rows, "ceiling")
    )


def adam_trials(
    settings: Tuned,
    crowds: Iterable[str],
    rows: Iterable[str],
    size: Size,
    epochs: int = 6,
) -> tuple[Trial, ...]:
    """The same, trained by Adam alone at a tuned learning rate."""
    return tuple(
        Trial(
            row, name, size, adam_alone(setting_of(settings, row, name, 0.005), epochs)
        )
        for name in crowds
        for row in ("logging", *rows, "ceiling")
    )


FULL = Size()
QUICK = Size(queries=1000, sessions=40_000)
HALF = Size(queries=1500, sessions=50_000)
QUARTER = Size(queries=800, sessions=20_000)
EIGHTH = Size(queries=500, sessions=10_000)

# On half as many clicks as the main table has, for its cost.
TUNING_MAIN = tuning(
    "tuning-main",
    "weight decay, for table main",
    ("mixed", "pbm"),
    [row for row in (*LEARNERS, *TOLD) if not row.endswith(("_three", "_2"))],
    HALF,
    {decay: TrainingConfig(decay=decay) for decay in DECAYS},
)
RATES = (0.005, 0.02)
TUNING_RATES = tuning(
    "tuning-rates",
    "learning rate, for tables trained by Adam alone",
    CROWDS,
    RATED_ROWS,
    FULL,
    {rate: adam_alone(rate, 8) for rate in RATES},
)
TUNING_ESTIMATORS = tuning(
    "tuning-estimator-rates",
    "learning rate, for table estimators",
    TRUSTING,
    ESTIMATORS,
    QUARTER,
    {rate: adam_alone(rate, 6) for rate in RATES},
)
RATED = tuned(TUNING_RATES.name)

MAIN = Table(
    name="main",
    title="What a ranker learns from biased clicks, by model and by crowd",
    experiments=(
        *trials(("mixed",), (*LEARNERS, "auto", *TOLD), FULL),
        *trials(("grid", "pbm"), (*FEWER, "auto", *TOLD), FULL),
    ),
    metrics=("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="softmax_naive",
    bounds=BOUNDS,
    quick=trials(("mixed",), QUICK_ROWS, QUICK),
    first_seed=FRESH,
    holm=True,
)

RANKING = ("ndcg@1", "ndcg@5", "ndcg@10", "expected_clicks")
CLICKS = ("click_log_likelihood", "click_skill", "perplexity")
RERANKED = ("click_mrr", "click_share@3")
FEWER_BOUNDS = ("logging", "ceiling")

USERS = (
    *("naive", "additive", "product", "dot", "mixture", "listwise"),
    "listwise_mixture",
)
MIXED_USERS = Table(
    name="mixed-users",
    title="One kind of users or several, by model",
    experiments=(
        *adam_trials(
            RATED, ("pbm", "two-depths", "mixed", "impatient-picky"), USERS, HALF
        ),
        *adam_trials(RATED, ("context",), (*USERS, "mixture_context"), HALF),
    ),
    metrics=(*RANKING, *CLICKS, *RERANKED, "type_rand_index", "examination_error"),
    baseline="additive",
    bounds=FEWER_BOUNDS,
)

NEIGHBOURS = ("naive", "additive", "product", "xpa")
CROSS_POSITION = Table(
    name="cross-position",
    title="Items that compete for clicks, in lists and in grids, by model",
    experiments=(
        *adam_trials(RATED, ("grid",), NEIGHBOURS, FULL, epochs=8),
        *adam_trials(RATED, ("pbm", "cascade", "dbn", "carousel"), NEIGHBOURS, QUARTER),
    ),
    metrics=(*RANKING, *CLICKS, *RERANKED, "attention_correlation"),
    baseline="additive",
    paired=("ndcg@5", "expected_clicks", "click_skill"),
    bounds=FEWER_BOUNDS,
)

LOGGED = {
    **{f"best-first-{t:.2f}": Logging(True, t) for t in (0.0, 1 / 3, 2 / 3)},
    "random-order": Logging(True, 1.0),
    **{f"worst-first-{t:.2f}": Logging(False, t) for t in (2 / 3, 1 / 3, 0.0)},
}
"""From always the best first over any order to always the worst first."""
CONFOUNDED = (
    *("naive", "product", "product_weighted", "product_linear"),
    *("product_linear_weighted", "disentangled", "per_item"),
)


def logged(rows: Iterable[str], names: Iterable[str], size: Size) -> tuple[Trial, ...]:
    """Every row on position-based users who see each of the logs `names`."""
    return tuple(
        Trial(
            row,
            name,
            size,
            adam_alone(setting_of(RATED, row, "pbm", 0.005), 6),
            "pbm",
            LOGGED[name],
        )
        for name in names
        for row in rows
    )


CONFOUNDING = Table(
    name="confounding",
    title="Logs that show the best first, the worst first, or any order",
    experiments=(*logged(("logging", *CONFOUNDED), LOGGED, QUARTER),),
    metrics=("ndcg@5", "ndcg@10", "click_log_likelihood", "examination_error"),
    baseline="product",
    paired=("ndcg@10",),
    bounds=("logging",),
)
CONFOUNDING_RICH = Table(
    name="confounding-rich",
    title="The same logs with hundreds of sessions a query, a logit for each item",
    experiments=logged(
        ("logging", "per_item"),
        LOGGED,
        Size(queries=100, sessions=50_000),
    ),
    metrics=CONFOUNDING.metrics,
    paired=(),
    bounds=("logging",),
)

PARTS = {
    "mixed": (
        *("additive", "product", "product_wide", "product_three", "mixture"),
        *("mixture_2", "mixture_5", "mixture_uniform", "mixture_tempered"),
        *("mixture_shared", "mixture_trunk", "mixture_additive", "mixture_of_kinds"),
        *("mixture_clicked", "dot", "bilinear", "position_feature", "additive_plain"),
        *("softmax_naive", "listwise", "listwise_three", "listwise_mixture"),
    ),
    "grid": (
        *("additive", "xpa", "xpa_own", "xpa_places", "xpa_relevance"),
        *("xpa_self", "xpa_positions"),
    ),
}
ABLATION = Table(
    name="ablation",
    title="What each part of a mixture, and of cross-position attention, buys",
    experiments=tuple(
        Trial(row, crowd, QUARTER, adam_alone(setting_of(RATED, row, crowd, 0.005), 6))
        for crowd, rows in PARTS.items()
        for row in rows
    ),
    metrics=(
        *("ndcg@5", "expected_clicks", *CLICKS[:2]),
        *("type_rand_index", "attention_correlation", "reference_tau"),
    ),
    baseline="additive",
)

LENGTHS = {"1e3": 40, "1e4": 20, "1e6": 2}  # passes at most, by sessions
SESSIONS = Table(
    name="sessions",
    title="What more clicks bring",
    experiments=tuple(
        Trial(
            row,
            sessions,
            replace(FULL, sessions=int(float(sessions))),
            adam_alone(setting_of(RATED, row, "mixed", 0.005), epochs),
            "mixed",
        )
        for sessions, epochs in LENGTHS.items()
        for row in ("naive", "additive", "product", "mixture")
    ),
    metrics=(*RANKING, *CLICKS[:2]),
    baseline="additive",
    seeds=5,
)

CORRECTIONS = Table(
    name="estimators",
    title="Corrections of the field beside click models, by crowd",
    experiments=adam_trials(
        tuned(TUNING_ESTIMATORS.name), TRUSTING, ESTIMATORS, QUARTER
    ),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="product",
    bounds=("logging", "naive", "ceiling"),
)

# What is timed has the machine for itself.
ALONE: dict[str, Any] = {"paired": (), "clicks": "", "workers": 1, "threads": None}
SPEED = Table(
    name="speed",
    title="Rates by second, ours and a peer's in the same process",
    experiments=(*CASES, *retrieval_speed.CASES),
    metrics=(
        "rate",
        "peer_rate",
        "ratio",
        "floor_fraction",
        "distinct",
        "growth",
        "write_rate",
        *(f"{peer}_ratio" for peer in ("jax", "clax", "sklearn", "tfr", "rax", "ranx")),
        *(f"{peer}_ratio" for peer in ("torch", "keras_rs", "tfrs", "rechub")),
    ),
    seeds=3,
    **ALONE,
)

GROWTH = Table(
    name="growth",
    title="How cost grows: exponents, and milliseconds a thousand sessions",
    experiments=growth.CASES,
    metrics=("exponent", "first_ms", "last_ms"),
    seeds=3,
    **ALONE,
)

LARGE = Table(
    name="large",
    title="A pass over a log on disk, under a limit of memory",
    experiments=large.CASES,
    metrics=("rate", "cpu_seconds", "peak_gb", "limit_gb", "log_likelihood"),
    lower=("cpu_seconds", "peak_gb"),
    seeds=1,
    **ALONE,
)

COSTS = Table(
    name="costs",
    title="What a session, an event and an item cost, and large jobs from that",
    experiments=costs.CASES,
    metrics=(
        *("read_us", "naive_us", "product_us", "additive_us", "xpa_us", "mixture_us"),
        *("jax_product_us", "jax_mixture_us", "event_us", "encode_us", "hnsw_us"),
        *("disk_bytes", "hnsw_bytes", "product_parameters", "mixture_parameters"),
        *("disk_gb", "product_hours", "jax_product_hours", "jax_mixture_hours"),
        *("retrieval_hours", "encode_hours", "hnsw_hours", "hnsw_gb", "sent_kb"),
    ),
    seeds=3,
    **ALONE,
)

SERVING = Table(
    name="serving",
    title="Search and the retrieval service: what is found, how fast",
    experiments=(*ann.CASES, *service_load.CASES, *service_attack.CASES),
    metrics=(
        "recall@100",
        "p50_ms",
        "p99_ms",
        "build_seconds",
        "file_mb",
        "rate",
        "cpu_ms",
        "failed",
        "mixed",
        "wrong",
        "held",
        "shed_share",
        "attack_freeze_ms",
        "load_freeze_ms",
        "memory_mb",
        "growth_mb",
    ),
    lower=("p50_ms", "p99_ms", "build_seconds", "file_mb", "failed", "mixed"),
    seeds=1,
    **ALONE,
)

BADGE = ("no_badge", "with_column", "without_column")
KINDS = ("one_hot", "category", "dropped")
SMALL = {"sessions": 6_000, "queries": 100}

PRESENTATION = Table(
    name="presentation",
    title="A badge that doubles examination: read by the bias tower, or not",
    experiments=columns.rows("badge", *BADGE),
    metrics=("ndcg@5", "position_error", "badge_error"),
    baseline="no_badge",
    clicks="",
    lower=("position_error", "badge_error"),
    quick=columns.rows("badge", *BADGE, **SMALL),
)

CATEGORIES = Table(
    name="categories",
    title="A category that decides relevance: embedded, one-hot by hand, or left out",
    experiments=columns.rows("category", *KINDS),
    metrics=("ndcg@5",),
    baseline="one_hot",
    clicks="",
    quick=columns.rows("category", *KINDS, **SMALL),
)

TARGETS = Table(
    name="targets",
    title="Ranked for orders, at two orders in a hundred clicks",
    experiments=targets.rows(),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "orders"),
    baseline="click_only",
    clicks="",
    bounds=("logging",),
    quick=targets.rows(sessions=10_000, queries=100),
    first_seed=FRESH,
)

COVERAGE = Table(
    name="coverage",
    title="How often intervals of 95% hold the true examination, 20 logs a seed",
    experiments=coverage.CASES,
    metrics=("coverage", "rank@2", "rank@3", "rank@4", "rank@5", "told"),
    paired=(),
    clicks="",
    seeds=10,
)

JUDGMENTS = Table(
    name="judgments",
    title="Order of judgments from clicks, held against true attraction, by crowd",
    experiments=judgments.JUDGMENTS,
    metrics=("tau", "tau@16", "tau_b", "coverage", "coverage@16"),
    baseline="ctr",
    paired=("tau", "tau@16", "tau_b"),
    clicks="",
    bounds=("judge_told",),
)
TREES = Table(
    name="trees",
    title="Rankers of trees on the same clicks, by crowd",
    experiments=tuple(
        tree_rows.TreeTrial(row, "pbm", EIGHTH) for row in ("logging", *tree_rows.ROWS)
    ),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "expected_clicks"),
    baseline="position",
    clicks="",
    bounds=("logging", "full_information"),
    seeds=5,
)
PLANS = Table(
    name="plan",
    title="Whether logs that follow a plan tell what it promised, 10 logs a seed",
    experiments=judgments.PLANS,
    metrics=(
        *("reached", "worst_error", "worst_off", "sessions"),
        *("clicks_lost", "clicks_lost_at_most"),
    ),
    paired=(),
    clicks="",
)

RETRIEVAL = (recipes.TABLE, *retrieval.TABLES, clicks.TABLE, updates.TABLE)
QUESTIONS = tuple(each.TABLE for each in (horizons, offline, graph, kinds, production))

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        MAIN,
        TUNING_MAIN,
        TUNING_RATES,
        TUNING_ESTIMATORS,
        MIXED_USERS,
        CROSS_POSITION,
        CONFOUNDING,
        CONFOUNDING_RICH,
        ABLATION,
        SESSIONS,
        CORRECTIONS,
        *RETRIEVAL,
        SPEED,
        GROWTH,
        LARGE,
        COSTS,
        SERVING,
        PRESENTATION,
        CATEGORIES,
        TARGETS,
        COVERAGE,
        JUDGMENTS,
        TREES,
        PLANS,
        *QUESTIONS,
    )
}
