"""The service: `POST /retrieve`, `POST /rank`, `/health`, `/metrics`, `/docs`, a page.

One process answers from memory. Each request takes the version that is served when its
work begins and meets no other. The work is done in threads, so that a slow answer can
be given up and a new version be read meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from jinja2 import Environment
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr
from starlette.exceptions import HTTPException as StarletteHTTPException

import debias
from debias.engine.scoring import Scorer
from debias.retrieval.serving.query import retrieve
from debias.serve.guards import Counted, Limited
from debias.serve.live import Live

MOST = 1_000  # items of an answer, of a history, of a filter, of a list to rank
NAMES = 100  # features in a request
WAITING = 256  # requests whose work has not begun; more are sent away
EXAMPLES = 12  # users that the page offers
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)

Id = Annotated[StrictStr, Field(max_length=500)] | StrictInt
Value = Id | FiniteFloat | None
T = TypeVar("T")


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


class RankAnswer(BaseModel):
    scores: list[float] = Field(description="A relevance for each item, as given.")
    order: list[int] = Field(description="Items from best to worst, numbered from 0.")


class Health(BaseModel):
    version: str
    created: str
    items: int
    users: int
    ranker: bool
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


def service(
    root: str | Path,
    ranker: Scorer | None = None,
    *,
    body: int = 1 << 22,
    seconds: float = 2.0,
    poll: float = 0.5,
    threads: int = 4,
) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        root: Folder that `debias.retrieval.serving.versions.publish` writes to.
        ranker: As `debias.artifacts.open_scorer` gives it; None: `/rank` is
        absent. body: Most bytes of a request.
        seconds: Most seconds of a request.
        poll: Seconds between looks for a new version.
        threads: That compute answers.

    Raises:
        ValueError: There is no whole version to serve.
    """
    live = Live(root)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    taken = Histogram(
        "debias_request_seconds",
        "Seconds of a request.",
        ["path", "status"],
        buckets=BUCKETS,
        registry=registry,
    )
    for name, about, value in (
        ("version", "The version that is served.", lambda: int(live.version.name)),
        ("items", "Items of that version.", lambda: len(live.version.items)),
        ("switches", "Versions taken over since the start.", lambda: live.switches),
        ("refused", "1 if a newer one is damaged.", lambda: bool(live.refused)),
    ):
        Gauge(f"debias_{name}", about, registry=registry).set_function(value)
    pool = ThreadPoolExecutor(threads, "answer")
    waiting = 0

    async def work(compute: Callable[[], T]) -> T:
        """Does what may take long in a thread, and says what of it was bad input."""
        nonlocal waiting
        if waiting >= WAITING:
            raise HTTPException(503, "too many requests at once; try again")
        waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, compute)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            waiting -= 1

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[None]:
        async def forever() -> None:
            while True:
                await asyncio.sleep(poll)
                await asyncio.to_thread(live.follow)

        task = asyncio.create_task(forever())
        yield
        task.cancel()
        pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPIOffline(
        redoc_url=None,
        title="debias",
        summary="Retrieval from a published version; ranking without position bias.",
        version=debias.__version__,
        lifespan=following,
    )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = error.errors()
        status = 400 if problems[0]["type"] == "json_invalid" else 422
        return said(status, "; ".join(map(worded, problems[:3])))

    @app.exception_handler(StarletteHTTPException)  # those of FastAPI are some of them
    async def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return said(error.status_code, error.detail, error.headers)

    @app.post("/retrieve", response_model=RetrieveAnswer, responses=REFUSALS)
    async def retrieve_(asked: RetrieveRequest) -> RetrieveAnswer:
        """The items to retrieve for a user, known or new."""

        def compute() -> RetrieveAnswer:
            version = live.version
            answer = retrieve(version, **dict(asked))
            return RetrieveAnswer.model_construct(
                version=version.name, **answer._asdict()
            )

        return await work(compute)

    if ranker is not None:

        @app.post("/rank", response_model=RankAnswer, responses=REFUSALS)
        async def rank(asked: RankRequest) -> RankAnswer:
            """Relevance of items, free of the bias of the clicks that taught it."""

            def compute() -> RankAnswer:
                scores = ranker(table(asked.features))
                order = np.argsort(-scores, kind="stable")
                return RankAnswer(scores=scores.tolist(), order=order.tolist())

            return await work(compute)

    @app.get("/health", response_model=Health)
    async def health() -> dict[str, Any]:
        """That it serves, what it serves, and whether that is the latest."""
        version = live.version
        return {
            **version.manifest,
            "version": version.name,
            "ranker": ranker is not None,
            "refused": live.refused,
        }

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Counters in the text format of Prometheus."""
        return PlainTextResponse(generate_latest(registry))

    template = Environment(autoescape=True).from_string(
        files("debias.serve").joinpath("page.html").read_text(encoding="utf-8")
    )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        version = live.version
        users = version.users.vocabularies["id"][:EXAMPLES].tolist()
        found = {"version": version, "users": users}
        return HTMLResponse(template.render(found))

    app.add_middleware(Limited, body=body, seconds=seconds)
    app.add_middleware(Counted, seconds=taken, paths=frozenset(app.openapi()["paths"]))
    return app


def table(rows: list[list[float]]) -> np.ndarray:
    """(items, F) float32.

    Raises:
        ValueError: Rows differ in length, or a number is too large.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ValueError(f"features must be rows of one length, got {sorted(lengths)}")
    features = np.array(rows, np.float64)
    if (np.abs(features) > np.finfo(np.float32).max).any():
        raise ValueError("features must be numbers that float32 can hold")
    return features.astype(np.float32)


def worded(problem: Any) -> str:
    """One finding of a validation, without the value, which may be anything.

    >>> worded({"loc": ("body", "k"), "msg": "Input should be at least 1"})
    'k: Input should be at least 1'
    """
    where = ".".join(str(part) for part in problem["loc"][1:])
    return f"{where}: {problem['msg']}" if where else problem["msg"]


def said(
    status: int, reason: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    # What a client sent may hold characters that UTF-8 cannot.
    reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")
    return JSONResponse({"error": reason}, status, headers)
