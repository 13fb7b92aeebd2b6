"""Tests of benchmarks.harness.tables."""

import math
from io import StringIO

import pytest
from rich.console import Console
from scipy import stats

from benchmarks.harness import store, tables
from benchmarks.harness.tables import check, difference, estimate
from tests.benchmarks.fakes import Fake, table

# Four seeds; differences .04, .02, .03, .07: mean .04, squares .0014, s^2 = .0014 / 3.
BASE = {0: 0.50, 1: 0.40, 2: 0.45, 3: 0.25}
BETTER = {0: 0.54, 1: 0.42, 2: 0.48, 3: 0.32}
ERROR = math.sqrt(0.0014 / 3 / 4)
T3 = 3.182446305284263  # t(.975, 3)


def records(values, row="additive", metric="ndcg@5", population="mixed", **config):
    """Records of fakes named `row`, one for each seed of `values`."""
    fake = Fake(row, population)
    return [
        store.Record(
            "main",
            row,
            "generated",
            population,
            seed,
            metrics=value if isinstance(value, dict) else {metric: value},
            seconds=2.0,
            config={**fake.settings(), **config},
            versions={},
        )
        for seed, value in values.items()
    ]


def view(*rows, table=None, **options):
    """The one view of a table of fakes, from (row, values by seed) pairs."""
    fakes = [Fake(row) for row, _ in rows]
    found = [record for row, values in rows for record in records(values, row)]
    (only,) = tables.views(table or _table(*fakes, **options), found)
    return only


_table = table


def short(value, digits, sign=""):
    """A number below 1 without its zero."""
    text = f"{value:{sign}.{digits}f}"
    assert text.lstrip("+-").startswith("0.")
    return text.replace("0.", ".", 1)


def board(ndcg, clicks):
    return {
        seed: {"ndcg@5": ndcg[seed], "click_log_likelihood": clicks[seed]}
        for seed in ndcg
    }


def test_estimate_by_hand():
    found = estimate([0.1, 0.2, 0.4, 0.5])  # mean .3, squares .1, s^2 = .1 / 3
    half = T3 * math.sqrt(0.1 / 3 / 4)
    assert found.mean == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - half)
    assert found.high == pytest.approx(0.3 + half)
    assert (found.half_width, found.count) == (pytest.approx(half), 4)


def test_estimate_is_that_of_scipy():
    values = [0.31, 0.35, 0.29, 0.33, 0.38]
    low, high = stats.t.interval(0.95, 4, sum(values) / 5, stats.sem(values))
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_estimate_of_one_seed_has_no_interval_and_of_none_is_an_error():
    found = estimate([0.5])
    assert (found.mean, found.count) == (0.5, 1)
    assert math.isnan(found.low) and math.isnan(found.high)
    with pytest.raises(ValueError, match="values"):
        estimate([])


def test_difference_by_hand_in_units_and_percent_of_the_baseline():
    found = difference(BETTER, BASE)
    assert found.mean == pytest.approx(0.04)
    assert found.low == pytest.approx(0.04 - T3 * ERROR)
    assert found.high == pytest.approx(0.04 + T3 * ERROR)
    assert found.percent(found.mean) == pytest.approx(10.0)  # .04 of .40
    assert found.p == pytest.approx(2 * stats.t.sf(0.04 / ERROR, 3))


