"""Tests of debias.training.fitting: fits that survive a kill, and what stops them."""

import gc
import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from debias.data import RankingData, Stream, log_files
from debias.data.kinds import Feature
from debias.layers import BiasTower, Features, Tower
from debias.models import (
    XPA,
    Disentangled,
    Listwise,
    Mixture,
    Naive,
    PositionOnly,
    Product,
)
from debias.models.batches import batches
from debias.presets import build
from debias.training import (
    Fitted,
    TrainingConfig,
    fit,
    fit_prepared,
    fitting,
    held_out,
    held_out_of_stream,
    session_log_likelihoods,
)
from simulators import simulate
from tests.debias.training.worlds import DATA, LOG, POLICY, SHOWN, prepared, written

CONFIG = TrainingConfig(
    epochs=3, patience=9, decay=0.3, batch_size=64, min_steps=0, round=400, seed=5
)


@pytest.fixture(scope="module")
def world():
    """Two or five rounds of one length, so that a fit traces its steps once."""
    made = prepared()
    log = made.train.log
    log = log.take(slice(0, len(log) - len(log) % 10))
    return made._replace(train=made.train._replace(log=log))


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

    return fit_prepared("additive", world, CONFIG, checkpoint, progress)


@pytest.fixture(scope="module")
def unbroken(world, tmp_path_factory):
    """A fit from end to end, and its last checkpoint."""
    path = tmp_path_factory.mktemp("unbroken") / "checkpoint.npz"
    return fitted(world, path), path


def test_a_fit_goes_on_where_it_was_killed(world, unbroken, tmp_path):
    whole, _ = unbroken
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        fitted(world, path, kill_after=3)  # within the second pass
    assert path.exists()
    found = fitted(world, path)
    assert 0 < found.sessions < whole.sessions == 3 * len(world.train.log)
    for ours, theirs in zip(found.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for ours, theirs in zip(
        found.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_examination_is_the_ratio_of_click_probabilities(world):
    """Of a product it is the same for any item: here for a single one."""
    found = fit_prepared("product", world, replace(CONFIG, epochs=1))
    one = world.validation.data.features[:1]
    ranks = range(1, world.validation.log.list_size + 1)
    p = [expit(np.asarray(found.model.logits_at(one, k)))[0] for k in ranks]
    np.testing.assert_allclose(found.examination, np.array(p) / p[0], rtol=1e-4)
    listwise = replace(found, model=build("softmax_naive", world.layout, 0))
    assert listwise.examination is None


def test_the_best_pass_is_kept(world, unbroken):
    found, path = unbroken
    finished = fitted(world, path)
    assert finished.sessions == 0 and finished.history == found.history
    by_pass = [metrics["log_likelihood"] for metrics in found.history]
    assert found.log_likelihood == max(by_pass) == by_pass[found.epoch - 1]
    again = session_log_likelihoods(found.model, *world.validation).mean()
    assert again == pytest.approx(found.log_likelihood, abs=1e-5)
    assert found.at_end == (found.epoch == 3)


@pytest.mark.parametrize(
    "likelihoods, at_end, said",
    [
        ([-2.0, -1.5, -1.2, -1.0], True, "until the last of 4 passes: try more, such"),
        ([-2.0, -1.5, -1.2, -1.0], False, ""),
        ([-2.0, -1.0, -0.98, -0.97], True, ""),  # .01 of 1.03 came late
        ([-2.0], True, "One pass does not show whether it was enough: try more, such"),
    ],
)
def test_more_passes_are_advised_where_they_may_help(likelihoods, at_end, said):
    history = [{"epoch": k, "log_likelihood": v} for k, v in enumerate(likelihoods, 1)]
    *_, last = history
    found = Fitted(None, None, -1.0, last["epoch"], history, 0, None, at_end)
    assert said in found.note
    assert bool(found.note) == bool(said)


def test_a_checkpoint_of_another_model_is_refused(world, unbroken):
    _, path = unbroken
    with pytest.raises(ValueError, match=r"npz: is the checkpoint of another"):
        fit_prepared("naive", world, CONFIG, path)


@pytest.mark.parametrize(
    "settings, log",
    [({"seed": 6}, slice(None)), ({"round": 500}, slice(None)), ({}, slice(1, None))],
    ids=str,
)
def test_a_checkpoint_of_another_fit_is_refused(settings, log, world, unbroken):
    train = world.train._replace(log=world.train.log.take(log))
    other = world._replace(train=train)
    with pytest.raises(ValueError, match=r"npz: is the checkpoint of another fit"):
        fit_prepared("additive", other, replace(CONFIG, **settings), unbroken[1])


def test_a_finished_fit_goes_on_with_more_passes(world, unbroken, tmp_path):
    whole, path = unbroken
    own = shutil.copy(path, tmp_path)
    found = fit_prepared("additive", world, replace(CONFIG, epochs=4), own)
    assert found.history[:3] == whole.history and len(found.history) == 4


def test_a_checkpoint_of_another_version_is_refused(world, unbroken, tmp_path):
    with np.load(unbroken[1]) as found:
        arrays = dict(found)
    state = json.loads(str(arrays.pop("state")))
    del state["unjudged"]
    path = tmp_path / "checkpoint.npz"
    np.savez(path, state=np.array(json.dumps(state)), **arrays)
    with pytest.raises(ValueError, match=r"npz: is the checkpoint of another version"):
        fitted(world, path)


@pytest.mark.parametrize("size", [0, 10, 0.5, -30])
def test_a_damaged_checkpoint_is_refused_by_name(size, world, unbroken, tmp_path):
    data = unbroken[1].read_bytes()
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(data[: int(len(data) * size) if size == 0.5 else size])
    with pytest.raises(ValueError, match=r"checkpoint.npz: is damaged"):
        fitted(world, path)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"rate": rate} for rate in (np.nan, np.inf, 1e30, 0.0, -1.0)),
        *({name: 0} for name in ("epochs", "patience", "batch_size", "round")),
        *({name: 1.5} for name in ("epochs", "patience", "round", "min_steps", "seed")),
        {"epochs": "3"},
        {"patience": None},
        {"seed": -1},
        {"seed": 2**32},  # the seeds of Keras end there
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_a_loss_that_is_no_number_stops_the_fit(world, tmp_path):
    """Features of 1e30 make the first loss infinite or nan."""
    huge = world.train.data.features * np.float32(1e30)
    train = world.train._replace(data=RankingData.trusted(huge, None, np.array([0, 1])))
    checkpoint = tmp_path / "checkpoint.npz"
    with pytest.raises(
        ValueError, match=r"diverged: loss .* pass 1, steps 1 to .*0.01;"
    ):
        fit_prepared("product", world._replace(train=train), CONFIG, checkpoint)
    assert not checkpoint.exists()


