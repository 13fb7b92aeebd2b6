"""Real data that does not come with the repository."""

import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from debias.data import ClickLog


@lru_cache(maxsize=1)
def yandex() -> tuple[ClickLog, ClickLog]:
    """The Yandex sample, training and test; skips where it is not there."""
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("DEBIAS_DATA", root.parent / "shared" / "data"))
    paths = [folder / "pyclick_yandex" / f"{name}Sample" for name in ("train", "test")]
    missing = [path for path in paths if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not there; DEBIAS_DATA names the data folder")
    queries: dict[str, int] = {}
    items: dict[tuple[str, str], int] = {}
    train, test = (_read(path, queries, items) for path in paths)
    return train, test


def _read(
    path: Path, queries: dict[str, int], items: dict[tuple[str, str], int]
) -> ClickLog:
    """Sessions `query TAB shown, ... : clicked, ...`, parted by `;` or line ends.

    Clicks on what is not on the page are left out.
    """
    query, shown, clicked = [], [], []
    for session in filter(str.strip, re.split(r"[;\n]", path.read_text("utf-8"))):
        name, page = session.strip().split("\t")
        documents, clicks = (
            [document.strip() for document in part.split(",")]
            for part in page.split(":")
        )
        query.append(queries.setdefault(name, len(queries)))
        shown.append([items.setdefault((name, d), len(items)) for d in documents])
        clicked.append([document in clicks for document in documents])
    size = max(map(len, shown))
    item = np.array([row + [-1] * (size - len(row)) for row in shown])
    click = np.array([row + [False] * (size - len(row)) for row in clicked])
    return ClickLog(np.array(query), item, click)
