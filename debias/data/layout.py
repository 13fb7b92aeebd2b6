"""Where items of a log stand: its layout columns and their largest ids."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from debias.data.kinds import Features
from debias.data.log import ClickLog


class Layout(NamedTuple):
    """Where items of a log stand.

    Attributes:
        columns: The layout columns and their largest ids, as `BiasTower` takes them.
        places: Each place of a list on each device, by the columns that name it.
        kinds: What the features of its items are; None: numbers alone.
    """

    columns: Mapping[str, int]
    places: list[dict[str, int]]
    kinds: Features | None = None


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
