"""Exports of boosted trees for LightGBM, XGBoost, search engines and ONNX."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from debias.data.files import atomic_write
from debias.data.kinds import Feature, as_records, legend
from debias.data.records import write_record
from debias.data.text import one_of
from debias.engine.extras import installed
from debias.models.trees import Node, Trees, engine_of

TreeFormat = Literal["trees", "onnx", "lightgbm", "xgboost", "ltr"]
ENDINGS = {
    ".trees": "trees",
    ".onnx": "onnx",
    ".txt": "lightgbm",
    ".ubj": "xgboost",
    ".json": "ltr",
}


def tree_format(path: str | Path) -> TreeFormat:
    """Export format of boosted trees for the ending of a file name.

    Raises:
        ValueError: No export format of trees has this ending.

    >>> tree_format("ranker.onnx"), tree_format("ranker.json")
    ('onnx', 'ltr')
    """
    found = ENDINGS.get(Path(path).suffix)
    if found is None:
        raise ValueError(
            f"{path}: trees are written as .onnx, .txt (LightGBM), .ubj (XGBoost), "
            ".json (for the ranking plugins of Elasticsearch and OpenSearch) or "
            ".trees; debias train --no-trees trains a neural model instead"
        )
    return found  # type: ignore[return-value]


def export_trees(
    trees: Trees,
    path: str | Path,
    format: str | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Writes boosted trees atomically to a file.

    The formats "lightgbm" and "xgboost" refer to features by number. The formats
    "lightgbm", "xgboost" and "ltr" refer to categories by code, and omit the base
    score, which does not affect the ranking. If features have names, the file
    NAME.features.json, next to the export, lists the features and codes.

    Args:
        trees: Result of `debias.training.fit_trees`, or its attribute `ranker`.
        path: File to write.
        format: "trees", "onnx", "lightgbm", "xgboost" or "ltr". `debias.load` opens the
            format "trees". The formats "lightgbm" (text) and "xgboost" (JSON, or binary
            as .ubj) need trees that the same library trained. The function `ltr`
            describes the format "ltr". None chooses the format from the ending of the
            file name.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        ValueError: The format is unknown or needs trees of another library, or `path`
            exists and `overwrite` is False.
    """
    path = Path(path)
    format = tree_format(path) if format is None else format
    if format not in get_args(TreeFormat):
        raise ValueError(one_of("format of trees", get_args(TreeFormat), format))
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists; choose another name or give overwrite=True")
    if format in ("lightgbm", "xgboost") and format != trees.library:
        raise ValueError(
            f"{trees.library} trained these trees, and {format} cannot read them: "
            "write onnx or ltr, or train with the other library"
        )
    if format == "trees":
        trees.write(path)
    elif format == "onnx":
        write_onnx(trees, path, engine_of(trees.library).features(trees.booster))
    elif format == "xgboost" and path.suffix == ".ubj":  # which XGBoost takes by name
        with atomic_write(path) as aside:
            aside.write_bytes(trees.booster.save_raw("ubj"))
    else:
        own = engine_of(trees.library).text(trees.booster)
        text = json.dumps(ltr(trees)) if format == "ltr" else own
        with atomic_write(path) as aside:
            aside.write_text(text, encoding="utf-8")
    if format in ("lightgbm", "xgboost", "ltr") and trees.feature_names is not None:
        kinds = trees.kinds or tuple(map(Feature, trees.feature_names))
        beside = path.with_name(f"{path.stem}.features.json")
        write_record(beside, {"features": legend(kinds)})
    return path


def ltr(trees: Trees) -> list[dict[str, Any]]:
    """Trees as XGBoost's JSON dump, for plugins of Elasticsearch and OpenSearch.

    A row goes to the child `yes` if the feature is below `split_condition`. The dump
    omits the base score, which does not affect the ranking.

    Raises:
        ValueError: The features have no names.
    """
    if trees.feature_names is None:
        raise ValueError(
            "features need names, because the search engine refers to them by name: "
            "train on a log whose features are columns"
        )
    names = trees.feature_names
    return [
        _ltr(node, names, iter(range(1 << 31)), 0)
        for node in engine_of(trees.library).nodes(trees.booster)
    ]


