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
from benchmarks.ranking import columns, coverage, judgments, tree_rows
from benchmarks.ranking.settings import Logging, Size
from benchmarks.rates import ann, costs, growth, large, service_attack, service_load
from benchmarks.rates import retrieval as retrieval_speed
from benchmarks.rates.speed import CASES
from benchmarks.retrieval import clicks, updates
from benchmarks.retrieval import rows as retrieval

RESULTS = Path(__file__).with_name("results")

LEARNERS = (
    "naive",
    "softmax_naive",
    "position_feature",
    "product",
    "additive",
    "dot",
    "bilinear",
    "mixture",
    "xpa",
    "listwise",
    "listwise_mixture",
    "listwise_xpa",
    "full_information",
    "oracle_examination",
)
BOUNDS = (
    *("logging", "naive", "softmax_naive"),
    *("full_information", "oracle_examination", "ceiling"),
)
CROWDS = ("mixed", "grid", "pbm")

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
    "product",
    "additive",
    "mixture",
    "listwise",
    "listwise_mixture",
    "full_information",
)

RATES = (0.005, 0.02)
TUNING_SEED = 1000  # the worlds of tuning are those of no other table
REVISIONS = {"dot": 3, "bilinear": 3}  # of a row; raise it when its results change


@dataclass(frozen=True)
class Trial:
    """A row of a table of rankers: a model trained on the clicks of one crowd.

    Where `crowd` is given, `population` names what else is special: size or `logging`.
    """

    row: str
    population: str
    size: Size
    rate: float
    crowd: str = ""
    logging: Logging | None = None

    def settings(self) -> dict[str, Any]:
        revision = REVISIONS.get(self.row, 1)
        found = {**asdict(self.size), "rate": self.rate, "revision": revision}
        if self.crowd:
            found["crowd"] = self.crowd
        return found if self.logging is None else found | asdict(self.logging)

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import world
        from benchmarks.ranking.rows import measure

        forget()
        crowd = self.crowd or self.population
        found = world(crowd, seed, data, self.size, self.logging)
        return measure(self.row, found, self.size, seed, self.rate)


@dataclass(frozen=True)
class Tuning:
    """One learner at one learning rate, judged by validation clicks alone."""

    learner: str
    population: str
    size: Size
    rate: float

    @property
    def row(self) -> str:
        return f"{self.learner}@{self.rate}"

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.size), "revision": 1}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import world
        from benchmarks.ranking.rows import fit

        forget()
        seed += TUNING_SEED
        found = world(self.population, seed, data, self.size)
        fitted = fit(self.learner, found, self.size, seed, self.rate)
        return {"validation": fitted.validation}


def tuning(of: str, crowds: Iterable[str], rows: Iterable[str], size: Size) -> Table:
    """The table that chooses the learning rates of table `of`."""
    return Table(
        name=f"tuning-{of}",
        title=f"Validation likelihood by learning rate, for table {of}",
        experiments=tuple(
            Tuning(row, name, size, rate)
            for name in crowds
            for row in rows
            for rate in RATES
        ),
        metrics=("validation",),
        paired=(),
        clicks="",
        seeds=1,
    )


Rates = Mapping[str, Mapping[str, float]]


def tuned(table: str) -> Rates:
    """Row to population to the rate that predicted validation clicks best.

    Read off the published results of the tuning table, so that a rate is always the
    one that won. Under "" stands the rate of the best mean over the populations.
    """
    path = RESULTS / f"{table}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found: dict[str, dict[str, dict[float, float]]] = {}
    for record in map(json.loads, lines):
        row, rate = record["row"].split("@")
        value = record["metrics"]["validation"]
        each = found.setdefault(row, {})
        each.setdefault(record["population"], {})[float(rate)] = value
    for each in found.values():
        every = list(each.values())
        common = set(every[0]).intersection(*every)
        each[""] = {rate: sum(of[rate] for of in every) for rate in common}
    return {
        row: {name: max(rates, key=rates.__getitem__) for name, rates in each.items()}
        for row, each in found.items()
    }


def rate_of(rates: Rates, row: str, population: str) -> float:
    """The rate of a row on a population: tuned there, else best on those it was.

    A variant learns at the rate of what it varies, `xpa_self` at that of `xpa`. Before
    the tuning table has been run and published, all rows learn at the lower rate.
    """
    other = {"disentangled": "additive", "per_item": "product"}
    stem = other.get(row, row.partition("_")[0])
    each = rates.get(row, rates.get(stem, {}))
    return each.get(population, each.get("", RATES[0]))


def trials(
    rates: Rates, crowds: Iterable[str], rows: Iterable[str], size: Size
) -> tuple[Trial, ...]:
    """Every row on every crowd, at its tuned rate, between the bounds."""
    return tuple(
        Trial(row, name, size, rate_of(rates, row, name))
        for name in crowds
        for row in ("logging", *rows, "ceiling")
    )


FULL = Size()
QUICK = Size(queries=1000, sessions=40_000, epochs=6)
HALF = Size(queries=1500, sessions=50_000, epochs=6)
QUARTER = Size(queries=800, sessions=20_000, epochs=6)
EIGHTH = Size(queries=500, sessions=10_000)

TUNING_MAIN = tuning("main", CROWDS, LEARNERS, FULL)
TUNED = tuned(TUNING_MAIN.name)

