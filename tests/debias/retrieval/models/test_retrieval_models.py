"""Tests of debias.retrieval.models: what holds for every model, and for each alone."""

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest
from keras import ops

from debias.engine.optimizers import RowWiseAdam
from debias.retrieval.data.interactions import leave_last_out
from debias.retrieval.data.negatives import Queue, uniform
from debias.retrieval.layers.history import recency_sum
from debias.retrieval.layers.logq import StreamingFrequency
from debias.retrieval.losses import RetrievalLoss
from debias.retrieval.models import (
    DAT,
    MIND,
    Encoder,
    TwoTower,
    alignment_loss,
    dssm,
    mimic_loss,
    tower,
)
from debias.retrieval.models.dat import AugmentedEncoder
from debias.retrieval.models.encoder import unit
from debias.retrieval.training import fitting
from debias.retrieval.training.batches import Batches
from debias.retrieval.training.evaluation import dot_scores, evaluate_scores
from tests.debias.retrieval.models.registry import (
    ITEMS,
    LENGTH,
    LOG,
    MODELS,
    SMALL,
    TRUTH,
    USERS,
)

eagerly = pytest.mark.usefixtures("eager")
every_model = pytest.mark.parametrize("name", MODELS)
TRAIN, TEST = leave_last_out(LOG)