def test_difference_is_scipys_paired_test():
    oracle = stats.ttest_rel(list(BETTER.values()), list(BASE.values()))
    found, interval = difference(BETTER, BASE), oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_difference_pairs_by_seed_and_ignores_seeds_of_one_side():
    shuffled = dict(reversed([*BETTER.items(), (9, 100.0)]))
    assert difference(shuffled, {**BASE, 8: -5.0}) == difference(BETTER, BASE)
    with pytest.raises(ValueError, match="seed in common"):
        difference({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize("shift, p", [(0.5, 0.0), (0.0, 1.0)])
def test_differences_without_spread_have_a_stated_p(shift, p):
    found = difference({0: 1.0 + shift, 1: 2.0 + shift}, {0: 1.0, 1: 2.0})
    assert (found.low, found.high, found.p) == (shift, shift, p)


def test_percent_of_a_negative_baseline_keeps_the_sign_of_the_difference():
    found = difference({0: -1.8, 1: -1.9}, {0: -2.0, 1: -2.0})
    assert found.percent(found.mean) == pytest.approx(7.5)  # +.15 of 2
    assert math.isnan(difference({0: 1.0}, {0: 0.0}).percent(1.0))


GOOD, BAD = {0: -1.0, 1: -1.1, 2: -1.0}, {0: -2.0, 1: -2.1, 2: -2.2}
LOW, HIGH = {0: 0.4, 1: 0.41, 2: 0.42}, {0: 0.5, 1: 0.52, 2: 0.51}


@pytest.mark.parametrize(
    "ndcg, clicks, flagged",
    [
        (HIGH, BAD, True),
        (LOW, GOOD, False),
        (HIGH, GOOD, False),
        ({0: 0.3, 1: 0.32, 2: 0.31}, {0: -0.5, 1: -0.55, 2: -0.5}, True),  # the reverse
        ({0: 0.6, 1: 0.3, 2: 0.5}, BAD, False),  # wins within its interval only
    ],
)
def test_rows_that_win_one_board_and_lose_the_other_are_flagged(ndcg, clicks, flagged):
    found = view(("additive", board(LOW, GOOD)), ("dot", board(ndcg, clicks)))
    assert found.disagrees("dot") == flagged
    assert not found.disagrees("additive")
    assert (tables.FLAG in tables.markdown(found)) == flagged


def test_less_is_better_where_the_table_says_so():
    options = {"metrics": ("perplexity",), "paired": ("perplexity",), "clicks": ""}
    rows = [
        ("additive", {s: {"perplexity": v + 1} for s, v in HIGH.items()}),
        ("dot", {s: {"perplexity": v} for s, v in HIGH.items()}),
    ]
    found = view(*rows, lower=("perplexity",), **options)
    assert (found.best("perplexity"), found.sign("dot", "perplexity")) == ("dot", 1)
    found = view(*rows, lower=(), **options)
    assert (found.best("perplexity"), found.sign("dot", "perplexity")) == (
        "additive",
        -1,
    )


def test_only_the_newest_results_of_the_present_settings_count():
    old = records({0: 0.9, 1: 0.9}, value=0.123)
    first, second = records({0: 0.2, 1: 0.3}), records({0: 0.4})
    found = _table(Fake("additive"))
    (only,) = tables.views(found, [*first, *second, *old])
    assert only.values["additive"]["ndcg@5"] == {0: 0.4, 1: 0.3}
    assert tables.outdated(found, [*first, *second, *old]) == 2


def test_only_the_last_content_of_a_file_counts():
    found = _table(Fake("additive"))
    before, after = records({0: 0.2, 1: 0.3}, data="aa"), records({0: 0.4}, data="bb")
    (only,) = tables.views(found, [*before, *after])
    assert only.values["additive"]["ndcg@5"] == {0: 0.4}


def test_markdown_in_full():
    found = view(
        ("additive", board(BASE, dict.fromkeys(BASE, -2.0))),
        ("dot", board(BETTER, dict.fromkeys(BASE, -2.0))),
        ("naive", board({0: 0.9, 1: 0.9}, {0: -2.0, 1: -2.0})),
        ("xpa", {}),
        bounds=("naive",),
    )
    base = T3 * math.sqrt(0.035 / 3 / 4)  # .1^2 + 0 + .05^2 + .15^2 = .035
    dot = T3 * math.sqrt(0.0264 / 3 / 4)  # .1^2 + .02^2 + .04^2 + .12^2 = .0264
    gain, p = T3 * ERROR * 100 / 0.4, 2 * stats.t.sf(0.04 / ERROR, 3)
    # Naive: differences .4 and .5, mean .45 of .45; standard error .05; t(.975, 1).
    naive, p_naive = 12.706204736 * 0.05 * 100 / 0.45, 2 * stats.t.sf(9, 1)
    assert tables.markdown(found).splitlines() == [
        "| model | ndcg@5 | ndcg@5 vs additive | ndcg@5 (p) vs additive "
        "| click log likelihood |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| additive | .4000 ±{short(base, 4)} | – | – | **-2.000 ±.000** |",
        f"| **dot** | **.4400 ±{short(dot, 4)}** | +10.00% ±{gain:.2f} | {short(p, 3)} "
        "| -2.000 ±.000 |",
        "| *bounds* |  |  |  |  |",
        f"| naive | .9000 ±.0000 | +100.00% ±{naive:.2f} | {short(p_naive, 3)} "
        "| -2.000 ±.000 |",
        "",
        "Mean ± half of the 95% t interval over 4 seeds; differences from additive are "
        "paired by seed. Bounds are no models to choose from. Fewer seeds: naive 2. No "
        "results yet: xpa.",
    ]


@pytest.mark.parametrize(
    "value, digits, text",
    [(0.5, 4, ".5000"), (-0.5, 2, "-.50"), (10.25, 1, "10.2"), (53012.0, 0, "53,012")],
)
def test_numbers_as_text(value, digits, text):
    assert tables._number(value, digits) == text


FULL = ("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "click_log_likelihood")
ROWS = ("logging", "position_feature", "additive", "full_information")


def wide_view():
    values = {
        s: {m: -2.5 + 0.01 * s if "click" in m else 0.4 + 0.01 * s for m in FULL}
        for s in range(10)
    }
    options = {
        "metrics": FULL,
        "bounds": ("logging", "full_information"),
        "baseline": "additive",
    }
    return view(*((row, values) for row in ROWS), **options)


def printed(found, width):
    console = Console(file=StringIO(), width=width)
    console.print(tables.terminal(found, width))
    return console.file.getvalue()


def test_a_hundred_columns_hold_what_the_main_table_must_show():
    text = printed(wide_view(), 100)
    head = text.split("─")[0]
    for name in (*FULL[:4], "vs additive", "likelihood"):
        assert name in head
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_narrow_terminals_lose_columns_and_never_digits(width):
    text = printed(wide_view(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "ndcg@5" in text
    assert ("abs" in text) == (width >= 120)


def test_bounds_stand_apart_and_below():
    text = printed(wide_view(), 100)
    assert text.index("position_feature") < text.index("logging  ")
    assert text.index("additive") < text.index("full_information")


STATISTICS = {
    "mean": ".4400",
    "difference": "+.0400",
    "difference_percent": "+10.0%",
    "difference_percent_low": f"+{10 - T3 * ERROR * 250:.1f}%",
    "difference_percent_high": f"+{10 + T3 * ERROR * 250:.1f}%",
    "difference_low": short(0.04 - T3 * ERROR, 4, "+"),
    "difference_high": short(0.04 + T3 * ERROR, 4, "+"),
    "p": short(2 * stats.t.sf(0.04 / ERROR, 3), 3),
    "seeds": "4",
    "half_width": short(T3 * math.sqrt(0.0264 / 12), 4),
    "low": short(0.44 - T3 * math.sqrt(0.0264 / 12), 4),
    "high": short(0.44 + T3 * math.sqrt(0.0264 / 12), 4),
}


@pytest.mark.parametrize("statistic", tables.STATISTICS)
def test_numbers_for_prose_by_hand(statistic):
    found = view(("additive", BASE), ("dot", BETTER))
    assert tables.number(found, "dot", "ndcg@5", statistic) == STATISTICS[statistic]


# The check of a source tree.

TABLE = _table(Fake("additive"), Fake("dot"))
TABLES = {"main": TABLE}
PROSE = """# Title

The dot product gains <!-- number: main mixed dot ndcg@5 difference_percent -->?<!-- \
/number --> over additive.

<!-- table:main population=mixed columns=ndcg@5,difference:ndcg@5 -->
<!-- /table -->

```
<!-- table:nothing -->
```
and `<!-- number: nothing -->`.
"""


@pytest.fixture
def tree(tmp_path):
    for row, values in (("additive", BASE), ("dot", BETTER)):
        for record in records(values, row):
            store.append(tmp_path / "results" / "main.jsonl", record)
    (tmp_path / "README.md").write_text(PROSE)
    (tmp_path / "benchmarks").mkdir()
    return tmp_path


def checked(tree, write=False):
    return check(tree, TABLES, tree / "results", write)


def test_check_names_file_line_and_table_and_write_mends_it(tree):
    number, block = checked(tree)
    assert number.startswith("README.md:3: number main mixed dot ndcg@5")
    assert "has '?', expected '+10.0%'" in number
    assert block.startswith("README.md:5: table main population=mixed")
    assert checked(tree, write=True) == [] == checked(tree)
    text = (tree / "README.md").read_text()
    assert "difference_percent -->+10.0%<!-- /number --> over" in text
    assert "| **dot** | **.4400 ±" in text and "<!-- table:nothing -->" in text
    assert text.endswith(PROSE[PROSE.index("```") :])


def test_check_fails_on_a_changed_digit_anywhere(tree):
    checked(tree, write=True)
    path = tree / "README.md"
    good = path.read_text()
    end = good.index("```")
    markers = [match.span() for match in tables.MARKER.finditer(good)]
    digits = [
        i
        for i in range(end)
        if good[i].isdigit() and not any(a <= i < b for a, b in markers)
    ]
    assert len(digits) > 20
    for i in digits:
        path.write_text(good[:i] + str((int(good[i]) + 1) % 10) + good[i + 1 :])
        (problem,) = checked(tree)
        assert problem.startswith("README.md:") and "main" in problem
    path.write_text(good)
    assert checked(tree) == []


def test_check_fails_on_changed_results(tree):
    checked(tree, write=True)
    store.append(tree / "results" / "main.jsonl", records({3: 0.33}, "dot")[0])
    assert len(checked(tree)) == 2


@pytest.mark.parametrize(
    "text, problem",
    [
        ("<!-- table:mian --><!-- /table -->", "did you mean main"),
        ("<!-- table:main population=mixd --><!-- /table -->", "did you mean mixed"),
        (
            "<!-- table:main dataset=other --><!-- /table -->",
            "no results of table main",
        ),
        ("<!-- table:main rows=dott --><!-- /table -->", "did you mean dot"),
        ("<!-- table:main baseline=x --><!-- /table -->", "no row 'x'"),
        ("<!-- table:main colums=p --><!-- /table -->", "did you mean columns"),
        ("<!-- table:main columns=q:ndcg@5 --><!-- /table -->", "no kind of column"),
        ("<!-- table:main columns=ndcg@6 --><!-- /table -->", "no metric 'ndcg@6'"),
        ("<!-- table: --><!-- /table -->", "expected one table name"),
        ("<!-- table:main -->", "not closed"),
        ("<!-- table:main --><!-- /number -->", "not closed"),
        ("<!-- /table -->", "closed but not opened"),
        ("<!-- number: main mixed dot ndcg@5 -->1<!-- /number -->", "expected TABLE"),
        ("<!-- number: main mixed dot ndcg@5 men -->1<!-- /number -->", "mean"),
        (
            "<!-- number: main mixed dot mrr mean -->1<!-- /number -->",
            "no results of mrr",
        ),
        (
            "<!-- number: main mixed additive ndcg@5 difference -->1<!-- /number -->",
            "no difference",
        ),
        (
            "<!-- number: main mixed dot ndcg@5 mean digits=x -->1<!-- /number -->",
            "digits",
        ),
    ],
)
def test_check_reports_markers_that_it_cannot_fill(tree, text, problem):
    (tree / "README.md").write_text(f"one\n\n{text}\n")
    (found,) = checked(tree, write=True)
    assert found.startswith("README.md:3: ") and problem in found
    assert (tree / "README.md").read_text() == f"one\n\n{text}\n"


def test_check_reports_damaged_and_unknown_results(tree):
    checked(tree, write=True)
    (tree / "results" / "mian.jsonl").write_text("")
    path = tree / "results" / "main.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    problems = checked(tree)
    assert any("main.jsonl, line 8: dropped" in problem for problem in problems)
    assert any("no table 'mian'; did you mean main" in problem for problem in problems)


def test_another_baseline_and_other_digits(tree):
    text = (
        "<!-- number: main mixed additive ndcg@5 difference_percent to=dot digits=2 -->"
        "-9.09%<!-- /number -->"  # -.04 of .44
    )
    (tree / "README.md").write_text(text)
    assert checked(tree) == []


def test_markers_in_other_folders_are_checked(tree):
    (tree / "README.md").write_text("")
    for folder in ("docs/deep", "benchmarks"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
        (tree / folder / "page.md").write_text("<!-- table:main --><!-- /table -->")
    assert [problem.split(":")[0] for problem in checked(tree)] == [
        "benchmarks/page.md",
        "docs/deep/page.md",
    ]