MAIN = Table(
    name="main",
    title="What a ranker learns from biased clicks, by model and by crowd",
    experiments=trials(TUNED, CROWDS, LEARNERS, FULL),
    metrics=("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="additive",
    bounds=BOUNDS,
    quick=trials(TUNED, ("mixed",), LEARNERS, QUICK),
)

RANKING = ("ndcg@1", "ndcg@5", "ndcg@10", "expected_clicks")
CLICKS = ("click_log_likelihood", "click_skill", "perplexity")
RERANKED = ("click_mrr", "click_share@3")
FEWER_BOUNDS = ("logging", "full_information", "ceiling")

USERS = (
    *("naive", "additive", "product", "dot", "mixture", "listwise"),
    *("listwise_mixture", "full_information"),
)
MIXED_USERS = Table(
    name="mixed-users",
    title="One kind of users or several, by model",
    experiments=(
        *trials(TUNED, ("pbm", "two-depths", "mixed", "impatient-picky"), USERS, HALF),
        *trials(TUNED, ("context",), (*USERS, "mixture_context"), HALF),
    ),
    metrics=(*RANKING, *CLICKS, *RERANKED, "type_rand_index", "examination_error"),
    baseline="additive",
    bounds=FEWER_BOUNDS,
)

NEIGHBOURS = ("naive", "additive", "product", "xpa", "full_information")
CROSS_POSITION = Table(
    name="cross-position",
    title="Items that compete for clicks, in lists and in grids, by model",
    experiments=(
        *trials(TUNED, ("grid",), NEIGHBOURS, FULL),
        *trials(TUNED, ("pbm", "cascade", "dbn", "carousel"), NEIGHBOURS, QUARTER),
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
        Trial(row, name, size, rate_of(TUNED, row, "pbm"), "pbm", LOGGED[name])
        for name in names
        for row in rows
    )


CONFOUNDING = Table(
    name="confounding",
    title="Logs that show the best first, the worst first, or any order",
    experiments=(
        *logged(("logging", *CONFOUNDED), LOGGED, QUARTER),
        # The grades are the same in whatever order they are shown.
        *logged(("full_information",), ("random-order",), QUARTER),
    ),
    metrics=("ndcg@5", "ndcg@10", "click_log_likelihood", "examination_error"),
    baseline="product",
    paired=("ndcg@10",),
    bounds=FEWER_BOUNDS[:2],
)
CONFOUNDING_RICH = Table(
    name="confounding-rich",
    title="The same logs with hundreds of sessions a query, a logit for each item",
    experiments=logged(
        ("logging", "per_item"),
        LOGGED,
        Size(queries=100, sessions=50_000, epochs=6),
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
        Trial(row, crowd, QUARTER, rate_of(TUNED, row, crowd))
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
    title="What more clicks bring; 100,000 sessions are those of the main table",
    experiments=tuple(
        Trial(
            row,
            sessions,
            replace(FULL, sessions=int(float(sessions)), epochs=epochs),
            rate_of(TUNED, row, "mixed"),
            "mixed",
        )
        for sessions, epochs in LENGTHS.items()
        for row in ("naive", "additive", "product", "mixture")
    ),
    metrics=(*RANKING, *CLICKS[:2]),
    baseline="additive",
    seeds=5,
)

TRUSTING = ("pbm", "trust")
TUNING_ESTIMATORS = tuning("estimators", TRUSTING, ESTIMATORS, QUARTER)

CORRECTIONS = Table(
    name="estimators",
    title="Corrections of the field beside click models, by crowd",
    experiments=trials(tuned(TUNING_ESTIMATORS.name), TRUSTING, ESTIMATORS, QUARTER),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="product",
    bounds=("logging", "naive", "full_information", "ceiling"),
)

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
    paired=(),
    clicks="",
    seeds=3,
    workers=1,
    threads=None,
)

GROWTH = Table(
    name="growth",
    title="How cost grows: exponents, and milliseconds a thousand sessions",
    experiments=growth.CASES,
    metrics=("exponent", "first_ms", "last_ms"),
    paired=(),
    clicks="",
    seeds=3,
    workers=1,
    threads=None,
)

LARGE = Table(
    name="large",
    title="A pass over a log on disk, under a limit of memory",
    experiments=large.CASES,
    metrics=("rate", "cpu_seconds", "peak_gb", "limit_gb", "log_likelihood"),
    lower=("cpu_seconds", "peak_gb"),
    paired=(),
    clicks="",
    seeds=1,
    workers=1,
    threads=None,
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
    paired=(),
    clicks="",
    seeds=3,
    workers=1,
    threads=None,
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
    paired=(),
    clicks="",
    seeds=1,
    workers=1,
    threads=None,
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

RETRIEVAL = (*retrieval.TABLES, clicks.TABLE, updates.TABLE)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        MAIN,
        TUNING_MAIN,
        MIXED_USERS,
        CROSS_POSITION,
        CONFOUNDING,
        CONFOUNDING_RICH,
        ABLATION,
        SESSIONS,
        CORRECTIONS,
        TUNING_ESTIMATORS,
        *RETRIEVAL,
        SPEED,
        GROWTH,
        LARGE,
        COSTS,
        SERVING,
        PRESENTATION,
        CATEGORIES,
        COVERAGE,
        JUDGMENTS,
        TREES,
        PLANS,
    )
}
