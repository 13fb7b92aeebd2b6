"""The click models as they are compared: one relevance tower for all, ready to fit.

`CANDIDATES` names builders, from the layout of a log and a seed to a model; `LISTWISE`
those of models that rank without predicting clicks. The tables of `benchmarks` and
`debias train` take their models from here.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from debias.data import ClickLog
from debias.layers import BiasTower, Tower
from debias.models import (
    XPA,
    Additive,
    BilinearModel,
    ClickModel,
    Dot,
    Listwise,
    Mixture,
    Naive,
    PositionFeature,
    Product,
)

HIDDEN = (64, 32)
EMBEDDING = 8
INIT_STD = 0.5  # of embeddings of places that multiply, and of parts of a mixture
TYPES = 3


class Layout(NamedTuple):
    """Where items of a log stand.

    Attributes:
        columns: The layout columns and their largest ids, as `BiasTower` takes them.
        places: Each place of a list on each device, by the columns that name it.
    """

    columns: Mapping[str, int]
    places: list[dict[str, int]]


def layout_of(log: ClickLog) -> Layout:
    """The layout of a log; on a grid, that of its first list.

    >>> layout = layout_of(ClickLog([0], [[4, 5]], [[0, 1]], device=[2]))
    >>> layout.columns, layout.places[2:]
    ({'position': 2, 'device': 2}, [{'position': 1, 'device': 2}, \
{'position': 2, 'device': 2}])
    """
    ids = {"position": np.arange(1, log.list_size + 1)}
    columns = {"position": log.list_size}
    for name, values in (("row", log.row), ("column", log.column)):
        if values is not None and values.max() > 0:
            columns[name] = int(values.max())
            ids[name] = values[0]
    places = [
        {name: int(column[k]) for name, column in ids.items()}
        for k in range(log.list_size)
    ]
    if log.device is not None and log.device.max() > 0:
        columns["device"] = int(log.device.max())
        devices = range(1, columns["device"] + 1)
        places = [{**place, "device": on} for on in devices for place in places]
    return Layout(columns, places)


def relevance(seed: int, out: int = 1) -> Tower:
    """The relevance tower of every candidate."""
    return Tower(HIDDEN, out=out, seed=seed)


def naive(layout: Layout, seed: int) -> ClickModel:
    return Naive(relevance(seed))


def additive(layout: Layout, seed: int) -> ClickModel:
    return Additive(relevance(seed), BiasTower(layout.columns, dropout=0.1, seed=seed))


def product(layout: Layout, seed: int) -> ClickModel:
    return Product(relevance(seed), BiasTower(layout.columns, seed=seed))


def position_feature(layout: Layout, seed: int) -> ClickModel:
    place = BiasTower(layout.columns, out=4, dropout=0.15, init_std=INIT_STD, seed=seed)
    return PositionFeature(relevance(seed), place)


def dot(layout: Layout, seed: int) -> ClickModel:
    # Embeddings of a place are sums over its columns: together they start around 1.
    center = 1 / len(layout.columns)
    place = BiasTower(layout.columns, out=EMBEDDING, center=center, seed=seed)
    return Dot(relevance(seed, EMBEDDING), place, layout.places)


def bilinear(layout: Layout, seed: int) -> ClickModel:
    place = BiasTower(layout.columns, out=EMBEDDING, init_std=INIT_STD, seed=seed)
    return BilinearModel(relevance(seed, EMBEDDING), place, layout.places, seed)


def mixture(layout: Layout, seed: int) -> ClickModel:
    seeds = [TYPES * seed + kind for kind in range(TYPES)]
    biases = [BiasTower(layout.columns, init_std=INIT_STD, seed=s) for s in seeds]
    parts = zip(seeds, biases, strict=True)
    return Mixture([Product(relevance(s), bias) for s, bias in parts])


def xpa(layout: Layout, seed: int) -> ClickModel:
    place = BiasTower(layout.columns, out=EMBEDDING, init_std=INIT_STD, seed=seed)
    return XPA(relevance(seed, EMBEDDING), place, seed=seed)


def listwise(layout: Layout, seed: int) -> ClickModel:
    bias = BiasTower(layout.columns, init_std=INIT_STD, seed=seed)
    return Listwise(Additive(relevance(seed), bias))


def listwise_mixture(layout: Layout, seed: int) -> ClickModel:
    parts = [listwise(layout, TYPES * seed + kind) for kind in range(TYPES)]
    return Mixture(parts, serving="relevance")


def listwise_xpa(layout: Layout, seed: int) -> ClickModel:
    return Listwise(xpa(layout, seed))


CANDIDATES: Mapping[str, Callable[[Layout, int], ClickModel]] = {
    "naive": naive,
    "additive": additive,
    "product": product,
    "position_feature": position_feature,
    "dot": dot,
    "bilinear": bilinear,
    "mixture": mixture,
    "xpa": xpa,
}
"""Click models by name; the simplest first."""

LISTWISE: Mapping[str, Callable[[Layout, int], ClickModel]] = {
    "listwise": listwise,
    "listwise_mixture": listwise_mixture,
    "listwise_xpa": listwise_xpa,
}
"""Rankers by name; their likelihoods compare with one another alone."""
