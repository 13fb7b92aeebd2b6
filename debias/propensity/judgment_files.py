"""Files of judgments for search engines and rankers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debias.data import RankingData
from debias.data.files import atomic_write
from debias.data.kinds import starts
from debias.data.text import one_of, printable
from debias.propensity.judgments import Judgments
from debias.propensity.places import write_table

FORMATS = ("letor", "srw", "csv")
ENDS = {"letor": ".txt", "srw": ".json", "csv": ".csv"}


def write_judgments(
    found: Judgments,
    path: str | Path,
    format: str,
    items: Sequence[Any] | np.ndarray | None = None,
    queries: Sequence[Any] | np.ndarray | None = None,
    *,
    data: RankingData | None = None,
    graded: bool = False,
    name: str = "debias",
) -> None:
    """Writes judgments atomically to a file.

    The formats are:

    - "letor": one line per pair, `grade qid:N 1:VALUE ... # item query`, with the
      features of `data`. Pairs are in random order within a query. Without `data`, the
      file is a judgment list of Elasticsearch LTR, with the best item of a query first.
    - "srw": the request body that imports judgments into OpenSearch's Search Relevance
      Workbench.
    - "csv": a table of all columns of the judgments. The ending of `path` selects a
      CSV, Parquet or JSON file.

    Args:
        found: Result of `judge`.
        path: File to write.
        format: "letor", "srw" or "csv".
        items: (items,) ids of the items in the source log; None writes item numbers.
        queries: (queries,) ids of the queries; None writes query numbers.
        data: Features of the items, for "letor".
        graded: Whether to write grades from 0 to 4. In "srw", grades replace attraction
            as ratings. In "csv", grades are an additional column. "letor" always has
            grades.
        name: Name of the judgments in the Search Relevance Workbench.

    Raises:
        ValueError: The format, or the ending of `path` for "csv", is unknown. Or, for
            "letor", a feature holds categories or has missing values.
    """
    query = _named(queries, found.query).tolist()
    item = _named(items, found.item).tolist()
    if format == "csv":
        import pyarrow as pa

        columns = {**found.columns(), "query": query, "item": item}
        if graded:
            columns["grade"] = found.grades()
        table = {n: pa.array(v, from_pandas=True) for n, v in columns.items()}
        write_table(pa.table(table), path)
        return
    if format == "srw":
        body = workbench(found, item, query, graded, name)
        text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    elif format == "letor":
        if data is not None:
            _check_numbers(data)
        text = "".join(_letor(found, item, query, data))
    else:
        raise ValueError(one_of("format", FORMATS, format))
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def workbench(
    found: Judgments,
    item: Sequence[Any],
    query: Sequence[Any],
    graded: bool = False,
    name: str = "debias",
) -> dict[str, Any]:
    """The request body for OpenSearch's PUT _plugins/_search_relevance/judgments.

    Args:
        found: Result of `judge`.
        item, query: (P,) item ids and query ids of the pairs.
        graded: Whether ratings are grades; if not, ratings are attraction.
        name: Name of the judgments.

    >>> from debias.data import ClickLog
    >>> from debias.propensity import Propensities, judge
    >>> log = ClickLog([0] * 40, [[0, 1], [1, 0]] * 20, [[1, 0], [0, 0]] * 20)
    >>> found = judge(log, Propensities.of([1.0, 0.5]))
    >>> body = workbench(found, ["a", "b"], ["red dress"] * 2, graded=True)
    >>> body["judgmentRatings"][0]["query"], body["judgmentRatings"][0]["ratings"][0]
    ('red dress', {'docId': 'a', 'rating': '4'})
    """
    rating = found.grades() if graded else found.attraction
    form = "{:d}" if graded else "{:.6f}"
    lists: dict[str, list[dict[str, str]]] = {}
    for each, document, value in zip(query, item, rating, strict=True):
        one = {"docId": str(document), "rating": form.format(value)}
        lists.setdefault(str(each), []).append(one)
    return {
        "name": name,
        "description": "Debiased attraction of clicked and skipped documents",
        "type": "IMPORT_JUDGMENT",
        "judgmentRatings": [
            {"query": each, "ratings": ratings} for each, ratings in lists.items()
        ],
    }


def _letor(
    found: Judgments,
    item: Sequence[Any],
    query: Sequence[Any],
    data: RankingData | None,
) -> list[str]:
    """Lines of a LETOR file; its comments name queries and items."""
    lines = []
    first = np.flatnonzero(np.diff(found.query, prepend=-1))
    if data is None:
        lines += [
            f"# qid:{found.query[k] + 1}: {printable(str(query[k]))}\n"
            for k in first.tolist()
        ]
    grades = found.grades()
    order = range(len(found)) if data is None else found.shuffled().tolist()
    for k in order:
        values = ""
        if data is not None:
            own = data.features[found.item[k]]
            kept = np.flatnonzero(own)
            values = "".join(f" {i + 1}:{own[i]:.9g}" for i in kept) or " 1:0"
        name = printable(f"{item[k]} {query[k]}")
        lines.append(f"{grades[k]} qid:{found.query[k] + 1}{values} # {name}\n")
    return lines


def _check_numbers(data: RankingData) -> None:
    """Raises ValueError if a feature holds categories or has missing values."""
    place = starts(data.kinds or ())
    for each in data.kinds or ():
        fault = ""
        if each.coded:
            fault = "holds categories"
        elif np.isnan(data.features[:, place[each.name]]).any():
            fault = "is sometimes missing"
        if fault:
            raise ValueError(
                f"a LETOR file holds only numbers, but the feature {each.name} "
                f"{fault}: leave it out of features=NAMES, or write the format csv "
                "and join the features by query and item"
            )


def _named(names: Any, number: np.ndarray) -> np.ndarray:
    return number if names is None else np.asarray(names)[number]
