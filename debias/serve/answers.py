"""Computes the answers of the service from a version and a ranker, without HTTP."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec import UNSET

from debias.data.kinds import Feature, Features, column_names, starts
from debias.engine.scoring import Curve, Scorer
from debias.retrieval.data.interactions import (
    FIRST,
    ID,
    MISSING,
    UNKNOWN,
    FeatureTable,
)
from debias.retrieval.serving.query import Found, find, retrieve
from debias.retrieval.serving.versions import Version
from debias.serve.schemas import (
    WAYS,
    ExplainAnswer,
    Explained,
    ExplainRequest,
    Near,
    RankAnswer,
    RankRequest,
    RecommendAnswer,
    RecommendRequest,
    RetrieveAnswer,
    RetrieveRequest,
)

LARGEST = float(np.finfo(np.float32).max)
Column = list[Any] | np.ndarray  # one value per item
EXPECTED = {  # expected value by kind of feature
    "number": "a number",
    "boolean": "true or false",
    "date": "a date such as 2026-01-31",
    "category": "text or a whole number",
    "categories": "a list of text or of whole numbers",
}
LISTED = 10  # most missing features that a message names
RETRIEVED = "retrieval_score"  # a feature that `recommend` adds to every item


def retrieved(version: Version, asked: RetrieveRequest) -> RetrieveAnswer:
    """Retrieves items for a known or new user."""
    how: Any = {"repeat": asked.repeat, "where": asked.where}
    answer = retrieve(version, asked.user, asked.history, asked.k, **how)
    return RetrieveAnswer(version.name, *answer)


def ranked(
    version: Version | None, ranker: Scorer, asked: RankRequest, name: str
) -> RankAnswer:
    """Scores items with a ranker.

    Args:
        version: Version whose table of items has the requested ids. If None, only a
            ranker is served.
        ranker: The ranker, which scores the items.
        asked: The request.
        name: Name of the served ranker, which the answer contains.

    Raises:
        ValueError: The request does not have exactly one of `features`, `items` and
            `ids`. A feature is missing, has a wrong kind, or is given twice.
    """
    given = [way for way in WAYS if getattr(asked, way) is not UNSET]
    if len(given) != 1:
        raise ValueError(
            f"give one of features, items and ids, got {' and '.join(given) or 'none'}"
        )
    if asked.features is not UNSET:
        features = matrix(asked.features)
        if asked.context:
            raise ValueError("context: needs items or ids, whose features have names")
        if asked.names is not None:
            features = features[:, columns(asked.names, features, ranker)]
    elif asked.items is not UNSET:
        features = named(ranker, by_name(asked.items), asked.context, len(asked.items))
    else:
        if version is None:
            raise ValueError(
                "ids: a ranker alone has no table of items; give items or features"
            )
        rows = rows_of(version, asked.ids if asked.ids is not UNSET else ())
        table = item_features(version, rows, ranker)
        features = named(ranker, table, asked.context, len(rows))
    scores = _scores(ranker, features)
    order = np.argsort(-scores, kind="stable")
    return RankAnswer(name, scores.tolist(), order.tolist())


def recommended(
    version: Version, ranker: Scorer, asked: RecommendRequest
) -> RecommendAnswer:
    """Retrieves items for a user and ranks them.

    The features of the ranker come from the version's table of items and from
    `context`. The ranker may also read the retrieval score, as the feature `RETRIEVED`.

    Raises:
        ValueError: `ranked` or `retrieve` raises an error.
    """
    found, scores, order = _both_stages(version, ranker, asked)
    return RecommendAnswer(
        version.name,
        version.items.vocabularies[ID][found.rows[order]].tolist(),
        scores[order].tolist(),
        found.scores[order].tolist(),
        found.known,
        found.passed_over,
    )


def _both_stages(
    version: Version, ranker: Scorer, asked: RecommendRequest
) -> tuple[Found, np.ndarray, np.ndarray]:
    """The retrieved items, their relevance, and the order of the k most relevant."""
    k = max(asked.candidates, asked.k)
    how: Any = {"repeat": asked.repeat, "where": asked.where}
    found = find(version, asked.user, asked.history, k, **how)
    table = item_features(version, found.rows, ranker)
    table = {RETRIEVED: found.scores, **table}
    scores = _scores(ranker, named(ranker, table, asked.context, len(found.rows)))
    return found, scores, np.argsort(-scores, kind="stable")[: asked.k]


def explained(
    version: Version, ranker: Scorer | None, asked: ExplainRequest
) -> ExplainAnswer:
    """The answer of `recommended` or `retrieved`, with an explanation of each item.

    The explanation of an item consists of its scores in retrieval and ranking, the most
    similar items of the history, and the bias of its position. The ranking score,
    called relevance, does not include the position bias.

    Raises:
        ValueError: Ranking is requested, but there is no ranker; or `recommended`
            raises an error.
    """
    if asked.rank and ranker is None:
        raise ValueError("rank: there is no ranker; leave `rank` out, or give false")
    if ranker is None or asked.rank is False:
        how: Any = {"repeat": asked.repeat, "where": asked.where}
        found = find(version, asked.user, asked.history, asked.k, **how)
        order = np.arange(len(found.rows))
        relevance: list[float | None] = [None] * len(order)
        curve: Curve = ()
    else:
        found, scores, order = _both_stages(version, ranker, asked)
        relevance, curve = (
            scores[order].tolist(),
            getattr(ranker, "examination", None) or (),
        )
    rows = found.rows[order]
    names = version.items.vocabularies[ID]
    near = nearest(version.index.vectors, rows, found.history, asked.nearest)
    items = []
    for place, row in enumerate(rows.tolist()):
        examination = curve[place] if place < len(curve) else None
        items.append(
            Explained(
                str(names[row]),
                float(found.scores[order[place]]),
                int(order[place]) + 1,
                relevance[place],
                [
                    Near(str(names[other]), round(alike, 6))
                    for other, alike in near[place]
                ],
                examination,
                math.log(examination) if examination else None,
            )
        )
    history = names[found.history].tolist()
    return ExplainAnswer(version.name, history, items, found.known, found.passed_over)


def nearest(
    vectors: np.ndarray, rows: np.ndarray, history: np.ndarray, most: int
) -> list[list[tuple[int, float]]]:
    """For each of `rows`, the `most` nearest rows in `history` and their cosines.

    >>> vectors = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    >>> nearest(vectors, np.array([0]), np.array([2, 1]), 1)[0][0][0]
    1
    """
    history = np.array(list(dict.fromkeys(history.tolist())), np.int64)
    sides = [np.asarray(vectors[each], np.float64) for each in (rows, history)]
    sides = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in sides
    ]
    cosines = sides[0] @ sides[1].T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    alike = np.take_along_axis(cosines, order, axis=1)
    return [
        list(zip(history[one].tolist(), two.tolist(), strict=True))
        for one, two in zip(order, alike, strict=True)
    ]


def _scores(ranker: Scorer, features: np.ndarray) -> np.ndarray:
    try:
        scores = np.asarray(ranker(features), np.float64)
    except ValueError as error:  # which names a file, and that is not for clients
        reason = str(error).removeprefix(f"{getattr(ranker, 'name', '')}: ")
        raise ValueError(f"the ranker {reason}") from None
    wrong = ~np.isfinite(scores)
    if wrong.any():
        item = int(np.argmax(wrong))
        names = np.array(feature_names(ranker) or range(features.shape[1]))
        lacking = ", ".join(map(str, names[np.isnan(features[item])][:3]))
        lacks = f"; it lacks the feature {lacking}" if lacking else ""
        raise ValueError(f"the score of item {item} is not finite{lacks}")
    return scores


def rows_of(version: Version, ids: Sequence[str | int]) -> np.ndarray:
    """Rows of the items with these ids in the version's table.

    Raises:
        ValueError: An id is unknown. The message names the index of the id in `ids`.
    """
    codes = version.item_codes[ID]
    rows = np.array([codes.get(str(one), FIRST - 1) - FIRST for one in ids], np.int64)
    if (rows < 0).any():
        place = int(np.argmax(rows < 0))
        raise ValueError(
            f"ids[{place}]: {ids[place]!a} is not an item of version {version.name}"
        )
    return rows


def item_features(
    version: Version, rows: np.ndarray, ranker: Scorer
) -> dict[str, Column]:
    """Dict of the ranker's features that are in the version's table of items.

    If the ranker reads a feature as categories, the values are (n, width) codes of the
    ranker. The values of all other categorical features are text, with None for missing
    or unknown values.
    """
    items = version.items
    kinds = {each.name: each for each in getattr(ranker, "kinds", None) or ()}
    found: dict[str, Column] = {}
    for name in wanted_names(ranker) or ():
        if name not in items.columns:
            continue
        if name in kinds and kinds[name].coded and name in items.vocabularies:
            found[name] = _coded(items, rows, kinds[name], ranker.codes[name])
        else:
            found[name] = _raw(items, name, rows)
    return found


def _coded(
    items: FeatureTable, rows: np.ndarray, feature: Feature, known: Mapping[str, int]
) -> np.ndarray:
    """Converts codes of a table to (n, width) codes of a ranker for the same words."""
    codes = _as_block(items.columns[feature.name][rows])
    # Missing or unknown values move to the end of a list, so they leave no gap.
    order = np.argsort(codes < FIRST, axis=1, kind="stable")[:, : feature.width]
    codes = np.take_along_axis(codes, order, axis=1)
    distinct, place = np.unique(codes, return_inverse=True)
    some = distinct[distinct >= FIRST]
    words = items.vocabularies[feature.name][some - FIRST].tolist()
    new = [known.get(word, UNKNOWN) if word else MISSING for word in words]
    table = np.array([MISSING] * (len(distinct) - len(some)) + new, np.float32)
    found = np.zeros((len(rows), feature.width), np.float32)
    found[:, : codes.shape[1]] = table[place].reshape(codes.shape)
    return found


def _raw(items: FeatureTable, name: str, rows: np.ndarray) -> Column:
    codes = items.columns[name][rows]
    if codes.dtype.kind == "f":
        return codes
    words = items.vocabularies[name]
    if codes.ndim == 1:
        return [words[code - FIRST] if code >= FIRST else None for code in codes]
    return [[words[code - FIRST] for code in row if code >= FIRST] for row in codes]


def by_name(items: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Converts a list of items to one column per feature; missing values are None.

    >>> by_name([{"price": 2.5}, {"price": 3, "age": 1}])
    {'price': [2.5, 3], 'age': [None, 1]}
    """
    names = dict.fromkeys(name for item in items for name in item)
    return {name: [item.get(name) for item in items] for name in names}


