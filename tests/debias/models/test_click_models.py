"""Properties that every click model has."""

from functools import cache

import keras
import numpy as np
import pytest
from scipy import special

from debias.data import ClickLog, RankingData
from debias.layers import BiasTower, Tower
from debias.losses import click_cross_entropy
from debias.models import Dot, Mixture, PositionOnly, ranker
from debias.models.batches import batches
from tests.debias.models.registry import CLICK_MODELS, CONTEXT, POSITIONS, TOWERS
from tests.gradient import gradient

every_model = pytest.mark.parametrize("name", CLICK_MODELS)
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, POSITIONS, 7)).astype("float32")


def numbers(x):
    return keras.ops.convert_to_numpy(x)


def batch_of(features, shown=None):
    if shown is None:
        shown = np.ones(features.shape[:2], bool)
    position = np.where(shown, np.arange(1, features.shape[1] + 1), 0)
    context = np.linspace(-1, 1, len(features) * CONTEXT).reshape(-1, CONTEXT)
    wanted = features[..., min(1, features.shape[-1] - 1)].astype("float32")
    return {
        "order": (wanted > 0).astype("float32") * shown,
        "dwell": 40 * wanted * shown,
        "features": features,
        "position": position.astype("int32"),
        "mask": shown,
        "context": context.astype("float32"),
    }


def new(name):
    model = CLICK_MODELS[name](3)
    model(batch_of(FEATURES))
    return model


@cache
def built(name):
    """A model that no test changes."""
    return new(name)


@cache
def of_towers(name, tower):
    """A model with towers of this kind, which no test changes."""
    return CLICK_MODELS[name](3, TOWERS[tower])


STARTING = (  # those whose click logits have an intercept
    *("naive", "product", "additive", "disentangled", "bilinear", "mixture"),
    *("mixture_by_context", "ensemble", "xpa", "regression_em"),
)


@every_model
def test_models_start_at_the_click_rate(name):
    model, batch = new(name), batch_of(FEATURES)
    before = numbers(model.click_logits(batch, model(batch)))
    for rate in (0.0, 1.0):
        model.start_at(rate)
    np.testing.assert_array_equal(
        numbers(model.click_logits(batch, model(batch))), before
    )
    model.start_at(0.02)
    after = numbers(model.click_logits(batch, model(batch)))
    if name in STARTING:
        made = CLICK_MODELS[name](3, TOWERS["sequential"])
        made(batch)  # a Dense layer of one's own as well
        assert made.intercepts() and model.intercepts()
        apart = special.logit(0.02)  # a product moves by about as much
        assert abs((after - before).mean() - apart) < 1
    model.start_at(0.5)  # it is no start any more
    np.testing.assert_array_equal(
        numbers(model.click_logits(batch, model(batch))), after
    )


