"""Tests of benchmarks.harness.tables."""

import math
from io import StringIO

import pytest
from rich.console import Console
from scipy import stats

from benchmarks.harness import tables
from tests.benchmarks.fakes import Fake, records, table

# Four seeds; differences .04, .02, .03, .07: mean .04, squares .0014, s^2 = .0014 / 3.
BASE = {0: 0.50, 1: 0.40, 2: 0.45, 3: 0.25}
BETTER = {0: 0.54, 1: 0.42, 2: 0.48, 3: 0.32}
ERROR = math.sqrt(0.0014 / 3 / 4)
T3 = 3.182446305284263  # t(.975, 3)
P = 2 * stats.t.sf(0.04 / ERROR, 3)


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


def pair(row="dot", percent=False):
    found = view(("additive", BASE), ("dot", BETTER))
    return found.paired(row, "ndcg@5", percent)


def test_differences_by_hand_in_units_and_percent_of_the_baseline():
    found, percent = pair(), pair(percent=True)
    assert found.mean == pytest.approx(0.04)
    assert found.low == pytest.approx(0.04 - T3 * ERROR)
    assert found.high == pytest.approx(0.04 + T3 * ERROR)
    assert percent.mean == pytest.approx(10.0)  # .04 of .40
    assert percent.high == pytest.approx(10 + T3 * ERROR * 250)
    assert found.p_value == percent.p_value == pytest.approx(P)
    assert pair("additive") is None


def test_differences_pair_by_seed_and_ignore_seeds_of_one_side():
    shuffled = dict(reversed([*BETTER.items(), (9, 100.0)]))
    found = view(("additive", {**BASE, 8: -5.0}), ("dot", shuffled))
    assert found.paired("dot", "ndcg@5") == pair()
    apart = view(("additive", {0: 1.0}), ("dot", {1: 1.0}))
    assert apart.paired("dot", "ndcg@5") is None


def test_percent_of_a_negative_baseline_keeps_the_sign_of_the_difference():
    rows = ("additive", {0: -2.0, 1: -2.0}), ("dot", {0: -1.8, 1: -1.9})
    found = view(*rows).paired("dot", "ndcg@5", percent=True)
    assert found.mean == pytest.approx(7.5)  # +.15 of 2
    zero = view(("additive", {0: 0.0}), ("dot", {0: 1.0}))
    assert math.isnan(zero.paired("dot", "ndcg@5", percent=True).mean)


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
    assert tables.outdated(found, [*first, *second, *old]) == old


def test_a_row_that_diverged_is_told_from_one_that_is_bad():
    lost = {"diverged": 1.0}
    found = view(("additive", BASE), ("dot", {0: {"ndcg@5": 0.4}, 1: lost, 2: lost}))
    assert found.mean("dot", "ndcg@5").mean == 0.4
    assert "Seeds at which training diverged: dot 2." in tables.markdown(found)


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
    gain, p = T3 * ERROR * 100 / 0.4, P
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
        "paired by seed. Bounds are reference rows, not candidate models. "
        "Fewer seeds: naive 2. No "
        "results yet: xpa.",
    ]


def test_one_column_of_all_populations_says_each_note_once():
    values = {"naive": {0: 0.9}, "dot": {0: 0.5}, "additive": {0: 0.25, 1: 0.25}}
    fakes = [Fake(row, at) for at in ("mixed", "grid") for row in ("naive", "dot")]
    fakes.append(Fake("additive", "grid"))
    found = [
        r for f in fakes for r in records(values[f.row], f.row, population=f.population)
    ]
    views = tables.views(_table(*fakes, bounds=("naive",)), found)
    assert tables.across(views, "ndcg@5").splitlines() == [
        "**main: ndcg@5**",
        "",
        "|  | mixed | grid |",
        "| --- | ---: | ---: |",
        "| dot | **.5000** | .5000 |",  # with fewer seeds than additive
        "| additive | – | **.2500 ±.0000** |",
        "| *naive* | .9000 | .9000 |",
        "",
        "mixed: One seed, so without intervals. "
        "Bounds are reference rows, not candidate models. "
        "grid: Mean ± half of the 95% t interval over 2 seeds. "
        "grid: Fewer seeds: dot 1, naive 1.",
    ]


@pytest.mark.parametrize(
    "others, holm, mark",
    [
        ([], True, "*"),  # P is .034
        ([], False, ""),
        ([Fake("xpa")], True, ""),  # 2 P is .068
        ([Fake("additive", "grid"), Fake("xpa", "grid")], True, ""),
    ],
)
def test_differences_that_survive_holms_correction_are_marked(others, holm, mark):
    """All differences of the table count, those on other populations too."""
    equal = {seed: value + 0.01 * (-1) ** seed for seed, value in BASE.items()}
    values = {"additive": BASE, "dot": BETTER, "xpa": equal}
    fakes = (Fake("additive"), Fake("dot"), *others)
    found = [
        r for f in fakes for r in records(values[f.row], f.row, population=f.population)
    ]
    mixed, *_ = tables.views(_table(*fakes, holm=holm), found)
    (line,) = tables.lines(mixed, ["difference:ndcg@5"], ["dot"])
    assert line.cells == (f"+10.00% ±{T3 * ERROR * 250:.2f}{mark}",)
    assert ("Holm" in tables.markdown(mixed)) == holm


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
    assert ("(p)" in text) == (width >= 120)


def test_a_page_draws_bounds_that_are_near_the_models(tmp_path):
    """Those within 1.5 ranges of the models, which reach from .40 to .44."""
    rows = [("additive", BASE), ("dot", BETTER), ("xpa", dict.fromkeys(BASE, 0.499))]
    bounds = ("xpa", "naive")
    found = view(*rows, ("naive", dict.fromkeys(BASE, 0.501)), bounds=bounds)
    tables.write_page(tmp_path / "page.html", found.table, [found])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Outside the drawn range: naive." in text
    drawn = text[text.index("<svg") : text.rindex("</svg>")]
    assert ">dot<" in drawn and ">xpa<" in drawn and ">naive<" not in drawn
    assert drawn.count("fill: var(--paper)") == 2  # the hollow dot, for both widths


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
    "p": short(P, 3),
    "seeds": "4",
    "low": short(0.44 - T3 * math.sqrt(0.0264 / 12), 4),
    "high": short(0.44 + T3 * math.sqrt(0.0264 / 12), 4),
}


@pytest.mark.parametrize("statistic", tables.STATISTICS)
def test_numbers_for_prose_by_hand(statistic):
    found = view(("additive", BASE), ("dot", BETTER))
    assert tables.number(found, "dot", "ndcg@5", statistic) == STATISTICS[statistic]
