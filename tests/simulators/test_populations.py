"""Tests of simulators.populations."""

import numpy as np
import pytest

from simulators.behaviours import Cascade, DocumentCTR, Grid, PositionBased, RankCTR
from simulators.chance import ROWS, generator
from simulators.populations import (
    POPULATIONS,
    Observed,
    Population,
    Situation,
    by_device,
    by_query,
    from_file,
    logistic_share,
    named,
    shares,
    visit,
)

ONES = PositionBased((1.0,) * 4)
NEVER = PositionBased((0.0,) * 4)


def test_each_list_is_clicked_by_its_own_type_of_user():
    crowd = Population(((0.25, ONES), (0.75, Cascade())))
    sessions = 3 * ROWS + 17
    seen = visit(crowd, np.ones((sessions, 4), np.float32), generator(0))
    assert (seen.click[seen.user_type == 0].sum(axis=1) == 4).all()
    assert (seen.click[seen.user_type == 1].sum(axis=1) == 1).all()
    error = np.sqrt(0.1875 / sessions)
    assert abs((seen.user_type == 0).mean() - 0.25) < 4 * error


def test_truth_is_that_of_the_users_own_type():
    crowd = Population(((0.5, PositionBased(pickiness=2.0)), (0.5, RankCTR())))
    lists = generator(1).random((5000, 4))
    seen = visit(crowd, lists, generator(0))
    for kind, behaviour in enumerate(crowd.behaviours):
        rows = seen.user_type == kind
        np.testing.assert_array_equal(
            seen.attraction[rows], behaviour.perceive(lists[rows])
        )
        np.testing.assert_array_equal(
            seen.examination[rows],
            behaviour.examination(lists[rows], seen.click[rows]),
        )


def test_shares_per_query():
    group = np.array([0, 1, 1])
    crowd = Population(
        (*by_query(0.9, group, [ONES, NEVER]), (0.1, RankCTR((1.0,) * 4)))
    )
    query = generator(0).integers(0, 3, 20_000)
    seen = visit(crowd, np.ones((20_000, 4)), generator(0), Observed(query))
    kinds = [np.bincount(seen.user_type[query == q], minlength=3) for q in range(3)]
    assert kinds[0][1] == kinds[1][0] == kinds[2][0] == 0
    rates = [kind[2] / kind.sum() for kind in kinds]
    np.testing.assert_allclose(rates, 0.1, atol=4 * np.sqrt(0.09 / 6000))


def test_shares_by_device_and_context():
    crowd = Population(
        by_device(1.0, {1: ONES, 2: NEVER}),
        (Situation(0.3, device=1), Situation(0.7, device=2)),
    )
    seen = visit(
        crowd, np.ones((4, 4)), generator(0), Observed(device=np.array([1, 2, 2, 1]))
    )
    assert seen.click[:, 0].tolist() == [True, False, False, True]
    hunts = logistic_share([2.0, 0.0], offset=1.0)
    context = np.array([[-0.5, 9.0], [0.5, 9.0]])
    found = hunts(Observed(context=context))
    np.testing.assert_allclose(found, [0.5, 1 / (1 + np.exp(-2.0))])


def test_share_functions_that_go_wrong_are_caught_at_their_session():
    grows = Population(
        ((lambda o: o.context[:, 0], ONES), (lambda o: 0.5 + 0 * o.query, NEVER)),
        (Situation(1.0, context=(0.5,)),),
    )
    context = np.array([[0.5], [0.6]])
    with pytest.raises(ValueError, match=r"sum to 1, got \[0.6, 0.5\] in session 1"):
        shares(grows, Observed(np.array([0, 0]), None, context))
    with pytest.raises(ValueError, match="must not be negative"):
        shares(grows, Observed(np.array([0, 0]), None, -context))


@pytest.mark.parametrize("name", POPULATIONS)
def test_presets_are_named(name):
    assert named(name) is POPULATIONS[name]


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ((), "at least one type"),
        (((0.5, ONES), (0.4, NEVER)), r"sum to 1, got \[0.5, 0.4\]"),
        (((1.5, ONES), (-0.5, NEVER)), "must not be negative, got -0.5"),
        (((1.0, "pbm"),), "must be .share, behaviour."),
        (((0.5, Grid(3)), (0.5, Grid(4))), r"got grids of \[3, 4\] columns"),
    ],
)
def test_impossible_populations(types, message):
    with pytest.raises(ValueError, match=message):
        Population(types)


@pytest.mark.parametrize(
    ("situations", "message"),
    [
        ((Situation(0.5),), "situation shares"),
        ((Situation(1.5), Situation(-0.5)), "situation shares"),
        ((Situation(0.5), Situation(0.5, context=(1.0,))), "contexts of one length"),
    ],
)
def test_impossible_situations(situations, message):
    with pytest.raises(ValueError, match=message):
        Population(((1.0, ONES),), situations)


def test_shares_say_what_they_miss():
    per_query = Population(by_query(1.0, np.array([0, 1]), [ONES, NEVER]))
    with pytest.raises(ValueError, match="share of type 0 depends on the query"):
        shares(per_query, Observed())
    with pytest.raises(ValueError, match="has values for 2 queries, got query 2"):
        shares(per_query, Observed(np.array([2])))
    for name, wanted in (("device", "device"), ("context", "context")):
        with pytest.raises(ValueError, match=f"depends on the {wanted}"):
            shares(named(name), Observed())


def test_unknown_presets_are_answered_with_near_names():
    with pytest.raises(ValueError, match=r"population must .* got 'cascad': did you"):
        named("cascad")
    with pytest.raises(ValueError, match=r"one of pbm .* carousel .*got 'zzz'"):
        named("zzz")


def test_populations_from_files(tmp_path):
    path = tmp_path / "crowd.py"
    path.write_text(
        "from simulators import Cascade, PositionBased\n"
        "population = ((0.5, Cascade()), (0.5, PositionBased()))\n"
    )
    assert from_file(path).behaviours == (Cascade(), PositionBased())
    path.write_text("from simulators import named\npopulation = named('mixed')\n")
    assert from_file(path) is named("mixed")
    path.write_text("crowd = 1\n")
    with pytest.raises(ValueError, match=r"crowd.py must set `population`"):
        from_file(path)
    with pytest.raises(ValueError, match="does not exist"):
        from_file(tmp_path / "none.py")


def test_document_users_do_not_mind_where_shares_come_from():
    array = Population(((np.array([0.5, 0.5]), DocumentCTR()), (0.5, RankCTR())))
    assert shares(array, Observed(np.array([0, 1]))).tolist() == [[0.5, 0.5]] * 2
