"""Tests of debias.metrics.keras: equal to NumPy's, batch by batch, on any backend."""

import keras
import numpy as np
import pytest

from debias import metrics
from debias.losses import conditional_logits
from debias.metrics.keras import METRICS, MRR, NDCG, ClickLogLikelihood, Perplexity

OTHER = {
    "ndcg": {"k": 3},
    "mrr": {"k": 2, "relevant": 2.0},
    "click_log_likelihood": {"log_prior": [0.5, -0.5]},
    "perplexity": {"list_size": 7, "log_prior": [0.5, -0.5]},
}
every_metric = pytest.mark.parametrize("name", METRICS)


def lists(levels=None, grades=5, seed=0):
    """Labels with padding, and scores, tied if there are few levels."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, grades, (30, 7)).astype("float32")
    labels[np.arange(7) >= chance.integers(0, 8, (30, 1))] = -1
    labels[:3] = np.minimum(labels[:3], 0)  # nothing relevant
    scores = chance.normal(size=(30, 7)).astype("float32")
    if levels:
        scores = chance.integers(levels, size=(30, 7)).astype("float32")
    return labels, scores


def fed(metric, *arrays, size=10):
    """The result after batches of ten lists."""
    for start in range(0, len(arrays[0]), size):
        metric.update_state(*(array[start : start + size] for array in arrays))
    return float(metric.result())


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("k", [1, 3, 10, None])
def test_ndcg_and_mrr_equal_numpy_with_and_without_ties(k, levels):
    labels, scores = lists(levels)
    for metric, function in ((NDCG(k), metrics.ndcg), (MRR(k), metrics.mrr)):
        expected = metrics.estimate(function(labels, scores, k))
        assert fed(metric, labels, scores) == pytest.approx(expected.mean, abs=1e-6)
        assert int(metric.left_out) == expected.left_out


def test_relevance_has_a_threshold():
    labels, scores = lists()
    expected = metrics.estimate(metrics.mrr(labels, scores, relevant=3)).mean
    assert fed(MRR(relevant=3), labels, scores) == pytest.approx(expected, abs=1e-6)


def test_click_metrics_equal_numpy():
    clicks, logits = lists(grades=2)
    found = fed(ClickLogLikelihood(), clicks, logits)
    expected = metrics.click_log_likelihood(clicks, logits)
    assert found == pytest.approx(expected, rel=1e-6)
    found = fed(Perplexity(7), clicks, logits)
    assert found == pytest.approx(metrics.perplexity(clicks, logits), rel=1e-6)


def test_mixtures_equal_numpy_on_their_conditional_logits():
    clicks, _ = lists(grades=2)
    logits = np.random.default_rng(4).normal(size=(*clicks.shape, 2)).astype("float32")
    prior = [0.5, -0.5]
    flat = keras.ops.convert_to_numpy(conditional_logits(clicks, logits, prior))
    found = fed(ClickLogLikelihood(prior), clicks, logits)
    expected = metrics.click_log_likelihood(clicks, flat)
    assert found == pytest.approx(expected, rel=1e-6)
    found = fed(Perplexity(7, prior), clicks, logits)
    assert found == pytest.approx(metrics.perplexity(clicks, flat), rel=1e-6)


def made(name):
    return METRICS[name](list_size=7) if name == "perplexity" else METRICS[name]()


@every_metric
def test_padding_does_not_matter_whatever_its_score(name):
    labels, scores = lists(3, grades=2)
    value = fed(made(name), labels, scores)
    for garbage in (9.0, np.inf, np.nan):
        hidden = np.where(labels < 0, np.float32(garbage), scores)
        assert fed(made(name), labels, hidden) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("label, score", [(-2, 0), (np.nan, 0), (1, np.nan)])
@every_metric
def test_what_numpy_refuses_is_nan(name, label, score):
    labels, scores = lists(grades=2)
    labels[4, 0], scores[4, 0] = label, score
    assert np.isnan(fed(made(name), labels, scores))


@pytest.mark.parametrize("grade", [100, 127, 128, 1023])
def test_ndcg_of_any_grade_equals_numpy(grade):
    labels = np.array([[grade, 1, 0, -1], [0, 3, grade, 2]], "float32")
    scores = np.array([[1, 2, 3, 9], [1, 1, 1, 0]], "float32")
    expected = metrics.ndcg(labels, scores).mean()
    assert fed(NDCG(), labels, scores) == pytest.approx(expected, rel=1e-5)


@every_metric
def test_list_weights(name):
    labels, scores = lists(grades=2)
    twice = np.r_[labels, labels[:10]], np.r_[scores, scores[:10]]
    value = fed(made(name), *twice)
    weights = np.ones(30, "float32")
    weights[:10] = 2
    for given in (weights, weights[:, None]):
        assert fed(made(name), labels, scores, given) == pytest.approx(value, rel=1e-6)
    with pytest.raises(ValueError, match="weighs lists"):
        made(name).update_state(labels, scores, np.ones((30, 7)))


@every_metric
def test_nothing_seen_is_zero_and_reset_forgets(name):
    metric = made(name)
    assert float(metric.result()) == 0.0
    labels, scores = lists(grades=2)
    first = fed(metric, labels, scores)
    metric.reset_state()
    assert fed(metric, labels, scores) == first


@every_metric
def test_config_round_trip_keeps_every_argument(name):
    metric = METRICS[name](**OTHER[name], name="mine")
    restored = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert {**OTHER[name], "name": "mine"}.items() <= restored.get_config().items()


@pytest.mark.parametrize("jit", [False, True])
def test_evaluate_equals_numpy(jit):
    labels, scores = lists(3, grades=2)
    inputs = keras.Input((7, 1))
    scorer = keras.Model(inputs, keras.layers.Reshape((7,))(inputs))
    each = [NDCG(5), MRR(), ClickLogLikelihood(), Perplexity(7)]
    scorer.compile(loss="mse", metrics=each, jit_compile=jit)
    found = scorer.evaluate(
        scores[..., None], labels, batch_size=8, return_dict=True, verbose=0
    )
    expected = {
        "ndcg@5": metrics.estimate(metrics.ndcg(labels, scores, 5)).mean,
        "mrr": metrics.estimate(metrics.mrr(labels, scores)).mean,
        "click_log_likelihood": metrics.click_log_likelihood(labels, scores),
        "perplexity": metrics.perplexity(labels, scores),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-6), name


@pytest.mark.parametrize("metric", [NDCG, MRR])
def test_rejects_a_cutoff_of_zero(metric):
    with pytest.raises(ValueError, match="k must be"):
        metric(k=0)


def test_perplexity_rejects_another_list_size():
    with pytest.raises(ValueError, match="list_size"):
        Perplexity(0)
    with pytest.raises(ValueError, match="lists of 7"):
        Perplexity(3).update_state(*lists(grades=2))
