"""Trees exported: each format gives the scores of the trees, row by row."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import debias
from debias.artifacts import open_scorer
from debias.data.kinds import Feature
from debias.models.tree_exports import export_trees, ltr
from debias.models.trees import Counts, Trees, TreesConfig, below, boost

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
NAMES = ("price", "age", "stock")


@pytest.fixture(scope="module", params=["lightgbm", "xgboost"])
def grown(request):
    """Trees, and rows on either side of their thresholds, some with missing values."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(400, 3)), 2).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    shown = np.full(400, 50.0)
    p = np.where(x[:, 0] > 0.3, 0.6, 0.2) + 0.2 * np.isnan(x[:, 1])
    counts = Counts(np.arange(400), np.zeros(400, int), shown, rng.binomial(50, p))
    config = TreesConfig(library=request.param, rounds=20, leaves=6, rate=0.3)
    booster, base, theta, _ = boost(x, counts, counts, np.ones(1), config)
    return Trees(request.param, booster, base, theta, 1, NAMES), x


def test_onnx_gives_the_same_scores(grown, tmp_path):
    trees, x = grown
    path = debias.export(trees, tmp_path / "ranker.onnx")
    scorer = open_scorer(path)
    np.testing.assert_allclose(scorer(x), trees(x), rtol=1e-5, atol=1e-5)
    assert scorer.feature_names == NAMES
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    (found,) = session.run(None, {"features": x.reshape(8, 50, 3)})
    np.testing.assert_allclose(found, trees(x.reshape(8, 50, 3)), rtol=1e-5, atol=1e-5)


def test_the_library_reads_its_own(grown, tmp_path):
    trees, x = grown
    if trees.library == "lightgbm":
        path = export_trees(trees, tmp_path / "model.txt")
        found = lightgbm.Booster(model_file=str(path)).predict(x, raw_score=True)
    else:
        for name in ("model.json", "model.ubj"):
            format = None if name.endswith(".ubj") else "xgboost"
            path = export_trees(trees, tmp_path / name, format)
            booster = xgboost.Booster(model_file=str(path))
            found = booster.predict(xgboost.DMatrix(x), output_margin=True)
            np.testing.assert_allclose(found + trees.base, trees(x), rtol=1e-5)
    np.testing.assert_allclose(found + trees.base, trees(x), rtol=1e-5, atol=1e-6)
    other = "xgboost" if trees.library == "lightgbm" else "lightgbm"
    with pytest.raises(ValueError, match=f"{other} cannot read them"):
        export_trees(trees, tmp_path / "other", other)


def test_a_legend_tells_other_libraries_the_columns_and_the_codes(grown, tmp_path):
    trees, _ = grown
    kinds = (Feature("brand", "category", ("acme", "ïon")), *map(Feature, NAMES[1:]))
    shop = replace(trees, feature_names=("brand", "age", "stock"), kinds=kinds)
    path = export_trees(shop, tmp_path / "ranker.json", "ltr")
    found = json.loads((tmp_path / "ranker.features.json").read_text())["features"]
    assert [row["name"] for row in found] == ["brand", "age", "stock"]
    codes = {word: int(code) for code, word in found[0]["codes"].items()}
    assert codes == {"missing": 0, "out of vocabulary": 1, "acme": 2, "ïon": 3}
    assert path.exists() and "codes" not in found[1]
    own = {"lightgbm": "a.txt", "xgboost": "a.ubj"}[trees.library]
    export_trees(trees, tmp_path / own)
    found = json.loads((tmp_path / "a.features.json").read_text())["features"]
    assert [(row["column"], row["name"]) for row in found] == [*enumerate(NAMES)]
    export_trees(trees, tmp_path / "b.onnx")  # which holds its own
    assert not (tmp_path / "b.features.json").exists()


def test_raw_rows_are_read_by_name(grown):
    trees, x = grown
    x = np.nan_to_num(x[:9])  # no kinds are known, so numbers must be there
    table = pa.table({"sku": ["a"] * 9, **dict(zip(NAMES, x.T, strict=True))})
    given = table.select(["stock", "sku", "age", "price"])
    np.testing.assert_array_equal(trees(given), trees(x))
    with pytest.raises(ValueError, match="no feature stock"):
        trees(table.drop_columns("stock"))
    with pytest.raises(ValueError, match=r"read 3 features, got .* shape \(9, 2\)"):
        trees(x[:, :2])


def walk(node, row):
    """A tree as the plugins of search engines read it."""
    while "leaf" not in node:
        value = row[node["split"]]
        side = "missing" if np.isnan(value) else "no"
        if value < np.float32(node["split_condition"]):
            side = "yes"
        node = next(c for c in node["children"] if c["nodeid"] == node[side])
    return node["leaf"]


def test_search_engines_walk_to_the_same_leaves(grown, tmp_path):
    trees, x = grown
    path = export_trees(trees, tmp_path / "model.json")
    forest = json.loads(path.read_text())
    assert forest == ltr(trees)
    for row, score in zip(x[:100], trees(x[:100]), strict=True):
        named = dict(zip(NAMES, row, strict=True))
        total = trees.base + sum(walk(tree, named) for tree in forest)
        assert total == pytest.approx(float(score), abs=1e-4)


def test_what_cannot_be_exported(grown, tmp_path):
    trees, _ = grown
    nameless = Trees(trees.library, trees.booster)
    with pytest.raises(ValueError, match="features need names"):
        export_trees(nameless, tmp_path / "model.json")
    with pytest.raises(ValueError, match="trees are written as"):
        export_trees(trees, tmp_path / "model")
    with pytest.raises(ValueError, match="format of trees must be one of"):
        export_trees(trees, tmp_path / "model", "keras")
    (tmp_path / "there.onnx").write_text("")
    with pytest.raises(ValueError, match="exists"):
        export_trees(trees, tmp_path / "there.onnx")


def test_thresholds_are_the_largest_float_that_goes_left():
    third = 1 / 3  # above it lies float32(1/3)
    assert below(third, inclusive=True) < third
    up = np.nextafter(np.float32(below(third, True)), np.float32(1))
    assert float(up) > third
    assert below(0.5, inclusive=True) == 0.5 > below(0.5, inclusive=False)
