"""A served ranker scores as the trained one, whoever loads it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from debias.artifacts import open_scorer
from debias.layers import Standardize
from debias.models import ranker
from debias.models.export import _check_target, export, format_of
from tests.debias.models.registry import CLICK_MODELS, CONTEXT, POSITIONS

ROOT = Path(__file__).parents[3]
RNG = np.random.default_rng(4)
WIDTH = 7
# Features of very different size: a logarithm near 0 and one far from it.
FEATURES = RNG.normal(size=(5, POSITIONS, WIDTH)).astype("float32")
FEATURES *= np.array([1e-5, 1e-3, 1, 1, 10, 1e3, 1e6], "float32")
LISTS = (FEATURES, FEATURES[:1, :2], np.concatenate([FEATURES, FEATURES], axis=1))
NAMES = ("features", "short", "long")
# Keras files of all models are written and opened in `test_saving`. SavedModel and ONNX
# take seconds each: of a model that folds lists to score them.
EXPORTED = "position_feature"
ENDINGS = {"keras": ".keras", "saved_model": "", "onnx": ".onnx"}

LOAD = """
import json, sys
import numpy as np

folder, formats = sys.argv[1], json.loads(sys.argv[2])
lists = np.load(f"{folder}/lists.npz")
scores = {}
for format, ending in formats.items():
    path = f"{folder}/ranker{ending}"
    if format == "keras":
        import keras
        import debias.models
        score = keras.models.load_model(path)
    elif format == "saved_model":
        import tensorflow as tf
        loaded = tf.saved_model.load(path)
        score = loaded.serve
    else:
        import onnxruntime
        session = onnxruntime.InferenceSession(path)
        score = lambda x: session.run(None, {"features": x})[0]
    for kind in lists.files:
        scores[f"{format} {kind}"] = np.asarray(score(lists[kind]))
