"""Tests of debias.propensity.estimate and of the estimators behind it."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom

from debias.data import ClickLog
from debias.propensity import ESTIMATORS, count_cells, estimate, estimate_counts
from debias.propensity.cells import cells
from debias.propensity.dla import CAP, _beliefs, _jacobian, dla, pages
from debias.propensity.harvest import all_pairs
from debias.propensity.pbm_maximum import accelerated
from simulators.behaviours import PositionBased
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, RandPair, expert, weak_ranker
from simulators.populations import Population
from simulators.queries import generate
from tests.debias.propensity.real import yandex

DATA = generate(queries=8, seed=3, min_items=6, median_items=7, max_items=9)
THETA = (1.0, 0.7, 0.5, 0.35, 0.25)
X = np.random.default_rng(0).normal(size=(DATA.items, 3))
LOGISTIC = (1 / (1 + np.exp(1 - X @ [1.0, 0.5, -0.5]))).astype(np.float32)
LOGLINEAR = np.exp(X @ [0.5, 0.3, -0.3] - 1.5).clip(0, 1).astype(np.float32)
TABULAR = [name for name, e in ESTIMATORS.items() if e.features != "must"]
DEBIASED = [name for name in TABULAR if not ESTIMATORS[name].confounded]
every_method = pytest.mark.parametrize("method", TABULAR)


def simulated(seed=0, sessions=3000, policy=None, attraction="graded"):
    policy = policy or PlackettLuce(expert, 1.0)
    crowd = Population(((1.0, PositionBased(THETA)),))
    return simulate(DATA, policy, crowd, sessions, seed, 5, attraction)


@pytest.mark.parametrize("method", DEBIASED)
def test_finds_the_simulated_examination(method):
    log = simulated(sessions=60_000)
    found = estimate(log, method, interval="none")
    np.testing.assert_allclose(found.examination, THETA, atol=0.04)
    raw = estimate(log, "ctr")
    assert np.abs(raw.examination - THETA).max() > 0.1 and raw.confounded


HARVESTS = ("pivot", "adjacent_chain", "all_pairs", "pbm_conditional")
# What is covered, and by which interval.
CLAIMS = [
    *((method, {}) for method in HARVESTS),
    *((method, {"source": "swap"}) for method in HARVESTS[1::2]),
    ("adjacent_chain", {"interval": "bootstrap", "replicates": 40}),
    ("regression_em", {"features": X}),
    ("dla", {"features": X}),
]
TRIALS = 24


@pytest.mark.parametrize("method, options", CLAIMS)
def test_intervals_cover(method, options):
    policy = RandPair(expert, 0.7, "all") if "source" in options else None
    attraction = "graded"
    if "features" in options:
        attraction = LOGLINEAR if method == "dla" else LOGISTIC
    inside = 0
    for seed in range(TRIALS):
        log = simulated(seed, policy=policy, attraction=attraction)
        found = estimate(log, method, seed=seed, **options)
        inside += ((found.lower <= THETA) & (found.upper >= THETA))[1:].sum()
    # Ranks of a log are not independent: as if each log were worth two trials.
    trials = 2 * TRIALS
    low, high = binom.ppf([0.0005, 0.9995], trials, 0.95) / trials
    assert low <= inside / (4 * TRIALS) <= high


@pytest.mark.parametrize(
    "method", [m for m, e in ESTIMATORS.items() if "bootstrap" in e.intervals]
)
def test_delta_and_bootstrap_agree(method):
    log = simulated(sessions=2000, attraction=LOGLINEAR)
    options = {"features": X} if ESTIMATORS[method].features == "may" else {}
    delta = estimate(log, method, **options).standard_error[1:]
    options |= {"interval": "bootstrap", "replicates": 80, "seed": 1}
    again = estimate(log, method, **options)
    ratio = again.standard_error[1:] / delta
    assert ratio.min() > 0.65 and ratio.max() < 1.5  # 80 draws: one s.e. is 8%


@pytest.mark.parametrize("method", ["adjacent_chain", "pbm_conditional"])
def test_clicks_that_come_in_sessions_widen_the_interval(method):
    log = simulated()
    twice = ClickLog.concatenate([log, log])
    one, other = (estimate(each, method).standard_error[1:] for each in (log, twice))
    np.testing.assert_allclose(other, one / np.sqrt(2), rtol=0.03)
    # The same impressions of one pair of ranks, but a session clicks both or none.
    rng = np.random.default_rng(0)
    both = np.repeat(rng.random((600, 1)) < 0.5, 2, axis=1)
    shown = np.tile([[0, 1], [1, 0]], (300, 1))
    together = ClickLog(np.zeros(600, int), shown, both)
    apart = ClickLog(np.zeros(600, int), shown, rng.random((600, 2)) < 0.5)
    errors = [estimate(each, method).standard_error[1] for each in (together, apart)]
    assert errors[0] < 0.2 * errors[1]  # clicks that move together cancel in a ratio


@pytest.mark.parametrize("method", [m for m, e in ESTIMATORS.items() if e.fit])
def test_counts_of_shards_give_the_estimate_of_the_log(method):
    log = simulated(sessions=600)
    shards = [log.take(slice(0, 100)), log.take(slice(100, 600))]
    found = estimate_counts(count_cells(shards[1]) + count_cells(shards[0]), method)
    whole = estimate(log, method, interval="none")
    np.testing.assert_equal(found.columns(), whole.columns())


def test_counts_reject():
    counted = count_cells(ClickLog([0], [[1, 2]], [[0, 1]]))
    with pytest.raises(ValueError, match="no click at rank 1"):
        estimate_counts(counted)
    with pytest.raises(ValueError, match=r"method must be one of.*got 'dla'"):
        estimate_counts(counted, "dla")


def test_harvesting_by_hand():
    # Item 0 at ranks 1 and 2: 3 of 6 and 2 of 8; item 1: 4 of 8 and 1 of 6.
    shown = [[0, 1]] * 6 + [[1, 0]] * 8
    click = np.zeros((14, 2), bool)
    click[:3, 0] = click[5:6, 1] = click[6:10, 0] = click[12:, 1] = True
    log = ClickLog([0] * 14, shown, click)
    ratio = (6 * 2 / 8 + 6 * 1 / 6) / (6 * 3 / 6 + 6 * 4 / 8)  # weights min(6, 8)
    for method in ("pivot", "adjacent_chain", "all_pairs"):
        found = estimate(log, method)
        assert found.examination.tolist() == pytest.approx([1, ratio])
        assert found.n.tolist() == [14, 14]
    # Sessions of the two lists are independent; within each, clicks are correlated.
    move = np.array([[-6 / 6 / 6, 6 / 6 / 2.5], [-6 / 8 / 6, 6 / 8 / 2.5]])
    rate = np.array([[3 / 6, 1 / 6], [4 / 8, 2 / 8]])
    grow = np.sqrt([[6 / 5] * 2, [8 / 7] * 2])
    page = np.repeat([0, 1], [6, 8])
    own = (move[page] * grow[page] * (click - rate[page])).sum(axis=1)
    error = ratio * np.sqrt((own**2).sum())
    assert estimate(log, "pivot").standard_error[1] == pytest.approx(error)
    nothing = estimate(log, "pivot", minimum=7)
    assert np.isnan(nothing.examination[1]) and np.isnan(nothing.lower[1])


def test_all_pairs_is_the_maximum_of_its_likelihood():
    counted = cells(simulated())
    found = all_pairs(counted).log_examination
    ranks, kept = 5, counted.shown >= 5
    shown, clicked = np.zeros((2, counted.pairs, ranks))
    shown[counted.pair[kept], counted.rank[kept]] = counted.shown[kept]
    clicked[counted.pair[kept], counted.rank[kept]] = counted.clicked[kept]
    links = [(k, j) for k in range(ranks) for j in range(k + 1, ranks)]
    total, hits = [], []
    for k, j in links:
        both = (shown[:, k] > 0) & (shown[:, j] > 0)
        weight = np.minimum(shown[both, k], shown[both, j])
        total.append(weight.sum())
        hits.append(
            [(weight * clicked[both, a] / shown[both, a]).sum() for a in (k, j)]
        )

    def loss(x):
        theta, r = np.r_[0.0, x[: ranks - 1]], x[ranks - 1 :]
        value = 0.0
        for (k, j), n, (c_k, c_j), pooled in zip(links, total, hits, r, strict=True):
            for at, c in ((k, c_k), (j, c_j)):
                p = np.clip(np.exp(theta[at] + pooled), 1e-9, 1 - 1e-9)
                value -= c * np.log(p) + (n - c) * np.log1p(-p)
        return value / sum(total)

    start = np.r_[np.log(THETA[1:]), np.full(len(links), -1.0)]
    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(found[1:], best.x[: ranks - 1], atol=2e-4)


def test_pbm_mle_is_where_em_ends():
    log = simulated(sessions=1500)
    slow = estimate(log, "pbm_em", prior=(0, 0), iterations=4000)
    found = estimate(log, "pbm_mle")
    np.testing.assert_allclose(found.examination, slow.examination, atol=1e-4)


def test_pbm_conditional_is_the_maximum_of_its_likelihood():
    """Clicks of a pair are shared out among ranks; pairs without clicks say nothing."""
    log = simulated(sessions=300)
    found = estimate(log, "pbm_conditional")
    shown, clicked = np.zeros((2, DATA.items, 5))
    np.add.at(shown, (log.item, np.arange(5)), 1)
    np.add.at(clicked, (log.item, np.arange(5)), log.click)

    def loss(x):
        weight = shown * np.exp(np.r_[0.0, x])
        total = weight.sum(axis=1, keepdims=True)
        share = np.divide(weight, total, out=np.ones_like(weight), where=weight > 0)
        return -(clicked * np.log(share)).sum()

    best = minimize(loss, np.log(THETA[1:]), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(np.log(found.examination[1:]), best.x, atol=1e-5)


def test_few_impressions_bias_the_maximum_but_not_the_conditional_one():
    """Twenty sessions a query: attraction is known badly, examination must not be."""
    data = generate(queries=60, seed=3)
    crowd = Population(((1.0, PositionBased(THETA)),))
    logs = [
        simulate(data, PlackettLuce(expert, 1.0), crowd, 1200, seed, 5)
        for seed in range(8)
    ]

    def gaps(method):
        curves = [estimate(log, method).examination for log in logs]
        return np.log(np.array(curves) / THETA)[:, 1:]

    fair = gaps("pbm_conditional")
    error = fair.std(axis=0, ddof=1) / np.sqrt(len(logs))
    assert np.abs(fair.mean(axis=0) / error).max() < 5  # t of 7 degrees of freedom
    assert gaps("pbm_mle").mean() > 0.1 > 2 * np.abs(fair.mean())


def thin(seed, sessions=1500, queries=60):
    data = generate(queries=queries, seed=seed)
    crowd = Population(((1.0, PositionBased(THETA)),))
    policy = PlackettLuce(weak_ranker(data), 0.1)
    return simulate(data, policy, crowd, sessions, seed, 5)


@pytest.mark.parametrize("seed", range(4))
def test_dual_learning_stays_finite_on_thin_logs(seed):
    """Hardly an item has three clicks: without a cap, weights grow on each other."""
    found = estimate(thin(seed), "dla")
    assert np.isfinite(found.examination).all()
    assert found.examination.max() < 3 and found.examination.min() > 0.005
    assert "half of the clicks are on items with at most" in found.degenerate
    assert found.degenerate in str(found) and found.records()[0]["degenerate"] is True


def test_dual_learning_may_be_used_where_items_have_clicks():
    found = estimate(simulated(sessions=5000), "dla")
    assert found.degenerate == "" and found.records()[0]["degenerate"] is False


def test_where_items_have_clicks_attractions_may_differ_by_more_than_the_cap():
    steep = np.exp(2 * X[:, 0].clip(-1.5, 1.5) - 3).astype(np.float32)  # .0025 to 1
    log = simulated(sessions=40_000, attraction=steep)
    for features in (None, X[:, :1].clip(-1.5, 1.5)):
        found = estimate(log, "dla", features=features)
        np.testing.assert_allclose(found.examination, THETA, atol=0.15)
        assert found.degenerate == ""


def test_linear_dual_learning_needs_no_clicks_of_every_item():
    log = simulated(sessions=100, attraction=LOGLINEAR)
    assert "needs 50" in estimate(log, "dla").degenerate
    assert estimate(log, "dla", features=X).degenerate == ""


def test_dual_learning_that_has_not_settled_says_so():
    log = simulated(sessions=5000)
    assert "not settled" in estimate(log, "dla", iterations=1).degenerate


def test_the_cap_of_the_weights_by_hand():
    # On lists [0, 1] rank 1 has 9 clicks and rank 2 one; on lists [1, 0] 1 and 9.
    shown = [[0, 1]] * 10 + [[1, 0]] * 10
    click = np.zeros((20, 2), bool)
    click[:9, 0] = click[9, 1] = click[10, 0] = click[11:, 1] = True
    solution = dla(pages(ClickLog([0] * 20, shown, click)))
    # Item 0 is clicked nine times as often at either rank, both ranks are alike.
    assert solution.state[:2].tolist() == pytest.approx([0, 0], abs=1e-4)
    assert np.exp(solution.state[2] - solution.state[3]) == pytest.approx(9, rel=1e-3)
    assert solution.clicks == 18 and solution.move < 1e-6
    # Twenty times as often: v of the one click at rank 2 of lists [0, 1] is cut to 10.
    click = np.zeros((42, 2), bool)
    click[:20, 0] = click[20, 1] = click[21, 0] = click[22:, 1] = True
    log = ClickLog([0] * 42, [[0, 1]] * 21 + [[1, 0]] * 21, click)
    solution = dla(pages(log))
    # g: weighted clicks of rank 2 over those of rank 1, f that of the item.
    ratio = np.exp(solution.state[2] - solution.state[3])
    wanted = (CAP + 20 / ratio) / (20 + 1)
    assert np.exp(solution.state[1]) == pytest.approx(wanted, rel=1e-3)
    # Three times the log: an item has 120 clicks, and both ranks are alike.
    solution = dla(pages(ClickLog.concatenate([log] * 3)))
    assert solution.clicks == 120 and solution.state[1] == pytest.approx(0, abs=1e-4)


def test_the_jacobian_of_dual_learning_is_the_derivative():
    """Of both estimating equations, written out anew, by central differences."""
    rng = np.random.default_rng(0)
    log = simulated(sessions=60)
    page = pages(log)
    units, ranks, size = *page.pair.shape, len(page.pairs)
    click = np.asarray(page.clicked.sum(axis=1)).reshape(units, ranks)
    g, f = np.r_[0.0, rng.normal(size=ranks - 1)], rng.normal(size=size)

    def softmax(z):
        return np.exp(z) / np.exp(z).sum()

    def psi(x):
        g, f = x[:ranks], x[ranks:]
        of_g, of_f = np.zeros(ranks), np.zeros(size)
        for pair, c in zip(page.pair, click, strict=True):
            own = f[pair]
            w, v = np.exp(g[0] - g), np.exp(own[0] - own)
            of_g += c * v - (c * v).sum() * softmax(g)
            of_f[pair] += c * w - (c * w).sum() * softmax(own)
        return np.r_[of_g, of_f]

    x = np.r_[g, f]
    step = 1e-5 * np.eye(len(x))
    wanted = np.array([(psi(x + e) - psi(x - e)) / 2e-5 for e in step]).T
    own = _beliefs(page.pair, page.mask, g, f, 1e9)
    # A feature for each pair makes f its own weights; padding, the last row, has none.
    found = _jacobian(page, own, click, np.eye(size + 1, size))
    full = np.block([[found.gg, found.gf], [found.fg, found.ff]])
    kept = np.r_[1 : ranks + size]  # rank 1 is the scale
    np.testing.assert_allclose(
        full[np.ix_(kept, kept)], wanted[np.ix_(kept, kept)], rtol=1e-5, atol=1e-5
    )


def test_a_maximum_at_which_everything_is_examined_is_degenerate():
    # Every item is shown once: its own click is explained by the item alone.
    click = np.random.default_rng(0).random((50, 2)) < 0.5
    once = ClickLog([0] * 50, np.arange(100).reshape(50, 2), click)
    tied = ClickLog([0, 0], [[200, 201], [201, 200]], [[1, 1], [1, 1]])
    found = estimate(ClickLog.concatenate([once, tied]), "pbm_mle")
    assert found.examination.tolist() == pytest.approx([1, 1], abs=1e-3)
    assert "1 of 1 ranks are examined like rank 1" in found.degenerate
    assert "(degenerate: " in str(found)
    assert estimate(simulated(), "pbm_mle").degenerate == ""
    # Ranks that are examined alike, of items shown often, are an estimate like others.
    both = np.repeat(np.random.default_rng(0).random((400, 1)) < 0.5, 2, axis=1)
    alike = ClickLog([0] * 400, [[0, 1], [1, 0]] * 200, both)
    assert estimate(alike, "pbm_mle").degenerate == ""


def test_contexts_say_which_of_them_is_degenerate():
    rich, poor = simulated(sessions=5000), thin(0)
    logs = [ClickLog(each.query, each.item, each.click) for each in (rich, poor)]
    both = ClickLog.concatenate(logs)
    context = np.repeat([1, 2], [len(rich), len(poor)])
    found = estimate(both, "dla", by=context)
    assert found.degenerate.startswith("context 2: ")


def test_a_rank_without_a_comparison_in_both_directions_is_not_told():
    # Item 1 is clicked at rank 2 only: how much better rank 2 is has no upper bound.
    shown = [[0, 1], [1, 0]] * 20
    click = np.tile([[1, 1], [0, 0]], (20, 1))
    found = estimate(ClickLog([0] * 40, shown, click), "pbm_conditional")
    assert found.examination[1] == pytest.approx(1.0)  # 20 clicks at each, evenly shown
    never = estimate(ClickLog([0] * 40, shown, click * [1, 0]), "pbm_conditional")
    assert np.isnan(never.examination[1]) and np.isnan(never.upper[1])


@pytest.mark.parametrize("method", ["adjacent_chain", "pbm_em"])
def test_one_curve_for_each_context(method):
    log = simulated(sessions=2000)
    device = (np.arange(2000) % 2 + 1).astype(np.int16)
    both = ClickLog(log.query, log.item, log.click, device=device)
    found = estimate(both, method, by="device")
    assert found.context.tolist() == [1] * 5 + [2] * 5 and len(found.records()) == 10
    assert found.records()[5]["context"] == 2 and "context 2" in str(found)
    for label, curve in found.curves().items():
        alone = estimate(both.take(device == label), method)
        np.testing.assert_array_equal(curve.columns()["upper"], alone.upper)
        np.testing.assert_array_equal(curve.examination, alone.examination)
    assert list(estimate(log, method).curves()) == [None]
    silent = ClickLog(
        log.query, log.item, log.click & (device == 1)[:, None], device=device
    )
    with pytest.raises(ValueError, match="in context 2"):
        estimate(silent, method, by="device")


def test_regression_em_is_the_maximum_of_its_likelihood():
    log = simulated(sessions=3000, attraction=LOGISTIC)
    found = estimate(log, "regression_em", features=X)

    def loss(x):
        theta = np.exp(np.r_[0.0, x[:4]])
        gamma = 1 / (1 + np.exp(-(X @ x[4:7] + x[7])))
        p = np.clip(theta * gamma[log.item], 1e-9, 1 - 1e-9)
        return -np.where(log.click, np.log(p), np.log1p(-p)).mean()

    start = np.r_[np.log(THETA[1:]), 1.0, 0.5, -0.5, -1.0]
    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(np.log(found.examination[1:]), best.x[:4], atol=1e-3)


@pytest.mark.parametrize("method", DEBIASED)
def test_ranks_that_nothing_ties_to_the_first_are_not_known(method):
    # Items 0 and 1 change places at the top, items 2 and 3 below, never across.
    shown = [[0, 1, 2, 3], [1, 0, 3, 2]] * 50
    click = np.random.default_rng(0).random((100, 4)) < 0.5
    found = estimate(ClickLog([0] * 100, shown, click), method)
    assert np.isfinite(found.examination[:2]).all()
    assert np.isnan(found.examination[2:]).all() and np.isnan(found.upper[2:]).all()
    if found.interval != "none":
        assert found.standard_error[1] > 0


@every_method
def test_tidy(method):
    found = estimate(simulated(sessions=400), method, level=0.9)
    assert len(found) == 5 and found.method == method and method in str(found)
    rows = found.records()
    assert str(rows) == str(found.to_arrow().to_pylist()) and len(rows) == 5
    assert rows[0]["position"] == 1 and rows[0]["examination"] == 1.0
    assert rows[0]["confounded"] is (method == "ctr")
    if found.interval == "none":
        assert np.isnan(found.standard_error).all()
    else:
        assert found.standard_error[0] == 0 and found.lower[0] == found.upper[0] == 1
        assert (found.lower[1:] < found.examination[1:]).all()
        wide = estimate(simulated(sessions=400), method, level=0.99)
        assert (wide.lower[1:] < found.lower[1:]).all()


@every_method
def test_padding_and_the_order_of_sessions_change_nothing(method):
    log = simulated(sessions=500)
    rng = np.random.default_rng(0)
    pad = ((0, 0), (0, 2))
    wide = ClickLog(
        log.query, np.pad(log.item, pad, constant_values=-1), np.pad(log.click, pad)
    ).take(rng.permutation(500))
    one, other = estimate(log, method), estimate(wide, method)
    np.testing.assert_allclose(other.examination[:5], one.examination, rtol=1e-4)
    np.testing.assert_allclose(other.standard_error[:5], one.standard_error, rtol=1e-3)
    assert np.isnan(other.examination[5:]).all() and (other.n[5:] == 0).all()


def test_a_seed_names_a_bootstrap():
    log = simulated(sessions=300)
    options = {"interval": "bootstrap", "replicates": 5}
    one, again, other = (
        estimate(log, "pivot", seed=seed, **options).upper for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert one[1] != other[1]


def test_acceleration_keeps_to_the_bounds_of_em():
    seen = []

    def step(x):
        seen.append(x)
        return x + 0.3 * (1 - x) * x  # creeps towards 1

    accelerated(step, np.array([0.2]), 1e-6, 300)
    assert all(0 < x[0] <= 1 for x in seen)


@pytest.mark.parametrize(
    "method, options, wrong",
    [
        ("naive", {}, "method must be one of"),
        ("pbm_em", {"interval": "delta"}, "interval of pbm_em"),
        ("pbm_mle", {"interval": "bootstrap"}, "interval of pbm_mle"),
        ("regression_em", {"interval": "delta"}, "interval of regression_em"),
        ("bias_tower", {}, "bias_tower needs features"),
        ("pivot", {"by": "device"}, "no column device"),
        ("pivot", {"by": np.zeros(3)}, "one label per session"),
        ("pivot", {"by": np.arange(200)}, "group them and pass"),
        ("dla", {"interval": "delta"}, "interval of dla"),
        ("pivot", {"level": 1.0}, "level"),
        ("pivot", {"minimum": 0}, "minimum"),
        ("pivot", {"source": "swap"}, "marks swaps"),
        ("pivot", {"features": X}, "pivot does not read features"),
        ("pbm_em", {"iterations": 0}, "iterations"),
        ("pivot", {"interval": "bootstrap", "replicates": 1}, "replicates"),
        ("regression_em", {"features": X[:2]}, "item must be below 2"),
        ("dla", {"features": X[:, 0]}, "shape"),
        ("dla", {"features": X * np.nan}, "finite"),
    ],
)
def test_rejects(method, options, wrong):
    with pytest.raises(ValueError, match=wrong):
        estimate(simulated(sessions=200), method, **options)


@every_method
def test_rejects_a_log_without_a_click_at_the_top(method):
    log = ClickLog([0, 0], [[0, 1], [1, 0]], [[0, 1], [0, 0]])
    with pytest.raises(ValueError, match="no click at rank 1"):
        estimate(log, method)


PUBLISHED = {
    "adjacent_chain": ".748 .644 .556 .438 .378 .343 .278 .276 .247",
    "pbm_em": ".698 .579 .484 .369 .329 .308 .250 .260 .242",
    "ctr": ".968 .662 .598 .412 .284 .268 .182 .196 .174",
}


def test_the_yandex_sample_has_the_published_counts():
    train, test = yandex()
    assert (train.sessions, test.sessions) == (35_064, 21_413)
    assert (train.click.sum(), test.click.sum()) == (42_703, 31_243)
    assert len(np.unique(np.r_[train.query, test.query])) == 20


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_curves_of_the_yandex_sample(method):
    found = estimate(yandex()[0], method)
    wanted = [1.0, *map(float, PUBLISHED[method].split())]
    assert found.examination.round(3).tolist() == pytest.approx(wanted, abs=1e-9)


def test_one_curve_for_each_label_of_the_cells():
    # Without a badge rank 2 has half the clicks of rank 1, with one as many.
    item = np.tile([[0, 1], [1, 0]], (40, 1))
    plain = np.tile([[1, 0], [0, 0], [1, 1], [0, 0]], (10, 1))
    both = np.tile([[1, 1], [1, 1]], (20, 1))
    log = ClickLog(
        np.zeros(80, int),
        item,
        np.concatenate([plain, both]),
        presentation={"badge": np.repeat([[1, 1], [2, 2]], 40, axis=0)},
    )
    found = estimate(log, by="badge")
    assert found.context.tolist() == [1, 1, 2, 2]
    assert found.examination.tolist() == [1, 0.5, 1, 1]
    with pytest.raises(ValueError, match="no column height"):
        estimate(log, by="height")
