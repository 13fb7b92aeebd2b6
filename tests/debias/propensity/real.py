"""Real data that does not come with the repository."""

import os
from functools import lru_cache
from pathlib import Path

import pytest

from debias.data.yandex import Yandex, read_yandex


@lru_cache(maxsize=1)
def yandex() -> Yandex:
    """The Yandex sample, training and test; skips where it is not there."""
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("DEBIAS_DATA", root.parent / "shared" / "data"))
    paths = [folder / "pyclick_yandex" / f"{name}Sample" for name in ("train", "test")]
    missing = [path for path in paths if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not there; DEBIAS_DATA names the data folder")
    return read_yandex(*paths)