@pytest.mark.parametrize("columns", [{"position": POSITIONS}, {"row": 2, "column": 3}])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_a_dot_product_starts_at_the_click_rate_where_places_are_alike(columns, center):
    bias = BiasTower(columns, out=4, center=center / len(columns), seed=1)
    model, batch = Dot(Tower((8,), out=4, seed=1), bias), batch_of(FEATURES)
    place = np.arange(POSITIONS)
    batch["row"], batch["column"] = (
        np.tile(ids + 1, (len(FEATURES), 1)).astype("int32")
        for ids in (place // 3, place % 3)
    )
    before = numbers(model(batch))
    model.start_at(0.02)
    moved = (numbers(model(batch)) - before).mean()
    assert moved == pytest.approx(special.logit(0.02) * center, abs=0.5)


@every_model
def test_click_logits_have_the_shape_of_the_list(name):
    model, batch = built(name), batch_of(FEATURES)
    assert model.click_logits(batch, model(batch)).shape == FEATURES.shape[:2]


@every_model
def test_score_sees_features_and_nothing_else(name):
    """Not position, not neighbours, not padding, not the shape they come in."""
    model = built(name)
    flat = numbers(model.score(FEATURES.reshape(-1, 7)))
    listed = numbers(model.score(FEATURES))
    np.testing.assert_allclose(listed.ravel(), flat, rtol=1e-4, atol=1e-6)
    order = RNG.permutation(POSITIONS)
    moved = numbers(model.score(FEATURES[:, order]))
    np.testing.assert_allclose(moved, listed[:, order], rtol=1e-4, atol=1e-6)
    alone = numbers(model.score(FEATURES[:1, :1]))
    np.testing.assert_allclose(alone, listed[:1, :1], rtol=1e-4, atol=1e-6)
    padded = np.concatenate([FEATURES, np.zeros((5, 3, 7), "float32")], axis=1)
    kept = numbers(model.score(padded))[:, :POSITIONS]
    np.testing.assert_allclose(kept, listed, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tower", ["of rows", "of lists"])  # others take both
@every_model
def test_towers_of_every_kind_score_items_one_by_one(name, tower):
    """On lists, rows and packed batches, whatever inputs the tower was made for."""
    model = of_towers(name, tower)
    batch, cell = batch_of(FEATURES), np.arange(5 * POSITIONS).reshape(5, POSITIONS)
    packed = {**batch, "features": FEATURES.reshape(-1, 7), "cell": cell}
    listed, distinct = (
        numbers(model.click_logits(b, model(b))) for b in (batch, packed)
    )
    np.testing.assert_allclose(distinct, listed, rtol=1e-4, atol=1e-6)
    served = ranker(model)
    scores = numbers(served(FEATURES))
    rows = numbers(served(FEATURES.reshape(-1, 7)))
    np.testing.assert_allclose(rows, scores.ravel(), rtol=1e-4, atol=1e-6)
    changed = np.concatenate([FEATURES[:, :1], FEATURES[:, 1:] + 1], axis=1)
    alone = numbers(served(changed))[:, 0]
    np.testing.assert_allclose(alone, scores[:, 0], rtol=1e-4, atol=1e-6)


@every_model
def test_packed_batches_give_the_same_losses_and_gradients(name):
    """Features of four items, each shown by many cells, once and cell by cell."""
    model, items = built(name), FEATURES.reshape(-1, 7)[:4]
    cell = RNG.integers(0, 4, FEATURES.shape[:2]).astype("int32")
    clicks = (RNG.random(cell.shape) < 0.4).astype("float32")
    clicks[0, 3:] = -1
    rest = batch_of(items[cell], clicks >= 0)
    del rest["features"]

    def losses(packed):
        def of_items(items):
            batch = {"features": keras.ops.take(items, cell, axis=0), **rest}
            if packed:
                batch = {"features": items, "cell": cell, **rest}
            return model.session_losses(batch, clicks, model(batch))

        return of_items

    np.testing.assert_allclose(
        numbers(losses(True)(items)), numbers(losses(False)(items)), rtol=1e-4
    )
    moved = gradient(losses(True), items)
    np.testing.assert_allclose(moved, gradient(losses(False), items), 1e-3, 1e-5)
    assert moved.any() == (name != "position_only")


@every_model
def test_a_configuration_holds_every_argument(name):
    model = built(name)
    config, again = model.get_config(), type(model).from_config(model.get_config())
    assert again.get_config() == config and "name" in config
    given = keras.saving.serialize_keras_object(model)["config"]
    loaded = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model)
    )
    plain = {k: v for k, v in given.items() if isinstance(v, int | float | str)}
    assert plain.items() <= loaded.get_config().items()


@every_model
def test_padding_changes_neither_clicks_nor_loss(name):
    model = built(name)
    shown = np.ones((5, POSITIONS), bool)
    shown[:, 4:] = False
    clicks = np.where(shown, RNG.random((5, POSITIONS)) < 0.4, -1).astype("float32")
    results = []
    for filler in (0.0, 7.0):
        batch = batch_of(np.where(shown[..., None], FEATURES, filler), shown)
        outputs = model(batch)
        logits = numbers(model.click_logits(batch, outputs))[shown]
        results.append((logits, numbers(model.session_losses(batch, clicks, outputs))))
    short = batch_of(FEATURES[:, :4])
    outputs = model(short)
    logits = numbers(model.click_logits(short, outputs)).ravel()
    losses = numbers(model.session_losses(short, clicks[:, :4], outputs))
    for other_logits, other_losses in results:
        np.testing.assert_allclose(other_logits, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-4, atol=1e-5)


