"""The service: `POST /retrieve`, `POST /rank`, `/health`, `/metrics`, `/docs`, a page.

One process answers from memory. Each request takes the version that is served when its
work begins and sees no other. Threads do the work, so that a slow answer can be given
up and a new version be read meanwhile.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from jinja2 import Environment
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.exceptions import HTTPException as StarletteHTTPException

import debias
from debias.engine.scoring import Scorer
from debias.retrieval.serving.query import retrieve
from debias.serve.guards import Counted, Limited
from debias.serve.live import Live
from debias.serve.schemas import (
    REFUSALS,
    Health,
    RankAnswer,
    RankRequest,
    RetrieveAnswer,
    RetrieveRequest,
)

WAITING = 256  # requests at work or waiting for it; more are refused
EXAMPLES = 12  # users that the page offers
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)

T = TypeVar("T")


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
        ranker: As `debias.artifacts.open_scorer` gives it; None: `/rank` is absent.
        body: Largest request in bytes.
        seconds: Longest request.
        poll: Seconds between looks for a new version.
        threads: How many compute answers.

    Raises:
        ValueError: There is no complete version to serve.
    """
    live, workers = Live(root), Workers(threads)
    registry, request_seconds = _counters(live)
    app = FastAPIOffline(
        redoc_url=None,
        title="debias",
        summary="Retrieval from a published version; ranking without position bias.",
        version=debias.__version__,
        lifespan=_following(live, workers, poll),
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)  # FastAPI's inherit it
    _Routes(live, ranker, workers, registry).add_to(app)
    app.add_middleware(Limited, body=body, seconds=seconds)
    paths = frozenset(app.openapi()["paths"])
    app.add_middleware(Counted, seconds=request_seconds, paths=paths)
    return app


class Workers:
    """Threads that compute answers; with `WAITING` requests at work they refuse more.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int):
        self.pool, self.waiting = ThreadPoolExecutor(threads, "answer"), 0

    async def run(self, compute: Callable[[], T]) -> T:
        """The value of `compute`; a ValueError becomes answer 422."""
        if self.waiting >= WAITING:
            raise HTTPException(503, "too many requests at once; try again")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, compute)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            self.waiting -= 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Routes:
    """The answers, from the live version and the ranker."""

    def __init__(
        self,
        live: Live,
        ranker: Scorer | None,
        workers: Workers,
        registry: CollectorRegistry,
    ):
        self.live, self.ranker = live, ranker
        self.workers, self.registry = workers, registry
        text = files("debias.serve").joinpath("page.html").read_text(encoding="utf-8")
        self.template = Environment(autoescape=True).from_string(text)

    def add_to(self, app: FastAPI) -> None:
        answers: dict[str, Any] = {"responses": REFUSALS}
        app.post("/retrieve", response_model=RetrieveAnswer, **answers)(self.retrieve)
        if self.ranker is not None:
            app.post("/rank", response_model=RankAnswer, **answers)(self.rank)
        app.get("/health", response_model=Health)(self.health)
        app.get("/metrics", response_class=PlainTextResponse)(self.metrics)
        page = app.get("/", response_class=HTMLResponse, include_in_schema=False)
        page(self.page)

    async def retrieve(self, asked: RetrieveRequest) -> RetrieveAnswer:
        """The items to retrieve for a user, known or new."""

        def compute() -> RetrieveAnswer:
            version = self.live.version
            answer = retrieve(version, **dict(asked))
            return RetrieveAnswer.model_construct(
                version=version.name, **answer._asdict()
            )

        return await self.workers.run(compute)

    async def rank(self, asked: RankRequest) -> RankAnswer:
        """Relevance of items, free of the bias of the clicks that taught it."""
        ranker = self.ranker
        assert ranker is not None

        def compute() -> RankAnswer:
            features = matrix(asked.features)
            if asked.names is not None:
                features = features[:, columns(asked.names, features, ranker)]
            scores = ranker(features)
            order = np.argsort(-scores, kind="stable")
            return RankAnswer(scores=scores.tolist(), order=order.tolist())

        return await self.workers.run(compute)

    async def health(self) -> dict[str, Any]:
        """What is served, and whether that is the latest version."""
        version = self.live.version
        return {
            **version.manifest,
            "version": version.name,
            "ranker": self.ranker is not None,
            "feature_names": feature_names(self.ranker),
            "refused": self.live.refused,
        }

    async def metrics(self) -> PlainTextResponse:
        """Counters in the text format of Prometheus."""
        return PlainTextResponse(generate_latest(self.registry))

    async def page(self) -> HTMLResponse:
        version = self.live.version
        users = version.users.vocabularies["id"][:EXAMPLES].tolist()
        found = {"version": version, "users": users}
        return HTMLResponse(self.template.render(found))


def _counters(live: Live) -> tuple[CollectorRegistry, Histogram]:
    """A registry of counters, and the one of the seconds of requests."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    request_seconds = Histogram(
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
    return registry, request_seconds


def _following(
    live: Live, workers: Workers, poll: float
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The lifespan of an application that looks for new versions."""

    async def forever() -> None:
        while True:
            await asyncio.sleep(poll)
            await asyncio.to_thread(live.follow)

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(forever())
        yield
        task.cancel()
        workers.close()

    return following


async def _invalid(_: Request, error: Any) -> JSONResponse:
    problems = error.errors()
    status = 400 if problems[0]["type"] == "json_invalid" else 422
    return said(status, "; ".join(map(worded, problems[:3])))


async def _refused(_: Request, error: Any) -> JSONResponse:
    return said(error.status_code, error.detail, error.headers)


def matrix(rows: list[list[float]]) -> np.ndarray:
    """(items, F) float32.

    Raises:
        ValueError: Rows differ in length, or a number is too large.

    >>> matrix([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ValueError(f"features must be rows of one length, got {sorted(lengths)}")
    features = np.array(rows, np.float64)
    if (np.abs(features) > np.finfo(np.float32).max).any():
        raise ValueError("features must be numbers that float32 can hold")
    return features.astype(np.float32)


def feature_names(ranker: Any) -> list[str] | None:
    """The names of the features of a ranker in order; None where it has none."""
    names = getattr(ranker, "feature_names", None)
    return None if names is None else list(names)


def columns(names: Sequence[str], features: np.ndarray, ranker: Any) -> list[int]:
    """The column of each feature of the ranker among the columns called `names`.

    Raises:
        ValueError: The ranker has no names, or a feature is missing or comes twice.

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
