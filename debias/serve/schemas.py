"""Requests and answers of the service, and their limits.

A request is decoded and validated in one pass, which stops at the first error. So the
decoding time is limited by the size of the body.
"""

import re
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MOST = 1_000  # most items of an answer, a history, a filter, or a list to rank
NAMES = 100  # most features in a request
WIDE = 10_000  # most features of an item to rank
NAMED = 1 << 20  # largest body in bytes that is read again to name the faulty value

Id = Annotated[str, Meta(max_length=500)] | int
Value = Id | float | bool | None
Raw = dict[str, Value | Annotated[list[Id], Meta(max_length=MOST)]]
User = Annotated[
    Raw,
    Meta(
        max_length=NAMES,
        description="Raw features, including `id`. If a known user's feature is "
        "missing, the published value is used.",
        examples=[{"id": "u1"}],
    ),
]
History = Annotated[
    Annotated[list[Id], Meta(max_length=MOST)] | None,
    Meta(
        description="Latest items, most recent first. If it is missing, the published "
        "history of a known user is used."
    ),
]
Count = Annotated[int, Meta(ge=1, le=MOST, description="Number of items.")]
Where = Annotated[
    dict[str, Id | bool | Annotated[list[Value], Meta(max_length=MOST)]],
    Meta(
        max_length=NAMES,
        description="Maps an item feature to its required value or allowed values. "
        "Maps a numeric feature to [least, most], where null means no bound.",
        examples=[{}],
    ),
]
Context = Annotated[
    Raw,
    Meta(
        max_length=WIDE,
        description="Features that all items of the request share, by name.",
        examples=[{}],
    ),
]
Versioned = Annotated[str, Meta(description="The version that answers.")]


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base class of all requests, which allow no unknown keys."""


class RetrieveRequest(Request, kw_only=True):
    user: User = {}
    history: History = None
    k: Count = 100
    repeat: Annotated[
        Literal["exclude", "allow", "model"] | None,
        Meta(
            description="Policy for items that the user took before: exclude them, "
            "allow them like other items, or give them a learned bonus (model). The "
            "default is the policy with which the version was published."
        ),
    ] = None
    where: Where = {}


class RetrieveAnswer(Struct):
    version: Versioned
    items: list[str]
    scores: list[float]
    known: Annotated[bool, Meta(description="Whether the user's id is known.")]
    passed_over: Annotated[
        list[str], Meta(description="Ids in the history that are not in the catalogue.")
    ]


class RankRequest(Request, kw_only=True):
    features: (
        Annotated[
            list[list[float]],
            Meta(
                min_length=1,
                max_length=MOST,
                description="One row per item, with as many numbers as the ranker has "
                "features.",
                examples=[[[0.5, 1.0]]],
            ),
        ]
        | UnsetType
    ) = UNSET
    names: Annotated[
        Annotated[list[str], Meta(max_length=WIDE)] | None,
        Meta(
            description="Names of the columns of `features`, in any order. The default "
            "is the order of training."
        ),
    ] = None
    items: (
        Annotated[
            list[Annotated[Raw, Meta(max_length=WIDE)]],
            Meta(
                min_length=1,
                max_length=MOST,
                description="Instead of `features`: one object per item, with its "
                "features by name.",
            ),
        ]
        | UnsetType
    ) = UNSET
    ids: (
        Annotated[
            list[Id],
            Meta(
                min_length=1,
                max_length=MOST,
                description="Instead of `features`: item ids. Their features are "
                "looked up in the version.",
            ),
        ]
        | UnsetType
    ) = UNSET
    context: Context = {}


class RankAnswer(Struct):
    version: Versioned
    scores: Annotated[
        list[float],
        Meta(description="Relevance of each item, in the order of the request."),
    ]
    order: Annotated[
        list[int], Meta(description="Items from best to worst, numbered from 0.")
    ]


class RecommendRequest(RetrieveRequest, kw_only=True):
    k: Count = 10
    candidates: Annotated[
        int, Meta(ge=1, le=MOST, description="Number of items to retrieve for ranking.")
    ] = 500
    context: Context = {}


class RecommendAnswer(Struct):
    version: Versioned
    items: list[str]
    scores: Annotated[
        list[float], Meta(description="Relevance, by which the items are ordered.")
    ]
    retrieved: Annotated[list[float], Meta(description="Retrieval score.")]
    known: Annotated[bool, Meta(description="Whether the user's id is known.")]
    passed_over: Annotated[
        list[str], Meta(description="Ids in the history that are not in the catalogue.")
    ]


class ExplainRequest(RecommendRequest, kw_only=True):
    rank: Annotated[
        bool | None,
        Meta(
            description="Whether the ranker orders the items. By default, it does "
            "if there is a ranker."
        ),
    ] = None
    nearest: Annotated[
        int,
        Meta(
            ge=0, le=20, description="Number of similar items of the history per item."
        ),
    ] = 3


class Near(Struct):
    item: str
    similarity: Annotated[
        float, Meta(description="Cosine of the vectors of the two items.")
    ]


class Explained(Struct):
    item: str
    retrieved: Annotated[float, Meta(description="Retrieval score.")]
    candidate: Annotated[
        int, Meta(description="Position among the retrieved items, from 1.")
    ]
    relevance: Annotated[
        float | None,
        Meta(description="Score of the ranker, if the ranker orders the items."),
    ]
    nearest: Annotated[
        list[Near], Meta(description="The most similar items of the history.")
    ]
    examination: Annotated[
        float | None,
        Meta(
            description="P(examined) at this position of the answer, divided by "
            "P(examined) at the first position, as the ranker's click model learned "
            "them. null if they are unknown."
        ),
    ]
    bias: Annotated[
        float | None,
        Meta(
            description="Logarithm of `examination`: the contribution of the position "
            "to the log click rate. `relevance` does not include it."
        ),
    ]


class ExplainAnswer(Struct):
    version: Versioned
    history: Annotated[
        list[str], Meta(description="Items that the user tower read, latest first.")
    ]
    items: Annotated[list[Explained], Meta(description="The answer, best first.")]
    known: Annotated[bool, Meta(description="Whether the user's id is known.")]
    passed_over: Annotated[
        list[str], Meta(description="Ids in the history that are not in the catalogue.")
    ]


class Health(Struct):
    version: Annotated[
        str, Meta(description="The served version, or the name of the ranker.")
    ]
    created: Annotated[
        str | None, Meta(description="Time of publication of the version, in UTC.")
    ]
    items: int
    users: int
    ranker: bool
    feature_names: Annotated[
        list[str] | None,
        Meta(
            description="Names of the features that the ranker reads, if it has names."
        ),
    ]
    repeat: Annotated[
        str | None, Meta(description="Policy for items that a user took before.")
    ]
    refused: Annotated[
        str | None, Meta(description="Why a newer version is not served.")
    ]


class Ready(Struct):
    ready: bool
    version: str


class Error(Struct):
    error: str


REFUSALS = {
    400: "Not JSON",
    413: "Body too large",
    415: "Not application/json",
    422: "Invalid value; the message names it",
    503: "Too busy or too slow",
}
OPEN_REFUSALS = {503: "No answer within the time of a request"}

WAYS = ("features", "items", "ids")  # ways to give the items to rank

T = TypeVar("T", bound=Request)


class Example(NamedTuple):
    """An example request and its answer (or None), as JSON values."""

    request: dict[str, Any]
    answer: dict[str, Any] | None = None

    def add_to(self, route: dict[str, Any]) -> None:
        """Adds the request and answer to the OpenAPI description of a route."""
        route["requestBody"]["content"]["application/json"]["example"] = self.request
        if self.answer is not None:
            answered = route["responses"]["200"]["content"]["application/json"]
            answered["example"] = self.answer


def decoded(kind: type[T], body: bytes) -> T:
    """Decodes and validates a request.

    Raises:
        msgspec.DecodeError: The body is not JSON.
        ValueError: A value has a wrong type or size. The message names the value.

    >>> decoded(RetrieveRequest, b'{"k": 3}').k
    3
    >>> decoded(RetrieveRequest, b'{"history": [1.5]}')
    Traceback (most recent call last):
    ValueError: history[0]: expected `int | str`, got `float`
    >>> decoded(RankRequest, b'{"items": [{"tags": [1.5]}]}')
    Traceback (most recent call last):
    ValueError: items[0]['tags'][0]: expected `int | str`, got `float`
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message = _named(kind, body, worded(str(error)))
        if message.startswith("unknown field"):
            message += f"; known are {' '.join(kind.__struct_fields__)}"
        raise ValueError(message) from None


