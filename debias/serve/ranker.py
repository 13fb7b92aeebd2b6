"""A relevance-only click model, as `debias export` wrote it, to score items by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from debias.retrieval.serving.tower import open_onnx

Scorer = Callable[[np.ndarray], np.ndarray]


def open_ranker(path: str | Path) -> Scorer:
    """Features (items, F) float32 to scores (items,), by the runtime of its format.

    ONNX loads fast and needs no TensorFlow; `.keras` and SavedModel do.

    Raises:
        ValueError: There is no ranker at this path; or, of the scorer, it does not read
            so many features.
        ModuleNotFoundError: The runtime is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: does not exist; debias export writes rankers")
    try:
        run = {".onnx": _onnx, ".keras": _keras}.get(path.suffix, _saved_model)(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: is no ranker: {error}") from error

    def score(features: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(run(features[None]))[0]
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"the ranker cannot score items of {features.shape[1]} features: "
                f"{reason}"
            ) from error

    return score


def _onnx(path: Path) -> Callable[[np.ndarray], Any]:
    session = open_onnx(path)
    (given,) = session.get_inputs()
    return lambda features: session.run(None, {given.name: features})[0]


def _saved_model(path: Path) -> Callable[[np.ndarray], Any]:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))  # which must live as long as it serves
    return lambda features: model.serve(tf.constant(features)).numpy()


def _keras(path: Path) -> Callable[[np.ndarray], Any]:
    import keras

    import debias.models  # noqa: F401  registers what the file holds

    model = keras.models.load_model(path)
    return lambda features: keras.ops.convert_to_numpy(model(features))
