"""Off-policy estimators of slates: unbiased by enumeration, and held to the simulator.

Where a policy can show few lists, the expectation of an estimator is a finite sum over
lists and clicks, which must be what the other policy earns.
"""

from itertools import permutations, product

import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.propensity.off_policy import cascade_ips, plackett_luce
from debias.propensity.slates import (
    cascade_dr,
    guesses,
    logged_placements,
    pbm_ips,
    placements,
    pseudo_inverse,
)
from simulators import PlackettLuce, generate, item_attraction, simulate, weak_ranker

ITEMS, RANKS = 3, 2
LISTS = list(permutations(range(ITEMS), RANKS))
SMALL = RankingData(np.zeros((ITEMS, 1)), None, [0, ITEMS])
LOGGING, NEW = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])  # weights
GAMMA, THETA = np.array([0.2, 0.5, 0.8]), np.array([0.9, 0.4])
RNG = np.random.default_rng(3)


def steps(weight, shown):
    """P(item at rank k | above) of a Plackett-Luce draw, rank by rank."""
    left, found = weight.sum(), []
    for item in shown:
        found.append(weight[item] / left)
        left -= weight[item]
    return np.array(found)


def pbm(shown):
    return THETA * GAMMA[list(shown)]


def independent(shown, clicks, chance=pbm):
    p = chance(shown)
    return np.prod(np.where(clicks, p, 1 - p))


def cascade(shown, clicks):
    """P(clicks) of a user who goes on with chance .3 after a click, else always."""
    first, second = GAMMA[list(shown)]
    second = second * (0.3 if clicks[0] else 1.0)
    p = np.array([first, second])
    return np.prod(np.where(clicks, p, 1 - p))


def worlds(weight, behaviour):
    """Every list and click vector, with its probability."""
    for shown in LISTS:
        for clicks in product([False, True], repeat=RANKS):
            chance = steps(weight, shown).prod() * behaviour(shown, clicks)
            yield shown, np.array(clicks), chance


def earned(weight, behaviour):
    return sum(p * clicks.sum() for _, clicks, p in worlds(weight, behaviour))


def expectation(estimator, behaviour):
    """Of an estimate from one session of the logging policy."""
    total = 0.0
    for shown, clicks, chance in worlds(LOGGING, behaviour):
        log = ClickLog(
            [0], [shown], [clicks], logging_propensity=[steps(LOGGING, shown)]
        )
        total += chance * estimator(log).value
    return total


def shares(weight):
    """(items, ranks) exact placements of a policy."""
    found = np.zeros((ITEMS, RANKS))
    for shown in LISTS:
        found[list(shown), range(RANKS)] += steps(weight, shown).prod()
    return found


@pytest.mark.parametrize("guess", [0.0, 0.3, "any"])
def test_cascade_dr_is_unbiased_whatever_is_guessed(guess):
    click = RNG.random((ITEMS, RANKS)) if guess == "any" else np.full((3, 2), guess)
    scores = np.log(NEW)
    temperature = 1 / scores.std()  # so that weights are those of NEW

    def estimator(log):
        chance = plackett_luce(log, SMALL, scores, temperature)
        np.testing.assert_allclose(chance[0], steps(NEW, log.item[0]))
        taken, expected = guesses(log, SMALL, scores, temperature, click, draws=20)
        return cascade_dr(log, chance, taken, expected, clip=1e9)

    assert expectation(estimator, cascade) == pytest.approx(earned(NEW, cascade))


def test_cascade_dr_is_the_sum_that_its_source_writes():
    """Slot by slot, with the distribution of the other policy over all items.

    The same sum is `SlateCascadeDoublyRobust` of the Open Bandit Pipeline 0.5.7, which
    does not install beside this Python.
    """
    sessions = 40
    item = np.array([LISTS[k] for k in RNG.integers(0, len(LISTS), sessions)])
    click = RNG.random(item.shape) < 0.4
    old = np.array([steps(LOGGING, shown) for shown in item])
    log = ClickLog(np.zeros(sessions, int), item, click, logging_propensity=old)
    new = np.array([steps(NEW, shown) for shown in item])
    q = RNG.random((sessions, RANKS, ITEMS))  # of any item at k, given those above
    taken, expected = np.zeros((2, sessions, RANKS))
    total = 0.0
    for s in range(sessions):
        before, left = 1.0, np.ones(ITEMS, bool)
        for k in range(RANKS):
            policy = np.where(left, NEW, 0) / NEW[left].sum()
            taken[s, k] = q[s, k, item[s, k]]
            expected[s, k] = policy @ q[s, k]
            now = before * new[s, k] / old[s, k]
            total += now * (click[s, k] - taken[s, k]) + before * expected[s, k]
            before, left[item[s, k]] = now, False
    found = cascade_dr(log, new, taken, expected, clip=1e9)
    assert found.value == pytest.approx(total / sessions, rel=1e-6)
    assert found.unclipped == pytest.approx(found.value)


