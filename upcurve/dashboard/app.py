"""The dashboard's web application: the API's endpoints, events, reports, the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from upcurve import __version__
from upcurve.dashboard.answers import about, chart, limit, overview, tables
from upcurve.dashboard.answers.accuracy import accuracy
from upcurve.dashboard.answers.attribution import attribution
from upcurve.dashboard.answers.requests import timeline
from upcurve.dashboard.answers.runs import run_detail, runs
from upcurve.dashboard.contract import curves, meta, questions
from upcurve.dashboard.contract import runs as of_runs
from upcurve.dashboard.contract.common import Problem
from upcurve.dashboard.documentation import STYLE, documentation
from upcurve.dashboard.events import Feed
from upcurve.dashboard.guard import Guard, token_fits
from upcurve.dashboard.intake import MOST_BYTES, UnreadableError, report
from upcurve.dashboard.page import Page
from upcurve.dashboard.reader import Reader
from upcurve.dashboard.replies import (
    answer,
    answer_http,
    answer_input_error,
    answer_validation,
    encoded,
    fresh,
    json_response,
    refusal,
)
from upcurve.errors import InputError

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 403, 404, 422)
}
TEXTS = {"csv": "text/csv", "markdown": "text/markdown", "latex": "application/x-latex"}


def create_app(reader: Reader, *, token: str | None = None, names: Iterable[str] = ()) -> FastAPI:
    """Return the ASGI application over a store.

    Args:
        reader: the store; closed by the caller.
        token: what writers have to send; None turns writing off.
        names: host names that it may be asked under, besides localhost and addresses.
    """
    feed = Feed(reader)

    app = FastAPI(
        title="Upcurve dashboard",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.feed = feed
    api = Api(reader, token, feed)
    app.include_router(api.router())
    app.include_router(_page_router(Page(), app.openapi))
    for kind, handler in (
        (InputError, answer_input_error),
        (RequestValidationError, answer_validation),
        (HTTPException, answer_http),
    ):
        app.add_exception_handler(kind, handler)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(Guard, names=tuple(names))
    return app


class Api:
    """The endpoints under /api/v1; each is in words in docs/dashboard-api.md."""

    def __init__(self, reader: Reader, token: str | None, feed: Feed) -> None:
        self._reader = reader
        self._token = token
        self._feed = feed

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        routes: list[tuple[str, Callable[..., Any], type[BaseModel]]] = [
            ("meta", self.meta, meta.Meta),
            ("overview", self.overview, meta.Overview),
            ("series", self.series, meta.SeriesList),
            ("frontier", self.frontier, curves.Frontier),
            ("limit", self.limit, curves.Limit),
            ("compare", self.compare, curves.Compare),
            ("history", self.history, curves.History),
            ("attribution", self.attribution, of_runs.Attribution),
            ("accuracy", self.accuracy, of_runs.Accuracy),
            ("runs", self.runs, of_runs.RunList),
            ("runs/{run_id}", self.run, of_runs.RunDetail),
            ("points/{point_id}/timeline", self.timeline, of_runs.Timeline),
            ("hardware", self.hardware, meta.Hardware),
            ("events", self.events, of_runs.Event),
        ]
        for path, endpoint, model in routes:
            responses = {200: {"model": model}, **REFUSALS}
            router.add_api_route(
                f"/api/v1/{path}",
                endpoint,
                methods=["GET"],
                response_model=None,
                responses=responses,
            )
        for path in ("/api/v1/runs", "/v1/runs"):
            router.add_api_route(
                path,
                self.add_runs,
                methods=["POST"],
                response_model=None,
                responses={
                    200: {"model": of_runs.Reported},
                    **REFUSALS,
                    **{status: {"model": Problem} for status in (401, 409, 413)},
                },
                openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}}}}},
                include_in_schema=path.startswith("/api"),
            )
        return router

    def meta(self, request: Request, _: Annotated[questions.NoQuestion, Query()]) -> Response:
        """What there is: groups, axes, presets."""
        writes = self._token is not None
        salt = str(writes)
        return answer(
            self._reader, request, lambda: about.meta(self._reader, writes=writes), salt=salt
        )

    def overview(
        self, request: Request, asked: Annotated[questions.OverviewQuestion, Query()]
    ) -> Response:
        """Each group's best series at chosen interactivities, and its newest change."""
        return answer(self._reader, request, lambda: overview.overview(self._reader, asked))

    def series(
        self, request: Request, asked: Annotated[questions.SeriesQuestion, Query()]
    ) -> Response:
        """Series, newest first."""
        return answer(self._reader, request, lambda: about.series(self._reader, asked))

    def frontier(
        self, request: Request, asked: Annotated[questions.FrontierQuestion, Query()]
    ) -> Response:
        """Series on chosen axes: points, curve, band, change marker."""
        return answer(self._reader, request, lambda: chart.frontier(self._reader, asked))

    def limit(
        self, request: Request, asked: Annotated[questions.LimitQuestion, Query()]
    ) -> Response:
        """The speed-of-light line."""
        return answer(self._reader, request, lambda: limit.limit(self._reader, asked))

    def compare(
        self, request: Request, asked: Annotated[questions.CompareQuestion, Query()]
    ) -> Response:
        """Series at equal interactivity, as `upcurve compare` says it."""
        if asked.format == "json":
            return answer(self._reader, request, lambda: tables.compare(self._reader, asked))
        text = tables.compare_text(self._reader, asked)
        return PlainTextResponse(text, media_type=TEXTS[asked.format])

    def history(
        self, request: Request, asked: Annotated[questions.HistoryQuestion, Query()]
    ) -> Response:
        """A metric over builds, as `upcurve history` says it."""
        return answer(self._reader, request, lambda: tables.history(self._reader, asked))

    def attribution(
        self, request: Request, asked: Annotated[questions.AttributionQuestion, Query()]
    ) -> Response:
        """Every ablation of the store, as `upcurve ablate` says it."""
        return answer(self._reader, request, lambda: attribution(self._reader, asked))

    def accuracy(
        self, request: Request, asked: Annotated[questions.AccuracyQuestion, Query()]
    ) -> Response:
        """Scores with intervals, by operating point."""
        return answer(self._reader, request, lambda: accuracy(self._reader, asked))

    def runs(self, request: Request, asked: Annotated[questions.RunsQuestion, Query()]) -> Response:
        """Runs, newest first."""
        return answer(self._reader, request, lambda: runs(self._reader, asked))

    def run(
        self, request: Request, run_id: str, asked: Annotated[questions.RunQuestion, Query()]
    ) -> Response:
        """One run: recipe, environment, points, end of the log."""
        return fresh(request, run_detail(self._reader, run_id, asked))

    def timeline(
        self,
        request: Request,
        point_id: int,
        asked: Annotated[questions.TimelineQuestion, Query()],
    ) -> Response:
        """The requests of one point in time."""
        return answer(self._reader, request, lambda: timeline(self._reader, point_id, asked))

    def hardware(
        self, request: Request, asked: Annotated[questions.HardwareQuestion, Query()]
    ) -> Response:
        """Specifications and dated prices."""
        salt = str(asked.on or datetime.now(UTC).date())
        return answer(self._reader, request, lambda: about.hardware(asked), salt=salt)

    async def events(self, _: Annotated[questions.NoQuestion, Query()]) -> Response:
        """Server-sent events: new points and running runs."""
        if self._feed.full:
            error = InputError("events", "too many pages listen already", "close some")
            return refusal(503, error)
        return StreamingResponse(
            self._feed.listen(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def add_runs(self, request: Request) -> Response:
        """Bring rows of another machine into the store; the same body again adds nothing."""
        if self._token is None:
            mend = "start the dashboard with UPCURVE_DASHBOARD_TOKEN set"
            return refusal(403, InputError("token", "writing is off", mend))
        if not token_fits(request.headers.get("authorization"), self._token):
            mend = "send Authorization: Bearer TOKEN"
            response = refusal(401, InputError("authorization", "no or wrong token", mend))
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                mend = f"send at most {MOST_BYTES // 2**20} MiB at a time"
                return refusal(413, InputError("body", "it is too large", mend))
        try:
            done = await run_in_threadpool(report, self._reader.store, bytes(body))
        except UnreadableError as error:
            return refusal(422, error)
        return json_response(encoded(done))


def _page_router(page: Page, schema: Callable[[], dict[str, Any]]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    def file(request: Request, name: str) -> Response:
        found = page.answer(request, name)
        if found is None:
            raise HTTPException(404)
        return found

    def index(request: Request) -> Response:
        return file(request, "index.html")

    def of_api() -> Response:
        return HTMLResponse(documentation(schema()))

    def style_of_api() -> Response:
        return Response(STYLE, media_type="text/css")

    router.add_api_route("/", index, methods=["GET", "HEAD"])
    router.add_api_route("/embed", index, methods=["GET", "HEAD"])
    router.add_api_route("/api/docs", of_api, methods=["GET", "HEAD"])
    router.add_api_route("/api/docs.css", style_of_api, methods=["GET", "HEAD"])
    router.add_api_route("/{name:path}", file, methods=["GET", "HEAD"])
    return router
