"""Tests of simulators.behaviours. The registry runs through all that hold for any."""

from itertools import pairwise, product

import numpy as np
import pytest

from simulators.behaviours import (
    BEHAVIOURS,
    EYE_TRACKING,
    BottomUp,
    Carousel,
    Cascade,
    ClickChain,
    DependentClick,
    DocumentCTR,
    DynamicBayesian,
    Grid,
    LogitAdditive,
    PositionBased,
    RankCTR,
    TrustBiased,
    UserBrowsing,
    eye_tracking,
    power_law,
    simplified_dbn,
    trust_oosterhuis,
    trust_vardasbi,
    user_browsing,
    with_satisfaction,
)
from simulators.chance import generator

EVERY = pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
VECTORS = np.array(list(product([0, 1], repeat=4)), bool)
LISTS = {
    "mixed": [0.9, 0.3, 0.0, 0.6],
    "certain": [1.0, 0.0, 1.0, 0.5],
}
# P(satisfied | clicked) of the items: no function of their attraction.
OWN = [0.9, 0.3, 0.9, 0.3]
SATISFACTION = [0.1, 0.8, 1.0, 0.0]


def tiled(attraction):
    """The list once for every click vector; None stays None."""
    if attraction is None:
        return None
    return np.tile(np.array(attraction), (len(VECTORS), 1))


def joint(conditional, click):
    return np.where(click, conditional, 1 - conditional).prod(axis=1)


# What holds for every behaviour


