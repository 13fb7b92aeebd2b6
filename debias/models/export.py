"""Exports of a ranker for serving, as `.keras`, SavedModel or ONNX.

An exported model has one input, `features` (lists, items, F) float32, for any number of
lists and items. The only output is `scores` (lists, items). The model reads no position
and contains no optimiser. An export stores the names of the features:

- A `.keras` file stores the names in `Ranker.feature_names`.

- A SavedModel stores the names in the list `feature_names` of the JSON file
  `assets.extra/debias.json`.

- An ONNX file stores the names in the metadata property `feature_names`, a JSON list.

An export also stores `examination`, the learned ratio P(examined at rank k) /
P(examined at rank 1) for each rank k. The examination of an unknown rank is null.

If a feature is not a number, the export also stores `kinds`, the kind of each feature
and the vocabulary of each category. In a vocabulary, code 0 means missing, code 1 means
unknown, and code 2 is the first value. A missing number is NaN. `debias.load` opens an
export as a function that encodes and scores raw rows.
"""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from debias.data.kinds import Feature, as_records
from debias.data.text import one_of
from debias.engine.extras import installed
from debias.engine.scoring import EXTRA
from debias.models.click_model import Ranker, argument_errors
from debias.models.raw_inputs import with_raw_inputs
from debias.models.tree_exports import export_trees, told
from debias.models.trees import Trees

Format = Literal["keras", "saved_model", "onnx"]
Axes = tuple[str, ...]
BOOL = 9  # type code in onnx.TensorProto
FORMATS: tuple[Format, ...] = ("keras", "saved_model", "onnx")


def format_of(path: str | Path) -> Format:
    """Export format for a file name; a name without an ending means SavedModel.

    Raises:
        ValueError: No format has this ending.

    >>> format_of("ranker.onnx"), format_of("serving/1")
    ('onnx', 'saved_model')
    """
    endings: dict[str, Format] = {".keras": "keras", ".onnx": "onnx", "": "saved_model"}
    if (ending := Path(path).suffix) not in endings:
        raise ValueError(
            f"{path}: unknown ending {ending}; expected .keras, .onnx or no ending, or "
            "give the format, such as saved_model for a folder"
        )
    return endings[ending]