@every_model
def test_cells_in_another_order_are_clicked_alike(name):
    """Items and their places moved together: the order of columns means nothing."""
    model, order = built(name), RNG.permutation(POSITIONS)
    batch, context = batch_of(FEATURES), batch_of(FEATURES)["context"]
    clicks = (RNG.random((5, POSITIONS)) < 0.4).astype("float32")
    moved = {n: x[:, order] for n, x in batch.items() if n != "context"}
    moved["context"] = context
    outputs, others = model(batch), model(moved)
    np.testing.assert_allclose(
        numbers(model.click_logits(moved, others)),
        numbers(model.click_logits(batch, outputs))[:, order],
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        numbers(model.session_losses(moved, clicks[:, order], others)),
        numbers(model.session_losses(batch, clicks, outputs)),
        rtol=1e-4,
        atol=1e-5,
    )


# Of parts that other models have: no graph of theirs is traced again.
COMPOSED = ("mixture", "mixture_of_relevance", "listwise", "listwise_mixture")
COMPOSED += ("ensemble", "inverse_weighted")


@every_model
def test_fit_lowers_the_loss_and_reaches_every_trainable_weight(name):
    keras.utils.set_random_seed(1)
    model = CLICK_MODELS[name](1)
    relevant = FEATURES[..., 0] > 0
    seen = RNG.random((5, POSITIONS)) < 1 / np.arange(1, POSITIONS + 1)
    batch, clicks = batch_of(FEATURES), (relevant & seen).astype("float32")
    model(batch)
    before = [numbers(weight) for weight in model.trainable_weights]
    by_xla, by_steps = name in ("xpa", "pair_debias"), name in COMPOSED
    model.compile(keras.optimizers.Adam(0.1), jit_compile=by_xla, run_eagerly=by_steps)
    history = model.fit(batch, clicks, epochs=8, verbose=0, batch_size=5)
    assert history.history["loss"][-1] < 0.95 * history.history["loss"][0]
    for weight, old in zip(model.trainable_weights, before, strict=True):
        # What shifts all logits of a list alike, a listwise loss cannot see.
        constant = weight.shape == (1,) and not model.predicts_clicks
        assert constant or (numbers(weight) != old).any(), weight.path


@every_model
def test_sample_weight_weighs_sessions_and_metrics_see_click_logits(name):
    """A metric gets `(batch, list_size)` logits, of a mixture the marginal ones."""
    model, batch = new(name), batch_of(FEATURES)
    clicks = (RNG.random((5, POSITIONS)) < 0.4).astype("float32")
    outputs = model(batch)
    losses = numbers(model.session_losses(batch, clicks, outputs))
    weight = np.array([0, 1, 2, 3, 0])
    for given in (weight, weight[:, None].astype("float32")):
        value = model.compute_loss(batch, clicks, outputs, given, training=False)
        np.testing.assert_allclose(numbers(value), (weight * losses).mean(), rtol=1e-5)
    model.compile(metrics=[click_cross_entropy], run_eagerly=True)
    found = model.evaluate(
        batch, clicks, sample_weight=weight, verbose=0, return_dict=True
    )
    np.testing.assert_allclose(found["loss"], (weight * losses).mean(), rtol=1e-5)
    seen = numbers(click_cross_entropy(clicks, model.click_logits(batch, outputs)))
    np.testing.assert_allclose(found["click_cross_entropy"], seen.mean(), rtol=1e-5)


