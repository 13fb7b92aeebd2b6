"""Tests of debias.propensity.click_models."""

from collections import defaultdict
from itertools import product
from math import log2

import numpy as np
import pytest

from debias.data import ClickLog
from debias.propensity import click_models
from debias.propensity.click_models import (
    MODELS,
    Cascade,
    DocumentCTR,
    Parameter,
    RankCTR,
)
from debias.propensity.click_models.timing import prepared_pass
from simulators import behaviours
from simulators.behaviours import (
    ClickChain,
    DependentClick,
    DynamicBayesian,
    PositionBased,
    simplified_dbn,
    user_browsing,
)
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, expert
from simulators.populations import Population
from simulators.queries import generate
from tests.debias.propensity.real import yandex

# Models and behaviours bear the same names: here the models go by their initials.
PBM, UBM = click_models.PositionBased, click_models.UserBrowsing
DCM, CCM = click_models.DependentClick, click_models.ClickChain
DBN, SDBN = click_models.DynamicBayesian, click_models.SimplifiedDBN

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
ITERATED = [m for m in MODELS.values() if m in (PBM, UBM, DCM, CCM, DBN, SDBN)]


def test_models_bear_the_names_of_the_behaviours_that_click_so():
    known = {"GlobalCTR", "SimplifiedDBN"}  # a rate, and a behaviour's parameter
    for model in MODELS.values():
        assert hasattr(behaviours, model.__name__) or model.__name__ in known


def small_log(sessions=60, seed=0, holes=True):
    """Three queries of six items, five of them shown; some lists end early."""
    rng = np.random.default_rng(seed)
    query = rng.integers(3, size=sessions)
    item = rng.permuted(np.tile(np.arange(6), (sessions, 1)), axis=1)[:, :5]
    item = item + 6 * query[:, None]
    if holes:
        item[np.arange(5) >= rng.integers(2, 6, sessions)[:, None]] = -1
    click = (rng.random(item.shape) < 0.4) & (item >= 0)
    return ClickLog(query, item, click)


def sessions_of(log):
    """Each session as a list of (pair, clicked), as plain Python."""
    for query, items, clicks in zip(
        log.query.tolist(), log.item.tolist(), log.click.tolist(), strict=True
    ):
        yield [
            ((query, item), clicked)
            for item, clicked in zip(items, clicks, strict=True)
            if item >= 0
        ]


def pairs_of(fitted):
    pairs = fitted.pairs
    return zip(pairs.query.tolist(), pairs.item.tolist(), strict=True)


def smoothed(counts):
    return {key: (won + 1) / (tried + 2) for key, (won, tried) in counts.items()}


# An oracle in loops, in the words of the papers: PBM and UBM.


def slow_product(log, iterations, bias):
    """EM of P(click) = theta[bias key] gamma[pair], one impression at a time."""
    gamma, theta = defaultdict(lambda: 0.5), defaultdict(lambda: 0.5)
    for _ in range(iterations):
        liked, seen = defaultdict(lambda: [0, 0]), defaultdict(lambda: [0, 0])
        for session in sessions_of(log):
            last = 0
            for k, (pair, clicked) in enumerate(session, 1):
                key = bias(k, last)
                g, t = gamma[pair], theta[key]
                liked[pair][0] += 1 if clicked else g * (1 - t) / (1 - g * t)
                seen[key][0] += 1 if clicked else t * (1 - g) / (1 - g * t)
                liked[pair][1] += 1
                seen[key][1] += 1
                last = k if clicked else last
        gamma = defaultdict(lambda: 0.5, smoothed(liked))
        theta = defaultdict(lambda: 0.5, smoothed(seen))
    return gamma, theta


def slow_perplexity(log, gamma, theta, bias):
    """Mean over ranks of 2^(-mean log2 P(what happened | clicks above))."""
    bits = defaultdict(list)
    for session in sessions_of(log):
        last = 0
        for k, (pair, clicked) in enumerate(session, 1):
            p = gamma[pair] * theta[bias(k, last)]
            bits[k].append(log2(p if clicked else 1 - p))
            last = k if clicked else last
    return [2 ** (-sum(b) / len(b)) for _, b in sorted(bits.items())]


