"""Tests of debias.retrieval.training.selection: choosing by what was held out."""

import numpy as np
import pytest

from debias.retrieval.data.interactions import from_columns, time_split
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import owners
from debias.retrieval.data.trend import trend
from debias.retrieval.training import selection
from debias.retrieval.training.baselines import popularity, taken
from debias.retrieval.training.evaluation import evaluate
from debias.retrieval.training.fitting import Diverged
from debias.retrieval.training.learner import TrainingConfig
from debias.retrieval.training.linear import (
    DECAYS,
    RANK,
    STRENGTHS,
    ease_vectors,
    spectrum,
)
from debias.retrieval.training.recipe import Recipe, candidates
from debias.retrieval.training.selection import (
    Trial,
    hold_out,
    judge,
    select,
    trained,
    trial,
)
from simulators.interactions import drifting_interactions
from tests.debias.retrieval.models.registry import LOG

pytestmark = pytest.mark.usefixtures("eagerly")
CONFIG = TrainingConfig(length=4, batch_size=240)
RECIPE = Recipe("fm", 4, [4], 0.3, 0, CONFIG._asdict())


def test_the_last_event_of_each_user_is_held_out():
    held = hold_out(LOG)
    assert held.rule == "last" and len(held.held) == len(LOG.users)
    assert len(held.known) + len(held.held) == len(LOG)
    for user in (0, 7):
        mine = LOG.time[LOG.user == user]
        assert held.held.time[held.held.user == user] == mine.max()


def test_buyers_of_baskets_are_judged_by_the_last_period():
    baskets = from_columns(
        np.repeat(np.arange(20), 6),
        np.tile(np.arange(6), 20),
        np.tile([1, 1, 1, 9, 9, 9], 20),
    )
    held = hold_out(baskets)
    assert held.rule == "period" and set(held.held.time) == {9}


def test_a_log_in_which_nothing_can_be_held_out_is_refused():
    with pytest.raises(ValueError, match="no user has two events"):
        hold_out(from_columns(["u", "v"], ["i", "i"], [1, 2]))
    with pytest.raises(ValueError, match="at least one candidate"):
        select(LOG, [])


def test_each_held_out_user_is_worth_what_its_rank_says():
    held = hold_out(LOG)
    values = judge(held)(popularity(held.known), Repeat())
    counts = np.bincount(held.known.item, minlength=len(LOG.items)).astype(float)
    for user in (0, 11):
        mine = held.known.item[held.known.user == user]
        free = np.setdiff1d(np.arange(len(LOG.items)), mine)
        (target,) = held.held.item[held.held.user == user]
        others = counts[free[free != target]]
        ahead, level = others > counts[target], others == counts[target]
        rank = 1 + ahead.sum() + level.sum() / 2
        assert values[user] == pytest.approx(1 / np.log2(1 + rank))


def test_many_users_are_judged_by_some_of_them(monkeypatch):
    held = hold_out(LOG)
    monkeypatch.setattr(selection, "LEAST", 9)
    monkeypatch.setattr(selection, "SCORES", 11 * len(LOG.items))
    assert len(judge(held).users) == 11
    monkeypatch.setattr(selection, "SCORES", 1)
    assert len(judge(held).users) == 9
    monkeypatch.setattr(selection, "USERS", 7)
    monkeypatch.setattr(selection, "SCORES", 11 * len(LOG.items))
    values = judge(held)(popularity(held.known), Repeat())
    assert len(values) == 7
    np.testing.assert_array_equal(values, judge(held)(popularity(held.known), Repeat()))


def test_passes_end_two_after_the_best_and_the_best_is_kept(monkeypatch):
    worth = iter([0.1, 0.4, 0.3, 0.2, 0.9])
    values = lambda asked, rank: np.array([next(worth)] * 3)  # noqa: E731
    monkeypatch.setattr(selection.Judge, "worth", values)
    nothing = selection.Parts(spectrum(LOG, 0), (1.0, 1.0, 0.0, 0), [])
    found = trial(RECIPE, hold_out(LOG), parts=nothing)
    assert found.passes == 2 and found.curve == pytest.approx([0.1, 0.4, 0.3, 0.2])
    assert found.values.tolist() == [0.4] * 3