def named(
    ranker: Scorer,
    table: Mapping[str, Column],
    context: Mapping[str, Any],
    items: int,
) -> np.ndarray:
    """(items, F) float32 features of a ranker, from columns with feature names.

    Args:
        ranker: A ranker with feature names. If the ranker also knows the kinds of its
            features, values may be raw: text, or None for missing values.
        table: Columns by feature name, with one value per item.
        context: Values by feature name, which all items share.
        items: Number of items.

    Raises:
        ValueError: The ranker has no feature names. A feature is missing, has a wrong
            kind, or is in both `table` and `context`.

    >>> ranker = Scorer(lambda x: x[..., 0], ("price", "hour"))
    >>> named(ranker, {"price": [2.5, 3]}, {"hour": 9}, 2).tolist()
    [[2.5, 9.0], [3.0, 9.0]]
    """
    names = wanted_names(ranker)
    if names is None:
        raise ValueError(
            "the ranker does not know the names of its features; give features, in the "
            "order of training"
        )
    for name in names:
        if name in table and name in context:
            raise ValueError(f"context: the feature {name} is also in the items")
    _check_complete([n for n in names if n not in table and n not in context])
    if getattr(ranker, "kinds", None) is not None:
        return encoded(ranker, table, context, items)
    features = np.empty((items, len(names)), np.float64)
    for place, name in enumerate(names):
        value = table[name] if name in table else context[name]
        features[:, place] = _numbers(name, value)
    return _float32(features, names)


