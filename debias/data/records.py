"""Reads JSON files, and writes valid JSON files atomically."""

import json
import math
from pathlib import Path
from typing import Any

from debias.data.files import atomic_write


def write_record(path: str | Path, record: dict[str, Any]) -> None:
    """Writes an object as valid JSON, with null in place of NaN and infinity.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> write_record(path, {"rate": 0.1, "peak": float("nan")})
    >>> read_record(path, ["rate"])
    {'rate': 0.1, 'peak': None}
    """
    text = json.dumps(plain(record), indent=1, allow_nan=False)
    with atomic_write(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_record(path: str | Path, keys: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """Reads the object in a JSON file and checks that it has the required keys.

    Raises:
        ValueError: The file is missing, is not a JSON object, or lacks a key.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: is damaged: expected a JSON object")
    for key in keys:
        if key not in found:
            raise ValueError(f"{path}: is damaged: has no {key}")
    return found


def plain(value: Any) -> Any:
    """Converts nested NumPy values to Python values; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