def test_a_choice_does_the_work_that_it_announces(monkeypatch):
    done = []
    log, recipes = LOG, candidates(RECIPE, ["fm"])
    monkeypatch.setattr(selection, "AN_EVENT", 7)
    select(log, recipes, passes=1, progress=done.append)
    assert min(done) >= 0
    total = selection.work(log, recipes, 1, compare=True)
    # The log is announced whole, and learned from without what is held out.
    assert 0.8 * total < sum(done) < 1.05 * total


@pytest.mark.parametrize(
    "divided, power",
    [((1, 2), 0.25), ((1, 3), 0.0), ((9, 9), 0.0)],
    ids=["both items", "one best seller", "loss"],
)
def test_columns_are_divided_where_that_surely_helps(monkeypatch, divided, power):
    """8 users take one item, 4 another; ranks of 3 become those of `divided`.

    Gains of 1 - 1/log2(4) = .5 and 1/log2(3) - .5 = .131 have a mean of .377, with a
    standard error of sqrt(2 (8 x .123)^2 + 2 (4 x .246)^2) / 12 = .164. Gains of .5 and
    0 have .333 and .222; with users as units the error would be .068.
    """
    scales, target = [], np.repeat([0, 1], [8, 4])
    asked = selection.Judge(np.arange(12), np.arange(12), target, (None, None), 1)

    def ranked(judge, score, repeat):
        return np.array(divided if scales[-1] > 1 else (3, 3), float)[target]

    def vectors(of, strength):
        scales.append(of.scale.max())
        return ease_vectors(of, strength)

    monkeypatch.setattr(selection.Judge, "ranks", ranked)
    monkeypatch.setattr(selection, "ease_vectors", vectors)
    monkeypatch.setattr(selection, "judge", lambda held: asked)
    monkeypatch.setattr(selection, "lasting_trends", lambda log: [])
    found = selection.parts_of(hold_out(LOG))
    # Of equal ones the first strength and decay.
    assert found.linear == (STRENGTHS[0], DECAYS[0], power, RANK)
    wanted = spectrum(hold_out(LOG).known, power=power)
    np.testing.assert_array_equal(found.spectrum.scale, wanted.scale)
    assert (scales[-1] > 1) == (power > 0)  # decays are tried with what was chosen


@pytest.mark.parametrize("policy", ["exclude", "model"])
def test_additions_share_the_products_and_change_nothing_else(policy):
    held = hold_out(LOG)
    learner = trained(held.known, RECIPE, 1)
    config = learner.config._replace(linear=(1.0, 30.0, 0.9), repeat=policy)
    learner.config = config
    learner.add_extra()
    prior = np.arange(len(LOG.items), dtype=np.float32)
    users = np.arange(5)

    def short(users):  # what the tower itself reads
        return {"history": held.known.histories(CONFIG.length, users)[0]}

    plain, added = selection.scorers(learner, [(0.0, None), (2.0, prior)])(users)
    for weight, found in ((0.0, plain), (2.0, added)):
        learner.config = learner.config._replace(linear=(weight, 30.0, 0.9))
        learner.add_extra()
        alone = selection.scorer(learner)(users) + weight / 2.0 * prior
        np.testing.assert_allclose(found, alone, atol=1e-5)
    rows, offsets = held.known.seen(users)
    own = owners(offsets), rows
    tower = learner.model.user_vectors(learner.user_features(users) | short(users))
    tower = tower @ learner.model.item_vectors(LOG.items.columns).T
    bare = (added - 2.0 / 2.0 * prior)[own] - tower[own]
    assert (abs(bare) < 1e-5).all() == (policy == "model")
    if policy == "model":  # and an evaluation has the same
        repeat = Repeat("model", (0.5, 0.1, -0.1, -0.7), learner.served.linear)
        values = judge(held)(selection.scorer(learner), repeat)
        judged = evaluate(learner.served, held.known, held.held, (50,), repeat)
        assert judged["ndcg@50"] == pytest.approx(values.mean())