def _check_complete(missing: Sequence[str]) -> None:
    """Raises ValueError if features are missing."""
    if len(missing) == 1:
        raise ValueError(
            f"the feature {missing[0]} of the ranker is missing; give it with the "
            "items or in context"
        )
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        raise ValueError(
            f"the features {' '.join(missing[:LISTED])}{more} of the ranker are "
            "missing; give each with the items or in context"
        )


def encoded(
    ranker: Scorer, table: Mapping[str, Column], context: Mapping[str, Any], items: int
) -> np.ndarray:
    """Encodes raw values as (items, F) float32, by the kinds of the ranker's features.

    Args:
        ranker: A ranker that knows the kinds of its features.
        table: Columns by feature name, see `named`. Columns that are (items, width)
            float32 arrays count as already encoded.
        context: Values that all items share, and that are therefore encoded only once.
        items: Number of items.

    Raises:
        ValueError: A value has a wrong kind. The message names the item and the
            feature.
    """
    kinds = ranker.kinds or ()
    blocks = {}
    for each in kinds:
        values = table.get(each.name)
        if isinstance(values, np.ndarray) and (
            values.ndim == 2 or each.kind in ("number", "boolean")
        ):
            blocks[each.name] = _as_block(values)
    shared = {each.name: [context[each.name]] for each in kinds if each.name in context}
    given = {
        each.name: table[each.name]
        for each in kinds
        if each.name not in blocks and each.name not in shared
    }
    for columns, where in ((shared, "context"), (given, "items")):
        for name, block in _blocks(kinds, columns, where).items():
            blocks[name] = np.broadcast_to(block, (items, block.shape[1]))
    return np.concatenate([blocks[each.name] for each in kinds], axis=1, dtype="f4")


