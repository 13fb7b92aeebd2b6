"""What the library wrote, opened again in any process: `debias.load`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debias.data.records import read_record

RANKED = ("model", "features", "devices")  # what the report of a click model holds


@dataclass(frozen=True)
class Trained:
    """A folder that `debias train` wrote.

    Attributes:
        ranker: The relevance-only model: raw features in, scores out.
        model: The click model that it is part of.
        report: What the training came to, as `report.json` has it.
    """

    ranker: Any
    model: Any
    report: dict[str, Any]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the features in order; None where they have none."""
        names: tuple[str, ...] | None = self.ranker.feature_names
        return names


def load(path: str | Path) -> Any:
    """Opens whatever this library wrote, in a process that never trained.

    | path | gives |
    |---|---|
    | folder of `debias train` | `Trained`: ranker, click model, report |
    | `.keras` file | the ranker, click model or retrieval model |
    | `.onnx` file or SavedModel | `Scorer`: features (items, F) to scores (items,) |
    | folder of versions | the current `Version` to retrieve from |

    Raises:
        ValueError: The path is missing, is of none of these kinds, or is damaged.
        ModuleNotFoundError: The runtime of the format is not installed.

    >>> load("nowhere.keras")
    Traceback (most recent call last):
    ValueError: nowhere.keras: does not exist
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: does not exist")
    if path.suffix == ".keras":
        return load_keras(path)
    if path.suffix == ".onnx" or (path / "saved_model.pb").exists():
        from debias.models.scoring import open_scorer

        return open_scorer(path)
    if (path / "CURRENT").exists():
        from debias.retrieval.serving import versions

        return versions.load(path)
    if (path / "report.json").exists() or (path / "train.json").exists():
        return Trained(
            load_keras(path / "ranker.keras"),
            load_keras(path / "model.keras"),
            report_of(path, RANKED),
        )
    raise ValueError(
        f"{path}: holds nothing that this library wrote: expected a folder of debias "
        "train, a .keras or .onnx file, a SavedModel or a folder of versions"
    )


def load_keras(path: str | Path) -> Any:
    """A model from a `.keras` file, with every class of this library known.

    Raises:
        ValueError: The file is missing or damaged, or holds a class that is neither
            Keras's nor this library's.
    """
    import keras

    import debias.layers
    import debias.models
    import debias.retrieval.models  # noqa: F401  registers what the file may hold

    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: does not exist")
    try:
        return keras.models.load_model(path, compile=False)
    except TypeError as error:
        raise ValueError(
            f"{path}: holds a class that is not known here; import the module that "
            f"registers it first: {str(error).splitlines()[0]}"
        ) from error
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise ValueError(f"{path}: is damaged: {error}") from error


def report_of(folder: str | Path, keys: tuple[str, ...] = ("model",)) -> dict[str, Any]:
    """The report of a folder that `debias train` wrote.

    Raises:
        ValueError: The folder is none, its training did not finish, or the report is
            damaged.
    """
    folder = Path(folder)
    path = folder / "report.json"
    if not path.exists():
        begun = (folder / "train.json").exists()
        raise ValueError(
            f"{folder}: "
            + (
                "the training did not finish; give its command again"
                if begun
                else "is no folder that debias train wrote"
            )
        )
    return read_record(path, keys)
