"""Answers a retrieval request, given as raw ids and features, from a version.

The version's tower computes the user's vector from the request, so new users get
answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from debias.retrieval.data.interactions import FIRST, ID, MISSING, UNKNOWN
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.serving.versions import Version
from debias.retrieval.training.evaluation import dot_scores

SPELLED = ("True", "False", "true", "false", "TRUE", "FALSE")
Raw = str | int
Range = tuple[float | None, float | None]
Where = Mapping[str, Raw | Sequence[Raw] | Range | Sequence[Raw | float | None]]


class Answer(NamedTuple):
    """The answer to a retrieval request.

    Attributes:
        items: Raw ids, best first.
        scores: Inner product of each item with the user vector; with several user
            vectors, the largest inner product. With the policy "model", scores include
            the bonus for items taken before.
        known: Whether the version knows the user's id.
        passed_over: Ids in the history that are not in the catalogue.
    """

    items: list[str]
    scores: list[float]
    known: bool
    passed_over: list[str]


class Found(NamedTuple):
    """An `Answer` with rows of items instead of raw ids.

    Attributes:
        history: Rows of the latest items that the tower read, most recent first.
    """

    rows: np.ndarray
    scores: np.ndarray
    known: bool
    passed_over: list[str]
    history: np.ndarray


def retrieve(
    version: Version,
    user: Mapping[str, Any] | None = None,
    history: Sequence[Raw] | None = None,
    k: int = 100,
    *,
    repeat: str | None = None,
    where: Where | None = None,
) -> Answer:
    """Retrieves items for one user.

    Args:
        version: Version from `debias.retrieval.serving.versions.load`.
        user: Raw features of the user, including "id" if the user has an id. If the id
            is known, absent features are looked up in the version. If the id is
            unknown, absent features get the code for missing values. Unseen values get
            the out-of-vocabulary code. The version's `stranger` vector is used if the
            user has no known id, no history in the catalogue, and no feature.
        history: Raw ids of the user's latest items, most recent first. Ids outside the
            catalogue are skipped. If None, the published history of a known user is
            used.
        k: Number of items, at least 1. If fewer than k items are allowed, all allowed
            items are returned.
        repeat: Policy for items that the user took: "exclude", "allow" or, if the
            version has weights for the bonus, "model". The items that a user took are
            in `history` or, for a known user, in the version. If None, the policy of
            the version is used.
        where: Filter, a dict from item feature to condition. A condition is a required
            value or a list of allowed values, which are not None. The condition of a
            numeric feature is [smallest, largest], where None means no limit. An item
            must meet all conditions.

    Raises:
        ValueError: A feature is unknown or of a wrong kind, a number is not finite, k
            is less than 1, or the policy is unknown. The message names the argument.
    """
    found = find(version, user, history, k, repeat=repeat, where=where)
    ids = version.items.vocabularies[ID][found.rows].tolist()
    return Answer(ids, found.scores.tolist(), found.known, found.passed_over)


def find(
    version: Version,
    user: Mapping[str, Any] | None = None,
    history: Sequence[Raw] | None = None,
    k: int = 100,
    *,
    repeat: str | None = None,
    where: Where | None = None,
) -> Found:
    """Retrieves items like `retrieve`, but returns their rows instead of raw ids."""
    user = dict(user or {})
    row = version.user_codes[ID].get(_word(ID, user.get(ID)), UNKNOWN) - FIRST
    features = {
        name: _feature(version, name, user[name])
        if user.get(name) is not None
        else _published(column, row)
        for name, column in version.users.columns.items()
    }
    if strange := [name for name in user if name not in features]:
        raise ValueError(
            f"user has unknown features {strange}, known are {list(features)}"
        )
    words = [_word("history", item) for item in history or ()]
    codes = [version.item_codes[ID].get(word, MISSING) for word in words]
    passed_over = [w for w, code in zip(words, codes, strict=True) if not code]
    codes = [code for code in codes if code]
    if history is None and row >= 0 and version.histories is not None:
        codes = [code for code in version.histories[row].tolist() if code]
    length = version.tower.length
    latest = np.zeros((1, length), np.int32)
    latest[0, : len(codes[:length])] = codes[:length]
    known = row >= 0 or codes or any(user[name] is not None for name in {*user} - {ID})
    if known or version.stranger is None:
        vectors = version.tower({**features, "history": latest})[0]
    else:
        vectors = version.stranger
    policy = _policy(version, repeat)
    # If items taken were published, they include the published history.
    named = codes if history is not None or version.taken is None else []
    taken = {} if policy.policy == "allow" else _taken(version, row, named)
    open_to = allowed(version, where) if where else None
    rows, scores = version.index.search(vectors, k, [*taken], open_to)
    if policy.policy == "model":
        own, extra = _repeated(version, policy, vectors, taken, open_to)
        rows, scores = np.append(rows, own), np.append(scores, extra)
        order = np.argsort(-scores, kind="stable")[:k]
        rows, scores = rows[order], scores[order]
    read = np.array(codes[:length], np.int64) - FIRST
    return Found(rows, scores, row >= 0, passed_over, read)


def _policy(version: Version, asked: str | None) -> Repeat:
    if asked is None or asked == version.repeat.policy:
        return version.repeat
    if asked == "model":
        raise ValueError(
            f"repeat 'model' needs weights, but version {version.name} was published "
            f"with {version.repeat.policy!r}; train with --repeat model"
        )
    return Repeat.of(asked)


def _taken(version: Version, row: int, codes: Sequence[int]) -> dict[int, int]:
    """Rows and counts of the items that a user took, the most recent first.

    If an item is both in the request and in the version, the larger count is used.
    """
    taken = dict(Counter(code - FIRST for code in codes))
    if version.taken is not None and row >= 0:
        rows, counts = version.taken.part(row)
        for item, count in zip(rows.tolist(), counts.tolist(), strict=True):
            taken[item] = max(count, taken.get(item, 0))
    return taken


def _repeated(
    version: Version,
    policy: Repeat,
    vectors: np.ndarray,
    taken: Mapping[int, int],
    open_to: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of taken items that pass the filter, and their scores with the bonus."""
    rows = np.array([*taken], np.int64)
    counts, places = np.array([*taken.values()]), np.arange(1, len(rows) + 1)
    if open_to is not None:
        passing = open_to[rows]
        rows, counts, places = rows[passing], counts[passing], places[passing]
    queries, items = np.asarray(vectors, np.float32)[None], version.index.vectors[rows]
    scores = dot_scores(queries, items)
    every = np.arange(len(rows)), np.array([0, len(rows)])
    policy.own_scores(scores, queries, items, every)
    return rows, scores[0] + policy.bonus(counts, places, scores[0])