def test_the_front_door_holds_out_scales_and_serves():
    found = fit(
        "product",
        LOG,
        DATA,
        config=TrainingConfig(epochs=1, batch_size=64, min_steps=0),
    )
    assert isinstance(found.model, Product) and found.prepared.held_out_by == "query"
    raw = np.asarray(found.ranker(DATA.features[:7]))
    scaled = found.prepared.preprocess(DATA.features[:7])
    np.testing.assert_allclose(raw, found.model.score(scaled), rtol=1e-5)
    assert "Passes" in str(found) and "<table>" in found._repr_html_()


def test_averaged_weights_are_judged_kept_and_served(world):
    """One step: the average is the step's own weights, and decay spares places."""
    config = replace(CONFIG, epochs=1, batch_size=1024, round=1024)
    one = fit_prepared("product", world, config)
    plain = fit_prepared("product", world, replace(config, averaging=None))
    for ours, theirs in zip(
        one.model.get_weights(), plain.model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    several = replace(config, batch_size=64)
    averaged = fit_prepared("product", world, several)
    raw = fit_prepared("product", world, replace(several, averaging=None))
    apart = [
        np.abs(a - b).max()
        for a, b in zip(
            averaged.model.get_weights(), raw.model.get_weights(), strict=True
        )
    ]
    assert max(apart) > 1e-4  # the same steps, another point of their path
    assert averaged.history[0]["loss"] == pytest.approx(raw.history[0]["loss"])


def test_a_fit_starts_at_the_click_rate(world):
    config = TrainingConfig(epochs=1, rate=1e-9, averaging=None)
    model = fit_prepared("product", world, config).model
    judges = world.validation.log
    rate = judges.click[judges.mask].mean()
    start = float(np.squeeze(model.intercepts()[0][0]))
    assert start == pytest.approx(np.log(rate / (1 - rate)), abs=1e-4)


def test_only_kernels_of_relevance_towers_decay(world):
    """At weight 0 the loss has no gradient: what moves, decays, by (1 - rate decay)."""
    weight = np.zeros(world.train.log.item.shape)
    still = world._replace(train=world.train._replace(weight=weight))
    config = replace(CONFIG, epochs=1, batch_size=1024, round=1024, rate=0.1, decay=0.5)
    keras.utils.set_random_seed(5)
    before = build("product", world.layout, 5)
    batch, _ = next(iter(batches(world.validation.log, world.train.data, 2)))
    before(batch)
    judges = world.validation.log
    before.start_at(judges.click[judges.mask].mean())
    found = fit_prepared("product", still, config)
    kernels = {id(v) for v in fitting.decaying(found.model)}
    assert kernels
    for ours, start in zip(found.model.weights, before.weights, strict=True):
        wanted = np.asarray(start) * (0.95 if id(ours) in kernels else 1.0)
        np.testing.assert_allclose(np.asarray(ours), wanted, rtol=1e-6)


def test_of_xpa_only_the_relevance_tower_decays():
    tower = Tower((4,), out=3)
    model = XPA(tower, BiasTower({"position": 2}, out=3))
    shown = {"position": np.ones((1, 2), int), "mask": np.ones((1, 2), bool)}
    model({"features": np.zeros((1, 2, 5), "float32"), **shown})
    kernels = {v.path for v in tower.trainable_variables if v.path.endswith("kernel")}
    mixture = Mixture([model, PositionOnly(BiasTower({"position": 2}))])
    for asked in (model, Listwise(model), mixture):
        asked({"features": np.zeros((1, 2, 5), "float32"), **shown})
        assert {v.path for v in fitting.decaying(asked)} == kernels


def test_the_weights_that_disentangled_lays_on_places_do_not_decay():
    model = Disentangled(Tower((4,)), BiasTower({"position": 2}, out=3))
    shown = {"position": np.ones((1, 2), int), "features": np.zeros((1, 2, 5))}
    model(shown)
    decaying = {v.path for v in fitting.decaying(model)}
    assert model.own_place.kernel.path not in decaying
    tower = model.relevance.trainable_variables
    assert {v.path for v in tower if v.path.endswith("kernel")} <= decaying


@pytest.mark.parametrize("hidden", [(), (3,)])
def test_vectors_of_categories_decay_before_a_linear_tower_alone(hidden):
    first = Features([Feature("brand", "category", ("acme", "birch"))], dim=2)
    tower = keras.Sequential([first, Tower(hidden)])
    model = Naive(tower)
    model({"features": np.zeros((1, 2, 4), "float32")})
    decaying = {id(v) for v in fitting.decaying(model)}
    assert first.trainable_variables
    for vectors in first.trainable_variables:
        assert (id(vectors) in decaying) == (not hidden)


def test_a_small_log_is_given_steps_enough():
    """1,000 sessions are two steps of 512: 200 passes, five of them together."""
    config = TrainingConfig(batch_size=512, min_steps=400)
    assert config.passes(1000) == 200 and config.passes_a_round(1000) == 5
    assert config.passes(10**6) == 16 and config.passes_a_round(10**6) == 1
    asked = replace(config, epochs=2)
    assert asked.passes(1000) == 2 and asked.passes_a_round(1000) == 1


def test_passes_that_are_learned_together_are_counted(world):
    done = []
    config = TrainingConfig(batch_size=512, min_steps=100, seed=5)
    found = fit_prepared("naive", world, config, progress=done.append)
    assert found.history[0]["epoch"] == 5 and len(found.history) <= 10
    assert found.epoch % 5 == 0
    assert sum(done) == 50 * len(world.train.log) >= found.sessions


def test_a_decay_that_left_one_score_for_all_items_is_halved(
    world, tmp_path, monkeypatch
):
    """A fit that was killed after it started again goes on there."""
    config = replace(CONFIG, decay=None, rate=0.01, averaging=None, epochs=6)
    monkeypatch.setattr(TrainingConfig, "decay_of", lambda given, *_: given.decay or 50)
    path, passes = tmp_path / "checkpoint.npz", []
    found = fit_prepared(
        "naive", world, config, path, report=lambda epoch, _: passes.append(epoch)
    )
    assert passes == [*range(len(passes))] and len(passes) > len(found.history)
    items = world.validation.data.features
    assert found.decays == (50, 25) and np.std(found.model.score(items)) > 0.02
    assert "got the same score" in found.words()
    later = path.with_name("checkpoint-2.npz")
    assert later.exists()
    again = fit_prepared("naive", world, config, path)
    assert again.decays == found.decays and again.sessions == 0
    np.testing.assert_array_equal(again.model.score(items), found.model.score(items))
    own = fit_prepared("naive", world, replace(config, decay=50))
    assert own.decays == (50,) and np.std(own.model.score(items)) < 1e-3


def test_weights_of_cells_reach_the_loss():
    """Of weight 0 all that is learned is nothing: weights stay where they started."""
    (train, validation, _), _ = held_out(SHOWN, 0)
    model = build("naive", prepared().layout, 5)
    weight = np.zeros(train.item.shape)
    some = RankingData(prepared().train.data.features, None, [0, SHOWN.item.max() + 1])
    config = TrainingConfig(epochs=1, batch_size=64, min_steps=0)
    found = fit(model, train, some, validation=validation, weight=weight, config=config)
    assert found.history[0]["loss"] == 0.0
    with pytest.raises(ValueError, match="weight needs validation"):
        fit("naive", train, some, weight=weight)
    with pytest.raises(ValueError, match="weight must have the shape of the log"):
        fit("naive", train, some, validation=validation, weight=weight[:3])


@pytest.mark.parametrize(
    "given, message",
    [
        ({"model": Product}, "got <class .*Product'>"),
        ({"model": None}, "model must be a name .* got NoneType"),
        ({"config": {"epochs": 1}}, "config must be a TrainingConfig.* got dict"),
        ({"validation": DATA}, "validation must be a ClickLog, got RankingData"),
    ],
    ids=str,
)
def test_arguments_of_a_wrong_type_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fit(**{"model": "naive", "log": LOG, "data": DATA, **given})


def test_likelihoods_of_sessions_by_hand(world):
    """A naive model of weight 0 gives every click a half."""
    log, data = world.validation
    model = build("naive", world.layout, 0)
    model({"features": data.features[None, :2]})
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    found = session_log_likelihoods(model, log, data)
    np.testing.assert_allclose(found, -np.log(2) * log.mask.sum(axis=1), rtol=1e-6)


# A log on disk


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    return written(tmp_path_factory.mktemp("stream") / "log")


def test_a_streamed_fit_is_as_good_as_one_in_memory(tmp_path):
    """Within .02 nats: another seed moves a fit in memory by .005, give or take."""
    some = RankingData(DATA.features[:, :8], DATA.labels, DATA.offsets)
    log = simulate(DATA, POLICY, "pbm", sessions=12_000, seed=1, list_size=4).select()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "ROW_GROUP", 250)
        log.write(tmp_path / "log", shards=4)
    config = TrainingConfig(epochs=2, batch_size=128, min_steps=0, round=1500, seed=5)
    held = prepared(log=log, features=some.features)
    stream = Stream(tmp_path / "log", window=3000)
    (learners, _, _), _ = held_out_of_stream(stream, some.queries, 0)
    streamed = held._replace(train=held.train._replace(log=learners))
    validation = held.validation.log
    found = [
        fit_prepared("product", w, config).log_likelihood for w in (held, streamed)
    ]
    untrained = -np.log(2) * validation.mask.sum(axis=1).mean()
    assert found[0] > untrained + 0.5
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_a_streamed_fit_goes_on_where_it_was_killed(world, on_disk, tmp_path):
    queries = int(SHOWN.query.max()) + 1
    (learners, _, _), _ = held_out_of_stream(on_disk, queries, 0)
    world = world._replace(train=world.train._replace(log=learners))
    whole = fitted(world)
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        fitted(world, path, kill_after=4)
    found = fitted(world, path)
    assert 0 < found.sessions < 3 * len(learners)
    for ours, theirs in zip(
        found.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_features_are_held_for_one_round_at_a_time(world, monkeypatch):
    """A dataset has a copy of them, which outlives it until it is collected."""
    kind, shape, held = type(tf.constant(0)), world.train.data.features.shape, []

    def watched(*arguments, **options):
        every = [found for found in gc.get_objects() if isinstance(found, kind)]
        held.append(sum(tuple(found.shape) == shape for found in every))
        return batches(*arguments, **options)

    monkeypatch.setattr(fitting, "batches", watched)
    monkeypatch.setattr(fitting, "LARGE", 0)
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

    def judged(model, feed):
        seen.append(model.get_weights())
        return np.array([likelihoods[len(seen) - 1]])

    monkeypatch.setattr(fitting, "_likelihoods", judged)
    monkeypatch.setattr(fitting, "OFTEN", often)
    config = replace(CONFIG, epochs=2, patience=20, round=150)
    found = fit_prepared("additive", world, config)
    model = found.model
    assert len(seen) == len(likelihoods)
    assert found.log_likelihood == likelihoods[best] == max(likelihoods)
    assert found.epoch == 1 + (best > ends[0])
    told = [metrics["log_likelihood"] for metrics in found.history]
    assert told == [likelihoods[end] for end in ends]
    for kept, weights in zip(model.get_weights(), seen[best], strict=True):
        np.testing.assert_array_equal(kept, weights)