def _ltr(
    node: Node, names: Sequence[str], number: Iterator[int], depth: int
) -> dict[str, Any]:
    own = next(number)
    if node.value is not None:
        return {"nodeid": own, "leaf": node.value}
    assert node.left is not None and node.right is not None
    left = _ltr(node.left, names, number, depth + 1)
    right = _ltr(node.right, names, number, depth + 1)
    largest = np.finfo(np.float32).max
    first = np.nextafter(np.float32(node.threshold), largest)
    return {
        "nodeid": own,
        "depth": depth,
        "split": names[node.feature],
        "split_condition": float(first),
        "yes": left["nodeid"],
        "no": right["nodeid"],
        "missing": (left if node.missing_left else right)["nodeid"],
        "children": [left, right],
    }


def write_onnx(trees: Trees, path: str | Path, features: int) -> None:
    """Writes an ONNX model from features (lists, items, F) to scores (lists, items).

    Each threshold is the largest float32 number that goes to the left child. So every
    row reaches the same leaves as in the original trees.

    Raises:
        ModuleNotFoundError: The extra `onnx` is not installed.
    """
    onnx = installed("onnx", "onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["rows"],
        ["sums"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[trees.base],
        **_ensemble(engine_of(trees.library).nodes(trees.booster)),
    )
    constants = {"flat": [-1, features], "from": [0], "to": [2], "axis": [0]}
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["features", "flat"], ["rows"]),
            ensemble,
            helper.make_node("Shape", ["features"], ["whole"]),
            helper.make_node("Slice", ["whole", "from", "to", "axis"], ["lists"]),
            helper.make_node("Reshape", ["sums", "lists"], ["scores"]),
        ],
        "trees",
        [
            helper.make_tensor_value_info(
                "features", kind.FLOAT, ["lists", "items", features]
            )
        ],
        [helper.make_tensor_value_info("scores", kind.FLOAT, ["lists", "items"])],
        [
            helper.make_tensor(name, kind.INT64, [len(v)], v)
            for name, v in constants.items()
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", 17),
            helper.make_opsetid("ai.onnx.ml", 3),
        ],
        ir_version=8,
    )
    helper.set_model_props(model, {k: json.dumps(v) for k, v in told(trees).items()})
    onnx.checker.check_model(model)
    with atomic_write(path) as aside:
        aside.write_bytes(model.SerializeToString())


def told(ranker: Any) -> dict[str, Any]:
    """Metadata of an export as JSON values: feature names, kinds and examination."""
    found = {
        "feature_names": ranker.feature_names,
        "kinds": as_records(ranker.kinds),
        "examination": ranker.examination,
    }
    return {key: value for key, value in found.items() if value is not None}


def _ensemble(roots: Sequence[Node]) -> dict[str, list[Any]]:
    """The attributes of ONNX's TreeEnsembleRegressor."""
    found: dict[str, list[Any]] = {
        f"nodes_{name}": []
        for name in (
            *("treeids", "nodeids", "featureids", "modes", "values"),
            *("truenodeids", "falsenodeids", "missing_value_tracks_true"),
        )
    }
    found |= {f"target_{n}": [] for n in ("treeids", "nodeids", "ids", "weights")}

    def add(tree: int, node: Node, number: Iterator[int]) -> int:
        own = next(number)
        at = len(found["nodes_nodeids"])
        leaf = node.value is not None
        for name, value in (
            ("treeids", tree),
            ("nodeids", own),
            ("featureids", node.feature),
            ("modes", "LEAF" if leaf else "BRANCH_LEQ"),
            ("values", node.threshold),
            ("truenodeids", 0),
            ("falsenodeids", 0),
            ("missing_value_tracks_true", int(node.missing_left)),
        ):
            found[f"nodes_{name}"].append(value)
        if leaf:
            of_leaf = {"treeids": tree, "nodeids": own, "ids": 0, "weights": node.value}
            for name, each in of_leaf.items():
                found[f"target_{name}"].append(each)
            return own
        assert node.left is not None and node.right is not None
        found["nodes_truenodeids"][at] = add(tree, node.left, number)
        found["nodes_falsenodeids"][at] = add(tree, node.right, number)
        return own

    for tree, root in enumerate(roots):
        add(tree, root, iter(range(1 << 31)))
    return found
