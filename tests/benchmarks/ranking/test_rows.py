"""Tests of the rows of the tables of rankers, their learners, variants and truths."""

import gzip
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.experiments import TABLES
from benchmarks.ranking import protocol, rows
from benchmarks.ranking.learners import DEALS, known_context
from benchmarks.ranking.learners import LEARNERS as BUILT
from benchmarks.ranking.protocol import (
    LIST_SIZE,
    World,
    click_metrics,
    predicted_logits,
    ranking_metrics,
    shown_clicks,
)
from benchmarks.ranking.rows import alternatives, fit, measure
from benchmarks.ranking.settings import Drawn, Logging, Size
from benchmarks.ranking.tables import ESTIMATORS, LEARNERS, TOLD
from benchmarks.ranking.trials import Trial
from benchmarks.ranking.variants import VARIANTS
from debias import metrics
from debias.data.layout import layout_of
from debias.losses import click_cross_entropy
from debias.models.batches import batches
from debias.presets import PRESETS
from debias.propensity import policy_weights
from debias.training import TrainingConfig
from simulators.clicks import item_attraction
from simulators.oracle import expected_clicks, log_likelihood

ROWS = ("logging", *LEARNERS, *TOLD, *ESTIMATORS, "ceiling")
SCORES_ONLY = (
    *("dual_learning", "pair_debias", "softmax_naive", "softmax_naive_three", "upe"),
    *("oracle_listwise", "full_information", "full_information_softmax"),
    *(row for row in LEARNERS if row.startswith("listwise")),
    *(row for row in ESTIMATORS if row.endswith("_softmax")),
)
BELIEFS = {
    *("type_rand_index", "attention_correlation", "examination_error"),
    *("reference_tau", "ndcg@5_by_relevance", "ndcg@5_by_places", "ndcg@5_by_largest"),
}
TINY = Size(queries=60, sessions=600)
CONFIG = TrainingConfig(epochs=1, batch_size=128, seed=3)


@pytest.fixture(scope="module")
def mixed() -> World:
    return protocol.world("mixed", 3, None, TINY)


@pytest.fixture
def untrained(monkeypatch):
    """Models as they start, with their loss on a batch: fits are tested elsewhere.

    Nor are their scores compiled, which takes longer than to compute them.
    """

    def built(world, build, config):
        model = build(config.seed)
        batch, clicks = next(iter(batches(world.train.log, world.train.data, 16)))
        losses = model.session_losses(batch, clicks, model(batch))
        return model, -float(np.mean(losses))

    monkeypatch.setattr(rows, "trained", built)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("row", [*dict.fromkeys(ROWS)])