def test_guesses_take_the_mean_over_what_is_left():
    click = RNG.random((ITEMS, RANKS))
    log = ClickLog([0, 0], [[2, 0], [1, -1]], [[0, 0], [0, 0]])
    scores = np.log(NEW)
    temperature = 1 / scores.std()
    share = placements(SMALL, scores, temperature, RANKS, draws=50, seed=4)
    share[:, 1] /= 2  # every second list has one item
    taken, expected = guesses(log, SMALL, scores, temperature, click, 50, seed=4)
    below = share[:, 1] @ click[:, 1]  # clicks to come after rank 1
    assert taken[0] == pytest.approx([click[2, 0] + below, click[0, 1]])
    rest = (NEW[0] * click[0, 1] + NEW[1] * click[1, 1]) / (NEW[0] + NEW[1])
    assert expected[0] == pytest.approx([NEW @ click[:, 0] + below, rest])
    assert taken[1, 1] == expected[1, 1] == 0  # padding


def test_placements_are_those_of_the_policy():
    scores = np.log(NEW)
    found = placements(SMALL, scores, 1 / scores.std(), RANKS, draws=4000)
    exact = shares(NEW)
    np.testing.assert_allclose(found, exact, atol=4 * 0.5 / np.sqrt(4000))
    assert found.sum(axis=0).tolist() == [1, 1]


def test_placements_of_some_queries_leave_the_others_out():
    scores = better(DATA)
    log = LOG.take(np.isin(LOG.query, [3, 7]))
    found = placements(DATA, scores, 1.0, 5, draws=30, log=log)
    of = DATA.query_of_item()
    for query in (3, 7):
        assert found[of == query].sum(axis=0) == pytest.approx([1] * 5)
    assert not found[~np.isin(of, [3, 7])].any()
    top = ClickLog([3], [[int(np.flatnonzero(of == 3)[0])]], [[0]])
    cold = placements(DATA, scores, 0.001, 1, draws=2, log=top)
    assert np.argmax(cold[:, 0]) == np.flatnonzero(of == 3)[scores[of == 3].argmax()]


def test_placements_fill_the_ranks_that_the_log_fills():
    """A list of one item, and a list whose rank 1 is empty, beside two full lists."""
    item = [[0, -1], [-1, 0], [0, 1], [1, 0]]
    log = ClickLog([0] * 4, item, np.zeros((4, 2), bool))
    found = placements(SMALL, [3.0, 2.0, 1.0], 0.01, RANKS, draws=3, log=log)
    assert found.tolist() == [[0.75, 0.25], [0.0, 0.5], [0.0, 0.0]]


def test_lists_of_unequal_length_keep_their_length_under_the_other_policy():
    """Half of the sessions show one item, whichever policy ranks."""
    item = np.repeat([(0, 1), (1, 0), (0, -1), (1, -1)], 10, axis=0)
    click = np.zeros(item.shape, bool)
    click[:10:2, 1], click[10:20, 0], click[30:, 0] = True, True, True
    log = ClickLog([0] * 40, item, click)  # P(click): item 1 at rank 1, 2; item 0 never
    data = RankingData(np.zeros((2, 1)), None, [0, 2])
    target = placements(data, [1.0, 0.0], 0.01, RANKS, draws=2, log=log)
    for found in (pbm_ips(log, target, [1.0, 0.5]), pseudo_inverse(log, target)):
        assert found.value == pytest.approx(0.25)  # item 1 second, in half the lists
        assert found.unsupported == pytest.approx(0)


def test_pbm_ips_is_unbiased_for_users_who_read_by_rank():
    def estimator(log):
        return pbm_ips(log, shares(NEW), THETA, shares(LOGGING), clip=1e9)

    assert expectation(estimator, independent) == pytest.approx(
        earned(NEW, independent)
    )


def test_pbm_ips_counts_the_log_and_says_what_it_cannot_know():
    item = [[0, 1]] * 3 + [[1, 0]]
    log = ClickLog(np.zeros(4, int), item, [[1, 0], [0, 1], [0, 0], [1, 0]])
    assert logged_placements(log, 3).tolist() == [[0.75, 0.25], [0.25, 0.75], [0, 0]]
    target = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # item 2 was never shown
    found = pbm_ips(log, target, [1.0, 0.5])
    # Item 1 is examined 1 in place of .25 + .375, item 0 no more; item 1 has 2 clicks.
    assert found.value == pytest.approx(2 / 0.625 / 4)
    assert found.unsupported == pytest.approx(0.5 / 1.5)
    assert pbm_ips(log, target, [1.0, 0.5], clip=None).value == found.value
    nothing = np.zeros((3, 2))  # a policy of which no list was drawn
    assert pbm_ips(log, nothing, [1.0, 0.5], clip=None).value == 0


def test_pseudo_inverse_is_unbiased_where_clicks_add_up_over_places():
    """Any chance of a click by item and rank will do, a product or none."""
    table = RNG.random((ITEMS, RANKS))

    def behaviour(shown, clicks):
        return independent(shown, clicks, lambda s: table[list(s), [0, 1]])

    chance = [steps(LOGGING, shown).prod() for shown in LISTS]
    lists = np.repeat(LISTS, np.rint(280 * np.array(chance)).astype(int), axis=0)
    drawn = ClickLog(np.zeros(280, int), lists, np.zeros(lists.shape, bool))
    np.testing.assert_allclose(logged_placements(drawn, ITEMS), shares(LOGGING))

    def estimator(log):
        return pseudo_inverse(log, shares(NEW), drawn)

    assert expectation(estimator, behaviour) == pytest.approx(earned(NEW, behaviour))


