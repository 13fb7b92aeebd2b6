"""Tests of debias.training.choice: which candidate is taken, and why."""

from itertools import product

import numpy as np
import pytest

from debias.data import ClickLog
from debias.training.choice import (
    LEAST,
    Verdict,
    choose,
    choose_ranking,
    compared_with_trees,
    difference,
    strata,
    verdict,
)

QUERIES, LISTS, PLACES, ITEMS = 60, 30, 4, 8


@pytest.fixture(scope="module")
def world():
    """Position-based users; where an item stands is drawn, clicks are, too."""
    rng = np.random.default_rng(1)
    attraction = rng.uniform(0.05, 0.95, QUERIES * ITEMS)
    query = np.repeat(np.arange(QUERIES), LISTS)
    own = np.argsort(rng.random((len(query), ITEMS)), axis=1)[:, :PLACES]
    item = own + ITEMS * query[:, None]
    examination = np.array([0.9, 0.5, 0.3, 0.1])
    click = rng.random(item.shape) < examination * attraction[item]
    return ClickLog(query, item, click), attraction


def test_choice_by_clicks_is_the_simplest_within_one_standard_error():
    """Errors by hand: differences (+-.1) by query sum to 0 or add up."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=400)
    noise = np.repeat(rng.normal(size=40), 10)  # what sessions of a query share
    query = np.repeat(np.arange(40), 10)
    likelihoods = {"simple": base, "rich": base + 0.1 + noise}
    by_query = choose(likelihoods, query)
    by_session = choose(likelihoods, np.arange(400))
    error = [found.table[0]["standard_error"] for found in (by_query, by_session)]
    wanted = np.std(noise.reshape(40, 10)[:, 0], ddof=1) / np.sqrt(40)
    assert error[0] == pytest.approx(wanted)
    assert error[1] == pytest.approx(np.std(noise, ddof=1) / np.sqrt(400))
    below = by_query.table[0]["below_best"]
    assert (by_query.name == "simple") == (below <= error[0])
    clear = choose({"simple": base, "rich": base + 0.1}, query)
    assert clear.name == "rich" and clear.table[1]["below_best"] == 0


def test_a_candidate_that_diverged_is_out_and_said():
    rng = np.random.default_rng(0)
    base, lost = rng.normal(size=40), np.full(40, np.nan)
    found = choose({"lost": lost, "plain": base}, np.arange(40))
    assert found.name == "plain" and "excluded after divergence: lost" in found.why
    assert found.table[-1] == {
        "model": "lost",
        "log_likelihood": None,
        "below_best": None,
        "standard_error": None,
    }
    with pytest.raises(ValueError, match="no candidate of lost learned"):
        choose({"lost": lost}, np.arange(40))


def test_strata_are_queries_by_rank_by_layout_column():
    log = ClickLog([7, 7, 9], [[0, 1], [0, 1], [2, 3]], np.zeros((3, 2), bool))
    number = strata(log, ())
    assert np.unique(number).size == 4 and (number[0] == number[1]).all()
    log = ClickLog([7, 7, 9], log.item, log.click, device=[1, 2, 1])
    number = strata(log, ("device",))
    assert np.unique(number).size == 6
    badge = {"badge": np.array([[1, 2], [2, 2], [1, 1]])}
    log = ClickLog([7, 7, 9], log.item, log.click, presentation=badge)
    number = strata(log, ("badge", "device"))
    assert np.unique(number).size == 5 and number[0, 1] == number[1, 1]


def test_pairs_of_a_verdict_by_hand(world):
    """Within one query and place, every clicked cell against every other."""
    log, attraction = world
    some = log.take(np.flatnonzero(log.query < 25))
    scores = np.random.default_rng(0).normal(size=len(attraction)).round(1)  # ties
    found = verdict(some, scores)
    concordant, pairs = np.zeros(25), np.zeros(25)
    for query, place in product(range(25), range(PLACES)):
        rows = some.query == query
        clicks, own = some.click[rows, place], scores[some.item[rows, place]]
        apart = own[clicks][:, None] - own[~clicks][None, :]
        pairs[query] += apart.size / rows.sum()
        concordant[query] += ((apart > 0) + 0.5 * (apart == 0)).sum() / rows.sum()
    np.testing.assert_allclose(found.pairs, pairs)
    np.testing.assert_allclose(found.concordant, concordant)


def test_the_ranking_with_position_bias_does_not_win(world):
    """Clicks counted as they come order items by where they stood; truth wins."""
    log, attraction = world
    clicks = np.bincount(log.item[log.click], minlength=len(attraction))
    shown = np.bincount(log.item.ravel(), minlength=len(attraction))
    noise = np.random.default_rng(2).normal(size=len(attraction))
    verdicts = {
        "softmax_naive": verdict(log, noise + 3 * attraction),
        "truth": verdict(log, attraction),
        "noise": verdict(log, noise),
    }
    found = choose_ranking(verdicts)
    assert found.name == "truth" and found.by == "ranking"
    assert [row["model"] for row in found.table] == ["truth", "softmax_naive", "noise"]
    assert (
        abs(verdict(log, noise).concordant.sum() / found_pairs(verdicts) - 0.5) < 0.02
    )
    assert (clicks <= shown).all()


def found_pairs(verdicts):
    return next(iter(verdicts.values())).pairs.sum()


def test_standard_error_of_a_difference_is_that_of_a_ratio():
    """Against the spread of the ratio over fresh draws of queries."""
    rng = np.random.default_rng(0)

    def draw():
        pairs = rng.uniform(1, 9, 200)
        shares = rng.normal([[0.6], [0.58]], 0.1, (2, 200))
        one, other = (Verdict(share * pairs, pairs) for share in shares)
        return difference(one, other)

    found = np.array([draw() for _ in range(400)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)
    assert found[:, 0].mean() == pytest.approx(0.02, abs=0.002)


def test_the_first_within_one_standard_error_is_preferred(world):
    log, attraction = world
    best = verdict(log, attraction)
    near = verdict(log, attraction + 0.02 * np.random.default_rng(3).normal(size=480))
    best, near = sorted((best, near), key=lambda v: v.concordant.sum())
    worst = verdict(log, -attraction)
    assert near.concordant.sum() > best.concordant.sum()
    order = {"preferred": best, "best": near, "softmax_naive": worst}
    found = choose_ranking(order)
    assert found.name == "preferred" and "best is not better by more" in found.why
    assert "softmax_naive" in found.why


def test_where_rankings_cannot_be_told_apart_likelihood_decides(world):
    log, attraction = world
    few = log.take(np.arange(90))
    rng = np.random.default_rng(0)
    likely, noise = rng.normal(-2, 0.1, len(few)), rng.normal(size=480)
    verdicts = {
        "listwise": verdict(few, attraction),
        "product": verdict(few, attraction + 0.1 * noise, (), likely),
        "naive": verdict(few, attraction - 0.1 * noise, (), likely - 1),
    }
    found = choose_ranking(verdicts, few.query)
    assert found.name == "product" and found.by == "clicks"
    assert "too few" in found.why


def test_raw_clicks_are_kept_where_sessions_are_too_few_to_learn_from(world):
    log, attraction = world
    few = log.take(np.arange(90))
    likely = np.random.default_rng(0).normal(-2, 0.1, len(few))
    verdicts = {
        "product": verdict(few, attraction, (), likely),
        "softmax_naive": verdict(few, attraction),
    }
    for sessions, name in ((LEAST, "product"), (LEAST - 1, "softmax_naive")):
        found = choose_ranking(verdicts, few.query, sessions=sessions)
        assert (found.name, found.by) == (name, "clicks")
    assert "fewer than 2,000 training sessions" in found.why
    linear = {"product_linear": verdicts["product"], **verdicts}
    found = choose_ranking(linear, few.query, sessions=LEAST - 1)
    assert found.name != "softmax_naive"  # a linear tower needs fewer sessions
    clear = verdict(log, attraction), verdict(log, -attraction)
    told = dict(zip(("product", "softmax_naive"), clear, strict=True))
    assert choose_ranking(told, sessions=LEAST - 1).name == "product"


def test_on_a_small_log_raw_clicks_give_way_only_to_a_clearly_better_ranking(world):
    """A bad third candidate shows that rankings can be compared, but not which wins."""
    log, attraction = world
    noise = np.random.default_rng(0).normal(size=480)
    verdicts = {
        "product": verdict(log, attraction),
        "xpa": verdict(log, -attraction),
        "softmax_naive": verdict(log, attraction + 0.01 * noise),
    }
    gain, error = difference(verdicts["product"], verdicts["softmax_naive"])
    assert abs(gain) < 2.5 * error
    for sessions, name in ((LEAST, "product"), (LEAST - 1, "softmax_naive")):
        assert choose_ranking(verdicts, sessions=sessions).name == name
    found = choose_ranking(verdicts, sessions=LEAST - 1)
    assert "no candidate orders held-out clicks better than softmax_naive by 2.5" in (
        found.why
    )


def test_of_equal_likelihoods_the_simplest_model_is_taken(world):
    """Whatever the order of preference among rankings."""
    log, attraction = world
    few = log.take(np.arange(90))
    same = np.random.default_rng(0).normal(-2, 0.1, len(few))
    equal = verdict(few, attraction, (), same)
    found = choose_ranking(
        {"xpa": equal, "mixture": equal, "product": equal}, few.query
    )
    assert found.name == "product"


def test_of_a_log_in_one_fixed_order_nothing_is_judged():
    item = np.tile(np.arange(4), (50, 1)) + 4 * np.repeat(np.arange(25), 2)[:, None]
    click = np.random.default_rng(0).random(item.shape) < 0.5
    log = ClickLog(np.repeat(np.arange(25), 2), item, click)
    likely = np.zeros(50)
    same = {
        "listwise": verdict(log, np.arange(100.0)),
        "naive": verdict(log, -np.arange(100.0), (), likely),
    }
    found = choose_ranking(same, log.query)
    assert found.name == "naive" and found.by == "clicks"
    shares = {row["pairs_in_order"] for row in found.table}
    assert shares == {0.5}  # every pair is one item, and tied


def test_rankings_that_are_no_numbers_are_out(world):
    log, attraction = world
    good = verdict(log, attraction)
    lost = good._replace(concordant=np.full_like(good.pairs, np.nan))
    found = choose_ranking({"lost": lost, "good": good, "softmax_naive": good})
    assert "excluded after divergence: lost" in found.why
    with pytest.raises(ValueError, match="no candidate of lost learned"):
        choose_ranking({"lost": lost})


@pytest.mark.parametrize(
    ("likelier", "ahead", "chosen"),
    [
        (1.3, 0.1, "trees"),
        (1.3, -0.1, "trees"),  # a share of .05, with an error of .144
        (1.0, 0.1, "product"),  # less than two standard errors
        (1.3, -0.4, "product"),
        (-1.3, 0.1, "product"),
    ],
)
def test_trees_replace_the_choice_if_they_describe_clicks_better(
    likelier, ahead, chosen
):
    """The errors by hand: differences `likelier` +-1 in four queries of one session.

    Their standard deviation is sqrt(4 / 3), so their mean has sqrt(1 / 3) = .577. For
    differences of +-.5 in order among two pairs a query, the share has half of half.
    """
    query, pairs = np.arange(4), np.full(4, 2.0)
    flat = np.full(4, -2.0)
    others = {
        "product": Verdict(np.ones(4), pairs, flat),
        "softmax_naive": Verdict(np.ones(4), pairs),
    }
    before = choose_ranking(others, by="ranking")
    rows = [{**row, "sessions_trained_on": 900} for row in before.table]
    likely = flat + likelier + np.array([1.0, 1.0, -1.0, -1.0])
    ordered = 1 + ahead + np.array([0.5, -0.5, 0.5, -0.5])
    others["trees"] = Verdict(ordered, pairs, likely)
    before = before._replace(table=rows)
    after = compared_with_trees(before, others, "trees", query, 900)
    assert after.name == chosen
    assert after.why.startswith(before.why) == (chosen == "product")
    if chosen == "product":
        assert ("fewer comparable pairs" in after.why) == (likelier > 1 and ahead < 0)
    if chosen == "trees":
        for words in (
            "than product, by 1.30000",
            "error 0.57735",
            f"{50 * ahead:+.2f} ",
        ):
            assert words in after.why
        assert "standard error 14.43)" in after.why
    assert {row["model"] for row in after.table} == {*others}
    assert (after.table[0]["model"] == "trees") == (ahead > 0)


def test_trees_that_could_not_grow_are_not_chosen():
    pairs = np.full(4, 2.0)
    flat, lost = np.full(4, -2.0), np.full(4, np.nan)
    verdicts = {
        "product": Verdict(np.ones(4), pairs, flat),
        "softmax_naive": Verdict(np.ones(4), pairs),
    }
    before = choose_ranking(verdicts, by="ranking")
    verdicts["trees"] = Verdict(lost, pairs, lost)
    query = np.arange(4)
    assert compared_with_trees(before, verdicts, "trees", query, 900) == before