@pytest.mark.parametrize(
    "model, bias", [(PBM, lambda k, last: k), (UBM, lambda k, last: (k, last))]
)
def test_em_and_perplexity_against_loops(model, bias):
    train, test = small_log(), small_log(seed=1)
    unknown = ClickLog([9], [[50, 2, -1, -1, -1]], [[1, 0, 0, 0, 0]])
    test = ClickLog.concatenate([test, unknown])
    gamma, theta = slow_product(train, 40, bias)
    fitted = model.fit(train)
    for at, pair in enumerate(pairs_of(fitted)):
        assert abs(fitted.value("attraction")[at] - gamma[pair]) < 1e-12
    for k in range(1, 6):
        if model is PBM:
            assert abs(fitted.value("examination")[k - 1] - theta[k]) < 1e-12
        else:
            for last in range(k):
                found = fitted.value("examination")[k - 1, last]
                assert abs(found - theta[k, last]) < 1e-12
    slow = slow_perplexity(test, gamma, theta, bias)
    np.testing.assert_allclose(fitted.perplexity(test), slow, rtol=0, atol=1e-12)


# An oracle by enumeration: how far a reader went, and whom a click satisfied.


def slow_chain_step(log, gamma, sigma, t, model):
    """One EM pass of a model that reads from the top, by listing every reading.

    A reading is how many items were examined and, for each click, whether it satisfied.
    """
    ranks = log.list_size
    liked = defaultdict(lambda: [0.0, 0.0])
    pleased, on = defaultdict(lambda: [0.0, 0.0]), defaultdict(lambda: [0.0, 0.0])
    for session in sessions_of(log):
        size = len(session)
        readings = []
        for depth in range(1, size + 1):
            if any(clicked for _, clicked in session[depth:]):
                continue
            clicks = [k for k in range(depth) if session[k][1]]
            for choice in product((False, True), repeat=len(clicks)):
                satisfied = dict(zip(clicks, choice, strict=True))
                p, moves = 1.0, []
                for k in range(depth):
                    pair, clicked = session[k]
                    p *= gamma[pair] if clicked else 1 - gamma[pair]
                    s = satisfied.get(k)
                    if s is not None and model in (CCM, DBN):
                        chance = (gamma if model is CCM else sigma)[pair]
                        p *= chance if s else 1 - chance
                    elif s:  # the model knows no satisfaction: one reading is enough
                        p = 0.0
                    if k == size - 1:
                        continue
                    key = {
                        DCM: k if clicked else None,
                        CCM: {None: 0, False: 1, True: 2}[s],
                        DBN: "leave" if s else 0,
                    }[model]
                    chance = {None: 1.0, "leave": 0.0}.get(key)
                    chance = t[key] if chance is None else chance
                    p *= chance if k < depth - 1 else 1 - chance
                    moves.append((key, k < depth - 1))
                readings.append((p, depth, satisfied, moves))
        total = sum(p for p, *_ in readings)
        for p, depth, satisfied, moves in readings:
            p /= total
            for k, (pair, clicked) in enumerate(session):
                liked[pair][0] += p * (clicked if k < depth else gamma[pair])
                liked[pair][1] += p
                if clicked and model is CCM:
                    liked[pair][0] += p * satisfied[k]
                    liked[pair][1] += p
                if clicked:
                    pleased[pair][0] += p * satisfied[k]
                    pleased[pair][1] += p
            for key, went in moves:
                if key not in (None, "leave"):
                    on[key][0] += p * went
                    on[key][1] += p
    keys = range({DCM: ranks, CCM: 3, DBN: 1}[model])
    return (
        defaultdict(lambda: 0.5, smoothed(liked)),
        defaultdict(lambda: 0.5, smoothed(pleased)),
        [smoothed({k: on[k]})[k] for k in keys],
    )


