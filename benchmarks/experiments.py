"""Lists the tables with their rows, populations and sizes.

An experiment is one row of a table on one population. An experiment in a `Table` is
run, resumed, compared and rendered without further code. Importing this module does not
load TensorFlow.
"""

from pathlib import Path
from typing import Any

from benchmarks.harness.plan import Table
from benchmarks.questions import (
    contexts,
    graph,
    horizons,
    kinds,
    layouts,
    offline,
    production,
)
from benchmarks.ranking import (
    columns,
    coverage,
    judgments,
    published,
    real,
    recipe,
    selection,
    targets,
    tree_rows,
)
from benchmarks.ranking.settings import Size
from benchmarks.ranking.tables import RANKERS
from benchmarks.ranking.trials import FRESH
from benchmarks.rates import (
    ann,
    compressed,
    costs,
    growth,
    kills,
    large,
    service_attack,
    service_load,
    service_recommend,
)
from benchmarks.rates import retrieval as retrieval_speed
from benchmarks.rates.speed import CASES
from benchmarks.retrieval import clicks, recipes, two_targets, updates
from benchmarks.retrieval import rows as retrieval

RESULTS = Path(__file__).with_name("results")

# Timed experiments have the machine for themselves.
ALONE: dict[str, Any] = {"paired": (), "clicks": "", "workers": 1, "threads": None}
SPEED = Table(
    name="speed",
    title="Rates per second of this library and of peers, measured in turns",
    experiments=(*CASES, *retrieval_speed.CASES, *compressed.CASES),
    metrics=(
        "rate",
        "peer_rate",
        "ratio",
        "floor_fraction",
        "distinct",
        "growth",
        "write_rate",
        *(f"{peer}_ratio" for peer in ("jax", "clax", "sklearn", "tfr", "rax", "ranx")),
        *(f"{peer}_ratio" for peer in ("torch", "faiss", "keras_rs", "tfrs", "rechub")),
    ),
    seeds=3,
    **ALONE,
)

GROWTH = Table(
    name="growth",
    title="Growth of cost with size: exponents, and milliseconds per thousand sessions",
    experiments=growth.CASES,
    metrics=("exponent", "first_ms", "last_ms"),
    seeds=3,
    **ALONE,
)

LARGE = Table(
    name="large",
    title="A pass over a log on disk with a memory limit",
    experiments=large.CASES,
    metrics=(
        *("rate", "ratio", "cpu_seconds", "peak_gb", "limit_gb", "log_likelihood"),
    ),
    lower=("cpu_seconds", "peak_gb"),
    seeds=1,
    **ALONE,
)

COSTS = Table(
    name="costs",
    title="Costs of a session, an event and an item, and estimates for large jobs",
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
    title="Recall and speed of search and of the retrieval service",
    experiments=(
        *ann.CASES,
        *service_load.CASES,
        *service_recommend.CASES,
        *service_attack.CASES,
    ),
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
    title="A badge that doubles examination, with and without a bias tower for it",
    experiments=columns.rows("badge", *BADGE),
    metrics=("ndcg@5", "position_error", "badge_error"),
    baseline="no_badge",
    clicks="",
    lower=("position_error", "badge_error"),
    quick=columns.rows("badge", *BADGE, **SMALL),
)

CATEGORIES = Table(
    name="categories",
    title="A category that affects relevance: embedded, one-hot or left out",
    experiments=columns.rows("category", *KINDS),
    metrics=("ndcg@5",),
    baseline="one_hot",
    clicks="",
    quick=columns.rows("category", *KINDS, **SMALL),
)

TARGETS = Table(
    name="targets",
    title="Rankers for orders, with about two orders per hundred clicks",
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
    title="Coverage of 95% intervals of examination, with 20 logs per seed",
    experiments=coverage.CASES,
    metrics=("coverage", "rank@2", "rank@3", "rank@4", "rank@5", "told"),
    paired=(),
    clicks="",
    seeds=10,
)

JUDGMENTS = Table(
    name="judgments",
    title="Judgments from clicks compared with true attraction, by population",
    experiments=judgments.JUDGMENTS,
    metrics=("tau", "tau@16", "tau_decided", "tau_b", "coverage", "coverage@16"),
    baseline="ctr",
    paired=("tau", "tau@16", "tau_decided", "tau_b"),
    clicks="",
    bounds=("judge_told",),
)
TREES = Table(
    name="trees",
    title="Tree rankers on the same clicks, by population",
    experiments=tuple(
        tree_rows.TreeTrial(row, crowd, Size(500, 10_000))
        for crowd in ("pbm", "mixed", "trust")
        for row in ("logging", *tree_rows.ROWS)
    ),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "expected_clicks"),
    baseline="position",
    clicks="",
    bounds=("logging", "full_information"),
)
PLANS = Table(
    name="plan",
    title="Whether logs that follow a plan reach its precision, with 10 logs per seed",
    experiments=judgments.PLANS,
    metrics=(
        *("reached", "worst_error", "worst_off", "sessions"),
        *("clicks_lost", "clicks_lost_at_most"),
    ),
    paired=(),
    clicks="",
)

RETRIEVAL = (
    *(recipes.TABLE, *retrieval.TABLES, clicks.TABLE),
    *(two_targets.TABLE, updates.TABLE),
)
QUESTIONS = tuple(
    each.TABLE
    for each in (horizons, offline, graph, kinds, contexts, layouts, production)
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        *RANKERS,
        selection.TABLE,
        published.TABLE,
        real.TABLE,
        recipe.TABLE,
        *RETRIEVAL,
        SPEED,
        GROWTH,
        LARGE,
        COSTS,
        SERVING,
        compressed.TABLE,
        kills.TABLE,
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
