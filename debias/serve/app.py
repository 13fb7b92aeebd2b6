"""The HTTP service, as an ASGI application.

`POST /retrieve`, `/rank`, `/recommend` and `/explain` answer requests. `GET /health`
and `/docs` describe the service. Each process holds a version in memory to answer
requests. Each request uses the version that is current when the work on the request
begins. Threads parse requests, compute answers and encode them as JSON. So a slow
request can be abandoned, and a new version can be loaded while requests are answered.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
)
from fastapi_offline import FastAPIOffline
from jinja2 import Environment
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.exceptions import HTTPException as StarletteHTTPException

import debias
from debias.engine.scoring import Scorer
from debias.retrieval.data.interactions import FIRST
from debias.retrieval.serving.query import retrieve
from debias.retrieval.serving.storage import Disk
from debias.retrieval.serving.versions import Version
from debias.serve import answers
from debias.serve.examples import examples
from debias.serve.guards import Admitted, Counted, Limited, Refusal
from debias.serve.live import Alone, Live, give_back, try_ranker
from debias.serve.protocol import REFUSAL
from debias.serve.schemas import (
    ExplainAnswer,
    ExplainRequest,
    Health,
    RankAnswer,
    RankRequest,
    Ready,
    RecommendAnswer,
    RecommendRequest,
    RetrieveAnswer,
    RetrieveRequest,
    decoded,
    described,
)
from debias.serve.schemas import Request as Asked
from debias.serve.workers import Workers

TIDY = 10.0  # seconds between returns of memory to the system
EXAMPLES = 12  # users that the page offers
ABOUT = """Requests are JSON. An error is `{"error": REASON}`, which names the faulty
value. *Try it out* sends the examples unchanged."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)

FINDS, SCORES = "Find items for a user", "Score items without position bias"
BOTH, WHY = "Find items and order them", "Say why each item stands where it does"

log = logging.getLogger("debias.serve")
T = TypeVar("T", bound=Asked)


def service(
    root: str | Path | None,
    ranker: Scorer | None = None,
    *,
    body: int = 1 << 22,
    seconds: float = 2.0,
    poll: float | None = None,
    threads: int = 4,
    hosts: Collection[str] = ("*",),
    token: str | None = None,
) -> FastAPI:
    """Makes the application, which runs in any ASGI server.

    Args:
        root: Folder or URL of versions from
            `debias.retrieval.serving.versions.publish`. If None, only the ranker is
            served, at `/rank`.
        ranker: Ranker from `debias.artifacts.open_scorer`, for versions that contain no
            ranker. If there is no ranker at all, `/rank` and `/recommend` answer 404.
        body: Largest size of a request body in bytes.
        seconds: Time limit of a request in seconds.
        poll: Seconds between checks for a new version. If None, it is .5 for a folder
            on disk and 5 for an object store.
        threads: Number of threads that compute answers.
        hosts, token: See `debias.serve.guards.Admitted`.

    Raises:
        OSError: The store cannot be reached, and there is no copy of a version on disk.
        ValueError: There is neither a complete version nor a ranker.
    """
    workers = Workers(threads)
    live: Live | Alone
    if root is not None:
        live = Live(root)
        poll = poll or (0.5 if isinstance(live.place, Disk) else 5.0)
    elif ranker is not None:
        live, poll = Alone(ranker), 3600.0
    else:
        raise ValueError("give a folder of versions, a ranker, or both")
    request_seconds, registry = _counters(live)
    paths: set[str] = set()
    refusal = Refusal(workers.admit, request_seconds, paths)
    app = FastAPIOffline(
        redoc_url=None,
        title="debias",
        summary="Retrieval from a published version; ranking without position bias.",
        description=ABOUT,
        version=debias.__version__,
        lifespan=_following(live, workers, poll, refusal),
    )
    app.add_exception_handler(StarletteHTTPException, _refused)  # also FastAPI's
    _Routes(live, ranker, workers, registry).add_to(app)
    app.add_middleware(Limited, body=body, seconds=seconds, check=workers.check)
    app.add_middleware(Admitted, hosts=hosts, token=token)
    paths.update(app.openapi()["paths"])
    app.add_middleware(Counted, seconds=request_seconds, paths=paths)
    return app