@pytest.mark.parametrize("model", [DCM, CCM, DBN])
def test_chain_em_against_every_reading(model):
    log = small_log()
    gamma, sigma = defaultdict(lambda: 0.5), defaultdict(lambda: 0.5)
    t = [0.5] * 5
    for _ in range(3):
        gamma, sigma, t = slow_chain_step(log, gamma, sigma, t, model)
    fitted = model.fit(log, iterations=3)
    for at, pair in enumerate(pairs_of(fitted)):
        assert abs(fitted.value("attraction")[at] - gamma[pair]) < 1e-12
        if model is DBN:
            assert abs(fitted.value("satisfaction")[at] - sigma[pair]) < 1e-12
    np.testing.assert_allclose(fitted.value("continuation").ravel(), t, atol=1e-12)


def test_cascade_by_hand():
    log = ClickLog([0, 0, 0], [[4, 2]] * 3, [[0, 1], [1, 1], [0, 0]])
    # item 4: a click in 3; item 2: read twice, clicked once
    np.testing.assert_allclose(Cascade.fit(log).value("attraction"), [2 / 4, 2 / 5])


def test_baselines_by_hand():
    log = ClickLog([0, 0, 1], [[4, 2], [2, 4], [4, -1]], [[0, 1], [1, 0], [1, 0]])
    np.testing.assert_allclose(RankCTR.fit(log).value("rate"), [3 / 5, 2 / 4])
    # item 2 of query 0, item 4 of query 0 and then of query 1
    rate = DocumentCTR.fit(log).value("rate")
    np.testing.assert_allclose(rate, [3 / 4, 1 / 4, 2 / 3])


@every_model
def test_probabilities_of_all_clicks_add_up(model):
    fitted = model.fit(small_log())
    clicks = np.array(list(product((0, 1), repeat=5)), bool)
    one = ClickLog(np.zeros(32, int), np.tile([3, 1, 9, 0, 2], (32, 1)), clicks)
    p = fitted.conditional(one)
    joint = np.where(clicks, p, 1 - p).prod(axis=1)
    np.testing.assert_allclose(joint.sum(), 1.0)
    np.testing.assert_allclose(joint @ clicks, fitted.marginal(one)[0])


@every_model
def test_padding_changes_nothing(model):
    log = small_log()
    shape = (log.sessions, 2)
    wide = ClickLog(
        log.query,
        np.hstack([log.item, np.full(shape, -1)]),
        np.hstack([log.click, np.zeros(shape, bool)]),
    )
    one, other = model.fit(log), model.fit(wide)
    np.testing.assert_allclose(
        one.conditional(log), other.conditional(wide)[:, :5], atol=1e-12
    )
    for p in (other.conditional(wide), other.marginal(wide)):
        assert (p[~wide.mask] == 0).all() and (p[wide.mask] > 0).any()
    assert one.log_likelihood(log) == pytest.approx(other.log_likelihood(wide))
    assert np.isnan(other.perplexity(wide)[5:]).all()


@every_model
def test_unknown_pairs_and_deeper_ranks_are_half_known(model):
    fitted = model.fit(small_log())
    other = ClickLog([7], [np.arange(50, 58)], np.zeros((1, 8), bool))
    p = fitted.conditional(other)
    assert np.isfinite(p).all() and (p >= 0).all() and (p < 1).all()
    if "attraction" in fitted.parameters:
        assert (fitted.gather("attraction", other) == 0.5).all()


@every_model
def test_an_item_under_two_queries_is_two_pairs(model):
    log = ClickLog([0, 1] * 20, [[0, 1], [0, 1]] * 20, [[1, 0], [0, 1]] * 20)
    fitted = model.fit(log)
    name = next(iter(fitted.parameters))
    if name in fitted.of_pairs:
        value = fitted.gather(name, log)
        assert value[0, 0] > 0.8 > 0.3 > value[1, 0]
        assert fitted.records()[0]["query"] == 0
    assert len(fitted.pairs) == 4


