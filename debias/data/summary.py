"""What a click log holds, in numbers: the first thing to look at."""

from typing import Any, NamedTuple

import numpy as np

from debias.data.log import ClickLog


class Summary(NamedTuple):
    """Counts of a log. L positions.

    Attributes:
        sessions: How many there are.
        lists: Queries that were asked.
        items: Items that were shown, one under two queries counted twice.
        impressions: Shown items over all sessions.
        clicks: Clicks over all sessions.
        shown: (L,) impressions at each position.
        ctr: (L,) clicks by impression at each position, nan where nothing was shown.
            Better items may stand higher: this is not examination.
        moved: Share of the items shown at more than one position. Only those tell
            position from relevance without a model.
        columns: Columns of the log.
        problems: What keeps a log from being trained on, in words; empty if nothing.
    """

    sessions: int
    lists: int
    items: int
    impressions: int
    clicks: int
    shown: np.ndarray
    ctr: np.ndarray
    moved: float
    columns: tuple[str, ...]
    problems: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The summary as JSON values, nan as None."""
        ctr = [None if np.isnan(rate) else round(float(rate), 6) for rate in self.ctr]
        lists = {
            "shown": self.shown.tolist(),
            "ctr": ctr,
            "columns": list(self.columns),
            "problems": list(self.problems),
        }
        return {**self._asdict(), **lists}


def summarize(log: ClickLog) -> Summary:
    """Counts the sessions, items and clicks of a log.

    A log without a click, or with a single position, is summarised like any other;
    `problems` says what cannot be done with it.

    >>> log = ClickLog([0, 0, 1], [[4, 5], [5, 4], [6, -1]], [[1, 0], [1, 0], [0, 0]])
    >>> found = summarize(log)
    >>> found.sessions, found.lists, found.items, found.ctr.round(3).tolist()
    (3, 2, 3, [0.667, 0.0])
    >>> round(found.moved, 3), found.problems
    (0.667, ())
    """
    shown = np.zeros(log.list_size, np.int64)
    clicked = np.zeros(log.list_size, np.int64)
    count = int(log.item.max()) + 1 if log.sessions else 0
    last = np.zeros(count, np.int16)  # position at which an item was seen, 0 for none
    moved = np.zeros(count, bool)
    for rank in range(log.list_size):
        item = log.item[:, rank]
        clicked[rank] = np.count_nonzero(log.click[:, rank])
        item = np.unique(item[item >= 0]) if count < len(item) else item[item >= 0]
        shown[rank] = np.count_nonzero(log.item[:, rank] >= 0)
        moved[item[(last[item] > 0) & (last[item] != rank + 1)]] = True
        last[item] = rank + 1
    items = int(np.count_nonzero(last))
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing was shown
        ctr = clicked / shown
    problems = []
    if not clicked.any():
        problems.append(
            "no click: there is nothing to learn from; is the column of the clicks the "
            "right one (click=NAME says another)?"
        )
    if np.count_nonzero(shown) == 1:
        problems.append(
            "one position only: its bias cannot be told from relevance; is the column "
            "of the session the right one (session=NAME says another)?"
        )
    return Summary(
        sessions=log.sessions,
        lists=int(np.unique(log.query).size),
        items=items,
        impressions=int(shown.sum()),
        clicks=int(clicked.sum()),
        shown=shown,
        ctr=ctr,
        moved=float(np.count_nonzero(moved) / items) if items else float("nan"),
        columns=tuple(log.columns()),
        problems=tuple(problems),
    )
