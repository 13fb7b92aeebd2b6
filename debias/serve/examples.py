"""Examples for the documentation of the service, computed from its data."""

from typing import Any

import msgspec

from debias.engine.scoring import Scorer
from debias.retrieval.serving.versions import Version
from debias.serve import answers
from debias.serve.schemas import (
    Example,
    ExplainRequest,
    RankRequest,
    RecommendRequest,
    Request,
    RetrieveRequest,
)

SHOWN = 3  # items of an answer
DATE = "2026-01-31"


def examples(
    version: Version | None, ranker: Scorer | None, name: str
) -> dict[str, Example]:
    """Makes a valid example request and its answer for each path.

    Args:
        version: The served version. If None, only a ranker is served.
        ranker: The ranker. If None, only a version is served.
        name: Name of the version or ranker, for the answers of `/rank`.
    """
    found = {}
    if version is not None:
        users = version.users.vocabularies["id"][:1].tolist()
        asked: dict[str, Any] = {"user": {"id": users[0]} if users else {}, "k": SHOWN}
        found["/retrieve"] = _tried(
            RetrieveRequest, asked, lambda a: answers.retrieved(version, a)
        )
        if ranker is not None:
            context = _context(version, ranker)
            asked = {**asked, **({"context": context} if context else {})}
            found["/recommend"] = _tried(
                RecommendRequest,
                asked,
                lambda a: answers.recommended(version, ranker, a),
            )
        found["/explain"] = _tried(
            ExplainRequest, asked, lambda a: answers.explained(version, ranker, a)
        )
    if ranker is not None and (row := _row(ranker)):
        items = {"items": [row, row]}
        found["/rank"] = _tried(
            RankRequest, items, lambda a: answers.ranked(version, ranker, a, name)
        )
    return found


def _tried(kind: type[Request], asked: dict[str, Any], answer: Any) -> Example:
    try:
        found = answer(msgspec.convert(asked, kind))
    except (ValueError, OSError):  # the version or ranker cannot answer
        return Example(asked)
    return Example(asked, msgspec.to_builtins(found))


def _row(ranker: Scorer) -> dict[str, Any]:
    """An item with the features of a ranker; {} if the features have no names."""
    if getattr(ranker, "kinds", None) is None:
        return dict.fromkeys(answers.feature_names(ranker) or (), 0.0)
    row: dict[str, Any] = {}
    for each in ranker.kinds or ():
        some = list(each.values[:1])
        if not each.coded:
            row[each.name] = DATE if each.kind == "date" else 0.0
        elif each.kind == "categories":
            row[each.name] = some
        else:
            row[each.name] = some[0] if some else None
    return row


def _context(version: Version, ranker: Scorer) -> dict[str, Any]:
    """The features that a ranker reads, but that the version's items do not have."""
    known = {*version.items.columns, answers.RETRIEVED}
    return {name: value for name, value in _row(ranker).items() if name not in known}