DATA = generate(queries=12, seed=5, min_items=10, median_items=12, max_items=15)
TRUE = {
    PBM: PositionBased(),
    UBM: user_browsing(),
    DCM: DependentClick(),
    CCM: ClickChain(),
    DBN: DynamicBayesian(0.8),
    SDBN: simplified_dbn(),
}


def simulated(behaviour, sessions, seed=0, **options):
    crowd = Population(((1.0, behaviour),))
    policy = PlackettLuce(expert, 1.0)
    options = {"attraction": "linear", **options}
    return simulate(DATA, policy, crowd, sessions, seed, **options)


@pytest.mark.parametrize("model", TRUE, ids=[m.name for m in TRUE])
def test_recovers_the_simulated_users(model):
    log = simulated(TRUE[model], 15_000)
    train, test = log.take(slice(10_000)), log.take(slice(10_000, None))
    fitted = model.fit(train)
    p = test.examination * test.attraction
    assert np.abs(fitted.conditional(test) - p).mean() < 0.015
    ideal = np.where(test.click, p, 1 - p)
    ideal = np.log(np.maximum(ideal, 1e-10)).mean()
    assert 0 < ideal - fitted.log_likelihood(test) < 0.006
    others = [m.fit(train).log_likelihood(test) for m in (RankCTR, DocumentCTR)]
    assert fitted.log_likelihood(test) > max(others)
    wanted = {DBN: 0.8, CCM: (0.9, 0.8, 0.4)}
    if model in wanted:
        found = fitted.parameters["continuation"]
        low, high = found.interval(0.999)
        np.testing.assert_allclose(found.value, wanted[model], atol=0.05)
        assert (low < wanted[model]).all() and (wanted[model] < high).all()
        assert (high - low < 0.25).all()


@pytest.mark.parametrize("model", [DCM, CCM, DBN], ids=lambda m: m.name)
def test_errors_are_those_of_the_scores(model):
    """Scores of each session by differences of its log-likelihood in every logit."""
    log = small_log(holes=False)
    fitted = model.fit(log)
    values = {name: p.value for name, p in fitted.parameters.items()}

    def likelihood(name, at, move):
        moved = {n: v.copy() for n, v in values.items()}
        logit = np.log(moved[name][at] / (1 - moved[name][at])) + move
        moved[name][at] = 1 / (1 + np.exp(-logit))
        parameters = {n: Parameter(v, v) for n, v in moved.items()}
        return model(fitted.pairs, parameters).log_probability(log).sum(axis=1)

    def scores(name):
        places = [at for at in np.ndindex(values[name].shape)]
        up, down = ([likelihood(name, at, s) for at in places] for s in (1e-5, -1e-5))
        return (np.array(up) - np.array(down)) / 2e-5

    rest = scores("continuation")
    value = values["continuation"].ravel()
    information = rest @ rest.T + np.diag(2 * value * (1 - value))  # prior of 2 trials
    for name in model.of_pairs:
        own, value = scores(name), values[name]
        known = (own**2).sum(axis=1) + 2 * value * (1 - value)
        np.testing.assert_allclose(
            fitted.parameters[name].error, 1 / np.sqrt(known), rtol=1e-4
        )
        information -= (rest @ own.T / known) @ (own @ rest.T)
    used = np.diag(information) > 1e-6
    wanted = np.sqrt(np.diag(np.linalg.inv(information[np.ix_(used, used)])))
    found = fitted.parameters["continuation"].error.ravel()
    np.testing.assert_allclose(found[used], wanted, rtol=1e-3)


