"""Scores of items by an exported ranker, whatever its format; features by name."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from debias.data.kinds import Features, of_records, raw_inputs

EXTRA = Path("assets.extra") / "debias.json"  # of a SavedModel
CARRIED = ("feature_names", "kinds")  # what an export says of its features
ITEMS = 1 << 14  # items scored at once: what fits a cache


@dataclass(frozen=True)
class Scorer:
    """From features (items, F) float32, or from raw rows, to scores (items,).

    Attributes:
        run: From (1, items, F) to (1, items), by the runtime of the format.
        feature_names: Names of the features in order; None where they have none.
        kinds: What the features are, with their vocabularies; None: numbers alone.
        name: Of the file, for messages.
    """

    run: Callable[[np.ndarray], Any]
    feature_names: tuple[str, ...] | None = None
    kinds: Features | None = None
    name: str = "ranker"

    def __call__(self, features: Any) -> np.ndarray:
        """Scores (items,) of features (items, F), in pieces.

        Args:
            features: Numbers and codes in the order of training; or an Arrow table of
                raw rows, or a dict of columns, in which features are found by name.

        Raises:
            ValueError: The ranker reads another number of features, or a feature is
                missing or no number where one is needed.
        """
        if isinstance(features, Mapping) or hasattr(features, "schema"):
            features = self.encoded(features)
        features = np.ascontiguousarray(features, np.float32)
        names = self.feature_names
        if names is not None and features.shape[1:] != (len(names),):
            raise ValueError(
                f"{self.name}: reads {len(names)} features, got {features.shape[1:]}"
            )
        starts = range(0, len(features), ITEMS)
        parts = [self._score(features[start : start + ITEMS]) for start in starts]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def encoded(self, rows: Any) -> np.ndarray:
        """(items, F) float32 of raw rows: an Arrow table, or a dict of columns."""
        import pyarrow as pa

        from debias.data.by_name import matrix

        if self.feature_names is None:
            raise ValueError(
                f"{self.name}: does not know the names of its features; give numbers "
                "(items, F) in the order of training"
            )
        table = pa.table(dict(rows)) if isinstance(rows, Mapping) else rows
        return matrix(table, self.feature_names, "rows", kinds=self.kinds)

    def _score(self, features: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self.run(features[None]))[0]
        except Exception as error:  # each runtime has classes of its own
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self.name}: cannot score items of {features.shape[1]} features: "
                f"{reason}"
            ) from error


Opened = tuple[Callable[[np.ndarray], Any], tuple[str, ...] | None, Features | None]
"""A function of (1, items, F), and the names and kinds of the features."""


def open_onnx(path: Path) -> Any:
    """A session of ONNX Runtime, of one thread: requests come many at a time.

    Raises:
        ValueError: The file is no ONNX model.
        ModuleNotFoundError: The extra `retrieval` is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "onnxruntime is needed: pip install 'debias-ranking[retrieval]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            str(path), options, ["CPUExecutionProvider"]
        )
    except Exception as error:  # of classes that onnxruntime does not export
        raise ValueError(f"{path}: is no ONNX model: {error}") from None


def read_onnx(path: Path) -> Opened:
    session = open_onnx(path)
    given = session.get_inputs()
    stored = session.get_modelmeta().custom_metadata_map
    extra = {key: json.loads(stored[key]) for key in CARRIED if key in stored}
    kinds = of_records(extra.get("kinds"))

    def run(features: np.ndarray) -> Any:
        inputs = {given[0].name: features}
        if kinds is not None and given[0].name != "features":
            inputs = raw_inputs(features, kinds)
        return session.run(None, inputs)[0]

    return run, _names(extra.get("feature_names")), kinds


def read_saved_model(path: Path) -> Opened:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))  # which must live as long as it serves
    extra: Mapping[str, Any] = {}
    if (path / EXTRA).exists():
        extra = json.loads((path / EXTRA).read_text(encoding="utf-8"))

    def run(features: np.ndarray) -> Any:
        return model.serve(tf.constant(features)).numpy()

    return run, _names(extra.get("feature_names")), of_records(extra.get("kinds"))


def scored_by(ranker: Any) -> Callable[[np.ndarray], Any]:
    """A Keras ranker as a function of NumPy arrays, compiled where that pays."""
    import keras

    call: Callable[[Any], Any] = ranker
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(ranker, reduce_retracing=True)
    return lambda features: keras.ops.convert_to_numpy(call(features))


def _names(stored: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if stored is None else tuple(stored)