class _Routes:
    """The routes, which answer from the live version and the ranker."""

    def __init__(
        self,
        live: Live | Alone,
        ranker: Scorer | None,
        workers: Workers,
        registry: CollectorRegistry,
    ):
        self.live, self.ranker = live, ranker
        self.workers, self.registry = workers, registry
        text = files("debias.serve").joinpath("page.html").read_text(encoding="utf-8")
        self.template = Environment(autoescape=True).from_string(text)
        self.schemas: dict[str, Any] = {}

    def add_to(self, app: FastAPI) -> None:
        version = self.live.version
        ranker = self.ranker if version is None else version.ranker or self.ranker
        for path, summary, route, answer, request in (
            ("/retrieve", FINDS, self.retrieve, RetrieveAnswer, RetrieveRequest),
            ("/rank", SCORES, self.rank, RankAnswer, RankRequest),
            ("/recommend", BOTH, self.recommend, RecommendAnswer, RecommendRequest),
            ("/explain", WHY, self.explain, ExplainAnswer, ExplainRequest),
            ("/health", "What is served", self.health, Health, None),
            ("/ready", "Whether requests are answered", self.ready, Ready, None),
        ):
            about, schemas = described(answer, request)
            self.schemas.update(schemas)
            add = app.get if request is None else app.post
            there = version is not None or route in (self.rank, self.health, self.ready)
            add(path, summary=summary, openapi_extra=about, include_in_schema=there)(
                route
            )
        for path, summary, route in (
            ("/live", "Whether the process runs", self.alive),
            ("/metrics", "Counters for Prometheus", self.metrics),
        ):
            app.get(path, summary=summary, response_class=PlainTextResponse)(route)
        page = app.get("/", response_class=HTMLResponse, include_in_schema=False)
        page(self.page)
        about = app.openapi()  # FastAPI caches it, and would drop null from examples
        about["components"] = {"schemas": self.schemas}
        for path, example in examples(version, ranker, self._name(version)).items():
            example.add_to(about["paths"][path]["post"])

    async def retrieve(self, request: Request) -> Response:
        """Retrieves items for a user, known or new."""

        def answer(version: Version | None, asked: RetrieveRequest) -> RetrieveAnswer:
            return answers.retrieved(_there(version), asked)

        return await self._answered(request, RetrieveRequest, answer)

    async def rank(self, request: Request) -> Response:
        """Scores items by relevance, without the position bias of the training clicks.

        Give exactly one of `items` (features by name), `features` (numbers in the order
        of training) and `ids` (from the version's table of items).
        """

        def answer(version: Version | None, asked: RankRequest) -> RankAnswer:
            ranker = self._ranker(version)
            return answers.ranked(version, ranker, asked, self._name(version))

        return await self._answered(request, RankRequest, answer)

    async def recommend(self, request: Request) -> Response:
        """Recommends items: towers retrieve them, and the ranker orders them."""

        def answer(version: Version | None, asked: RecommendRequest) -> RecommendAnswer:
            return answers.recommended(_there(version), self._ranker(version), asked)

        return await self._answered(request, RecommendRequest, answer)

    async def explain(self, request: Request) -> Response:
        """Explains the answer of `/recommend`, or of `/retrieve` if there is no ranker.

        Each item has its retrieval score, its ranking score (relevance), its position
        before ranking, the most similar items of the user's history, and the bias of
        its final position. The relevance does not include the position bias.
        """

        def answer(version: Version | None, asked: ExplainRequest) -> ExplainAnswer:
            there = _there(version)
            return answers.explained(there, there.ranker or self.ranker, asked)

        return await self._answered(request, ExplainRequest, answer)

    def _name(self, version: Version | None) -> str:
        return self.live.name if isinstance(self.live, Alone) else _there(version).name

    def _ranker(self, version: Version | None) -> Scorer:
        ranker = (version and version.ranker) or self.ranker
        if ranker is None:
            reason = "no ranker: publish one with the version, or give --ranker"
            raise StarletteHTTPException(404, reason)
        return ranker

    async def _answered(
        self,
        request: Request,
        kind: type[T],
        answer: Callable[[Version | None, T], Any],
    ) -> Response:
        """Computes the answer in a thread, from the version in service at that time."""
        given = request.headers.get("content-type", "").partition(";")[0].strip()
        if given.lower() != "application/json":
            return said(415, "send the header content-type: application/json")
        body = await request.body()

        def compute() -> Response:
            try:
                asked = decoded(kind, body)
                found = msgspec.json.encode(answer(self.live.version, asked))
            except ValueError as error:
                malformed = isinstance(error, msgspec.DecodeError | UnicodeDecodeError)
                return said(400 if malformed else 422, str(error))
            except OSError as error:  # a Milvus cluster that does not answer
                log.error("%s", error)
                return said(503, "the index does not answer; try again")
            return Response(found, media_type="application/json")

        return await self.workers.run(compute)

    async def health(self) -> Response:
        """Returns the served version, and whether it is the current version."""
        version = self.live.version
        ranker = (version and version.ranker) or self.ranker
        about = {} if version is None else version.manifest
        found = Health(
            self._name(version),
            about.get("created"),
            about.get("items", 0),
            about.get("users", 0),
            ranker is not None,
            answers.feature_names(ranker),
            None if version is None else version.repeat.policy,
            self.live.refused,
        )
        return Response(msgspec.json.encode(found), media_type="application/json")

    async def ready(self) -> Response:
        """Checks, in a thread, whether the service can answer a request."""
        live, version = self.live, self.live.version
        if isinstance(live, Alone):
            await self.workers.run(lambda: try_ranker(live.ranker))
        else:
            await self.workers.run(lambda: retrieve(_there(version), k=1))
        found = msgspec.json.encode(Ready(True, self._name(version)))
        return Response(found, media_type="application/json")

    async def alive(self) -> PlainTextResponse:
        """Answers if the process runs."""
        return PlainTextResponse("alive\n")

    async def metrics(self) -> PlainTextResponse:
        """Counters in the text format of Prometheus."""
        return PlainTextResponse(generate_latest(self.registry))

    async def page(self) -> Response:
        """A page to try the service, or a redirect to the docs for a ranker alone."""
        version = self.live.version
        if version is None:
            return RedirectResponse("docs")
        ranked = (version.ranker or self.ranker) is not None
        found = {"version": version, "users": _users(version), "ranked": ranked}
        return HTMLResponse(self.template.render(found))


