"""Tests of debias.models.batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from debias.data import ClickLog, RankingData, log_files
from debias.layers import BiasTower, Standardize
from debias.models import batches as pipeline
from debias.models.batches import LogBatches, batches
from debias.models.towers import Additive

RNG = np.random.default_rng(0)
DATA = RankingData(RNG.normal(size=(9, 4)), None, [0, 5, 9])
ITEM = np.array([[0, 1, 2], [5, 6, -1], [8, -1, 7], [4, 3, 2], [6, 5, 8]])
CLICK = RNG.random((5, 3)) < 0.5
CLICK &= ITEM >= 0
LOG = ClickLog(query=[0, 1, 1, 0, 1], item=ITEM, click=CLICK)


def arrays(dataset):
    return [
        ({name: column.numpy() for name, column in batch.items()}, clicks.numpy())
        for batch, clicks in dataset
    ]


def test_unshuffled_batches_by_hand():
    found = arrays(batches(LOG, DATA, batch_size=2, shuffle=False))
    assert [len(clicks) for _, clicks in found] == [2, 2, 1]
    batch, clicks = found[1]
    np.testing.assert_array_equal(batch["features"][0, 0], DATA.features[8])
    np.testing.assert_array_equal(batch["features"][1], DATA.features[[4, 3, 2]])
    assert batch["position"].tolist() == [[1, 0, 3], [1, 2, 3]]
    assert batch["mask"].tolist() == [[True, False, True], [True, True, True]]
    expected = np.where(ITEM[2:4] >= 0, CLICK[2:4], -1)
    np.testing.assert_array_equal(clicks, expected)
    assert batch["features"].dtype == clicks.dtype == np.float32


def test_features_that_are_shared_are_read_where_they_are():
    data = RankingData.trusted(pipeline.shareable((9, 4)), None, DATA.offsets)
    assert data.features.ctypes.data % pipeline.ALIGNED == 0
    pipeline.share(data)
    data.features[:] = DATA.features
    found, wanted = (
        arrays(batches(LOG, each, 5, shuffle=False)) for each in (data, DATA)
    )
    np.testing.assert_array_equal(found[0][0]["features"], wanted[0][0]["features"])
    plain = RankingData.trusted(np.zeros((9, 4), np.float32), None, DATA.offsets)
    pipeline._table(plain, None)
    plain.features[:] = 1  # somebody's own, who may
    assert arrays(batches(LOG, plain, 5, shuffle=False))[0][0]["features"].max() == 0


def test_features_that_cannot_be_shared_are_copied():
    for spoil in ("fortran", "read-only"):
        features = pipeline.shareable((9, 4))
        features[:] = DATA.features
        if spoil == "fortran":
            features = np.asfortranarray(features)
        features.flags.writeable = spoil != "read-only"
        data = RankingData.trusted(features, None, DATA.offsets)
        pipeline.share(data)
        found = arrays(batches(LOG, data, 5, shuffle=False))
        np.testing.assert_array_equal(found[0][0]["features"][0, 1], DATA.features[1])


def test_packed_batches_say_which_item_a_cell_shows():
    batch, clicks = arrays(batches(LOG, DATA, 5, shuffle=False, packed=True))[0]
    plain, expected = arrays(batches(LOG, DATA, 5, shuffle=False))[0]
    assert batch.keys() - plain.keys() == {"cell"}
    assert min(batch) == "cell"  # Keras counts sessions by the first
    shown = batch["features"][batch["cell"]]
    np.testing.assert_array_equal(shown[ITEM >= 0], plain["features"][ITEM >= 0])
    np.testing.assert_array_equal(clicks, expected)


def test_of_a_packed_batch_each_distinct_item_is_taken_once():
    batch, _ = arrays(batches(LOG, DATA, 2, shuffle=False, packed=True))[0]
    distinct = np.unique(np.maximum(ITEM[:2], 0))  # padding names some item as well
    assert len(batch["features"]) == len(distinct) < 9


def sessions_of(dataset):
    """Which sessions came, in order, told by their items' features."""
    key = DATA.features[np.maximum(ITEM, 0)].sum(axis=(1, 2))
    sums = [b["features"].sum(axis=(1, 2)) for b, _ in arrays(dataset)]
    return [int(np.abs(key - s).argmin()) for s in np.concatenate(sums)]