def _named(kind: type[Request], body: bytes, message: str) -> str:
    """Replaces `[...]` in an error message of msgspec by the name of the feature."""
    found = re.match(r"(\w+)(\[\d+\])?\[\.\.\.\](.*)", message, re.DOTALL)
    if found is None or len(body) > NAMED:
        return message
    field, at, rest = found.groups(default="")
    try:
        given = msgspec.json.decode(body)[field]
    except (msgspec.DecodeError, RecursionError):  # out of range, or too deep
        return message
    for name, value in (given[int(at[1:-1])] if at else given).items():
        one = {name: value}
        try:
            msgspec.convert({field: [one] if at else one}, kind)
        except msgspec.ValidationError:
            return f"{field}{at}[{name!a:.50}]{rest}"
    return message


def worded(message: str) -> str:
    """Rewords an error message of msgspec, with the place of the error first.

    >>> worded("Expected `int` >= 1 - at `$.k`")
    'k: expected `int` >= 1'
    >>> worded("Object contains unknown field `n`")
    'unknown field `n`'
    """
    message = message.removeprefix("Object contains ")
    what, _, place = message.partition(" - at `")
    place = place.removesuffix("`").removeprefix("$").removeprefix(".")
    return f"{place}: {what[:1].lower()}{what[1:]}" if place else what


def described(
    answer: type[Struct], request: type[Request] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The OpenAPI description of a route, and the schemas to which it refers."""
    kinds = [answer, Error, *([] if request is None else [request])]
    references, schemas = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )

    if request is RankRequest:
        schemas["RankRequest"]["oneOf"] = [{"required": [way]} for way in WAYS]

    def content(place: int) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": references[place]}}}

    refusals = OPEN_REFUSALS if request is None else REFUSALS
    route: dict[str, Any] = {
        "responses": {
            "200": {"description": "The answer", **content(0)},
            **{
                str(status): {"description": reason, **content(1)}
                for status, reason in refusals.items()
            },
        }
    }
    if request is not None:
        route["requestBody"] = {"required": True, **content(2)}
    return route, schemas
