"""Adds named raw inputs to an ONNX ranker, for any ONNX runtime.

Each feature becomes a named input of shape (lists, items), or (lists, items, m) for a
feature with m categories. Categories are text, and "" means missing. Numbers are
float32, and NaN means missing. The ONNX operator `LabelEncoder` of ai.onnx.ml encodes
text inside the model.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from debias.data.kinds import FIRST, MISSING, UNKNOWN, Feature, Features

if TYPE_CHECKING:
    import onnx

DOMAIN, VERSION = "ai.onnx.ml", 2


def with_raw_inputs(path: str | Path, features: Features) -> None:
    """Replaces the input `features` of an ONNX file by named raw inputs.

    Args:
        path: The ONNX file, which is overwritten.
        features: Kinds of the features in the order of the columns of `features`.

    Raises:
        ValueError: A feature is named `features`, like the input that is replaced.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path)
    graph, (given,) = model.graph, model.graph.input
    if given.name in {each.name for each in features}:
        raise ValueError(f"a feature must not be called {given.name}; rename it")
    nodes, inputs, blocks = [], [], []
    axis = helper.make_tensor("raw_axis", TensorProto.INT64, [1], [-1])
    for place, each in enumerate(features):
        several = each.kind == "categories"
        shape: list[str | int | None] = ["lists", "items"]
        shape += [each.width] * several
        kind = TensorProto.STRING if each.coded else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(each.name, kind, shape))
        last = each.name
        if each.coded:
            last = f"raw_code_{place}"
            nodes.append(_encoder(each, last))
        if not several:
            nodes.append(
                helper.make_node("Unsqueeze", [last, axis.name], [f"raw_{place}"])
            )
            last = f"raw_{place}"
        blocks.append(last)
    nodes.append(helper.make_node("Concat", blocks, [given.name], axis=-1))
    graph.initializer.append(axis)
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *own])
    del graph.input[:]
    graph.input.extend(inputs)
    if all(each.domain != DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    onnx.checker.check_model(model, full_check=False)
    onnx.save(model, path)


def _encoder(feature: Feature, output: str) -> "onnx.NodeProto":
    """Maps text to codes: "" is missing, and text not seen in training is unknown."""
    from onnx import helper

    codes = range(FIRST, FIRST + len(feature.values))
    return helper.make_node(
        "LabelEncoder",
        [feature.name],
        [output],
        domain=DOMAIN,
        keys_strings=["", *feature.values],
        values_floats=[float(MISSING), *map(float, codes)],
        default_float=float(UNKNOWN),
    )