def test_an_epoch_holds_every_session_once_and_the_next_comes_in_another_order():
    shuffled = batches(LOG, DATA, batch_size=2, seed=3)
    first, second = sessions_of(shuffled), sessions_of(shuffled)
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    again = batches(LOG, DATA, batch_size=2, seed=3)
    assert [sessions_of(again), sessions_of(again)] == [first, second]
    assert sessions_of(batches(LOG, DATA, batch_size=2, seed=5)) != first


def test_cardinality_is_known_so_that_keras_shows_progress():
    assert int(batches(LOG, DATA, batch_size=2).cardinality()) == 3


def test_layout_columns_come_along():
    log = ClickLog(
        query=LOG.query,
        item=ITEM,
        click=CLICK,
        row=(ITEM >= 0) * 2,
        column=(ITEM >= 0) * [1, 2, 3],
        device=[1, 2, 1, 0, 1],
        context=np.arange(10).reshape(5, 2),
    )
    batch, _ = arrays(batches(log, DATA, batch_size=5, shuffle=False))[0]
    assert batch["row"].tolist() == log.row.tolist()
    assert batch["column"].tolist() == log.column.tolist()
    assert batch["device"].tolist() == [1, 2, 1, 0, 1]
    assert batch["context"].dtype == np.float32 and batch["context"][4].tolist() == [
        8,
        9,
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_a_step_can_make_the_batches_of_a_log_in_memory_by_itself(packed):
    log = ClickLog(LOG.query, ITEM, CLICK, device=[1, 2, 1, 0, 1])
    made = batches(log, DATA, 2, packed=packed, seed=3, weight=np.ones((5, 3)))
    again = batches(log, DATA, 2, packed=packed, seed=3, weight=np.ones((5, 3)))
    executions = made.executions(2)
    for _ in range(2):  # epochs
        expected = list(again)
        for size in (2, 1):
            epoch, count, first = next(executions)
            assert (int(count), int(first)) == (size, 3 - len(expected))
            for place in range(int(first), int(first) + size):
                (batch, clicks), (wanted, found) = epoch.batch(place), expected.pop(0)
                assert batch.keys() == wanted.keys()
                for name in batch:
                    np.testing.assert_array_equal(batch[name], wanted[name])
                np.testing.assert_array_equal(found, clicks)
        iter(again)  # as Keras ends an epoch


def test_what_is_not_in_memory_or_is_for_a_gpu_comes_by_the_pipeline_alone(
    shards, monkeypatch
):
    assert not isinstance(batches(shards[1], DATA), LogBatches)
    assert isinstance(batches(LOG, DATA), LogBatches)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not isinstance(batches(LOG, DATA), LogBatches)


def test_a_pipeline_is_built_when_it_is_needed_first():
    fed, whole = batches(LOG, DATA, 2), batches(LOG, DATA, 2)
    model = Additive(keras.layers.Dense(1), BiasTower({"position": 3}))
    model.compile(keras.optimizers.SGD(), steps_per_execution=2)
    model.fit(fed, verbose=0)  # its first execution builds the model by the pipeline
    again = batches(LOG, DATA, 2)
    model.fit(again, verbose=0)
    assert "pipeline" in vars(fed) and "pipeline" not in vars(again)
    assert int(again.cardinality()) == 3 and "pipeline" not in vars(again)
    assert [len(click) for _, click in whole.skip(1)] == [2, 1]
    assert whole.element_spec == batches(LOG, DATA, 2).element_spec
    with pytest.raises(AttributeError, match="LogBatches has no attribute 'length'"):
        _ = whole.length


def test_a_weight_comes_along_in_the_order_of_the_sessions():
    weight = np.arange(15.0).reshape(5, 3)
    weight[1, 2] = np.nan  # padding: not read
    shuffled = arrays(batches(LOG, DATA, batch_size=2, seed=3, weight=weight))
    found = np.concatenate([batch["weight"] for batch, _ in shuffled])
    order = sessions_of(batches(LOG, DATA, batch_size=2, seed=3))
    assert order != list(range(5)) and found.dtype == np.float32
    np.testing.assert_array_equal(found, np.where(ITEM >= 0, weight, 0)[order])
    assert "weight" not in arrays(batches(LOG, DATA))[0][0]


def test_preprocess_passes_the_table_once():
    scale = Standardize().adapt(DATA.features)
    batch, _ = arrays(batches(LOG, DATA, 5, shuffle=False, preprocess=scale))[0]
    scaled = keras.ops.convert_to_numpy(scale(DATA.features))
    np.testing.assert_allclose(batch["features"][0], scaled[ITEM[0]], rtol=1e-6)


def test_rejects():
    with pytest.raises(ValueError, match="batch_size"):
        batches(LOG, DATA, batch_size=0)
    beyond = ClickLog(query=[0], item=[[9]], click=[[False]])
    with pytest.raises(ValueError, match="9"):
        batches(beyond, DATA)
    with pytest.raises(ValueError, match="no sessions"):
        batches(LOG.take(np.arange(0)), DATA)
    with pytest.raises(ValueError, match=r"weight must .* \(5, 3\), got \(5,\)"):
        batches(LOG, DATA, weight=np.ones(5))
    for bad in (-1.0, np.inf, np.nan):
        weight = np.ones((5, 3))
        weight[3, 1] = bad
        with pytest.raises(ValueError, match=f"got {bad} at row 3, column 1"):
            batches(LOG, DATA, weight=weight)


# Logs on disk


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A log of 23 sessions in three shards of several row groups, and its folder."""
    monkeypatch.setattr(log_files, "ROW_GROUP", 4)
    monkeypatch.setattr(pipeline, "PIECE", 11)  # sessions read at once: two batches
    index = np.arange(23)
    item = (index[:, None] + np.arange(3)) % 9
    item[::4, 1] = -1
    log = ClickLog(
        query=index,
        item=item,
        click=(index[:, None] % 2 == 0) & (item >= 0),
        device=index % 3,
        context=index[:, None] * [1.0, 10.0],
        user_type=index % 2,
    )
    log.write(tmp_path / "log", shards=3)
    return log, tmp_path / "log"


def test_a_streamed_log_in_order_is_the_log_in_memory(shards):
    log, folder = shards
    streamed = batches(folder, DATA, batch_size=5, shuffle=False)
    assert int(streamed.cardinality()) == 5
    held = batches(log, DATA, batch_size=5, shuffle=False)
    assert streamed.element_spec[0].keys() == held.element_spec[0].keys()
    for (one, clicks), (other, expected) in zip(
        arrays(streamed), arrays(held), strict=True
    ):
        np.testing.assert_array_equal(clicks, expected)
        for name, value in other.items():
            np.testing.assert_array_equal(one[name], value, err_msg=name)
            assert one[name].dtype == value.dtype


def test_a_streamed_log_is_shuffled_anew_each_epoch(shards):
    log, folder = shards

    def epoch(dataset):
        return np.concatenate([b["context"][:, 0] for b, _ in arrays(dataset)]).tolist()

    streamed = batches(folder, DATA, batch_size=5, seed=3)
    first, second = epoch(streamed), epoch(streamed)
    assert sorted(first) == sorted(second) == log.context[:, 0].tolist()
    assert first != second and first != sorted(first)
    again = batches(folder, DATA, batch_size=5, seed=3)
    assert [epoch(again), epoch(again)] == [first, second]


def test_a_model_is_fitted_to_a_folder(shards):
    model = keras.Sequential([keras.layers.Dense(1), keras.layers.Reshape((3,))])
    model.compile("sgd", "mse")
    streamed = batches(str(shards[1]), DATA, batch_size=5).map(
        lambda batch, clicks: (batch["features"], clicks)
    )
    assert (
        len(model.fit(streamed, epochs=2, shuffle=False, verbose=0).history["loss"])
        == 2
    )


def test_a_streamed_log_of_other_data_is_refused(shards):
    few = RankingData(np.zeros((5, 4)), None, [0, 5])
    with pytest.raises(tf.errors.OpError, match="item must be below 5, got"):
        arrays(batches(shards[1], few))
    with pytest.raises(ValueError, match=r"weight needs a log in memory.*log"):
        batches(shards[1], DATA, weight=np.ones((23, 3)))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        batches("nowhere", DATA)


@pytest.mark.parametrize("packed", [False, True])
def test_presentation_columns_and_targets_come_by_their_names(packed, tmp_path):
    log = ClickLog(
        query=[0, 0],
        item=[[0, 1], [1, -1]],
        click=[[0, 1], [0, 0]],
        presentation={"badge": [[1, 2], [1, 0]], "skin": [2, 1]},
        targets={"cart": [[0, 1], [0, 0]]},
    )
    data = RankingData([[0.0], [1.0]], None, [0, 2])
    log.write(tmp_path / "log.parquet")
    for source in (log, tmp_path / "log.parquet"):
        batch, _ = next(iter(batches(source, data, shuffle=False, packed=packed)))
        assert batch["badge"].numpy().tolist() == [[1, 2], [1, 0]]
        assert batch["skin"].numpy().tolist() == [2, 1]
        assert batch["cart"].numpy().tolist() == [[0, 1], [0, 0]]
