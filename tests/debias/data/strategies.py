"""Random click logs and ranking data for property tests, and how to compare them."""

from dataclasses import fields

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from debias.data import ClickLog, RankingData
from debias.data.columns import COLUMNS

OPTIONAL = [name for name in COLUMNS if name not in ("query", "item", "click")]


def same(one, other):
    """Whether two logs, or two ranking data, agree in every column and its type."""
    names = [field.name for field in fields(one)]
    return all(_same(vars(one)[name], vars(other)[name]) for name in names)


def _same(a, b):
    if not isinstance(a, np.ndarray):
        return type(a) is type(b) and a == b
    floats = a.dtype == np.float32
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=floats)


@st.composite
def click_logs(draw, columns=None, max_sessions=12):
    """Logs with holes and padding, and any of the optional columns."""
    sessions = draw(st.integers(1, max_sessions))
    list_size = draw(st.integers(1, 5))
    cells = (sessions, list_size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    item = rng.integers(0, 1000, cells)
    padding = rng.random(cells) < draw(st.sampled_from([0.0, 0.4]))
    padding[padding.all(axis=1), rng.integers(list_size)] = False
    item[padding] = -1
    shown = item >= 0
    two = np.argsort(padding, axis=1, kind="stable")[:, :2] + 1  # two shown ranks
    swap = np.zeros((sessions, 2), int)
    enough = (shown.sum(axis=1) >= 2) & (rng.random(sessions) < 0.5)
    if list_size >= 2:
        swap[enough] = two[enough]
    every = {
        "row": rng.integers(1, 9, cells) * shown,
        "column": rng.integers(1, 9, cells) * shown,
        "device": rng.integers(0, 4, sessions),
        "context": rng.normal(size=(sessions, draw(st.integers(1, 3)))),
        "logging_propensity": 1 - rng.random(cells),
        "swap": swap,
        "user_type": rng.integers(0, 3, sessions),
        "examination": rng.random(cells),
        "attraction": rng.random(cells),
        "satisfaction": rng.random(cells),
    }
    if columns is None:
        columns = draw(st.lists(st.sampled_from(OPTIONAL), unique=True))
    return ClickLog(
        query=rng.integers(0, 50, sessions),
        item=item,
        click=(rng.random(cells) < 0.3) & shown,
        **{name: every[name] for name in columns},
    )


@st.composite
def ranking_data(draw):
    """A few queries of a few items; grades and ids may be absent."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    items = int(offsets[-1])
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    shape = (items, draw(st.integers(1, 3)))
    features = draw(arrays(np.float32, shape, elements=finite))
    labels = draw(st.none() | arrays(np.int8, items, elements=st.integers(0, 4)))
    ids = draw(st.none() | st.permutations(range(10, 10 + len(sizes))))
    return RankingData(
        features, labels, offsets, None if ids is None else np.array(ids)
    )
