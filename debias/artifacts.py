"""Opens files and folders that this library wrote; see `debias.load`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debias.data.records import read_record

if TYPE_CHECKING:
    from debias.engine.scoring import Scorer

TREES = "ranker.trees"  # in a folder of debias train
RECORDS = ("report.json", "train.json")  # in the same folder
RANKED = ("model", "features", "devices")  # keys of a click model's report


@dataclass(frozen=True)
class Trained:
    """A folder that `debias train` wrote.

    Attributes:
        ranker: The ranker, which maps raw features to scores.
        model: The click model of the ranker.
        report: The report of the training, from `report.json`.
    """

    ranker: Any
    model: Any
    report: dict[str, Any]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the features in order, or None if the features have no names."""
        names: tuple[str, ...] | None = self.ranker.feature_names
        return names


def load(path: str | Path) -> Any:
    """Opens a model, a ranker or a folder that this library wrote.

    | path | result |
    |---|---|
    | folder of `debias train` | `Trained`: ranker, click model, report |
    | `.keras` file | the ranker, click model or retrieval model |
    | `.trees` file | `Trees`, ranker and click model |
    | `.onnx` file or SavedModel | `Scorer`: features or raw rows to scores (items,) |
    | folder of versions, or of a single version | the current `Version` |

    Raises:
        ValueError: The path does not exist, is damaged, or was not written by this
            library.
        ModuleNotFoundError: The package that runs the file format is not installed.

    >>> load("nowhere.keras")
    Traceback (most recent call last):
    ValueError: nowhere.keras: does not exist
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: does not exist")
    if path.suffix == ".keras":
        return load_keras(path)
    if path.suffix == ".trees":
        return load_trees(path)
    if path.suffix == ".onnx" or (path / "saved_model.pb").exists():
        return open_scorer(path)
    if (path / "CURRENT").exists() or (path / "manifest.json").exists():
        from debias.retrieval.serving import versions

        return versions.load(path)
    if any((path / name).exists() for name in RECORDS):
        report, ranker = report_of(path, RANKED), ranker_of(path)
        return Trained(ranker, getattr(ranker, "model", ranker), report)
    raise ValueError(
        f"{path}: cannot be opened: expected a folder of debias train, a .keras, "
        ".trees or .onnx file, a SavedModel or a folder of versions; exports of trees "
        "in .txt and .json are for LightGBM and XGBoost"
    )


def open_scorer(path: str | Path) -> "Scorer":
    """Opens an exported ranker, or the ranker in a folder of `debias train`.

    ONNX files load fast and without TensorFlow. `.keras` files and SavedModels load
    TensorFlow.

    Raises:
        ValueError: The path contains no ranker, or the file is damaged.
        ModuleNotFoundError: The package that runs the file format is not installed.
    """
    from debias.engine.scoring import read_onnx, read_saved_model

    path = Path(path)
    openers = {".onnx": read_onnx, ".keras": _ranker, ".trees": _trees}
    if not path.exists():
        raise ValueError(f"{path}: does not exist; debias export writes rankers")
    if any((path / name).exists() for name in RECORDS):
        return open_ranker(path)
    try:
        return openers.get(path.suffix, read_saved_model)(path)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # each runtime has its own error classes
        raise ValueError(f"{path}: is damaged or not a ranker: {error}") from error


def open_ranker(folder: str | Path) -> "Scorer":
    """Opens the ranker in a folder that `debias train` wrote.

    Raises:
        ValueError: The folder is damaged, or no finished run of `debias train` wrote
            it.
    """
    report_of(folder)
    trees = Path(folder) / TREES
    return open_scorer(trees if trees.exists() else Path(folder) / "ranker.keras")


def ranker_of(folder: Path) -> Any:
    """The ranker in a folder of `debias train`, as a Keras model or as trees."""
    if (folder / TREES).exists():
        return load_trees(folder / TREES)
    return load_keras(folder / "ranker.keras")


def load_trees(path: str | Path) -> Any:
    """Opens trees from a `.trees` file.

    Raises:
        ValueError: The file is missing or damaged.
        ModuleNotFoundError: The extra `trees` is not installed.
    """
    from debias.models.trees import Trees

    return Trees.read(path)


def _trees(path: Path) -> "Scorer":
    from debias.engine.scoring import Scorer

    made = load_trees(path)
    return Scorer(made, made.feature_names, made.kinds, made.examination, str(path))


def _ranker(path: Path) -> "Scorer":
    from debias.engine.scoring import Scorer, scored_by
    from debias.models import Ranker

    model = load_keras(path)
    if not isinstance(model, Ranker):
        raise ValueError(f"holds a {type(model).__name__}, not a ranker")
    names, kinds = model.feature_names, model.kinds
    return Scorer(scored_by(model), names, kinds, model.examination, str(path))


def load_keras(path: str | Path) -> Any:
    """Opens a `.keras` file with all classes of this library registered.

    Raises:
        ValueError: The file is missing or damaged, or needs a class that is neither
            from Keras nor from this library.
    """
    from zipfile import is_zipfile

    import keras

    import debias.layers
    import debias.models
    import debias.retrieval.models  # noqa: F401  registers what the file may hold

    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: does not exist")
    if not is_zipfile(path):
        raise ValueError(f"{path}: is damaged: expected a Keras archive (.zip inside)")
    try:
        return keras.models.load_model(path, compile=False)
    except TypeError as error:
        raise ValueError(
            f"{path}: holds an unknown class; first import the module that registers "
            f"it: {str(error).splitlines()[0]}"
        ) from error
    except Exception as error:  # errors of zipfile, h5py, json and Keras
        raise ValueError(f"{path}: is damaged: {error}") from error


def report_of(folder: str | Path, keys: tuple[str, ...] = ("model",)) -> dict[str, Any]:
    """Reads the report of a folder that `debias train` wrote.

    Raises:
        ValueError: The report is damaged, no finished run of `debias train` wrote the
            folder, or the folder holds a retrieval model although `keys` has "model".
    """
    folder = Path(folder)
    path = folder / "report.json"
    if not path.exists():
        begun = (folder / "train.json").exists()
        raise ValueError(
            f"{folder}: "
            + (
                "the training did not finish; run its command again"
                if begun
                else "no such folder"
                if not folder.exists()
                else "was not written by debias train"
            )
        )
    if "model" in keys and "recipe" in _record(path, ()):
        raise ValueError(
            f"{folder}: holds a retrieval model; train a click model with debias train"
        )
    return _record(path, keys)


def plan_of(folder: str | Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Reads the options of `debias train` from the file `train.json` of a folder.

    Raises:
        ValueError: The file is missing or damaged.
    """
    return _record(Path(folder) / "train.json", keys)


def _record(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        return read_record(path, keys)
    except ValueError as error:
        raise ValueError(f"{error}; train again with --force") from error
