"""Scores items with an exported ranker of any format."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from debias.data.kinds import FIRST, Feature, Features, of_records, raw_inputs
from debias.data.tables import Streamed
from debias.data.text import printable
from debias.engine.extras import installed

EXTRA = Path("assets.extra") / "debias.json"  # in a SavedModel
CARRIED = ("feature_names", "kinds", "examination")  # metadata of an export
Curve = tuple[float | None, ...]
ITEMS = 1 << 14  # items scored at once, so that they fit into a cache


@dataclass(frozen=True)
class Scorer:
    """Function from float32 features (items, F), or raw rows, to scores (items,).

    Attributes:
        run: Function that runs the exported file, from features (1, items, F) to scores
            (1, items).
        feature_names: Names of the features in order, or None if the features have no
            names.
        kinds: Kinds of the features with their vocabularies. None means that all
            features are numbers.
        examination: Examination of each rank relative to rank 1, as the ranker's click
            model learned it. Ranks with unknown examination have None, and
            `examination` is None if all ranks are unknown.
        name: Name of the file, for error messages.
    """

    run: Callable[[np.ndarray], Any]
    feature_names: tuple[str, ...] | None = None
    kinds: Features | None = None
    examination: Curve | None = None
    name: str = "ranker"

    @cached_property
    def codes(self) -> dict[str, dict[str, int]]:
        """Dict from value to code, for each categorical feature."""
        return {
            each.name: {value: code for code, value in enumerate(each.values, FIRST)}
            for each in self.kinds or ()
            if each.coded
        }

    def __call__(self, features: Any) -> np.ndarray:
        """Scores (items,) of features (items, F), computed in pieces.

        Args:
            features: Numbers and codes in the order of training, or raw rows, whose
                features are looked up by name. Raw rows are a pandas or Polars data
                frame, an Arrow table, or a dict of columns.

        Raises:
            ValueError: The number of features is wrong, a code is outside its
                vocabulary, or a feature is missing or not a number although it must be.
        """
        if isinstance(features, Mapping | Streamed):
            features = encoded(features, self.feature_names, self.kinds, self.name)
        features = np.ascontiguousarray(features, np.float32)
        names = self.feature_names
        if names is not None and features.shape[1:] != (len(names),):
            raise ValueError(
                f"{self.name}: reads {len(names)} features, got {features.shape[1:]}"
            )
        if self._coded:
            self._check_codes(features)
        starts = range(0, len(features), ITEMS)
        parts = [self._score(features[start : start + ITEMS]) for start in starts]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @cached_property
    def _coded(self) -> dict[int, Feature]:
        """Dict from the number of a column of codes to its feature."""
        each_column = (each for each in self.kinds or () for _ in range(each.width))
        return {at: each for at, each in enumerate(each_column) if each.coded}

    def _check_codes(self, features: np.ndarray) -> None:
        """Raises ValueError for a code (items, F) that its feature does not have."""
        codes = features[:, [*self._coded]]
        sizes = np.array([each.size for each in self._coded.values()], np.float32)
        wrong = ~((codes >= 0) & (codes < sizes) & (codes == np.floor(codes)))
        if wrong.any():
            item, place = np.argwhere(wrong)[0]
            feature = [*self._coded.values()][place]
            raise ValueError(
                f"{self.name}: the feature {feature.name} must be a code below "
                f"{feature.size}, got {codes[item, place]:g} at item {item}; give raw "
                "features by name instead"
            )

    def _score(self, features: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self.run(features[None]))[0]
        except Exception as error:  # each runtime has its own error classes
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self.name}: cannot score items of {features.shape[1]} features: "
                f"{reason}"
            ) from error


def encoded(
    rows: Any, names: Sequence[str] | None, kinds: Features | None, ranker: str
) -> np.ndarray:
    """Encodes raw rows (a data frame or a dict of columns) as float32 (items, F).

    Args:
        rows: Table with one row per item. Columns that are not features are ignored.
        names: Names of the ranker's features in order.
        kinds: Kinds of the features. None means that all features are numbers.
        ranker: Name of the ranker in error messages.

    Raises:
        ValueError: `names` is None, `rows` is not a table, a feature is missing, or a
            feature is of another kind than in `kinds`.

    >>> encoded({"b": [1, 2], "a": [3, 4]}, ("a", "b"), None, "ranker").tolist()
    [[3.0, 1.0], [4.0, 2.0]]
    """
    import pyarrow as pa

    from debias.data.by_name import matrix

    if names is None:
        raise ValueError(
            f"{ranker}: does not know the names of its features; give numbers "
            "(items, F) in the order of training"
        )
    try:
        table = pa.table(dict(rows) if isinstance(rows, Mapping) else rows)
    except (TypeError, ValueError) as error:  # pa.ArrowInvalid is a ValueError
        raise ValueError(
            f"{ranker}: rows must be a table with a column for each feature, got "
            f"{type(rows).__name__}: {printable(str(error).splitlines()[0])}"
        ) from error
    return matrix(table, names, "rows", kinds=kinds)


def open_onnx(path: Path) -> Any:
    """Opens an ONNX file with ONNX Runtime, with one thread per call.

    Raises:
        ValueError: The file is not an ONNX model.
        ModuleNotFoundError: The extra `retrieval` is not installed.
    """
    onnxruntime = installed("onnxruntime", "retrieval")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            str(path), options, ["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime does not export its error classes
        raise ValueError(f"{path}: is not an ONNX model: {error}") from None


def read_onnx(path: Path) -> Scorer:
    session = open_onnx(path)
    given = session.get_inputs()
    stored = session.get_modelmeta().custom_metadata_map
    extra = {key: json.loads(stored[key]) for key in CARRIED if key in stored}
    names, kinds, curve = carried(extra)

    def run(features: np.ndarray) -> Any:
        inputs = {given[0].name: features}
        if kinds is not None and given[0].name != "features":
            inputs = raw_inputs(features, kinds)
        return session.run(None, inputs)[0]

    return Scorer(run, names, kinds, curve, str(path))


def read_saved_model(path: Path) -> Scorer:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))  # must live as long as the scorer
    extra: Mapping[str, Any] = {}
    if (path / EXTRA).exists():
        extra = json.loads((path / EXTRA).read_text(encoding="utf-8"))

    def run(features: np.ndarray) -> Any:
        return model.serve(tf.constant(features)).numpy()

    return Scorer(run, *carried(extra), name=str(path))


def scored_by(ranker: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a Keras ranker as a function of arrays, which is compiled on TensorFlow."""
    import keras

    call = ranker
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(ranker, reduce_retracing=True)
    return lambda *arrays: keras.ops.convert_to_numpy(call(*arrays))


def carried(
    extra: Mapping[str, Any],
) -> tuple[tuple[str, ...] | None, Features | None, Curve | None]:
    """Feature names, feature kinds and examination, from the metadata of an export.

    >>> carried({"feature_names": ["price"], "examination": [1.0, None]})
    (('price',), None, (1.0, None))
    """
    names, curve = extra.get("feature_names"), extra.get("examination")
    return (
        None if names is None else tuple(names),
        of_records(extra.get("kinds")),
        None if curve is None else tuple(curve),
    )