def export(
    ranker: Any,
    path: str | Path,
    format: Format | None = None,
    *,
    features: int | None = None,
    raw: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes a ranker atomically as a file or a SavedModel folder.

    Args:
        ranker: The result of `debias.ranker`, which includes preprocessing, or an
            object with the attribute `ranker`, such as the result of `debias.fit` or
            `debias.select`. A ranker of boosted trees is written by
            `debias.models.tree_exports.export_trees`, which has other formats.
        path: File or folder to write. A Keras file must end with `.keras`.
        format: "keras", "saved_model" or "onnx". The format "saved_model" is for
            TensorFlow Serving and `tf.saved_model.load(path).serve`. The format "onnx"
            is for ONNX runtimes and needs the extra `onnx`. None chooses the format
            from the ending of the file name.
        features: Number F of features of an item. None takes the number from the
            ranker.
        raw: Whether an ONNX file has one named input per feature, instead of the single
            input `features`. Named inputs take categories as text; see
            `debias.models.raw_inputs`.
        overwrite: Whether an existing file at `path` may be replaced.

    Returns:
        The path.

    Raises:
        ValueError: The format is unknown, the file name does not fit the format, F is
            unknown or not the number of the ranker, or `path` exists and `overwrite` is
            False. A folder without a SavedModel is never replaced.

    >>> from debias.layers import Tower
    >>> from debias.models import Naive, ranker
    >>> model = Naive(Tower(hidden=()))
    >>> _ = model({"features": np.zeros((1, 2, 3), "float32")})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = export(ranker(model), Path(folder) / "ranker.keras", features=3)
    ...     keras.models.load_model(made)(np.zeros((4, 9, 3))).shape[1]
    9
    """
    path, ranker = Path(path), getattr(ranker, "fitted", ranker)  # of `select`
    if isinstance(trees := getattr(ranker, "ranker", ranker), Trees):
        if raw:
            raise ValueError("raw inputs are for ONNX of towers, not of trees")
        return export_trees(trees, path, format, overwrite=overwrite)
    format = format_of(path) if format is None else format
    _check_target(path, format, overwrite)
    examination = getattr(ranker, "examination", None)
    ranker = getattr(ranker, "ranker", ranker)
    ranker.examination = ranker.examination or examination
    if raw and (format != "onnx" or ranker.feature_names is None):
        raise ValueError("raw inputs need ONNX and features with names")
    count = _feature_count(ranker) if features is None else features
    if count < 1:
        raise ValueError(f"features must be at least 1, got {count}")
    with argument_errors():
        ranker(keras.ops.zeros((1, 1, count)))  # builds the weights of any layer
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        _write(ranker, aside, format, count)
        if raw:
            kinds = ranker.kinds or tuple(map(Feature, ranker.feature_names))
            with_raw_inputs(aside, kinds)
            _describe_onnx(aside, {**told(ranker), "kinds": as_records(kinds)})
        if path.is_dir():  # or a link to a folder
            path.replace(aside.with_name(f"{path.name}.old"))
        aside.replace(path)
    return path


def _check_target(path: Path, format: str, overwrite: bool) -> None:
    if format not in FORMATS:
        raise ValueError(one_of("format", FORMATS, format))
    if format == "keras" and path.suffix != ".keras":
        raise ValueError(f"{path}: the name of a Keras file must end with .keras")
    if format == "saved_model" and path.is_file():
        raise ValueError(f"{path}: is a file; choose another name for the folder")
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise ValueError(f"{path}: is not a SavedModel; choose another name")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists; choose another name or give overwrite=True")


def _feature_count(ranker: Ranker) -> int:
    if ranker.feature_names is not None:
        return len(ranker.feature_names)
    mean = getattr(ranker.preprocess, "mean", None)
    if mean is None:
        raise ValueError(
            "the number of features is unknown: give features=F, or give the ranker "
            "feature_names"
        )
    return int(mean.shape[0])


def _write(ranker: Ranker, path: Path, format: Format, features: int) -> None:
    if format == "keras":
        save(ranker, path)
        return
    signature = [
        keras.InputSpec(dtype="float32", shape=(None, None, features), name="features")
    ]
    extra = told(ranker)
    if format == "onnx":
        write_onnx(ranker, path, signature, "scores", ("lists", "items"))
        if extra:
            _describe_onnx(path, extra)
        return
    ranker.export(path, "tf_saved_model", False, signature)
    if extra:
        file = path / EXTRA
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(extra) + "\n", encoding="utf-8")


def save(model: keras.Model, path: str | Path) -> None:
    """Writes a built model as a `.keras` file, without its training state.

    The file has no optimiser, loss or metrics. The model in memory stays compiled.
    """
    without_training(model).save(path)


def without_training(model: keras.Model) -> keras.Model:
    """An uncompiled copy of a built model, with the same weights.

    Raises:
        ValueError: The configuration of a layer does not restore all weights of the
            layer.
    """
    config = _uncompiled(keras.saving.serialize_keras_object(model))
    copy: keras.Model = keras.saving.deserialize_keras_object(config)
    weights = model.get_weights()
    if [w.shape for w in copy.get_weights()] != [w.shape for w in weights]:
        raise ValueError(
            f"{model.name}: a copy made from its configuration has other weights; "
            "does each layer of your own return all its arguments in get_config?"
        )
    copy.set_weights(weights)
    return copy


def _uncompiled(config: Any) -> Any:
    """Removes the arguments of `compile` from a configuration, at any depth."""
    if isinstance(config, dict):
        return {k: _uncompiled(v) for k, v in config.items() if k != "compile_config"}
    return [_uncompiled(v) for v in config] if isinstance(config, list) else config


def _describe_onnx(path: Path, extra: dict[str, Any]) -> None:
    """Stores names and kinds of the features as properties of an ONNX file."""
    import onnx

    model = onnx.load(path)
    texts = {name: json.dumps(value) for name, value in extra.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


def write_onnx(
    model: keras.Model, path: Path, signature: list[Any], output: str, axes: Axes
) -> None:
    """Writes a built model as ONNX.

    Args:
        model: Any Keras model.
        path: File to write; an existing file is replaced.
        signature: Signature of the inputs, see `keras.Model.export`.
        output: Name of the output.
        axes: Names of the leading axes of all inputs and of the output.

    Raises:
        ValueError: The model cannot be converted to ONNX.
        ModuleNotFoundError: The extra `onnx` is not installed.
    """
    onnx, handler = installed("onnx", "onnx"), installed("tf2onnx.handler", "onnx")
    handler.tf_op("Log1p")(_Log1p)  # an operation of TensorFlow that tf2onnx lacks
    with warnings.catch_warnings():
        # Keras reads `np.object`, which NumPy has removed, in order to restore it.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        model.export(path, "onnx", False, signature)
    _rename(path, output, axes)
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # without an ONNX form, other formats remain
        raise ValueError(f"this model cannot be written as ONNX: {error}") from error


def _rename(path: Path, output: str, axes: Axes) -> None:
    """Renames the output and the axes of an ONNX file, such as unk__76."""
    import onnx

    model = onnx.load(path)
    graph, (made,) = model.graph, model.graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [output if name == made.name else name for name in names]
    made.name = output
    for value in (*graph.input, made):
        for dim, name in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            if not dim.HasField("dim_value"):
                dim.dim_param = name
    onnx.save(model, path)


class _Log1p:
    """log(1 + x) in ONNX, exact near 0: log(u) x / (u - 1) with u = 1 + x, x if u = 1.

    Source: W. Kahan, in Goldberg, What Every Computer Scientist Should Know About
    Floating-Point Arithmetic, ACM Computing Surveys 1991, theorem 4.
    """

    @classmethod
    def version_9(cls, ctx: Any, node: Any, **kwargs: Any) -> None:
        x, dtype = node.input[0], ctx.get_dtype(node.input[0])
        one = ctx.make_const(f"{node.name}_one", np.ones((), np.float32)).output[0]

        def op(kind: str, *inputs: str) -> str:
            return ctx.make_node(kind, list(inputs), dtypes=[dtype]).output[0]

        u = op("Add", x, one)
        is_one = ctx.make_node("Equal", [u, one], dtypes=[BOOL]).output[0]
        # If u is 1, the quotient would be 0 / 0: divide by 1 there, and take x.
        quotient = op("Div", x, op("Where", is_one, one, op("Sub", u, one)))
        value = op("Where", is_one, x, op("Mul", op("Log", u), quotient))
        ctx.replace_all_inputs(node.output[0], value)
        ctx.remove_node(node.name)