def test_every_row_yields_its_metrics(row, mixed):
    found = measure(row, mixed, CONFIG)
    ranking = {"ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "mrr", "expected_clicks"}
    ranking |= {"click_mrr", "click_share@3"}
    clicks = {"click_log_likelihood", "click_skill", "perplexity"}
    silent = ("logging", *SCORES_ONLY)
    expected = ranking | (set() if row in silent else clicks)
    assert set(found) - BELIEFS == expected
    assert np.isfinite(list(found.values())).all()


@pytest.mark.usefixtures("untrained")
def test_the_logging_row_is_held_to_tensorflow_ranking(mixed, monkeypatch):
    pytest.importorskip("tensorflow_ranking")
    right = metrics.ndcg
    measure("logging", mixed, CONFIG)
    wrong = lambda *given, **more: 1.001 * right(*given, **more)  # noqa: E731
    monkeypatch.setattr("benchmarks.ranking.protocol.metrics.ndcg", wrong)
    with pytest.raises(RuntimeError, match="NDCG@1 of the logging policy is"):
        measure("logging", mixed, CONFIG)


def test_the_row_auto_is_the_one_that_is_chosen(mixed, monkeypatch):
    monkeypatch.setattr(rows, "chosen", lambda world, config: "product")
    assert measure("auto", mixed, CONFIG) == measure("product", mixed, CONFIG)


def test_a_row_that_diverges_says_so_and_has_no_other_metric(mixed):
    """At a rate at which the first steps leave what numbers can hold."""
    wild = replace(CONFIG, rate=1.0, decay=0.0)
    huge = mixed.train.data.features * np.float32(1e30)
    train = mixed.train._replace(data=replace(mixed.train.data, features=huge))
    lost = measure("naive", mixed._replace(train=train), wild)
    assert lost == {"diverged": 1.0}


def test_a_row_is_fitted_to_clicks():
    """Its model predicts held-out clicks better than before; grades are not read."""
    size = replace(TINY, sessions=4000)
    found = protocol.world("mixed", 3, None, size)
    world = World(found.population, *(ungraded(split) for split in found.splits))
    fitted = fit("product", world, replace(CONFIG, epochs=2, rate=0.02))
    start = BUILT["product"].build(3, world)
    before, after = (
        click_metrics(world.test.log, predicted_logits(model, world.test))
        for model in (start, fitted.model)
    )
    gain = after["click_log_likelihood"] - before["click_log_likelihood"]
    assert gain > 0.02 and np.isfinite(fitted.validation)


def ungraded(split):
    return split._replace(data=replace(split.data, labels=None))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_predict_clicks_and_rank_by_features(name):
    crowd = "device" if name.endswith("crossed") else "context"
    world = protocol.world(crowd, 3, None, TINY)
    model = VARIANTS[name](layout_of(world.train.log), 3)
    batch, clicks = next(iter(batches(world.test.log, world.test.data, 16)))
    outputs = model(batch)
    assert model.click_logits(batch, outputs).shape == clicks.shape
    assert np.isfinite(model.session_losses(batch, clicks, outputs)).all()
    assert model.score(batch["features"]).shape == clicks.shape


def test_attention_that_reads_items_changes_with_them():
    world = protocol.world("grid", 3, None, TINY)
    batch, _ = next(iter(batches(world.test.log, world.test.data, 16)))
    layout, other = layout_of(world.train.log), dict(batch, features=-batch["features"])
    for build, reads in ((PRESETS["xpa"].build, False), (VARIANTS["xpa_items"], True)):
        model = build(layout, 3)
        model(batch)
        before, after = (np.asarray(model.attention(b)) for b in (batch, other))
        assert np.allclose(before, after) is not reads


def test_every_row_of_a_table_can_be_built():
    """Bounds and the row of grades apart, a row of a `Trial` is a learner."""
    rows = {
        trial.learner or trial.row
        for table in TABLES.values()
        for trial in (*table.experiments, *table.quick)
        if isinstance(trial, Trial)
    }
    assert rows - {"logging", "ceiling", "auto"} <= set(BUILT)


def test_omitted_features_are_missing_everywhere(mixed):
    seen = BUILT["product_omitted_weighted"].view(mixed)
    for whole, half in zip(mixed.splits, seen.splits, strict=True):
        np.testing.assert_array_equal(half.data.features, whole.data.features[:, ::2])
        assert half.log is whole.log
    assert seen.train.weight is not None and mixed.train.weight is None


def test_rows_that_drop_sessions_without_clicks_keep_the_test_log(mixed):
    seen = BUILT["mixture_clicked"].view(mixed)
    some = mixed.train.log.click.any(axis=1)
    assert 0 < some.sum() < len(some)
    assert seen.train.log.sessions == some.sum()
    assert seen.train.log.click.sum() == mixed.train.log.click.sum()
    assert seen.test is mixed.test


def test_rows_of_items_by_number_know_the_same_queries(mixed):
    seen = BUILT["per_item"].view(mixed)
    assert all(split.data is seen.train.data for split in seen.splits)
    assert seen.train.data.features[:, 0].tolist() == [*range(mixed.train.data.items)]
    logs = [split.log.item for split in seen.splits]
    assert (np.concatenate(logs) == mixed.train.log.item).all()
    assert [len(log) for log in logs] == [400, 100, 100]


def test_weighted_rows_weigh_by_the_policy(mixed):
    seen = BUILT["product_weighted"].view(mixed)
    expected = policy_weights(mixed.train.log).weight
    np.testing.assert_array_equal(seen.train.weight, expected)
    assert np.ptp(expected[mixed.train.log.mask]) > 0 and seen.test.weight is None


@pytest.mark.parametrize("best_first", [True, False])
def test_experts_order_all_ten_items_by_grade(best_first):
    sure = protocol.world("pbm", 3, None, TINY, Logging(best_first, 0.0))
    log, data = sure.train.log, sure.train.data
    assert data.sizes.max() == LIST_SIZE
    grades = np.where(log.mask, data.labels[log.item], -1 if best_first else 9)
    steps = np.diff(grades.astype(int), axis=1)
    assert (steps <= 0 if best_first else steps >= 0).all()


def test_random_order_has_no_order():
    lot = protocol.world("pbm", 3, None, TINY, Logging(True, 1.0))
    log, data = lot.train.log, lot.train.data
    mean = np.where(log.mask, data.labels[np.maximum(log.item, 0)], np.nan)
    mean = np.nanmean(mean, axis=0)
    error = data.labels.std() / np.sqrt(log.sessions)
    assert np.abs(mean - mean.mean()).max() < 5 * error
    half = protocol.world("pbm", 3, None, TINY, Logging(True, 0.5))
    first = half.train.data.labels[half.train.log.item[:, 0]].mean()
    assert first > mean[0] + 10 * error


def test_a_constant_predictor_has_no_skill(mixed):
    log = mixed.test.log
    rate = log.click[log.mask].mean()
    logits = np.full(log.click.shape, np.log(rate / (1 - rate)))
    assert click_metrics(log, logits)["click_skill"] == pytest.approx(0, abs=1e-6)
    sure = np.where(log.click, 30.0, -30.0)
    assert click_metrics(log, sure)["click_skill"] == pytest.approx(1)


def test_alternatives_to_serve_of_a_mixture(mixed):
    model = BUILT["mixture"].build(3, mixed)
    batch, _ = next(iter(batches(mixed.test.log, mixed.test.data, 16)))
    model(batch)
    model.prior_logits.assign(np.log([0.2, 0.5, 0.3]))
    x = mixed.test.data.features[:7]
    parts = [np.asarray(part.score(x)) for part in model.components]
    stands = layout_of(mixed.train.log).places
    found = {rule: np.asarray(f(x)) for rule, f in alternatives(model, stands).items()}
    expected = 0.2 * parts[0] + 0.5 * parts[1] + 0.3 * parts[2]
    np.testing.assert_allclose(found["relevance"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["largest"], parts[1], rtol=1e-6)
    each = [np.asarray(model.logits_at(x, k)) for k in range(1, LIST_SIZE + 1)]
    expected = np.sum([1 / (1 + np.exp(-logit)) for logit in each], axis=0)
    np.testing.assert_allclose(found["places"], expected, rtol=1e-5)
    assert alternatives(BUILT["product"].build(3, mixed), stands) == {}


@pytest.mark.usefixtures("untrained")
def test_a_mixture_is_served_at_the_places_of_a_grid():
    grid = protocol.world("grid", 3, None, TINY)
    assert np.isfinite(measure("mixture", grid, CONFIG)["ndcg@5_by_places"])


def test_nobody_predicts_clicks_better_than_the_crowd_itself(mixed):
    """The entropy of the clicks, within four standard errors of the test log."""
    log = mixed.test.log
    assert log.mask.all()
    gamma = item_attraction(mixed.test.data)[log.item]
    vectors = np.array(list(product((False, True), repeat=log.list_size)))
    every = [np.tile(lists, (len(vectors), 1)) for lists in gamma]
    likely = [log_likelihood(mixed.population, lists, vectors) for lists in every]
    exact = sum((np.exp(x) * np.maximum(x, -1e9)).sum() for x in likely)
    found = measure("ceiling", mixed, CONFIG)
    error = 4 * 0.5 / np.sqrt(log.mask.sum())  # of cells whose nats vary by less
    assert abs(found["click_log_likelihood"] - exact / log.mask.sum()) < error
    assert found["ndcg@10"] == 1


def test_rows_read_a_grid_by_row_and_column():
    grid = protocol.world("grid", 3, None, TINY)
    assert grid.train.log.row.max() == 2 and grid.train.log.column.max() == 5
    model = BUILT["xpa"].build(3, grid)
    batch, _ = next(iter(batches(grid.test.log, grid.test.data, 16)))
    model(batch)
    assert model.bias.tables.keys() == {"position", "row", "column"}


def test_splits_share_no_query_and_no_session(mixed):
    sizes = [split.data.queries for split in mixed.splits]
    assert sizes == [36, 12, 12]
    train, validation, test = (
        {row.tobytes() for row in split.data.features} for split in mixed.splits
    )
    assert not train & validation and not train & test and not validation & test
    assert not np.array_equal(mixed.validation.log.click, mixed.test.log.click)


def test_a_seed_names_the_world_and_only_a_seed():
    again = protocol.world.__wrapped__("mixed", 3, None, TINY)
    other = protocol.world.__wrapped__("mixed", 4, None, TINY)
    first = protocol.world.__wrapped__("mixed", 3, None, TINY)
    assert (again.train.log.click == first.train.log.click).all()
    assert (other.train.log.item != first.train.log.item).any()


def test_a_world_of_its_own_has_attraction_as_it_is_told():
    """Clicks of a sure reader at the first place, and all that is measured by truth."""
    drawn = protocol.world("document-ctr", 3, None, TINY, None, Drawn("linear-noisy"))
    usual = protocol.world.__wrapped__("document-ctr", 3, None, TINY)
    assert drawn.attraction == "linear-noisy"
    log, data = drawn.train.log, drawn.train.data
    expected = 0.1 + 0.9 * data.labels[log.item] / 4
    np.testing.assert_allclose(log.attraction[log.mask], expected[log.mask], rtol=1e-6)
    assert not np.array_equal(drawn.train.data.labels, usual.train.data.labels)
    told = BUILT["full_information"].view(drawn).train
    gamma = 0.1 + 0.9 * told.data.labels[told.log.item] / 4
    np.testing.assert_allclose(
        told.log.context[told.log.mask], gamma[told.log.mask], rtol=1e-6
    )
    best = shown_clicks(drawn, drawn.test.data.labels.astype(float))
    tops = [
        np.sort(0.1 + 0.9 * drawn.test.data.labels[a:b] / 4)[::-1][:LIST_SIZE].sum()
        for a, b in pairwise(drawn.test.data.offsets)
    ]
    assert best == pytest.approx(np.mean(tops), rel=1e-5)


def test_true_grades_rank_best_and_reversed_grades_worst(mixed):
    labels = mixed.test.data.labels.astype(float)
    best, worst = (ranking_metrics(mixed, sign * labels) for sign in (1, -1))
    assert best["ndcg@10"] == 1 and best["mrr"] == 1
    assert worst["ndcg@10"] < 0.3
    assert best["expected_clicks"] > worst["expected_clicks"]


def test_shown_clicks_by_hand(mixed):
    data = mixed.test.data
    labels = data.labels.astype(float)
    total = 0.0
    for q in range(data.queries):
        own = item_attraction(data)[data.offsets[q] : data.offsets[q + 1]]
        top = np.sort(own)[::-1][:LIST_SIZE]
        total += expected_clicks(mixed.population, top[None])[0]
    np.testing.assert_allclose(shown_clicks(mixed, labels), total / data.queries, 1e-6)


def test_the_oracle_is_told_the_truth(mixed):
    """examination (low + (high - low) gamma) is the simulator's click probability."""
    log = mixed.train.log
    context = known_context(log, mixed.population.behaviours)
    examination, low, high = np.split(context, 3, axis=1)
    gamma = item_attraction(mixed.train.data)[np.maximum(log.item, 0)]
    expected = np.where(log.mask, log.examination * log.attraction, 0)
    found = np.where(log.mask, examination * (low + (high - low) * gamma), 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_full_information_is_told_the_attraction_of_every_item(mixed):
    seen = BUILT["full_information"].view(mixed)
    log, data = seen.train.log, mixed.train.data
    shown = log.item[log.mask]
    assert (np.bincount(shown, minlength=data.items) == DEALS).all()
    assert (data.query_of_item()[shown] == np.repeat(log.query, log.mask.sum(1))).all()
    gamma = item_attraction(data)
    np.testing.assert_array_equal(log.context[log.mask], gamma[shown])
    assert seen.test is mixed.test


@pytest.mark.parametrize("row", ["full_information", "full_information_softmax"])
def test_loss_of_full_information_by_hand(row, mixed):
    seen = BUILT[row].view(mixed)
    model = BUILT[row].build(3, seen)
    batch, clicks = next(iter(batches(seen.train.log, seen.train.data, 4)))
    outputs = model(batch)
    z, wanted = np.asarray(outputs, float), np.asarray(batch["context"], float)
    mask = np.asarray(batch["mask"])
    if row == "full_information":
        each = np.where(mask, np.logaddexp(0, z) - wanted * z, 0)
        expected = each.sum(axis=1)
    else:
        total = np.log(np.where(mask, np.exp(z), 0).sum(axis=1, keepdims=True))
        expected = -np.where(mask, wanted * (z - total), 0).sum(axis=1)
    found = model.session_losses(batch, clicks, outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_oracles_rank_by_the_loss_of_their_family_by_hand(mixed):
    """The listwise one asks where in a list the clicks fall, given examination."""
    seen = BUILT["oracle_listwise"].view(mixed)
    model = BUILT["oracle_listwise"].build(3, seen)
    batch, clicks = next(iter(batches(seen.train.log, seen.train.data, 4)))
    examination, low, high = np.split(np.asarray(batch["context"], float), 3, axis=1)
    wanted = 1 / (1 + np.exp(-np.asarray(model.score(batch["features"]), float)))
    p = examination * (low + (high - low) * wanted) * np.asarray(batch["mask"])
    share = np.log(np.maximum(p, 1e-6) / p.sum(axis=1, keepdims=True))
    expected = -np.where(np.asarray(clicks) > 0, share, 0).sum(axis=1)
    found = model.session_losses(batch, clicks, model(batch))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def letor(path, queries, open_=open):
    rng = np.random.default_rng(0)
    with open_(path, "wt") as file:
        for q in range(queries):
            for _ in range(12):
                x = rng.normal(size=3)
                grade = int(np.clip(x[0] + 1.5, 0, 4))
                file.write(f"{grade} qid:{q} 1:{x[0]:.4f} 2:{x[1]:.4f} 3:{x[2]:.4f}\n")


def test_letor_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pair").mkdir()
    letor(tmp_path / "pair" / "my.train", 40)
    letor(tmp_path / "pair" / "my.test", 10)
    pair = protocol.world.__wrapped__("mixed", 0, str(tmp_path / "pair"), TINY)
    assert [split.data.queries for split in pair.splits] == [30, 10, 10]
    letor(tmp_path / "one.txt.gz", 50, gzip.open)
    one = protocol.world.__wrapped__("mixed", 0, str(tmp_path / "one.txt.gz"), TINY)
    assert [split.data.queries for split in one.splits] == [30, 10, 10]
    (tmp_path / "odd").mkdir()
    letor(tmp_path / "odd" / "train.txt", 10)
    with pytest.raises(ValueError, match=r"odd: expected files of train and test"):
        protocol.world.__wrapped__("mixed", 0, str(tmp_path / "odd"), TINY)


def test_parts_of_an_ensemble_learn_apart(mixed):
    """In training each part has its own loss; the mean logit is what is evaluated."""
    model = BUILT["product_three"].build(3, mixed)
    batch, clicks = next(iter(batches(mixed.test.log, mixed.test.data, 16)))
    logits = [np.asarray(part(batch)) for part in model.parts]
    losses = [np.asarray(click_cross_entropy(clicks, z)) for z in logits]
    outputs = model(batch)
    apart = model.session_losses(batch, clicks, outputs, training=True)
    np.testing.assert_allclose(apart, np.sum(losses, axis=0), rtol=1e-5)
    joint = model.session_losses(batch, clicks, outputs)
    mean = click_cross_entropy(clicks, np.mean(logits, axis=0))
    np.testing.assert_allclose(joint, mean, rtol=1e-5)