def test_the_best_candidate_is_chosen_and_rivals_are_compared_by_users():
    recipes = candidates(RECIPE, ["fm", "mind"])
    said: list[str] = []
    choice = select(LOG, recipes, passes=2, at=said.append)
    assert said == [
        "1 of 3, fm recency",
        "2 of 3, fm mean",
        "3 of 3, mind",
        "baselines",
    ]
    tried = [trial(each, hold_out(LOG), 2) for each in recipes]
    best = max(tried, key=lambda each: each.values.mean())
    assert (choice.recipe, choice.passes) == (best.recipe, best.passes)
    assert [row["ndcg@50"] for row in choice.trials] == sorted(
        (each.values.mean() for each in tried), reverse=True
    )
    held = hold_out(LOG)
    apart = judge(held)(popularity(held.known), Repeat()) - best.values
    row = next(each for each in choice.rivals if each["name"] == "popularity")
    assert row["ahead"] == pytest.approx(apart.mean())
    assert row["ahead_se"] == pytest.approx(apart.std(ddof=1) / np.sqrt(len(apart)))
    assert set(choice.beaten_by) == {r["name"] for r in choice.rivals if r["ahead"] > 0}


def test_where_items_live_for_days_a_short_trend_of_full_weight_is_best():
    """Each of 100 days has 100 events on its own item, 60 on that of the day before,
    and 40 on that of two days before. Each of 2,000 readers comes every ten days.
    """
    days = np.repeat(np.arange(2, 100), 200)
    age = np.tile(np.repeat([0, 1, 2], [100, 60, 40]), 98)
    user = np.arange(len(days)) % 2000
    log = from_columns(user, days - age, days)
    assert selection.lasting_trends(log) == list(selection.TRENDS)
    known, last = time_split(log, 99)
    asked = judge(selection.HeldOut(known, last, "period"))
    often = np.log(known.popularity() + 1.0)

    def worth(weight, share):
        late = (often + weight * trend(known, share)).astype("f4")
        return asked(lambda users: np.tile(late, (len(users), 1)), Repeat("allow"))

    values = [worth(*tried).mean() for tried in selection.TRENDS]
    assert values == sorted(values) and values[-1] > 1.5 * values[0]


def test_fashion_is_chosen_where_there_is_one_and_moves_every_score_by_the_prior():
    rng = np.random.default_rng(1)
    log = drifting_interactions(rng, 120, 150, 20, 2, 4, fashion=5.0, fading=3.0)
    choice = select(log, [RECIPE], passes=2, compare=False)
    trend = choice.recipe.config["trend"]
    assert trend in selection.TRENDS
    learner = trained(log, choice.recipe, choice.passes)
    users = np.arange(4)
    features = {**learner.user_features(users)}
    features["history"] = features["history"][:, : CONFIG.length]
    plain = learner.model.user_vectors(features)
    plain = plain @ learner.model.item_vectors(log.items.columns).T
    linear = np.zeros_like(plain)
    if choice.recipe.config["linear"]:
        weight, strength, decay, power, rank = choice.recipe.config["linear"]
        past, items = ease_vectors(spectrum(log, int(rank), power), strength)
        asked = taken(log.latest(50), decay)[users]
        linear = learner.model.temperature * weight * (asked @ past) @ items.T
    scores = selection.scorer(learner)(users)
    wanted = plain + linear + learner.trend_prior()
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    served = learner.served.user(learner.user_features(users))
    np.testing.assert_allclose(
        np.asarray(served) @ learner.item_vectors().T, scores, atol=1e-4
    )
    without = trial(choice.recipe._replace(config=CONFIG._asdict()), hold_out(log), 2)
    assert without.recipe == choice.recipe  # the choice does not hang on the start