def allowed(version: Version, where: Where) -> np.ndarray:
    """(items,) bool, the items that pass a filter; see `retrieve`.

    Raises:
        ValueError: A feature is unknown, or its range is invalid.
    """
    passing = np.ones(len(version.items), bool)
    for name, wanted in where.items():
        column = version.items.columns.get(name)
        if column is None:
            raise ValueError(
                f"where has the unknown feature {name!r}, items have "
                f"{list(version.items.columns)}"
            )
        if column.dtype.kind == "f":
            passing &= _between(name, column, wanted)
            continue
        if isinstance(wanted, str | int | np.integer):  # letters are no values
            wanted = [wanted]
        if any(value is None for value in wanted):
            raise ValueError(
                f"where {name!r} holds categories, and null is only for [least, most] "
                f"of numbers; train with -c item_numbers={name} to filter by a range"
            )
        codes = [_code(version.item_codes[name], name, value) for value in wanted]
        chosen = np.zeros(version.items.size(name), bool)
        chosen[[code for code in codes if code != UNKNOWN]] = True
        inside = chosen[column]
        passing &= inside.any(axis=1) if inside.ndim == 2 else inside
    return passing


def _between(name: str, column: np.ndarray, wanted: Any) -> np.ndarray:
    bounds = list(wanted) if isinstance(wanted, list | tuple | np.ndarray) else []
    if len(bounds) != 2 or not all(b is None or _is_number(b) for b in bounds):
        raise ValueError(
            f"where {name!r} must be [least, most], each a number or null, got "
            f"{wanted!a:.50}"
        )
    least, most = wanted
    if least is not None and most is not None and least > most:
        raise ValueError(f"where {name!r} must be [least, most], got {wanted!a:.50}")
    passing = np.ones(len(column), bool)
    if least is not None:
        passing &= column >= least
    if most is not None:
        passing &= column <= most
    return passing


def _feature(version: Version, name: str, value: Any) -> np.ndarray:
    """Converts a raw value to a column with one row."""
    column = version.users.columns[name]
    if column.dtype.kind == "f":
        if not _is_number(value):
            raise ValueError(f"user {name!r} must be a finite number, got {value!r}")
        return np.array([value], np.float32)
    known = version.user_codes[name]
    if column.ndim == 1:
        return np.array([_code(known, name, value)], np.int32)
    values = value if isinstance(value, list | tuple) else [value]
    codes = [_code(known, name, each) for each in values]
    return np.array([codes or [MISSING]], np.int32)


def _published(column: np.ndarray, row: int) -> np.ndarray:
    if row >= 0:
        return column[row : row + 1]
    return np.zeros((1, *column.shape[1:]), column.dtype)


def _code(known: Mapping[str, int], name: str, value: Any) -> int:
    """Code of a raw value. True and false may be spelled as in JSON or in Python."""
    if isinstance(value, bool):
        spelled = {each.lower(): known[each] for each in SPELLED if each in known}
        if spelled:
            return spelled.get(str(value).lower(), UNKNOWN)
    return known.get(_word(name, value), UNKNOWN)


def _word(name: str, value: Any) -> str:
    """A raw value as text; None becomes "", which is in no vocabulary."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise ValueError(f"{name} must be strings or integers, got {value!r}")
    return str(value)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    most = float(np.finfo(np.float32).max)
    return number and not isinstance(value, bool) and bool(abs(value) <= most)