def _there(version: Version | None) -> Version:
    if version is None:
        reason = "a ranker is served alone, without items to retrieve; see /docs"
        raise StarletteHTTPException(404, reason)
    return version


def _users(version: Version) -> list[tuple[str, list[str]]]:
    """A few users with their published histories, latest item first."""
    names = version.users.vocabularies["id"][:EXAMPLES].tolist()
    items = version.items.vocabularies["id"]
    if version.histories is None:
        return [(name, []) for name in names]
    codes = version.histories[: len(names)]
    known = (row[row >= FIRST] - FIRST for row in codes)
    return [(n, items[rows].tolist()) for n, rows in zip(names, known, strict=True)]


class _Gauges:
    """Gauges that describe what this process serves."""

    def __init__(self, live: Live | Alone):
        self.live = live

    def collect(self) -> Iterator[GaugeMetricFamily]:
        version = self.live.version
        if version is None:
            return
        for name, about, value in (
            ("version", "The version that is served.", int(version.name)),
            ("items", "Items of that version.", len(version.items)),
            (
                "switches",
                "Version switches since the start.",
                self.live.switches,
            ),
            ("refused", "1 if a newer version is damaged.", bool(self.live.refused)),
        ):
            yield GaugeMetricFamily(f"debias_{name}", about, float(value))


def _counters(live: Live | Alone) -> tuple[Histogram, CollectorRegistry]:
    """The histogram of request seconds, and the registry that /metrics shows.

    If several workers share the folder PROMETHEUS_MULTIPROC_DIR, the registry counts
    the requests of all workers.
    """
    own = CollectorRegistry()
    request_seconds = Histogram(
        "debias_request_seconds",
        "Seconds of a request.",
        ["path", "status"],
        buckets=BUCKETS,
        registry=own,
    )
    shown = own
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        shown = CollectorRegistry()
        MultiProcessCollector(shown)
    ProcessCollector(registry=shown)
    shown.register(_Gauges(live))
    return request_seconds, shown


def _following(
    live: Live | Alone, workers: Workers, poll: float, refusal: Refusal
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """The lifespan of an application, which looks for new versions."""

    async def forever() -> None:
        while True:
            await asyncio.sleep(poll)
            try:
                await asyncio.to_thread(live.follow)
            except Exception:  # the next attempt may succeed
                log.exception("cannot look for a new version")

    async def tidy() -> None:
        while True:
            await asyncio.sleep(TIDY)
            await asyncio.to_thread(give_back)

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        loops = forever(), tidy(), workers.watch()
        tasks = [asyncio.create_task(each) for each in loops]
        yield {REFUSAL: refusal}
        for task in tasks:
            task.cancel()
        workers.close()

    return following


async def _refused(_: Request, error: Any) -> JSONResponse:
    return said(error.status_code, error.detail, error.headers)


def said(
    status: int, reason: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    # A request may contain characters that UTF-8 cannot encode.
    reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")
    return JSONResponse({"error": reason}, status, headers)
