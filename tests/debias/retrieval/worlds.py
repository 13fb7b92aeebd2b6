"""Small versions whose answers are known by arithmetic, made without TensorFlow.

The user's vector is the sum of the vectors of the history, times the number of the
version, plus `age` in its first entry. Item j stands on axis j % DIM at the length
1 + j / 100, times the number of the version; its id is "NUMBER-j".
"""

import numpy as np

from debias.retrieval.data.interactions import FeatureTable
from debias.retrieval.serving import versions
from debias.retrieval.serving.index import Index

DIM, ITEMS, LENGTH = 4, 12, 3


def vectors(number=1, items=ITEMS):
    found = np.zeros((items, DIM), np.float32)
    rows = np.arange(items)
    found[rows, rows % DIM] = number * (1 + rows / 100)
    return found


def write_tower(path, table, length=LENGTH):
    """ONNX: the sum of `table`'s rows of a history, plus age on the first axis."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    first = np.eye(1, table.shape[1], dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "middle"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["age", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "first"], ["aged"]),
        helper.make_node("Add", ["sum", "aged"], ["vectors"]),
    ]
    constants = {
        "table": table.astype(np.float32),
        "first": first,
        "middle": np.array([1], np.int64),
        "last": np.array([1], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "tower",
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("history", TensorProto.INT32, ["n", length]),
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, path)
    return path


def tables(number=1, items=ITEMS):
    users = FeatureTable.build(
        {"id": ["ann", "bob"], "age": [0.5, 0.0], "likes": [["tea"], ["rum", "tea"]]}
    )
    rows = np.arange(items)
    return users, FeatureTable.build(
        {
            "id": [f"{number}-{j}" for j in rows],
            "kind": np.array(["even", "odd"])[rows % 2],
            "tags": [["low"] if j < items // 2 else ["high", "top"] for j in rows],
            "price": rows.astype(float),
        }
    )


def parts(folder, number=1, items=ITEMS, index=None):
    """What `publish` takes of the version that has this number."""
    tower = folder / f"tower-{number}.onnx"
    if not tower.exists():
        write_tower(tower, np.pad(vectors(number, items), ((2, 0), (0, 0))))
    users, catalogue = tables(number, items)
    return tower, users, catalogue, index or Index(vectors(number, items))


def publish(root, folder, number=1, **options):
    histories = np.array([[3, 0, 0], [0, 0, 0]], np.int32)  # Ann took item 1
    return versions.publish(
        root, *parts(folder, number), histories=histories, **options
    )


def overwrite(path, content):
    """Writes into a file of a version, which is read-only."""
    path.chmod(0o644)
    (path.write_text if isinstance(content, str) else path.write_bytes)(content)
