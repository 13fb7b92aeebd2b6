"""Requests and answers of the service, and the limits on them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr

MOST = 1_000  # items of an answer, of a history, of a filter, of a list to rank
NAMES = 100  # features in a request
WIDE = 10_000  # features of an item to rank

Id = Annotated[StrictStr, Field(max_length=500)] | StrictInt
Value = Id | FiniteFloat | None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RetrieveRequest(Strict):
    user: dict[str, Value | Annotated[list[Id], Field(max_length=MOST)]] = Field(
        {},
        max_length=NAMES,
        description="Raw features, `id` among them. What is left out is looked up for "
        "a known user.",
        examples=[{"id": "u1"}],
    )
    history: Annotated[list[Id], Field(max_length=MOST)] | None = Field(
        None,
        description="Latest items, most recent first; left out: those published of a "
        "known user.",
    )
    k: int = Field(100, strict=True, ge=1, le=MOST, description="How many items.")
    seen: bool = Field(False, description="Whether items of the history may return.")
    where: dict[str, Annotated[list[Value], Field(max_length=MOST)]] = Field(
        {},
        max_length=NAMES,
        description="Item feature to the values it may have; of a number to [least, "
        "most], null for no bound.",
        examples=[{}],
    )


class RetrieveAnswer(BaseModel):
    version: str
    items: list[str]
    scores: list[float]
    known: bool = Field(description="Whether the user's id is known.")
    passed_over: list[str] = Field(
        description="Ids of the history not in the catalogue."
    )


class RankRequest(Strict):
    features: list[list[FiniteFloat]] = Field(
        min_length=1,
        max_length=MOST,
        description="A row an item, as many numbers each as the ranker was trained on.",
    )
    names: Annotated[list[StrictStr], Field(max_length=WIDE)] | None = Field(
        None,
        description="Names of the columns of `features`, in any order; left out: those "
        "of training, in its order.",
    )


class RankAnswer(BaseModel):
    scores: list[float] = Field(description="A relevance for each item, as given.")
    order: list[int] = Field(description="Items from best to worst, numbered from 0.")


class Health(BaseModel):
    version: str
    created: str
    items: int
    users: int
    ranker: bool
    feature_names: list[str] | None = Field(
        description="Names of the features that the ranker reads, if it knows them."
    )
    refused: str | None = Field(description="Why a newer version is not served.")


class Error(BaseModel):
    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": reason}
    for status, reason in {
        400: "Not JSON",
        413: "Body too large",
        422: "Bad value; the message names it",
        503: "Too busy or too slow",
    }.items()
}
