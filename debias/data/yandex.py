"""Reader of the text in which samples of the Yandex relevance challenge are passed on.

A small example of a reader: text in, `ClickLog` out. Sessions are parted by `;` or by
line ends, and a session is `query TAB shown, shown, ... : clicked, clicked, ...`.
"""

import re
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from debias.data.log import ClickLog


class Yandex(NamedTuple):
    """Logs that share their numbers of queries and items.

    Attributes:
        logs: One log for each file, in order.
        queries: The name in the files of each query number.
        items: The (query, document) names of each item number; one document under two
            queries is two items.
        dropped: For each file, how many clicked documents were not on their page.
    """

    logs: tuple[ClickLog, ...]
    queries: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    dropped: tuple[int, ...]


def read_yandex(*paths: str | PathLike[str]) -> Yandex:
    """Reads files of sessions; all files share one numbering of queries and items.

    A repeated click counts once. A clicked document that is not on the page is dropped
    and counted.

    Raises:
        ValueError: A session cannot be read, or shows a document twice; the message
            names the file and the line.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "sessions.txt")
    ...     with open(path, "w") as file:
    ...         _ = file.write("q_1\\t7,8,9 : 8 , 8 , 4; q_1\\t8,7 :")
    ...     read = read_yandex(path)
    >>> read.logs[0].item.tolist(), read.logs[0].click.astype(int).tolist()
    ([[0, 1, 2], [1, 0, -1]], [[0, 1, 0], [0, 0, 0]])
    >>> read.dropped
    (1,)
    """
    queries: dict[str, int] = {}
    items: dict[tuple[str, str], int] = {}
    read = [_read(Path(path), queries, items) for path in paths]
    logs, dropped = zip(*read, strict=True) if read else ((), ())
    return Yandex(logs, tuple(queries), tuple(items), dropped)


def _read(
    path: Path, queries: dict[str, int], items: dict[tuple[str, str], int]
) -> tuple[ClickLog, int]:
    query, shown, clicked, dropped = [], [], [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        for session in filter(str.strip, line.split(";")):
            parts = re.fullmatch(r"\s*([^\t]+)\t([^:]*\S[^:]*):(.*)", session)
            if parts is None:
                raise ValueError(
                    f"{path}, line {number}: a session must read "
                    f"'query TAB shown : clicked', got {session[:60]!r}"
                )
            name, page, clicks = parts.groups()
            documents = [document.strip() for document in page.split(",")]
            if len(set(documents)) < len(documents):
                raise ValueError(
                    f"{path}, line {number}: a page shows a document twice"
                )
            chosen = {c.strip() for c in clicks.split(",") if c.strip()}
            dropped += len(chosen.difference(documents))
            query.append(queries.setdefault(name, len(queries)))
            shown.append([items.setdefault((name, d), len(items)) for d in documents])
            clicked.append([document in chosen for document in documents])
    if not query:
        raise ValueError(f"{path} holds no session")
    size = max(map(len, shown))
    item = np.array([row + [-1] * (size - len(row)) for row in shown])
    click = np.array([row + [False] * (size - len(row)) for row in clicked])
    return ClickLog(np.array(query), item, click), dropped
