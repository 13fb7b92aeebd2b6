"""ONNX rankers that read raw features by name: what goes in, by hand."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from debias.data.kinds import Feature
from debias.models.raw_inputs import with_raw_inputs

KINDS = (
    Feature("brand", "category", ("acme", "birch")),
    Feature("tags", "categories", ("new", "sale"), 2),
    Feature("price"),
)


def reader(path, given="features"):
    """A file that gives back the features it is given."""
    shape = ["lists", "items", 4]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in (given, "seen")
    ]
    node = helper.make_node("Identity", [given], ["seen"])
    graph = helper.make_graph([node], "echo", values[:1], values[1:])
    opset = [helper.make_opsetid("", 15)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_text_becomes_codes_and_numbers_pass(tmp_path):
    path = reader(tmp_path / "echo.onnx")
    with_raw_inputs(path, KINDS)
    session = onnxruntime.InferenceSession(str(path))
    given = {
        "brand": np.array([["birch", "", "none of these"]]),
        "tags": np.array([[["sale", "new"], ["", ""], ["sale", ""]]]),
        "price": np.array([[1.5, np.nan, 2.5]], np.float32),
    }
    (seen,) = session.run(None, given)
    expected = [[[3, 3, 2, 1.5], [0, 0, 0, np.nan], [1, 3, 0, 2.5]]]
    np.testing.assert_array_equal(seen, np.array(expected, np.float32))


def test_a_feature_cannot_bear_the_name_of_the_input_it_replaces(tmp_path):
    path = reader(tmp_path / "echo.onnx", given="price")
    with pytest.raises(ValueError, match="a feature must not be called price"):
        with_raw_inputs(path, KINDS)
