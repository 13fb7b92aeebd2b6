"""Definitions of the ranking tables: rows, populations, sizes.

Every row is trained with the defaults of `debias.fit`. The baseline is `softmax_naive`,
which treats clicks as relevance.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from benchmarks.harness.plan import Table
from benchmarks.ranking.settings import Drawn, Logging, Size
from benchmarks.ranking.trials import FRESH, Trial, trials, tuning
from debias.training.config import TrainingConfig

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
# Pointwise models except the product need more clicks than the quick table has.
QUICK_ROWS = ("softmax_naive", "product", "listwise", "full_information")

FULL = Size()
QUICK = Size(queries=1000, sessions=20_000)
QUICK_PASSES = 8
HALF = Size(queries=1500, sessions=50_000)
QUARTER = Size(queries=800, sessions=20_000)

# With half as many clicks as the main table, because of its cost.
DECAYS = (0.1, 0.3, 1.0, 3.0)
TUNING_MAIN = tuning(
    "tuning-main",
    "weight decay, for table main",
    ("mixed", "pbm"),
    [row for row in (*LEARNERS, *TOLD) if not row.endswith(("_three", "_2"))],
    HALF,
    {decay: TrainingConfig(decay=decay) for decay in DECAYS},
)

MAIN = Table(
    name="main",
    title="Rankers trained on biased clicks, by model and population",
    experiments=(
        *trials(("mixed",), (*LEARNERS, "auto", *TOLD), FULL),
        *trials(("grid", "pbm"), (*FEWER, "auto", *TOLD), FULL),
    ),
    metrics=("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="softmax_naive",
    bounds=BOUNDS,
    quick=trials(("mixed",), QUICK_ROWS, QUICK, TrainingConfig(epochs=QUICK_PASSES)),
    quick_seeds=5,
    quick_note=(
        f"The full table has {FULL.queries:,} queries for {QUICK.queries:,} here, "
        f"{FULL.sessions:,} sessions for {QUICK.sessions:,}, 16 passes for "
        f"{QUICK_PASSES}, ten worlds for five, three crowds and more rows; NDCG is "
        "higher there. See it: "
        "python -m benchmarks table main --published. Try your own log: debias train."
    ),
    first_seed=FRESH,
    holm=True,
)

BASELINE = "softmax_naive"
ANEW: dict[str, Any] = {"baseline": BASELINE, "first_seed": FRESH, "holm": True}
"""Settings that the tables after `main` have in common."""

RANKING = ("ndcg@1", "ndcg@5", "ndcg@10", "expected_clicks")
CLICKS = ("click_log_likelihood", "click_skill", "perplexity")
RERANKED = ("click_mrr", "click_share@3")
FEWER_BOUNDS = ("logging", "ceiling")

USERS = (
    *("naive", BASELINE, "additive", "product", "xpa", "mixture", "listwise"),
    *("listwise_mixture", "auto"),
)
MIXED_USERS = Table(
    name="mixed-users",
    title="Populations with one or several kinds of users, by model",
    experiments=(
        *trials(("pbm", "two-depths", "mixed", "impatient-picky"), USERS, HALF),
        *trials(("context",), (*USERS, "mixture_context"), HALF),
    ),
    metrics=(*RANKING, *CLICKS, *RERANKED, "type_rand_index", "examination_error"),
    bounds=FEWER_BOUNDS,
    **ANEW,
)

NEIGHBOURS = ("naive", BASELINE, "additive", "product", "xpa", "listwise_xpa")
CROSS_POSITION = Table(
    name="cross-position",
    title="Items that compete for clicks, in lists and in grids, by model",
    experiments=(
        *trials(("grid",), NEIGHBOURS, HALF),
        *trials(("pbm", "cascade", "dbn", "carousel"), NEIGHBOURS, QUARTER),
    ),
    metrics=(*RANKING, *CLICKS, *RERANKED, "attention_correlation"),
    paired=("ndcg@5", "expected_clicks", "click_skill"),
    bounds=FEWER_BOUNDS,
    **ANEW,
)

LOGGED = {
    **{f"best-first-{t:.2f}": Logging(True, t) for t in (0.0, 1 / 3, 2 / 3)},
    "random-order": Logging(True, 1.0),
    **{f"worst-first-{t:.2f}": Logging(False, t) for t in (2 / 3, 1 / 3, 0.0)},
}
"""Logging policies, from always best first, through random, to always worst first."""
CONFOUNDED = (
    *("naive", BASELINE, "product", "product_weighted", "product_linear"),
    *("product_linear_weighted", "product_omitted", "product_omitted_weighted"),
    *("disentangled", "per_item", "listwise"),
)


def logged(rows: Iterable[str], names: Iterable[str], size: Size) -> tuple[Trial, ...]:
    """Trials of all rows on position-based users, for each log in `names`."""
    return tuple(
        Trial(row, name, size, TrainingConfig(), "pbm", LOGGED[name])
        for name in names
        for row in rows
    )


CONFOUNDING = Table(
    name="confounding",
    title="Logs with the best items first, the worst items first, or random order",
    experiments=logged(("logging", *CONFOUNDED), LOGGED, QUARTER),
    metrics=("ndcg@5", "ndcg@10", "click_log_likelihood", "examination_error"),
    paired=("ndcg@10",),
    bounds=("logging",),
    **ANEW,
)
CONFOUNDING_RICH = Table(
    name="confounding-rich",
    title="Logs as in confounding, with more sessions per query and a logit per item",
    experiments=logged(
        ("logging", "per_item"), LOGGED, Size(queries=100, sessions=50_000)
    ),
    metrics=CONFOUNDING.metrics,
    paired=(),
    bounds=("logging",),
    first_seed=FRESH,
)

PARTS = {
    "mixed": (
        *(BASELINE, "additive", "product", "product_wide", "product_three"),
        *("mixture", "mixture_2", "mixture_5", "mixture_uniform", "mixture_tempered"),
        *("mixture_shared", "mixture_trunk", "mixture_additive", "mixture_of_kinds"),
        *("mixture_clicked", "dot", "bilinear", "additive_plain", "listwise"),
    ),
    "grid": (
        *(BASELINE, "additive", "xpa", "xpa_own", "xpa_places", "xpa_relevance"),
        *("xpa_self", "xpa_positions"),
    ),
}
ABLATION = Table(
    name="ablation",
    title="Gain from each part of a mixture and of cross-position attention",
    experiments=tuple(
        Trial(row, crowd, QUARTER, TrainingConfig())
        for crowd, rows in PARTS.items()
        for row in rows
    ),
    metrics=(
        *("ndcg@5", "expected_clicks", *CLICKS[:2]),
        *("type_rand_index", "attention_correlation", "reference_tau"),
    ),
    **ANEW,
)

MANY = ("naive", BASELINE, "product", "listwise")
LENGTHS = {
    "1e3": (*MANY, "additive", "mixture", "listwise_mixture"),
    "1e4": (*MANY, "additive", "mixture", "listwise_mixture"),
    "1e6": MANY,  # because of their cost
}
SESSIONS = Table(
    name="sessions",
    title="Ranking quality by number of training sessions",
    experiments=tuple(
        Trial(
            row,
            sessions,
            replace(FULL, sessions=int(float(sessions))),
            TrainingConfig(),
            "mixed",
        )
        for sessions, rows in LENGTHS.items()
        for row in rows
    ),
    metrics=(*RANKING, *CLICKS[:2]),
    seeds=5,
    **ANEW,
)

TRUSTING = ("pbm", "trust")
ESTIMATORS = (
    *("naive", BASELINE, "ips_known", "ips_estimated", "affine_known"),
    *("doubly_robust_known", "ips_known_softmax", "ips_estimated_softmax"),
    *("affine_known_softmax", "dual_learning", "regression_em", "pair_debias"),
    *("control_function", "control_function_softmax", "upe", "ips_dcm_softmax"),
    *("product", "trust", "additive", "mixture", "listwise", "listwise_mixture"),
)
CORRECTIONS = Table(
    name="estimators",
    title="Published corrections compared with click models, by population",
    experiments=trials(TRUSTING, ESTIMATORS, HALF),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    bounds=("logging", "naive", "ceiling"),
    **ANEW,
)

STRANGERS = ("mixed", "pbm", "ubm", "dbn", "logit-additive")
GRADED, LINEAR = Drawn(), Drawn("linear-noisy")
WORLDS = Table(
    name="worlds",
    title="A new world for each seed; attraction by the gain of NDCG or by grade",
    experiments=tuple(
        Trial(
            row,
            f"{crowd}{'' if drawn == GRADED else '-linear'}",
            HALF,
            TrainingConfig(),
            crowd,
            drawn=drawn,
        )
        for crowd, drawn in (
            *((crowd, GRADED) for crowd in STRANGERS[:2]),
            *((crowd, LINEAR) for crowd in STRANGERS),
        )
        for row in (
            *("logging", "naive", BASELINE, "additive", "product", "mixture"),
            *("listwise", "listwise_mixture", "full_information", "ceiling"),
        )
    ),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    bounds=("logging", "full_information", "ceiling"),
    **ANEW,
)

RANKERS = (
    *(MAIN, TUNING_MAIN, MIXED_USERS, CROSS_POSITION),
    *(CONFOUNDING, CONFOUNDING_RICH, ABLATION, SESSIONS),
    *(CORRECTIONS, WORLDS),
)