@pytest.mark.parametrize("model", [PBM, UBM, DCM, CCM, DBN], ids=lambda m: m.name)
def test_intervals_of_attraction_cover(model):
    inside, shown = [], 0
    for seed in (1, 2, 3):
        log = simulated(TRUE[model], 3_000, seed, list_size=6)
        fitted = model.fit(log, iterations=80)
        truth = np.zeros(len(fitted.pairs))
        truth[fitted.pairs.index(log)] = log.attraction
        found = fitted.parameters["attraction"]
        if model in (PBM, UBM):  # known up to scale: put it where theta_1 is true
            first = fitted.value("examination").flat[0]
            true = log.examination[0, 0]
            truth = truth * true / first
        low, high = found.interval()
        kept = (truth > 0.05) & (truth < 0.95)
        inside.append(((low <= truth) & (truth <= high))[kept])
        shown += kept.sum()
    assert shown > 100
    assert 0.9 <= np.concatenate(inside).mean() <= 0.99


@pytest.mark.parametrize("model", ITERATED, ids=lambda m: m.name)
def test_em_never_lowers_the_posterior(model):
    log = small_log(200)

    def posterior(fitted):
        told = np.concatenate(
            [
                p.value[np.isfinite(p.value) & (p.value < 1)].ravel()
                for p in fitted.parameters.values()
            ]
        )
        return fitted.log_probability(log).sum() + np.log(told * (1 - told)).sum()

    rise = np.diff([posterior(model.fit(log, iterations=n)) for n in (1, 2, 4, 8, 30)])
    assert (rise > 0).all()


def test_a_given_continuation_is_held():
    fitted = DBN.fit(small_log(), continuation=0.9)
    assert fitted.value("continuation") == 0.9
    assert fitted.parameters["continuation"].error == 0.0


@pytest.mark.parametrize("name", ["pbm", "ubm", "dcm", "ccm", "dbn", "sdbn"])
def test_the_timed_pass_is_the_first_of_the_fit(name):
    log = small_log()
    renewed = prepared_pass(log, name)()
    first = renewed["attraction"] if isinstance(renewed, dict) else renewed[0]
    if name != "sdbn":  # its continuation starts at 1
        fitted = MODELS[name].fit(log, iterations=1)
        np.testing.assert_allclose(first, fitted.value("attraction"))


@every_model
def test_records_name_every_estimate(model):
    fitted = model.fit(small_log())
    rows = fitted.records()
    assert len(rows) == sum(p.value.size for p in fitted.parameters.values())
    for row in rows:
        if np.isfinite(row["value"]) and np.isfinite(row["lower"]):
            assert row["lower"] <= row["value"] <= row["upper"]


def test_wider_intervals_for_rarer_pairs():
    click = np.random.default_rng(0).random((400, 2)) < 0.4
    many = ClickLog([0] * 400, [[0, 1], [1, 0]] * 200, click)
    log = ClickLog.concatenate([many, ClickLog([0], [[2, 0]], [[0, 0]])])
    for model in (PBM, UBM, CCM, DBN):
        error = model.fit(log).parameters["attraction"].error
        assert error[2] > 1.5 * max(error[:2])


@pytest.mark.parametrize(
    "bad", [{"iterations": 0}, {"prior": (-1, 2)}, {"prior": (3, 2)}]
)
@pytest.mark.parametrize("model", ITERATED, ids=lambda m: m.name)
def test_rejects(model, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        model.fit(small_log(), **bad)


def test_rejects_the_rest():
    with pytest.raises(ValueError, match="continuation must be in"):
        DBN.fit(small_log(), continuation=1.5)
    with pytest.raises(ValueError, match="at least one session"):
        PBM.fit(small_log().take([]))
    with pytest.raises(ValueError, match="level"):
        Parameter(np.array(0.5), np.array(0.1)).interval(1.0)
    with pytest.raises(ValueError, match="name must be one of"):
        prepared_pass(small_log(), "naive")


@pytest.mark.parametrize(
    "name, published",
    [("ubm", 1.3964), ("pbm", 1.4338), ("document_ctr", 1.4479), ("rank_ctr", 1.4880)],
)
def test_published_perplexity_of_the_yandex_sample(name, published):
    train, test = yandex()
    perplexity = MODELS[name].fit(train).perplexity(test)
    assert round(float(perplexity.mean()), 4) == published
