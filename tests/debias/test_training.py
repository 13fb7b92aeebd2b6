"""Fits that survive a kill, and the choice between candidates."""

import keras
import numpy as np
import pytest

from debias.candidates import CANDIDATES, layout_of
from debias.training import (
    Settings,
    choose,
    fit,
    held_out,
    session_log_likelihoods,
    shown_only,
    standardized,
)
from simulators import PlackettLuce, generate, simulate, weak_ranker

DATA = generate(queries=60, seed=2)
POLICY = PlackettLuce(weak_ranker(DATA), 1.0)
LOG = simulate(DATA, POLICY, "pbm", sessions=900, seed=1, list_size=4).select()
SHOWN, FEATURES = shown_only(LOG, DATA)
SETTINGS = Settings(epochs=3, patience=3, batch_size=64, round=400, seed=5)


@pytest.fixture(scope="module")
def world():
    _, scaled = standardized(FEATURES)
    (train, validation, _), _ = held_out(SHOWN, seed=0)
    return train, validation, scaled


class Killed(Exception):
    pass


def fitted(world, checkpoint=None, kill_after=np.inf):
    """A fit of the additive model, which draws its dropout from a seed."""
    rounds = 0

    def progress(sessions):
        nonlocal rounds
        rounds += 1
        if rounds > kill_after:
            raise Killed

    keras.utils.set_random_seed(9)
    model = CANDIDATES["additive"](layout_of(SHOWN), 5)
    found = fit(model, *world, SETTINGS, checkpoint, progress)
    return model, found


@pytest.fixture(scope="module")
def unbroken(world, tmp_path_factory):
    """A fit from end to end: the model, what it came to, and its last checkpoint."""
    path = tmp_path_factory.mktemp("unbroken") / "checkpoint.npz"
    return *fitted(world, path), path


def test_a_fit_goes_on_where_it_was_killed(world, unbroken, tmp_path):
    whole_model, whole, _ = unbroken
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        fitted(world, path, kill_after=3)  # within the second pass
    assert path.exists()
    model, found = fitted(world, path)
    assert 0 < found.sessions < whole.sessions == 3 * len(world[0])
    for ours, theirs in zip(found.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for ours, theirs in zip(
        model.get_weights(), whole_model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_best_pass_is_kept(world, unbroken):
    model, found, path = unbroken
    _, finished = fitted(world, path)
    assert finished.sessions == 0 and finished.history == found.history
    by_pass = [metrics["log_likelihood"] for metrics in found.history]
    assert found.log_likelihood == max(by_pass) == by_pass[found.epoch - 1]
    again = session_log_likelihoods(model, *world[1:]).mean()
    assert again == pytest.approx(found.log_likelihood, abs=1e-5)


def test_a_checkpoint_of_another_model_is_refused(world, unbroken):
    *_, path = unbroken
    model = CANDIDATES["naive"](layout_of(SHOWN), 5)
    with pytest.raises(ValueError, match=r"npz: is the checkpoint of another"):
        fit(model, *world, SETTINGS, path)


def test_likelihoods_of_sessions_by_hand(world):
    """A naive model of weight 0 gives every click a half."""
    log, data = world[1], world[2]
    model = CANDIDATES["naive"](layout_of(SHOWN), 0)
    model({"features": data.features[None, :2]})
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    found = session_log_likelihoods(model, log, data)
    np.testing.assert_allclose(found, -np.log(2) * log.mask.sum(axis=1), rtol=1e-6)


def test_queries_are_held_out_whole_unless_there_are_few():
    parts, by = held_out(SHOWN, seed=1)
    queries = [set(part.query.tolist()) for part in parts]
    assert by == "query" and sum(map(len, parts)) == len(SHOWN)
    assert not queries[0] & queries[1] and not queries[1] & queries[2]
    few = SHOWN.take(np.flatnonzero(SHOWN.query < 10))
    parts, by = held_out(few, seed=1)
    assert by == "session" and sum(map(len, parts)) == len(few)
    with pytest.raises(ValueError, match="too few to hold some out"):
        held_out(SHOWN.take([0, 1]), seed=1)


def test_shown_only_keeps_what_was_shown():
    item = LOG.item
    np.testing.assert_array_equal(
        FEATURES[SHOWN.item][LOG.mask], DATA.features[item][LOG.mask]
    )
    assert SHOWN.item.max() == len(FEATURES) - 1 == len(np.unique(item[item >= 0])) - 1


def test_choice_is_the_simplest_within_one_standard_error():
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