np.savez(f"{folder}/scores.npz", **scores)
"""


def trained(name):
    """A ranker with weights that have left their start."""
    model = CLICK_MODELS[name](3)
    position = np.tile(np.arange(1, POSITIONS + 1), (5, 1))
    batch = {"features": FEATURES, "position": position, "mask": position > 0}
    model({**batch, "context": np.zeros((5, CONTEXT), "float32")})
    weights = [w + RNG.normal(size=w.shape) * 0.1 for w in model.get_weights()]
    model.set_weights(weights)
    return ranker(model, Standardize().adapt(FEATURES.reshape(-1, WIDTH)))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Scores before export and, of a fresh process, after it."""
    folder = tmp_path_factory.mktemp("served")
    np.savez(folder / "lists.npz", **dict(zip(NAMES, LISTS, strict=True)))
    scorer = trained(EXPORTED)
    wanted = [np.asarray(scorer(each)) for each in LISTS]
    for ending in ENDINGS.values():
        export(scorer, folder / f"ranker{ending}", features=WIDTH)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), json.dumps(ENDINGS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return wanted, np.load(folder / "scores.npz")


@pytest.mark.parametrize("format", ENDINGS)
def test_a_fresh_process_scores_alike(format, served):
    wanted, found = served
    for kind, expected in zip(NAMES, wanted, strict=True):
        scores = found[f"{format} {kind}"]
        assert scores.shape == expected.shape
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_overwritten_unless_asked(tmp_path):
    path = tmp_path / "ranker.keras"
    scorer = trained("naive")
    export(scorer, path, features=WIDTH)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"ranker\.keras: exists"):
        export(scorer, path, features=WIDTH)
    assert path.read_bytes() == before
    export(scorer, path, features=WIDTH, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["ranker.keras"]
    with pytest.raises(ValueError, match=r"ranker\.keras: is a file; choose another"):
        export(scorer, path, "saved_model", features=WIDTH, overwrite=True)


def test_a_link_to_a_folder_is_replaced_and_its_target_stays(tmp_path):
    target, link = tmp_path / "1", tmp_path / "current"
    export(trained("naive"), target, features=WIDTH)
    before = (target / "saved_model.pb").read_bytes()
    link.symlink_to("1")
    export(trained("product"), link, features=WIDTH, overwrite=True)
    assert not link.is_symlink() and (link / "saved_model.pb").exists()
    assert (target / "saved_model.pb").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1", "current"]


@pytest.mark.parametrize("count", [0, -1])
def test_a_ranker_reads_at_least_one_feature(count, tmp_path):
    with pytest.raises(ValueError, match=f"features must be at least 1, got {count}"):
        export(trained("naive"), tmp_path / "ranker.keras", features=count)


def test_another_number_of_features_is_refused_in_one_line(tmp_path):
    scorer = ranker(trained("naive").model, feature_names=list("abcdefgh")[:WIDTH])
    with pytest.raises(ValueError, match=rf"this ranker reads {WIDTH} .* got 2\Z"):
        export(scorer, tmp_path / "ranker.keras", features=2)


def test_formats_and_names():
    assert format_of("a/b.onnx") == "onnx" and format_of("a/1") == "saved_model"
    with pytest.raises(ValueError, match=r"a/b\.pb: unknown ending \.pb; expected"):
        format_of("a/b.pb")
    with pytest.raises(ValueError, match="format must be one of keras saved_model"):
        export(trained("naive"), "x", "tflite", features=WIDTH)
    with pytest.raises(ValueError, match=r"must end with \.keras"):
        export(trained("naive"), "x", "keras", features=WIDTH)


def test_what_only_training_needs_is_not_exported(tmp_path):
    """Keras would store optimiser, loss and metrics of the click model within."""
    scorer = trained("product")
    scorer.model.compile("adam")
    assert "Adam" in json.dumps(keras.saving.serialize_keras_object(scorer))
    path = export(scorer, tmp_path / "ranker.keras", features=WIDTH)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
        archive.extract("model.weights.h5", tmp_path)
    assert "adam" not in config.lower() and "optimizer" not in config.lower()
    with h5py.File(tmp_path / "model.weights.h5") as weights:
        names: list[str] = []
        weights.visit(names.append)
    assert not [name for name in names if "optimizer" in name]
    assert scorer.model.optimizer is not None  # training can go on


@pytest.mark.parametrize("name", ["ranker.keras", "ranker.onnx", "saved"])
def test_every_format_carries_the_names_of_features(name, tmp_path):
    names = tuple(f"feature {i}" for i in range(WIDTH))
    scorer = trained("naive")
    scorer = ranker(scorer.model, scorer.preprocess, names)
    path = export(scorer, tmp_path / name)  # and so their count is known
    opened = open_scorer(path)
    assert opened.feature_names == names
    flat = FEATURES.reshape(-1, WIDTH)
    np.testing.assert_allclose(opened(flat), scorer(flat), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=f"reads {WIDTH} features, got"):
        opened(flat[:, :1])  # which would be broadcast


def test_an_onnx_file_names_its_axes_and_carries_examination(tmp_path):
    import onnx

    scorer = trained("product")
    scorer.examination = (1.0, 0.5, None)
    path = export(scorer, tmp_path / "ranker.onnx", features=WIDTH)
    graph = onnx.load(path).graph
    shapes = {
        each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.output)
    }
    axes = ["lists", "items"]
    assert shapes == {"features": [*axes, WIDTH], "scores": axes}
    assert open_scorer(path).examination == (1.0, 0.5, None)
    keras_file = export(scorer, tmp_path / "ranker.keras", features=WIDTH)
    assert open_scorer(keras_file).examination == (1.0, 0.5, None)


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "saved").mkdir()
    _check_target(tmp_path / "saved", "saved_model", overwrite=False)
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not a SavedModel"):
        _check_target(tmp_path / "saved", "saved_model", overwrite=True)