def _as_block(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 2 else values[:, None]


def _blocks(
    kinds: Features, columns: Mapping[str, Column], where: str
) -> dict[str, np.ndarray]:
    """Encodes each column of raw values as an (n, width) float32 array."""
    import pyarrow as pa

    from debias.data.by_name import matrix
    from debias.data.shown import Fault

    def refused(name: str, row: int, what: str) -> ValueError:
        place = where if where == "context" else f"items[{row}]"
        return ValueError(f"{place}: the feature {name} {what}")

    wanted = tuple(each for each in kinds if each.name in columns)
    arrays = {}
    for each in wanted:
        values = columns[each.name]
        try:
            arrays[each.name] = _array(values, each.kind)
        except (ValueError, TypeError, OverflowError):  # Arrow's errors are such
            row = _first(partial(_array, kind=each.kind), values)
            what = f"must be {EXPECTED[each.kind]}, the same kind in every item"
            what = f"{what}, got {values[row]!a:.50}"
            raise refused(each.name, row, what) from None
    if not arrays:
        return {}
    try:
        found = matrix(pa.table(arrays), column_names(wanted), "items", kinds=wanted)
    except Fault as fault:
        raise refused(fault.column, fault.row, fault.what) from None
    first = starts(wanted)
    return {
        each.name: found[:, first[each.name] : first[each.name] + each.width]
        for each in wanted
    }


def _array(values: Column, kind: str) -> Any:
    """Values as an Arrow array; integers beyond 64 bits become floats."""
    import pyarrow as pa

    from debias.data.arrays import is_list

    try:
        found = pa.array(values)
    except OverflowError:
        if kind != "number":
            raise
        return pa.array([None if each is None else float(each) for each in values])
    if kind != "categories" or is_list(found.type):
        return found
    if not pa.types.is_null(found.type):
        raise TypeError("single values where lists were expected")
    return found.cast(pa.list_(pa.string()))


def _first(read: Callable[[Column], Any], values: Column) -> int:
    """The first entry at which `read` fails, found by bisection."""
    low, high = 0, len(values)  # `low` values pass, and `high` values fail
    while high - low > 1:
        middle = (low + high) // 2
        try:
            read(values[:middle])
            low = middle
        except (ValueError, TypeError, OverflowError):
            high = middle
    return low


def wanted_names(ranker: Any) -> list[str] | None:
    """Names of the ranker's features in its data source; None if they have no names.

    A feature with several categories per item is one column of the source, but several
    columns of the matrix.
    """
    kinds = getattr(ranker, "kinds", None)
    return feature_names(ranker) if kinds is None else [each.name for each in kinds]


def _numbers(name: str, values: Any) -> Any:
    """Converts a number or a list of numbers; an error names the first wrong value."""
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, list):
        return _number("context", name, values)
    return [_number(f"items[{at}]", name, value) for at, value in enumerate(values)]


def _number(where: str, name: str, value: Any) -> float:
    if isinstance(value, int | float) and abs(value) <= LARGEST:
        return float(value)
    got = "none" if value is None else f"{value!a:.50}"
    raise ValueError(
        f"{where}: the feature {name} must be a number that float32 can hold, got {got}"
    )


def matrix(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Converts rows of numbers to an (items, F) float32 matrix.

    Raises:
        ValueError: Rows differ in length, or a number is too large.

    >>> matrix([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    for at, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"features[{at}]: must have {len(rows[0])} numbers, as features[0] "
                f"has, got {len(row)}"
            )
    return _float32(np.array(rows, np.float64))


def _float32(features: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    wrong = ~(np.abs(features) <= LARGEST)
    if wrong.any():
        item, feature = np.argwhere(wrong)[0]
        place = f"features[{item}][{feature}]:"
        if names is not None:
            place = f"items[{item}]: the feature {names[feature]}"
        raise ValueError(
            f"{place} must be a finite number that float32 can hold, got "
            f"{features[item, feature]:g}"
        )
    return features.astype(np.float32)


def feature_names(ranker: Any) -> list[str] | None:
    """Names of a ranker's features, in their order; None if they have no names."""
    names = getattr(ranker, "feature_names", None)
    return None if names is None else list(names)


def columns(names: Sequence[str], features: np.ndarray, ranker: Any) -> list[int]:
    """For each feature of a ranker, its index in `names`.

    Raises:
        ValueError: The ranker has no feature names, or a feature is missing or occurs
            twice.

    >>> ranker = Scorer(lambda x: x[..., 0], ("a", "b"))
    >>> columns(["b", "c", "a"], np.zeros((1, 3)), ranker)
    [2, 0]
    """
    wanted = feature_names(ranker)
    if wanted is None:
        raise ValueError(
            "names: the ranker does not know the names of its features; leave names "
            "out and give features in the order of training"
        )
    if len(names) != features.shape[1]:
        raise ValueError(
            f"names must name all {features.shape[1]} features of a row, got "
            f"{len(names)}"
        )
    times, place = Counter(names), {name: at for at, name in enumerate(names)}
    for name in wanted:
        if times[name] != 1:
            what = f"comes {times[name]} times" if times[name] else "is missing"
            raise ValueError(f"names: the feature {name} {what}")
    return [place[name] for name in wanted]