@EVERY
@pytest.mark.parametrize(
    ("attraction", "satisfaction"),
    [*((each, None) for each in LISTS.values()), (OWN, SATISFACTION)],
    ids=[*LISTS, "own"],
)
def test_conditionals_multiply_to_a_distribution_with_the_stated_marginals(
    behaviour, attraction, satisfaction
):
    lists = tiled(attraction)
    own = with_satisfaction(behaviour, tiled(satisfaction))
    conditional = behaviour.conditional_click_probability(lists, VECTORS, **own)
    probability = joint(conditional, VECTORS)
    np.testing.assert_allclose(probability.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(
        behaviour.click_probability(lists, **own)[0], probability @ VECTORS, atol=1e-12
    )
    # The truth of the log, in reading order, multiplies to the same likelihood.
    examined = behaviour.examination(lists, VECTORS, **own)
    truth = joint(examined * behaviour.perceive(lists), VECTORS)
    np.testing.assert_allclose(truth, probability, atol=1e-12)


@EVERY
def test_conditionals_are_conditional_on_the_clicks_displayed_above(behaviour):
    lists = tiled(LISTS["mixed"])
    conditional = behaviour.conditional_click_probability(lists, VECTORS)
    probability = joint(conditional, VECTORS)
    for row, click in enumerate(VECTORS):
        for k in range(4):
            above = (VECTORS[:, :k] == click[:k]).all(axis=1)
            if probability[above].sum() > 0:
                now = probability[above & VECTORS[:, k]].sum()
                expected = now / probability[above].sum()
                np.testing.assert_allclose(conditional[row, k], expected, atol=1e-12)


@EVERY
def test_a_million_sessions_click_at_the_rates_of_the_closed_form(behaviour):
    sessions = 1_000_000
    attraction = np.array([0.9, 0.1, 0.5, 0.2, 0.7, 0.3], np.float32)
    lists = np.broadcast_to(attraction, (sessions, 6))
    click, examined = behaviour.sample(lists, generator(5))
    assert click.dtype == bool and click.shape == examined.shape == lists.shape
    expected = behaviour.click_probability(lists[:1].astype(float))[0]
    error = np.sqrt(expected * (1 - expected) / sessions)
    assert (np.abs(click.mean(axis=0) - expected) <= 4 * error + 1e-7).all()
    some = slice(0, 2000)
    np.testing.assert_allclose(
        examined[some], behaviour.examination(lists[some], click[some]), atol=1e-6
    )


@EVERY
def test_whole_click_vectors_come_at_their_probability(behaviour):
    sessions = 200_000
    lists = np.broadcast_to(np.array(LISTS["mixed"], np.float32), (sessions, 4))
    click, _ = behaviour.sample(lists, generator(6))
    seen = np.bincount(click @ np.array([8, 4, 2, 1]), minlength=16) / sessions
    exact = joint(
        behaviour.conditional_click_probability(tiled(LISTS["mixed"]), VECTORS), VECTORS
    )
    assert (np.abs(seen - exact) <= 4.5 * np.sqrt(exact / sessions) + 1e-7).all()


@EVERY
def test_probabilities_stay_in_range_and_keep_their_type(behaviour):
    attraction = generator(7).random((50, 9)).astype(np.float32)
    attraction[0], attraction[1] = 0.0, 1.0
    click, examined = behaviour.sample(attraction, generator(8))
    for found in (
        examined,
        behaviour.perceive(attraction),
        behaviour.click_probability(attraction),
        behaviour.examination(attraction, click),
        behaviour.conditional_click_probability(attraction, click),
    ):
        assert found.shape == (50, 9) and found.dtype == np.float32
        assert (found >= 0).all() and (found <= 1 + 1e-6).all()


@EVERY
def test_behaviours_are_values(behaviour):
    assert behaviour == type(behaviour)(**vars(behaviour)) and hash(behaviour)


@EVERY
def test_items_with_a_satisfaction_are_sampled_as_they_are_computed(behaviour):
    sessions = 100_000
    lists, satisfaction = (
        np.broadcast_to(np.array(each, np.float32), (sessions, 4))
        for each in (OWN, SATISFACTION)
    )
    own = with_satisfaction(behaviour, satisfaction)
    click, examined = behaviour.sample(lists, generator(9), **own)
    assert examined.dtype == np.float32
    own = with_satisfaction(behaviour, np.array([SATISFACTION]))
    expected = behaviour.click_probability(np.array([OWN]), **own)[0]
    error = np.sqrt(expected * (1 - expected) / sessions)
    assert (np.abs(click.mean(axis=0) - expected) <= 4 * error + 1e-7).all()
    some = slice(0, 2000)
    own = with_satisfaction(behaviour, satisfaction[some])
    again = behaviour.examination(lists[some], click[some], **own)
    np.testing.assert_allclose(examined[some], again, atol=1e-6)


# Each against its story: the generative tale of its source, told with plain loops


def leaves_once(gamma, click, entry, after_click, after_skip):
    """P(clicks) of a reader who stops somewhere: sum over the last rank read."""
    if not gamma:
        return 1.0
    total = (1 - entry) * (not any(click))
    reached = entry
    for last in range(len(gamma)):
        reached *= gamma[last] if click[last] else 1 - gamma[last]
        on = after_click[last] if click[last] else after_skip[last]
        leaves = 1.0 if last == len(gamma) - 1 else 1 - on
        total += reached * leaves * (not any(click[last + 1 :]))
        reached *= on
    return total


def chain_story(after_click, after_skip):
    def story(gamma, click):
        one = [after_click(k, g) for k, g in enumerate(gamma)]
        other = [after_skip(k, g) for k, g in enumerate(gamma)]
        return leaves_once(gamma, click, 1.0, one, other)

    return story


def cells_story(probability):
    """Cells that are clicked independently with probability(k, gamma_k)."""

    def story(gamma, click):
        total = 1.0
        for k, g in enumerate(gamma):
            p = probability(k, g)
            total *= p if click[k] else 1 - p
        return total

    return story


def ubm_story(gamma, click):
    total, last = 1.0, 0
    for k, g in enumerate(gamma, start=1):
        p = g * (k - last) ** -0.7
        total *= p if click[k - 1] else 1 - p
        last = k if click[k - 1] else last
    return total


def carousel_story(gamma, click):
    total = 1.0
    for start in range(0, len(gamma), 2):
        cells = slice(start, start + 2)
        along = [0.75] * len(gamma[cells])
        entry = (start // 2 + 1) ** -0.5
        total *= leaves_once(gamma[cells], click[cells], entry, along, along)
    return total


def grid_story(gamma, click):
    """Two columns: sums over which of the rows are skipped."""
    examined = []
    for k in range(len(gamma)):
        drawn = 0.0
        for j in range(len(gamma)):
            down, aside = abs(k // 2 - j // 2), abs(k % 2 - j % 2)
            if j != k:
                drawn += (1.0 if down == 0 else 0.2) / (down + aside) * gamma[j]
        ends = 1 - 0.2  # with two columns both cells of a row are ends
        base = min(1.6 ** (k // 2) * (k + 1) ** -0.5, 1) * ends
        examined.append(base * np.exp(-drawn))
    total = 0.0
    for skipped in product([True, False], repeat=len(gamma) // 2):
        p = 1.0
        for k, g in enumerate(gamma):
            here = 0.0 if skipped[k // 2] else examined[k] * g
            p *= here if click[k] else 1 - here
        for row in skipped:
            p *= 0.1 if row else 0.9
        total += p
    return total


def upside_down(story):
    return lambda gamma, click: story(gamma[::-1], click[::-1])


def dbn_story(on, satisfied):
    return chain_story(lambda k, g: on * (1 - satisfied(g)), lambda k, g: on)


STORIES = {
    "pbm": (PositionBased(), cells_story(lambda k, g: EYE_TRACKING[k] * g)),
    "picky": (
        PositionBased(power_law(2.0), pickiness=3.0),
        cells_story(lambda k, g: (k + 1) ** -2.0 * g**3),
    ),
    "rank": (RankCTR((0.5, 0.4, 0.2, 0.1)), cells_story(lambda k, g: 0.5 * (k == 0) +
             0.4 * (k == 1) + 0.2 * (k == 2) + 0.1 * (k == 3))),
    "document": (DocumentCTR(2.0), cells_story(lambda k, g: g * g)),
    "trust-oosterhuis": (
        trust_oosterhuis(),
        cells_story(
            lambda k, g: (0.35 / (k + 1) + 0.65 / (1 + 0.05 * k))
            * (g / (1 + 0.005 * k) + (1 - g) * 0.65 / (k + 1))
        ),
    ),
    "trust-vardasbi": (
        trust_vardasbi(0.5),
        cells_story(
            lambda k, g: (k + 1) ** -0.5
            * (g * (1 - (k + 2) / 100) + (1 - g) * 0.65 / (k + 1))
        ),
    ),
    "cascade": (Cascade(), chain_story(lambda k, g: 0.0, lambda k, g: 1.0)),
    "dcm": (
        DependentClick((0.8, 0.4, 0.3, 0.2)),
        chain_story(lambda k, g: (0.8, 0.4, 0.3, 0.2)[k], lambda k, g: 1.0),
    ),
    "ccm": (
        ClickChain(0.9, 0.7, 0.2),
        chain_story(lambda k, g: (1 - g) * 0.7 + g * 0.2, lambda k, g: 0.9),
    ),
    "dbn": (DynamicBayesian(0.8), dbn_story(0.8, lambda g: g / 2)),
    "dbn-kinked": (
        DynamicBayesian(0.8, ((0.0, 0.1), (0.5, 0.9), (1.0, 0.0))),
        dbn_story(0.8, lambda g: 0.1 + 1.6 * g if g <= 0.5 else 1.8 * (1 - g)),
    ),
    "sdbn": (simplified_dbn(), dbn_story(1.0, lambda g: g / 2)),
    "ubm": (user_browsing(0.7), ubm_story),
    "logit-additive": (
        LogitAdditive((0.9, 0.5, 0.4, 0.2), most=0.8),
        cells_story(
            lambda k, g: (w := (0.9, 0.5, 0.4, 0.2)[k] * 0.8 * g) / (1 - 0.8 * g + w)
        ),
    ),
    "bottom-up": (
        BottomUp(DynamicBayesian(0.7)),
        upside_down(dbn_story(0.7, lambda g: g / 2)),
    ),
    "carousel": (Carousel(columns=2), carousel_story),
    "grid": (Grid(columns=2), grid_story),
}  # fmt: skip


@pytest.mark.parametrize(("behaviour", "story"), STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("attraction", LISTS.values(), ids=LISTS)
def test_sessions_are_as_likely_as_in_the_story(behaviour, story, attraction):
    conditional = behaviour.conditional_click_probability(tiled(attraction), VECTORS)
    expected = [story(attraction, click.tolist()) for click in VECTORS]
    np.testing.assert_allclose(joint(conditional, VECTORS), expected, atol=1e-12)


@pytest.mark.parametrize("upwards", [False, True])
def test_an_items_own_satisfaction_ends_the_search(upwards):
    satisfied = dict(enumerate(SATISFACTION))
    if upwards:
        satisfied = {3 - k: s for k, s in satisfied.items()}
    story = chain_story(lambda k, g: 0.7 * (1 - satisfied[k]), lambda k, g: 0.7)
    behaviour = DynamicBayesian(0.7)
    if upwards:
        behaviour, story = BottomUp(behaviour), upside_down(story)
    lists = tiled(OWN), VECTORS, tiled(SATISFACTION)
    conditional = behaviour.conditional_click_probability(*lists)
    expected = [story(OWN, click.tolist()) for click in VECTORS]
    np.testing.assert_allclose(joint(conditional, VECTORS), expected, atol=1e-12)


@EVERY
def test_satisfaction_is_of_no_account_to_all_others(behaviour):
    kind = getattr(behaviour, "reader", behaviour)
    assert behaviour.satisfiable == isinstance(kind, DynamicBayesian)
    if not behaviour.satisfiable:
        own = np.array([OWN]), np.array([SATISFACTION])
        found = behaviour.click_probability(*own)
        np.testing.assert_array_equal(found, behaviour.click_probability(own[0]))


@EVERY
def test_complex_attraction_is_refused(behaviour):
    lists = np.array([[0.5 + 0.5j, 0.2]])
    with pytest.raises(ValueError, match="pass satisfaction as a separate argument"):
        behaviour.click_probability(lists)
    with pytest.raises(ValueError, match="attraction must be floats"):
        behaviour.sample(lists, generator(0))


def test_every_kind_of_behaviour_has_a_story():
    known = {type(behaviour) for behaviour, _ in STORIES.values()}
    assert {type(behaviour) for behaviour in BEHAVIOURS.values()} <= known


# The recursions of PyClick and CLAX, rank by rank, as they are published

GAMMA = [0.7, 0.2, 0.5, 0.9, 0.4]
CLICKS = [False, True, False, False, True]
RECURSIONS = {
    "cascade": (
        Cascade(),
        lambda k, g, e: e * (1 - g),
        lambda k, g, e, c: 0.0 if c else (1 - g) * e / (1 - g * e),
    ),
    "dcm": (
        DependentClick(power_law(0.5)),
        lambda k, g, e: e * (g * (k + 1) ** -0.5 + 1 - g),
        lambda k, g, e, c: c * (k + 1) ** -0.5 + (1 - c) * (1 - g) * e / (1 - g * e),
    ),
    "ccm": (
        ClickChain(0.9, 0.8, 0.4),
        lambda k, g, e: e * (g * ((1 - g) * 0.8 + g * 0.4) + (1 - g) * 0.9),
        lambda k, g, e, c: (
            c * (g * 0.4 + (1 - g) * 0.8) + (1 - c) * 0.9 * (1 - g) * e / (1 - g * e)
        ),
    ),
    "dbn": (
        DynamicBayesian(0.8),
        lambda k, g, e: e * 0.8 * (1 - g * g / 2),
        lambda k, g, e, c: (
            0.8 * (c * (1 - g / 2) + (1 - c) * (1 - g) * e / (1 - g * e))
        ),
    ),
    "sdbn": (
        simplified_dbn(),
        lambda k, g, e: e * (1 - g * g / 2),
        lambda k, g, e, c: c * (1 - g / 2) + (1 - c) * (1 - g) * e / (1 - g * e),
    ),
}


@pytest.mark.parametrize(
    ("behaviour", "marginal", "conditional"), RECURSIONS.values(), ids=RECURSIONS
)
def test_published_recursions(behaviour, marginal, conditional):
    pooled, given = [1.0], [1.0]
    for k, (g, c) in enumerate(zip(GAMMA, CLICKS, strict=True)):
        pooled.append(marginal(k, g, pooled[-1]))
        given.append(conditional(k, g, given[-1], c))
    lists, clicks = np.array([GAMMA]), np.array([CLICKS])
    np.testing.assert_allclose(
        behaviour.click_probability(lists)[0], np.array(pooled[:-1]) * GAMMA
    )
    np.testing.assert_allclose(behaviour.examination(lists, clicks)[0], given[:-1])


# Traps that other simulators fell into


def test_a_click_proves_examination():
    """After a click the past is forgotten: lambda (1 - s), not a running product."""
    lists = np.array([[0.1, 0.1, 0.1, 0.8, 0.5]])
    clicks = np.array([[0, 0, 0, 1, 0]], bool)
    examined = DynamicBayesian(0.5).examination(lists, clicks)[0]
    assert examined[3] < 0.5**3
    assert examined[4] == pytest.approx(0.5 * (1 - 0.4))


def test_a_cascade_stops_at_a_click_and_nowhere_else():
    lists = np.full((1000, 5), 0.3)
    click, examined = Cascade().sample(lists, generator(0))
    assert (click.sum(axis=1) <= 1).all()
    before = np.cumsum(click, axis=1) - click
    assert (examined == (before == 0)).all()


def test_ten_users_who_look_alike_do_not_click_alike():
    click, _ = DocumentCTR().sample(np.full((20_000, 10), 0.5), generator(0))
    assert len(np.unique(click, axis=0)) == 1024


# Values by hand


def test_curves():
    assert eye_tracking()[:3] == (0.68, 0.61, 0.48)
    assert power_law(2.0, 3) == (1.0, 0.25, 1 / 9)
    trusting = trust_oosterhuis()
    assert trusting.theta[0] == trusting.right[0] == 1 and trusting.wrong[0] == 0.65
    assert trust_vardasbi().right[29] == pytest.approx(0.79)  # flat from rank 20 on
    assert trust_vardasbi().wrong[29] == pytest.approx(0.065)


def test_influence_is_larger_within_a_row_and_known():
    influence = Grid(columns=3, within=0.6, across=0.3).influence(6)
    np.testing.assert_allclose(influence[1], [0.6, 0, 0.6, 0.15, 0.3, 0.15])
    np.testing.assert_allclose(influence, influence.T)


def test_an_attractive_neighbour_draws_attention_away():
    grid = Grid(columns=2, skip=0.0)
    alone = np.array([[0.5, 0.0, 0.0, 0.0]])
    for neighbour, by in ((1, 1.0), (2, 0.2), (3, 0.1)):
        beside = alone.copy()
        beside[0, neighbour] = 0.8
        one, other = (grid.click_probability(g)[0, 0] for g in (beside, alone))
        assert one / other == pytest.approx(np.exp(-by * 0.8))


def test_middle_of_a_row_is_read_most_and_rows_decay_slower():
    base = Grid(columns=3, theta=(0.5,) * 6, slower=1.5, middle=0.4).base(6)
    np.testing.assert_allclose(base, [0.3, 0.5, 0.3, 0.45, 0.75, 0.45])
    assert Grid(columns=1, theta=(0.5,), slower=1.0).base(1) == [0.5]


def test_a_skipped_row_is_skipped_as_a_whole():
    grid = Grid(columns=2, theta=(1.0,) * 4, skip=0.5, middle=0.0, within=0, across=0)
    click, _ = grid.sample(np.ones((1000, 4)), generator(0))
    assert (click[:, 0] == click[:, 1]).all() and (click[:, 2] == click[:, 3]).all()
    assert abs(np.corrcoef(click[:, 0], click[:, 2])[0, 1]) < 0.13  # 4 / sqrt(1000)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PositionBased((1.2,)), r"theta must be in \[0, 1\], got \(1.2,\)"),
        (lambda: PositionBased(pickiness=-1), "pickiness must be in"),
        (lambda: RankCTR((-0.1,)), "rate must be in"),
        (lambda: TrustBiased((1.0,), (1.0, 1.0), (0.0,)), "the same length"),
        (lambda: DependentClick((2.0,)), "continuation must be in"),
        (lambda: ClickChain(after_bad_click=1.1), "after_bad_click must be in"),
        (lambda: DynamicBayesian(1.5), "continuation must be in"),
        (lambda: DynamicBayesian(0.5, ((0.0, 0.5),)), "two or more knots"),
        (lambda: DynamicBayesian(0.5, ((0.5, 0), (0.5, 1))), "rising order"),
        (lambda: UserBrowsing(((1.0,), (1.0,))), "rank 2 must hold 2 numbers"),
        (lambda: UserBrowsing(((1.5,),)), "theta must be in"),
        (lambda: BottomUp(Carousel()), "reader of one column"),
        (lambda: BottomUp(PositionBased()), "reader of one column"),
        (lambda: Grid(slower=0.5), "slower must be in"),
        (lambda: Grid(within=-1), "within must be in"),
        (lambda: Carousel(columns=0), "columns must be in"),
    ],
)
def test_impossible_users(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "behaviour",
    [
        PositionBased((1.0, 0.5)),
        RankCTR((1.0, 0.5)),
        TrustBiased((1.0, 0.5), (1.0, 1.0), (0.0, 0.0)),
        DependentClick((1.0, 0.5)),
        user_browsing(1.0, 2),
        Grid(theta=(1.0, 0.5)),
        BottomUp(DependentClick((1.0, 0.5))),
    ],
    ids=lambda behaviour: type(behaviour).__name__,
)
def test_a_list_longer_than_the_table_is_an_error(behaviour):
    message = "has parameters for 2 positions, got a list of 3"
    lists = np.full((1, 3), 0.5)
    with pytest.raises(ValueError, match=message):
        behaviour.click_probability(lists)
    with pytest.raises(ValueError, match=message):
        behaviour.sample(lists, generator(0))


def test_registry_names_are_distinct_users():
    kinds = list(BEHAVIOURS.values())
    assert all(one != other for one, other in pairwise(kinds))