def test_pseudo_inverse_of_one_rank_is_inverse_propensity():
    item = RNG.integers(0, 3, (60, 1))
    log = ClickLog(np.zeros(60, int), item, RNG.random((60, 1)) < 0.5)
    target = np.array([[0.2], [0.5], [0.3]])
    share = np.bincount(item[:, 0]) / 60
    weight = (target[:, 0] / share)[item[:, 0]]
    found = pseudo_inverse(log, target)
    assert found.value == pytest.approx((weight * log.click[:, 0]).mean())
    assert found.effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert found.unsupported == pytest.approx(0)


def test_pseudo_inverse_with_few_lists_is_the_regression_of_smallest_norm():
    log = ClickLog([7, 7], [[0, 1], [1, 0]], [[1, 1], [0, 1]])
    target = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])  # half of it never shown
    pairs = np.array([[1, 0, 0, 1], [0, 1, 1, 0]])  # 0 first, 0 second, 1 first, ...
    worth = np.linalg.pinv(pairs) @ [2, 1]
    found = pseudo_inverse(log, target)
    assert found.value == pytest.approx(worth[0])
    assert found.unsupported == pytest.approx(0.5)


DATA = generate(queries=25, seed=3)
WEAK = weak_ranker(DATA)
LOG = simulate(DATA, PlackettLuce(WEAK, 1.0), "pbm", 12_000, seed=1, list_size=5)


def better(data):
    return WEAK(data) + 0.3 * data.labels


FEW = 15  # queries; so few that sessions are the units of intervals
SHOWN = simulate(DATA, PlackettLuce(better, 1.0), "pbm", 60_000, seed=2, list_size=5)
TRUTH = SHOWN.take(SHOWN.query < FEW).click.sum(axis=1).mean()


def test_intervals_hold_what_the_other_policy_earns_and_guesses_make_them_short():
    from simulators import eye_tracking

    log = LOG.take(LOG.query < FEW)
    scores, theta = better(DATA), np.array(eye_tracking())[:5]
    chance = plackett_luce(log, DATA, scores, 1.0)
    plain = cascade_ips(log, chance, clip=1e9, normalised=False)
    click = item_attraction(DATA)[:, None] * theta
    told = guesses(log, DATA, scores, 1.0, click)
    robust = cascade_dr(log, chance, *told, clip=1e9)
    share = placements(DATA, scores, 1.0, 5)
    by_rank = pbm_ips(log, share, theta, clip=1e9)
    for found in (robust, by_rank):
        assert found.low - 0.02 < TRUTH < found.high + 0.02, found
        assert found.high - found.low < 0.9 * (plain.high - plain.low)
    assert by_rank.unsupported < 0.02
    assert robust.logged == by_rank.logged == log.click.sum(axis=1).mean()


def test_queries_are_the_units_of_the_interval():
    twice = ClickLog.concatenate([LOG, LOG])
    share = placements(DATA, better(DATA), 1.0, 5, draws=20)
    one, two = (pbm_ips(log, share, [1, 0.9, 0.7, 0.5, 0.4]) for log in (LOG, twice))
    assert two.value == pytest.approx(one.value)
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: placements(SMALL, [0, 1, 2], 0.0, 2), "temperature must be above 0"),
        (lambda: placements(SMALL, [0, 1, 2], 1.0, 0), "draws and ranks must be at"),
        (
            lambda: placements(DATA, better(DATA), 1.0, 4, log=LOG),
            "the log has 5 ranks, got ranks=4",
        ),
        (
            lambda: guesses(LOG, DATA, better(DATA), 1.0, np.ones((3, 5))),
            r"click must have shape \(\d+, 5\)",
        ),
        (
            lambda: pbm_ips(LOG, np.ones((3, 4)), np.ones(5)),
            r"target must have a row for each item and 5 ranks, got shape \(3, 4\)",
        ),
        (
            lambda: pbm_ips(LOG, np.full((DATA.items, 5), 2.0), np.ones(5)),
            r"target must be shares in \[0, 1\]",
        ),
        (
            lambda: pbm_ips(
                LOG,
                np.zeros((DATA.items, 5)),
                np.ones(5),
                np.zeros((DATA.items, 5)),
            ),
            r"logged says that item \d+ is never shown, but the log shows it",
        ),
        (
            lambda: pseudo_inverse(
                LOG, np.zeros((DATA.items, 5)), LOG.take(LOG.query == 0)
            ),
            "lists must have every query of the log, but lack 1",
        ),
        (
            lambda: cascade_dr(LOG, LOG.logging_propensity, np.ones((1, 5)), 0),
            r"taken must be finite numbers of shape \(12000, 5\), got shape \(1, 5\)",
        ),
        (
            lambda: cascade_dr(LOG.select(), np.ones((1, 5)), 0, 0),
            "log has no column logging_propensity",
        ),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