def test_what_a_command_evaluates_is_what_a_scorer_ranks():
    held = hold_out(LOG)
    learner = trained(held.known, RECIPE, 2)
    found = evaluate(learner.model, held.known, held.held, (50,))
    values = judge(held)(selection.scorer(learner), Repeat())
    assert found["ndcg@50"] == pytest.approx(values.mean())


@pytest.mark.parametrize("wide, rank", [((1, 2), 7), ((9, 9), 3)], ids=["yes", "no"])
def test_the_linear_part_is_wide_where_that_surely_helps(monkeypatch, wide, rank):
    """Ranks of 3 become those of `wide`, as with divided columns above."""
    ranks, target = [], np.repeat([0, 1], [8, 4])
    asked = selection.Judge(np.arange(12), np.arange(12), target, (None, None), 1)

    def ranked(judge, score, repeat):
        return np.array(wide if ranks[-1] == 7 else (3, 3), float)[target]

    def vectors(of, strength):
        ranks.append(len(of.values))
        return ease_vectors(of, strength)

    monkeypatch.setattr(selection, "RANK", 3)
    monkeypatch.setattr(selection, "WIDE", 7)
    monkeypatch.setattr(selection.Judge, "ranks", ranked)
    monkeypatch.setattr(selection, "ease_vectors", vectors)
    monkeypatch.setattr(selection, "judge", lambda held: asked)
    monkeypatch.setattr(selection, "lasting_trends", lambda log: [])
    found = selection.parts_of(hold_out(LOG))
    assert found.linear == (STRENGTHS[0], DECAYS[0], 0.0, rank)
    assert len(found.spectrum.values) == rank and set(ranks[-len(DECAYS) :]) == {rank}


def test_a_choice_that_was_interrupted_goes_on_from_the_last_trial(
    tmp_path, monkeypatch
):
    recipes, made = candidates(RECIPE, ["fm", "mind"]), []

    def stopped(recipe, *given):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(trial(recipe, *given))
        return made[-1]

    monkeypatch.setattr(selection, "trial", stopped)
    with pytest.raises(KeyboardInterrupt):
        select(LOG, recipes, 2, False, tmp_path)
    tried = []
    monkeypatch.setattr(
        selection, "trial", lambda recipe, *given: tried.append(recipe) or made[0]
    )
    events = []
    resumed = select(LOG, recipes, 2, False, tmp_path, progress=events.append)
    assert tried == recipes[2:]
    assert sum(events) > 0.8 * selection.work(LOG, recipes, 2, compare=False)
    known = {row["history"]: row["ndcg@50"] for row in resumed.trials if row["history"]}
    assert known["mean"] == made[1].values.mean()
    (tmp_path / "0.npz").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"0\.npz: is damaged"):
        select(LOG, recipes, 2, False, tmp_path)


def test_a_kept_trial_keeps_its_policy_of_repeats(tmp_path):
    config = CONFIG._replace(repeat="model")._asdict()
    recipe, values = RECIPE._replace(config=config), np.array([0.5, 1.0])
    repeat = Repeat("model", (1.5, 0.25, -0.5, -1.0))
    selection._write(tmp_path / "0.npz", Trial(recipe, 1, [0.75], values, repeat))
    found = selection._read(tmp_path / "0.npz", recipe)
    assert found.repeat == repeat and found.values.tolist() == [0.5, 1.0]


def test_a_candidate_that_diverges_is_left_out(monkeypatch):
    wild = RECIPE._replace(history="mean")

    def tried(recipe, *given):
        if recipe == wild:
            raise Diverged("diverged: loss nan at step 3")
        return trial(recipe, *given)

    monkeypatch.setattr(selection, "trial", tried)
    with pytest.warns(UserWarning, match="fm with history mean is left out.*diverged"):
        choice = select(LOG, [RECIPE, wild], 1, False)
    assert [row["history"] for row in choice.trials] == ["recency"]
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(Diverged, match="diverged: loss"),
    ):
        select(LOG, [wild], 1, False)