@every_model
def test_a_weight_multiplies_the_loss_of_its_cell_or_is_refused(name):
    """In the batch, as `sample_weight`, or in both, where they multiply."""
    if name == "multi_target":  # whose loss is of more than clicks, see its own test
        pytest.skip("sums over targets too")
    model, batch = built(name), batch_of(FEATURES)
    clicks = (RNG.random((5, POSITIONS)) < 0.4).astype("float32")
    one, other = RNG.uniform(0, 3, (2, *clicks.shape)).astype("float32")
    outputs = model(batch)
    z = numbers(model.click_logits(batch, outputs))
    cells = np.logaddexp(0, z) - clicks * z
    for weight, x, sample_weight in (
        (one, {**batch, "weight": one}, None),
        (one, batch, one),
        (one * other, {**batch, "weight": one}, other),
    ):
        if not model.takes_weight:
            refusal = f"^the loss of {type(model).__name__} cannot .* argument weight$"
            with pytest.raises(ValueError, match=refusal):
                model.compute_loss(x, clicks, outputs, sample_weight)
            continue
        value = model.compute_loss(x, clicks, outputs, sample_weight, training=False)
        expected = (weight * cells).sum(axis=1).mean()
        np.testing.assert_allclose(numbers(value), expected, rtol=1e-4)
    if model.takes_weight:
        even = {**batch, "weight": 0 * one + 1}
        losses = (model.session_losses(b, clicks, outputs) for b in (even, batch))
        np.testing.assert_allclose(*map(numbers, losses), rtol=1e-6)


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_class_weight_is_refused_and_what_is_said_instead_weighs_clicks(method):
    model, batch = new("additive"), batch_of(FEATURES)
    clicks = (RNG.random((5, POSITIONS)) < 0.4).astype("float32")
    model.compile(keras.optimizers.SGD(0.0))
    step, told = getattr(model, method), {"verbose": 0} if method == "fit" else {}
    with pytest.raises(ValueError, match=r"np\.where\(clicks == 1, 10, 1\)"):
        step(batch, clicks, class_weight={0: 1.0, 1: 10.0}, **told)
    weight = np.where(clicks == 1, 10, 1)
    step(batch, clicks, sample_weight=weight, **told)
    z = numbers(model(batch))
    expected = weight * (np.logaddexp(0, z) - clicks * z)
    value = model.evaluate(batch, clicks, sample_weight=weight, verbose=0)
    np.testing.assert_allclose(value, expected.sum(axis=1).mean(), rtol=1e-4)


# A number of bfloat16 is as large as one of float32, so that few models stand for all.
HALF = [("mixed_float16", name) for name in CLICK_MODELS]
HALF += [("mixed_bfloat16", name) for name in ("product", "mixture", "xpa")]


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy, name", HALF, indirect=["policy"])
def test_half_precision_trains(name, policy):
    """A step on large features, one list of a single item: all is finite, and moves."""
    model, batch = CLICK_MODELS[name](3), batch_of(100 * FEATURES)
    batch["mask"][0, 1:] = False
    clicks = (RNG.random((5, POSITIONS)) < 0.4).astype("float32")
    clicks[:, 1], clicks[:, 2], clicks[0, 1:] = 1, 0, -1
    assert numbers(model.click_logits(batch, model(batch))).dtype == np.float32
    before = model.get_weights()
    adam = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-3), initial_scale=2.0**5
    )
    model.compile(adam, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(batch, clicks))
    weights = model.get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)
    pairs = zip(before, weights, strict=True)
    assert any((old != new).any() for old, new in pairs)
    assert np.isfinite(numbers(ranker(model)(100 * FEATURES))).all()


def test_a_weight_scales_the_gradient_of_its_cell():
    """d loss / dz = w (sigmoid(z) - c), and nothing at padding."""
    z, w = np.array([[0.5, -1.0, 2.0]]), np.array([[2.0, 0.0, 5.0]], "float32")
    clicks = np.array([[1.0, 0.0, -1.0]], "float32")
    model = CLICK_MODELS["additive"](0)
    slope = gradient(lambda z: model.session_losses({"weight": w}, clicks, z), z)
    expected = [[2 * (1 / (1 + np.exp(-0.5)) - 1), 0, 0]]
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_a_loss_given_to_compile_does_not_drop_a_weight_in_silence():
    model, batch = new("additive"), batch_of(FEATURES)
    model.compile("adam", loss="mse")
    weighed = {**batch, "weight": np.ones(FEATURES.shape[:2], "float32")}
    with pytest.raises(ValueError, match="loss of Additive that compile was given"):
        model.compute_loss(weighed, np.zeros(FEATURES.shape[:2]), model(batch))


