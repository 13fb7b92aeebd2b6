"""The user tower of a version in ONNX format, which needs no training code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from debias.engine.scoring import open_onnx


class UserTower:
    """Maps users' features to vectors with ONNX Runtime.

    The call argument is a dict of (n,) and (n, m) arrays from `FeatureTable.take`. If
    the tower reads a history, the dict has "history", (n, length). Entries that the
    tower does not read are ignored. The result is (n, d), or (n, K, d) for several
    interests, in float32.

    Attributes:
        inputs: Names of the inputs.
        length: Number of history items that the tower reads, 0 if it reads no history.
    """

    def __init__(self, path: Path):
        self._session = open_onnx(path)
        shapes = {given.name: given.shape for given in self._session.get_inputs()}
        self.inputs = tuple(shapes)
        self.length = shapes["history"][1] if "history" in shapes else 0

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        missing = [name for name in self.inputs if name not in features]
        if missing:
            raise ValueError(
                f"the tower reads {list(self.inputs)}, got {list(features)} without "
                f"{missing}"
            )
        read = {name: features[name] for name in self.inputs}
        return self._session.run(None, read)[0]


def write_tower(layer: Any, path: Path) -> None:
    """Writes the user tower of a retrieval model as ONNX, in single precision.

    Raises:
        ValueError: The layer cannot be converted to ONNX.
        ModuleNotFoundError: The extra `onnx` is not installed.
    """
    import keras

    from debias.models.export import write_onnx
    from debias.retrieval.models.encoder import tower

    model = tower(_exact(layer))
    model(
        {
            given.name: keras.ops.zeros([n or 1 for n in given.shape], given.dtype)
            for given in model.inputs
        }
    )  # Keras exports functions that have been called
    signature = {
        given.name: keras.InputSpec(given.dtype, given.shape, name=given.name)
        for given in model.inputs
    }
    write_onnx(model, path, [signature], "vectors", ("users",))


def _exact(layer: Any) -> Any:
    """The layer in single precision, because runtimes lack half precision."""
    import keras

    if layer.compute_dtype in ("float32", "float64"):
        return layer
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        made = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        made.build(None)
    finally:
        keras.config.set_dtype_policy(policy)
    for new, old in zip(made.variables, layer.variables, strict=True):
        new.assign(old)
    return made
