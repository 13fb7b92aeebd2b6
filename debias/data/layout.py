"""The layout of a log: the columns that a bias tower reads, and their largest ids."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from debias.data.kinds import Features
from debias.data.log import ClickLog

CROSSED = 12  # most values of a presentation column that get a bias per position


class Layout(NamedTuple):
    """The columns of a log that describe where and how an item is shown.

    Attributes:
        columns: Largest id of each layout column, in the order that `BiasTower`
            expects: position, row, column, device, and then presentation columns.
        places: For each device and position, a dict from layout column to id.
            Presentation columns have their most frequent id.
        kinds: Kinds of the items' features; None if all are numbers.
        cross: Pairs of columns that `BiasTower` crosses: position with each
            presentation column that has at most `CROSSED` ids.
        context: Number of context columns.
        targets: Names of the target columns.
    """

    columns: Mapping[str, int]
    places: list[dict[str, int]]
    kinds: Features | None = None
    cross: tuple[tuple[str, str], ...] = ()
    context: int = 0
    targets: tuple[str, ...] = ()


def layout_of(log: ClickLog) -> Layout:
    """The layout of a log.

    On a grid, the first list determines the row and the column of each position.

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
    cross = []
    for name, codes in (log.presentation or {}).items():
        if codes.max(initial=0) == 0:
            continue
        columns[name] = int(codes.max())
        usual = int(np.bincount(codes[codes > 0]).argmax())
        places = [{**place, name: usual} for place in places]
        if columns[name] <= CROSSED:
            cross.append(("position", name))
    context = 0 if log.context is None else log.context.shape[1]
    targets = tuple(log.targets or ())
    return Layout(columns, places, None, tuple(cross), context, targets)