@pytest.fixture
def eager():
    """TensorFlow without traces, which cost more than a few steps do."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def arrays(x):
    return ops.convert_to_numpy(x)


def tensors(batch):
    return {
        name: tensors(value) if isinstance(value, dict) else ops.array(value)
        for name, value in batch.items()
    }


def now(log, users):
    history, _ = log.histories(LENGTH, users)
    return {**log.users.take(users), "history": history}


def batches(log=TRAIN, **options):
    given = {"batch_size": 32, "history": LENGTH, "self_items": 16, **options}
    return Batches(log, **given)


@every_model
def test_calls_repeat_and_training_compares_the_vectors_that_are_exported(name):
    model = MODELS[name]()
    batch = tensors(batches()[0][0])
    first, again = arrays(model(batch)), arrays(model(batch))
    assert (first == again).all() and first.shape == (32, 32)
    users = model.user_vectors(batch["user"])
    items = model.item_vectors(batch["item"])
    scores = dot_scores(users, items) / model.temperature
    np.testing.assert_allclose(first, scores, rtol=1e-4, atol=1e-4)
    read = {feature: batch["item"][feature] for feature in model.item.schema}
    exported = tower(model.item)(read)
    np.testing.assert_array_equal(items, arrays(exported))


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@cache
def trained_in(policy, name):
    """A model after three steps by this policy of precision, and the losses of them."""
    keras.config.set_dtype_policy(policy)
    model = MODELS[name]()
    model.build()  # so that all its parts are there
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    model.compile(RowWiseAdam(0.01), run_eagerly=True)
    batch = batches(packed=name != "bare")[0]  # which learns from the stream
    return model, [float(model.train_on_batch(*batch)) for _ in range(3)]


# A number of bfloat16 is as large as one of float32, so that few models stand for all.
HALF = [("mixed_float16", name) for name in MODELS]
HALF += [("mixed_bfloat16", name) for name in ("transformer", "mind")]


@pytest.mark.parametrize("policy, name", HALF, indirect=["policy"])
def test_half_precision_trains_as_single_does(name, policy):
    model, losses = trained_in(policy, name)
    vectors = model.item_vectors(TRAIN.items.columns)
    assert vectors.dtype == np.float32 and np.isfinite(vectors).all()
    if name != "bare":
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    _, single = trained_in("float32", name)
    assert losses[0] == pytest.approx(single[0], rel=0.01)
    assert losses[-1] - single[-1] < 0.1 * (single[0] - single[-1])


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_numbers_beyond_half_precision_are_read(policy):
    schema = {"price": {"kind": "numeric"}}
    vectors = arrays(Encoder(schema, 4, "fm", seed=0)({"price": np.array([1e5, 1.0])}))
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-2)  # of one direction


def test_a_zero_vector_stays_zero_in_half_precision():
    for half in ("float16", "bfloat16"):
        small = ops.cast(np.array([[0.0, 0.0], [1e-4, 0.0], [300.0, 400.0]]), half)
        expected = [[0, 0], [1, 0], [0.6, 0.8]]
        np.testing.assert_allclose(arrays(unit(small)), expected, atol=1e-3)
        mask = np.array([1, 1, 0])
        once = recency_sum(ops.ones((3, 1), half), mask, 0.5)
        assert once.dtype == half and float(once[0]) == 1.5


@every_model
def test_fields_are_found_by_name_whatever_their_order(name):
    model = MODELS[name]()
    user, item = now(TRAIN, np.arange(5)), TRAIN.items.take(np.arange(5))
    for encode, features in ((model.user_vectors, user), (model.item_vectors, item)):
        other = encode(dict(reversed(features.items())))
        np.testing.assert_array_equal(encode(features), other)


@pytest.mark.parametrize(
    "options",
    [{}, {"negatives": 20}, {"log_q": False}, {"exclude_known": False}],
    ids=str,
)
@every_model
def test_packed_batches_give_the_softmax_that_others_give(name, options):
    plain = MODELS[name]()
    plain.compile()
    if plain.frequency is not None:
        with pytest.raises(ValueError, match="learn frequencies from the stream"):
            plain(batches(packed=True, **options)[0][0], training=True)
        return
    plain(tensors(batches()[0][0]))  # so that all its parts are there
    for layer in plain._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0  # or two calls differ
    for history in (LENGTH, 0) if not plain.user.history else (LENGTH,):
        losses, gradients = zip(
            *(
                loss_and_gradients(
                    plain, *batches(packed=packed, history=history, **options)[0]
                )
                for packed in (False, True)
            ),
            strict=True,
        )
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for one, other in zip(*gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6 + 1e-4 * abs(one).max())


def loss_and_gradients(model, batch, target):
    """Of a training step."""
    import tensorflow as tf

    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        scores = model(tensors(batch), training=True)
        loss = model.compute_loss(batch, target, scores, training=True)
    found = tape.gradient(loss, [w.value for w in weights])
    return float(loss), [np.asarray(tf.convert_to_tensor(g)) for g in found]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("steps", [1, 4])
def test_fit_takes_the_batches_of_the_epochs_that_keras_takes(steps, packed):
    weights, losses, seen = [], [], []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    for fit in (type(MODELS["fm"]()).fit, keras.Model.fit):
        model, data = MODELS["fm"](), batches(packed=packed, negatives=5)
        assert len(data) % 4  # so that an execution falls short
        model.compile(RowWiseAdam(0.01), steps_per_execution=steps)
        done = fit(model, data, epochs=3, verbose=0, shuffle=False, callbacks=[count])
        assert data.epoch == 4
        weights.append([arrays(w) for w in model.weights])
        losses.append(done.history["loss"])
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4 * packed, atol=1e-5 * packed)


def test_a_queue_hears_of_the_same_batches_however_many_steps_an_execution_takes():
    losses = []
    for steps in (1, 4):
        queue = Queue(40, uniform(len(TRAIN.items)), len(TRAIN.items))
        model, data = MODELS["fm"](), batches(negatives=9, sampler=queue)
        model.compile(RowWiseAdam(0.01), steps_per_execution=steps)
        losses.append(model.fit(data, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_a_fit_of_several_steps_leaves_the_model_as_fit_finds_it():
    model, data = MODELS["fm"](), batches(packed=True)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True)
    )
    model.compile(RowWiseAdam(0.01), steps_per_execution=4)
    assert len(model.fit(data, epochs=5, verbose=0, callbacks=[stop]).epoch) == 1
    assert data.epoch == 2 and int(model.optimizer.iterations) == len(data)
    # What Keras compiles for other batches is its own.
    model.fit(data.dataset(), shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 2 * len(data)
    model.fit(data, initial_epoch=3, epochs=4, verbose=0)
    assert int(model.optimizer.iterations) == 3 * len(data)


@pytest.mark.parametrize("name", ["mind", "dat"])
def test_fits_by_packed_batches_come_to_the_same(name):
    losses = []
    for packed in (False, True):
        model = MODELS[name]()
        model.compile(RowWiseAdam(0.01), steps_per_execution=4)
        feed = batches(packed=packed, negatives=9)
        losses.append(model.fit(feed, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_packed_batches_are_for_the_softmax():
    model = MODELS["fm"]()
    model.compile(loss=RetrievalLoss("bpr"))
    with pytest.raises(ValueError, match="RetrievalLoss\\('softmax'\\)"):
        model.fit(batches(packed=True))


@pytest.mark.filterwarnings("ignore:the model is worse than popularity")
@every_model
def test_learns_preferences_by_plain_compile_and_fit(name):
    model = MODELS[name]()
    model.compile(RowWiseAdam(0.01))
    model.fit(batches(), epochs=6, verbose=0)
    query = np.arange(len(TRAIN.users))
    users = model.user_vectors(now(TRAIN, query))
    items = model.item_vectors(TRAIN.items.columns)
    scores = dot_scores(users, items)
    # The log is confounded by popularity; the truth is what a user prefers.
    own = TRUTH.genre == TRUTH.group[:, None]
    assert scores[own].mean() > scores[~own].mean()
    metrics = evaluate_scores(
        lambda q: scores[q],
        TEST.user,
        TEST.item,
        TRAIN.seen(),
        TRAIN.popularity(),
        [10],
    )
    assert metrics["hr@10"] > 10 / (40 - 7)  # chance


@every_model
def test_unknown_users_and_items_have_a_finite_vector(name):
    model = MODELS[name]()
    strange, unknown = TRAIN.users.encode({"id": ["nobody"]})
    history = np.zeros((1, LENGTH), np.int32)
    user = model.user_vectors({**strange, "history": history})
    item = model.item_vectors(TRAIN.items.encode({"id": ["nothing"]})[0])
    assert unknown["id"] == 1
    assert np.isfinite(user).all() and np.isfinite(item).all()


@every_model
def test_a_user_without_history_and_an_item_without_features_have_a_vector(name):
    model = MODELS[name]()
    user = {**TRAIN.users.take(np.arange(2)), "history": np.zeros((2, LENGTH), "int32")}
    item = {
        feature: np.zeros_like(column) if feature != "id" else column
        for feature, column in TRAIN.items.take(np.arange(3)).items()
    }
    nothing = {feature: np.zeros_like(column) for feature, column in item.items()}
    for vectors in (
        model.user_vectors(user),
        model.item_vectors(item),
        model.item_vectors(nothing),
    ):
        assert np.isfinite(vectors).all()
    scores = dot_scores(model.user_vectors(user), model.item_vectors(item))
    assert scores.shape == (2, 3) and np.isfinite(scores).all()


@eagerly
@every_model
def test_a_batch_of_one_trains(name):
    model = MODELS[name]()
    model.compile()
    batch, positive = batches(batch_size=1, negatives=3)[0]
    assert np.isfinite(model.train_on_batch(batch, positive))


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": "catalogue"},
        {"candidates": "own", "negatives": 3},
        {"negatives": 5},
    ],
)
@eagerly
@pytest.mark.parametrize("name", ["fm", "mind", "dat"])
def test_every_kind_of_candidates_trains(name, options):
    model = MODELS[name]()
    model.compile()
    data = batches(TRAIN.take(np.arange(70)), **options)
    columns = {"catalogue": 40, "own": 4}.get(options.get("candidates", ""), 37)
    assert tuple(model(tensors(data[0][0])).shape) == (32, columns)
    history = model.fit(data, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def plain(**options):
    return TwoTower(
        Encoder(USERS, 4, "fm", seed=0),
        Encoder(ITEMS, 4, "fm", seed=1),
        temperature=0.5,
        **options,
    )


def test_training_scores_are_corrected_then_masked_and_others_are_neither():
    model, batch = plain(), tensors(batches()[0][0])
    raw, trained = arrays(model(batch)), arrays(model(batch, training=True))
    excluded = arrays(batch["excluded"])
    expected = np.where(excluded, -1e9, raw - arrays(batch["log_q"]))
    np.testing.assert_allclose(trained, expected, rtol=1e-5)
    users, items = model.user_vectors(batch["user"]), model.item_vectors(batch["item"])
    np.testing.assert_allclose(raw, users @ items.T / 0.5, rtol=1e-4, atol=1e-5)


def test_without_a_list_of_exclusions_accidental_hits_are_masked():
    model, batch = plain(), batches(log_q=False)[0][0]
    batch["item"] = {k: v[np.arange(32) % 4] for k, v in batch["item"].items()}
    del batch["excluded"]
    masked = arrays(model(tensors(batch), training=True)) == -1e9
    same = np.arange(32)[:, None] % 4 == np.arange(32) % 4
    assert (masked == (same & ~np.eye(32, dtype=bool))).all()


def test_streaming_frequencies_take_the_place_of_log_q():
    model = plain(frequency=StreamingFrequency(64, alpha=0.1))
    batch = tensors(batches(exclude_known=False)[0][0])
    batch["excluded"] = ops.zeros_like(batch["excluded"])
    raw, trained = arrays(model(batch)), arrays(model(batch, training=True))
    log_q = arrays(model.frequency.log_q(batch["item"]["id"]))
    np.testing.assert_allclose(trained, raw - log_q, rtol=1e-5)


def test_self_supervision_adds_its_loss_and_only_in_training():
    model, batch = MODELS["bare"](), tensors(batches()[0][0])
    model(batch)
    assert len(model.losses) == 0
    model(batch, training=True)
    # Near log 16 for untrained views of 16 items.
    assert 0.3 * 1.0 < float(model.losses[0]) < 0.3 * 6.0


def test_senet_shows_its_weights_by_name():
    model = MODELS["senet"]()
    batch = tensors(batches()[0][0])
    weights = arrays(model.item.importance(batch["item"]))
    assert weights.shape == (32, len(model.item.field_names))
    assert model.user.field_names == ["id", "age", "history_0", "history_1"]


def test_shared_histories_use_the_item_table():
    model = MODELS["shared"]()
    assert model.user.history_table is model.item.id_table
    tables = [v.path for v in model.trainable_variables if v.path.endswith("table")]
    assert len(tables) == len(USERS) + len(ITEMS)  # none for the history


def test_mind_scores_by_the_best_interest_and_trains_by_the_label():
    model = MODELS["mind"]()
    batch = tensors(batches()[0][0])
    users = model.user_vectors(batch["user"])
    items = model.item_vectors(batch["item"])
    live = arrays(model.user.live(batch["user"]))
    each = np.where(live[:, :, None], users @ items.T, -np.inf)
    np.testing.assert_allclose(
        arrays(model(batch)), each.max(axis=1) / model.temperature, rtol=1e-4, atol=1e-4
    )
    assert (users[~live] == 0).all() and set(live.sum(axis=1)) == {1, 2}


def test_mimic_by_hand_and_under_stop_gradient():
    a, p = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0]])
    assert float(mimic_loss(ops.array(a), ops.array(p))) == (1 + 0 + 9 + 0) / 4
    from tests.gradient import gradient

    slope = gradient(lambda x: mimic_loss(ops.array(a, "float32"), x + 0.0), p)
    assert (slope == 0).all()
    slope = gradient(lambda x: mimic_loss(x + 0.0, ops.array(p, "float32")), a)
    np.testing.assert_allclose(slope, 2 * (a - p) / 4)


def test_alignment_by_hand():
    # Category 3 (major, 3 items), 2 (2 items), 4 (one item: no covariance), 0 missing.
    vectors = np.array(
        [[0, 0], [2, 0], [1, 3], [0, 0], [2, 2], [9, 9], [5, 1], [1, 5], [0, 7]], float
    )
    category = np.array([3, 3, 3, 2, 2, 4, 0, 0, 0])
    difference = np.cov(vectors[:3].T) - np.cov(vectors[3:5].T)
    expected = (difference**2).sum()
    loss = alignment_loss(ops.array(vectors, "float32"), ops.array(category), 6)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_dat_adds_the_losses_written_out():
    model = DAT(USERS, ITEMS, "genre", dim=4, hidden=(4,), history=None, seed=0)
    batch = tensors(batches()[0][0])
    model(batch, training=True)
    found = sorted(float(loss) for loss in model.losses)
    p_u, p_v = model.user_vectors(batch["user"]), model.item_vectors(batch["item"])
    a_u = arrays(model.user.augment(batch["user"]["id"]))
    a_v = arrays(model.item.augment(batch["item"]["id"]))
    mimic = 0.5 * (((a_u - p_v) ** 2).mean() + ((a_v - p_u) ** 2).mean())
    genre = arrays(batch["item"]["genre"])
    counts = np.bincount(genre)
    covariances = {g: np.cov(p_v[genre == g].T) for g in np.flatnonzero(counts > 1)}
    major = covariances[int(np.argmax(counts))]
    alignment = sum(((c - major) ** 2).sum() for c in covariances.values())
    np.testing.assert_allclose(found, sorted([mimic, alignment]), rtol=1e-3)


def test_dat_without_its_mechanisms_adds_nothing():
    model = DAT(USERS, ITEMS, None, dim=4, hidden=(4,), history=None, mimic=0.0)
    model(tensors(batches()[0][0]), training=True)
    assert not model.losses


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: plain(self_weight=-1.0), "self_weight"),
        (lambda: TwoTower(None, None, temperature=0.0), "temperature"),
        (lambda: Encoder(USERS, 4, "sum"), "combine"),
        (lambda: Encoder(USERS, 4, "fm", embedding=3), "embedding"),
        (lambda: Encoder({}, 4), "schema"),
        (lambda: DAT(USERS, ITEMS, "id2"), "category"),
        (lambda: DAT(USERS, ITEMS, "genre", mimic=-1.0), "mimic"),
        (lambda: MIND(USERS, ITEMS, power=-1.0), "power"),
        (lambda: dssm(USERS, ITEMS, history="sum"), "kind"),
        (lambda: plain()({"user": {}}), "candidates"),
        (
            lambda: Encoder(
                {}, 4, history={"length": 2}, history_table=Encoder(ITEMS, 3).id_table
            ),
            "history_table must have vectors of size 4",
        ),
        (lambda: Encoder({}, 4, history={"length": 2}), "needs a size"),
        (lambda: Encoder({"age": USERS["age"]}, 4).id_table, "must have 'id'"),
        (lambda: Encoder(USERS, 4, extra_fields=2), "extra_fields must be 0 or 1"),
        (lambda: AugmentedEncoder(Encoder(USERS, 4)), "extra_fields must be 1"),
        (lambda: MODELS["fm"]().user({"id": np.ones(1, int)}), r"\['age'\] are absent"),
        (
            lambda: MODELS["fm"]().user(
                {"id": np.ones(1, int), "age": np.ones(1, int)}
            ),
            "must hold 'history'",
        ),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()


def test_parts_of_targets_learn_apart_and_serve_as_one_sum():
    """An event of target 1 moves the last layer's part 1 alone; worth weighs parts."""
    log = replace(LOG, target=np.ones(len(LOG), np.int32), targets=("click", "order"))
    model = dssm(USERS, ITEMS, **SMALL, hidden=(8,), worth=(1.0, 5.0))
    assert model.user.dim == 8  # two parts of 4
    history, _ = log.histories(LENGTH, np.arange(60))
    asked = {**log.users.columns, "history": history}
    users = model.user_vectors(asked)
    items = model.item(log.items.columns).numpy()
    served = users @ model.item_vectors(log.items.columns).T
    apart = users[:, :4] @ items[:, :4].T + 5 * users[:, 4:] @ items[:, 4:].T
    np.testing.assert_allclose(served, apart, atol=1e-5)
    batch, _ = Batches(log, 16, history=LENGTH, exclude_known=False)[0]
    assert batch["target"].tolist() == [1] * 16
    rows = model.encode_user(batch, training=True).numpy()
    assert not rows[:, :4].any() and rows[:, 4:].any()
    whole = model.encode_user(batch, training=False).numpy()
    np.testing.assert_array_equal(whole[:, 4:], rows[:, 4:])
    kernel = next(w for w in model.user.trainable_variables[::-1] if w.shape == (8, 8))
    before = kernel.numpy()
    fitting.fit(model, log, epochs=1, batch_size=64)
    moved = abs(kernel.numpy() - before).max(axis=0)
    assert (moved[:4] == 0).all() and (moved[4:] > 0).all()
    again = TwoTower.from_config(model.get_config())
    assert again.worth == model.worth
    with pytest.raises(ValueError, match="worth must be finite"):
        dssm(USERS, ITEMS, **SMALL, worth=(1.0, float("nan")))
    with pytest.raises(ValueError, match="a log with targets needs packed=False"):
        Batches(log, 16, packed=True)