@every_model
def test_ranker_needs_a_built_model(name):
    with pytest.raises(ValueError, match="no weights yet"):
        ranker(CLICK_MODELS[name](0))


def test_position_only_finds_all_items_alike_and_mixtures_do_not():
    for name in CLICK_MODELS:
        model = built(name)
        alike = np.ptp(numbers(model.score(FEATURES))) == 0
        assert alike == isinstance(model, PositionOnly), name


@pytest.mark.parametrize("name", ["dot", "bilinear", "position_feature"])
def test_the_reference_place_is_obeyed(name):
    model = new(name)
    scores = []
    for place in (1, POSITIONS):
        model.reference = place
        at = {"position": np.full((5, POSITIONS), place, "int32")}
        batch = {**batch_of(FEATURES), **at}
        scores.append(numbers(model.score(FEATURES)))
        np.testing.assert_allclose(
            scores[-1], numbers(model(batch)), rtol=1e-4, atol=1e-5
        )
    assert (scores[0] != scores[1]).any()


@pytest.mark.parametrize("name", ["dot", "bilinear"])
def test_of_several_reference_places_the_mean_probability_serves(name):
    model = new(name)
    model.reference = [1, {"position": 3}, 6]
    each = [numbers(model.logits_at(FEATURES, place)) for place in (1, 3, 6)]
    served = numbers(model.score(FEATURES))
    mean = special.expit(each).mean(axis=0)
    np.testing.assert_allclose(served, special.logit(mean), rtol=1e-4, atol=1e-5)
    assert np.ptp(each, axis=0).max() > 0.01
    model.reference = []
    with pytest.raises(ValueError, match="reference must name at least one place"):
        model.score(FEATURES)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA looks at none")
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_a_place_beyond_the_bias_tower_is_an_error_in_a_compiled_step(method):
    model, batch = new("product"), batch_of(FEATURES)
    batch["position"] = np.where(FEATURES[..., 0] > 1.5, POSITIONS + 1, 1)
    assert batch["position"].max() > POSITIONS
    clicks = np.zeros(FEATURES.shape[:2], "float32")
    model.compile("adam")
    arguments = (batch,) if method == "predict" else (batch, clicks)
    with pytest.raises(ValueError, match=r"^column 'position' is out of range.*for 6"):
        getattr(model, method)(*arguments, verbose=0)


def test_a_tower_with_two_outputs_is_named():
    from debias.layers import Tower
    from debias.models import Naive

    with pytest.raises(ValueError, match="must have one output"):
        Naive(Tower(out=2)).call(batch_of(FEATURES))


def test_click_models_are_mixtures_of_one():
    """K = 1 is the component itself, in loss, click logits and score."""
    from debias.models import Additive
    from tests.debias.models.registry import bias, relevance

    alone = Additive(relevance(5), bias(5))
    mixture = Mixture([Additive(relevance(5), bias(5))])
    batch, clicks = batch_of(FEATURES), (FEATURES[..., 1] > 0).astype("float32")
    np.testing.assert_allclose(
        numbers(mixture.session_losses(batch, clicks, mixture(batch))),
        numbers(alone.session_losses(batch, clicks, alone(batch))),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        numbers(mixture.click_logits(batch, mixture(batch))),
        numbers(alone(batch)),
        rtol=1e-4,
    )


def test_fit_refuses_packed_batches_where_steps_are_compiled_by_xla():
    data = RankingData(FEATURES.reshape(-1, 7), None, np.array([0, 5 * POSITIONS]))
    item = np.arange(POSITIONS)[None]
    log = ClickLog(np.zeros(1, "int32"), item, item % 2 == 0)
    feed = batches(log, data, packed=True)
    model = CLICK_MODELS["additive"](0)
    model.compile(jit_compile=True)
    with pytest.raises(ValueError, match="jit_compile=False"):
        model.fit(feed, verbose=0)
    model.compile(jit_compile=False)
    assert np.isfinite(model.fit(feed, verbose=0).history["loss"]).all()
