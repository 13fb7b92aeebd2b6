"""Fits that survive a kill, and the choice between candidates."""

import gc
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from debias import training
from debias.data import ClickLog, RankingData, Stream, log_files
from debias.data.layout import layout_of
from debias.models.batches import batches
from debias.presets import build
from debias.training import (
    TrainingConfig,
    choose,
    fit,
    held_out,
    held_out_of_stream,
    session_log_likelihoods,
    shown_only,
    standardized,
)
from simulators import PlackettLuce, generate, simulate, weak_ranker

DATA = generate(queries=60, seed=2)
POLICY = PlackettLuce(weak_ranker(DATA), 1.0)
LOG = simulate(DATA, POLICY, "pbm", sessions=900, seed=1, list_size=4).select()
SHOWN, FEATURES = shown_only(LOG, DATA)
SETTINGS = TrainingConfig(epochs=3, patience=3, batch_size=64, round=400, seed=5)


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
    model = build("additive", layout_of(SHOWN), 5)
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
    model = build("naive", layout_of(SHOWN), 5)
    with pytest.raises(ValueError, match=r"npz: is the checkpoint of another"):
        fit(model, *world, SETTINGS, path)


def test_a_checkpoint_of_another_version_is_refused(world, unbroken, tmp_path):
    with np.load(unbroken[2]) as found:
        arrays = dict(found)
    state = json.loads(str(arrays.pop("state")))
    del state["unjudged"]
    path = tmp_path / "checkpoint.npz"
    np.savez(path, state=np.array(json.dumps(state)), **arrays)
    with pytest.raises(ValueError, match=r"npz: is the checkpoint of another version"):
        fitted(world, path)


def test_likelihoods_of_sessions_by_hand(world):
    """A naive model of weight 0 gives every click a half."""
    log, data = world[1], world[2]
    model = build("naive", layout_of(SHOWN), 0)
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


# A log on disk


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The log in row groups of 40 sessions, of which a window takes eight."""
    folder = tmp_path_factory.mktemp("stream") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "ROW_GROUP", 40)
        SHOWN.write(folder, shards=3)
    return Stream(folder, window=300)


def test_a_stream_is_held_out_as_the_log_in_memory_is(on_disk):
    """Every query was asked, so that the parts are the same."""
    queries = int(SHOWN.query.max()) + 1
    assert queries == np.unique(SHOWN.query).size
    wanted, _ = held_out(SHOWN, 3)
    (learners, judges, tests), by = held_out_of_stream(on_disk, queries, 3)
    train = ClickLog.concatenate([learners.read(w, [0]) for w in range(3)])
    assert by == "query" and len(learners) == round(0.8 * len(SHOWN))
    for part, expected in zip((train, judges, tests), wanted, strict=True):
        rows = (np.c_[log.query, log.item, log.click] for log in (part, expected))
        ours, theirs = (found[np.lexsort(found.T)] for found in rows)
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"log: query must be below 50.*got"):
        held_out_of_stream(on_disk, 50, 3)


def test_sessions_of_few_queries_are_held_out_by_a_draw(on_disk):
    (learners, judges, tests), by = held_out_of_stream(on_disk, 10, 3)
    train = [learners.read(w, [0]) for w in range(3)]
    sizes = sum(map(len, train)), len(judges), len(tests)
    assert by == "session" and sum(sizes) == len(SHOWN)
    # Standard deviations: sqrt(900 .8 .2) = 12 and sqrt(900 .1 .9) = 9.
    assert abs(sizes[0] - 720) < 48 and abs(sizes[1] - 90) < 36


def test_a_streamed_fit_is_as_good_as_one_in_memory(tmp_path):
    """Within .02 nats: another seed moves a fit in memory by .005, give or take."""
    some = RankingData(DATA.features[:, :8], DATA.labels, DATA.offsets)
    log = simulate(DATA, POLICY, "pbm", sessions=12_000, seed=1, list_size=4).select()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "ROW_GROUP", 250)
        log.write(tmp_path / "log", shards=4)
    _, scaled = standardized(some.features)
    settings = TrainingConfig(epochs=2, batch_size=128, round=1500, seed=5)
    (train, validation, _), _ = held_out(log, 0)
    stream = Stream(tmp_path / "log", window=3000)
    (learners, _, _), _ = held_out_of_stream(stream, some.queries, 0)
    found = []
    for learned in (train, learners):
        keras.utils.set_random_seed(9)
        model = build("product", layout_of(log), 5)
        fit(model, learned, validation, scaled, settings)
        found.append(session_log_likelihoods(model, validation, scaled).mean())
    untrained = -np.log(2) * validation.mask.sum(axis=1).mean()
    assert found[0] > untrained + 0.5
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_a_streamed_fit_goes_on_where_it_was_killed(world, on_disk, tmp_path):
    _, validation, scaled = world
    queries = int(SHOWN.query.max()) + 1
    (learners, _, _), _ = held_out_of_stream(on_disk, queries, 0)
    world = learners, validation, scaled
    whole, _ = fitted(world)
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        fitted(world, path, kill_after=4)
    model, found = fitted(world, path)
    assert 0 < found.sessions < 3 * len(learners)
    for ours, theirs in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_features_are_held_for_one_round_at_a_time(world, monkeypatch):
    """A dataset has a copy of them, which outlives it until it is collected."""
    kind, shape, held = type(tf.constant(0)), world[-1].features.shape, []

    def watched(*arguments, **options):
        every = [found for found in gc.get_objects() if isinstance(found, kind)]
        held.append(sum(tuple(found.shape) == shape for found in every))
        return batches(*arguments, **options)

    monkeypatch.setattr(training, "batches", watched)
    gc.collect()
    gc.disable()
    try:
        fitted(world)
    finally:
        gc.enable()
    assert len(held) > 6
    assert max(held) <= held[0] + 1, held  # that of the judges


@pytest.mark.parametrize(
    ("often", "likelihoods", "best", "ends"),
    [
        (1.5, [-3.0, -2.5, -2.0, -2.2, -2.4, -2.6, -2.7, -2.8, -2.1, -2.3], 2, [4, 9]),
        (3.0, [-3.0, -2.4, -2.5, -2.6, -2.2, -2.7], 4, [2, 5]),
        (9.0, [-3.0, -2.4], 1, [0, 1]),
    ],
)
def test_a_long_pass_is_judged_within_and_its_best_weights_stay(
    often, likelihoods, best, ends, world, monkeypatch
):
    """Two passes of five rounds: judged after each, after every other, at ends only."""
    seen = []

    def judged(model, log, data):
        seen.append(model.get_weights())
        return np.array([likelihoods[len(seen) - 1]])

    monkeypatch.setattr(training, "session_log_likelihoods", judged)
    monkeypatch.setattr(training, "OFTEN", often)
    model = build("additive", layout_of(SHOWN), 5)
    found = fit(model, *world, SETTINGS._replace(epochs=2, round=150))
    assert len(seen) == len(likelihoods)
    assert found.log_likelihood == likelihoods[best] == max(likelihoods)
    assert found.epoch == 1 + (best > ends[0])
    told = [metrics["log_likelihood"] for metrics in found.history]
    assert told == [likelihoods[end] for end in ends]
    for kept, weights in zip(model.get_weights(), seen[best], strict=True):
        np.testing.assert_array_equal(kept, weights)
