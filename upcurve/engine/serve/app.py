"""The HTTP surface: OpenAI's completions and chat, models, health, metrics."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from upcurve.engine.schedule import request as schedule
from upcurve.engine.serve.answer import Answer, ChatAnswer, CompletionAnswer
from upcurve.engine.serve.bridge import Bridge
from upcurve.engine.serve.choice import Choice, Echo
from upcurve.engine.serve.detokenizer import Detokenizer
from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.intake import Intake
from upcurve.engine.serve.metrics import Metrics
from upcurve.engine.serve.protocol import ChatRequest, CompletionRequest, GenerationRequest, parse
from upcurve.engine.serve.stream import HEADERS, StreamCall, WholeCall, while_connected

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 2**20
RETRY_SECONDS = "5"
"""What a client that is turned away is told to wait."""
RETRY_AFTER_SECONDS = 1
"""When a client should try again that was sent away because too many wait."""
MISDIRECTED_REQUEST = 421
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that did not wait; nobody reads it."""


class Server:
    """The endpoints over one engine."""

    def __init__(
        self,
        bridge: Bridge,
        metrics: Metrics,
        intake: Intake,
        *,
        model_name: str,
        api_key: str | None = None,
    ) -> None:
        self._bridge = bridge
        self._metrics = metrics
        self._intake = intake
        self._model_name = model_name
        self._api_key = api_key
        self._created = int(time.time())

    def app(self) -> FastAPI:
        """Return the ASGI application; its lifespan starts and stops the engine."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            await self._bridge.start()
            try:
                yield
            finally:
                await self._bridge.stop()

        app = FastAPI(lifespan=lifespan, openapi_url=None)
        app.add_api_route("/health", self.health, methods=["GET"])
        app.add_api_route("/metrics", self.metrics, methods=["GET"])
        router = APIRouter(prefix="/v1", dependencies=[Depends(self._check_key)])
        router.add_api_route("/models", self.models, methods=["GET"])
        router.add_api_route("/models/{name:path}", self.model, methods=["GET"])
        router.add_api_route("/completions", self.completions, methods=["POST"])
        router.add_api_route("/chat/completions", self.chat_completions, methods=["POST"])
        app.include_router(router)
        app.add_exception_handler(ApiError, _answer_error)
        app.add_exception_handler(HTTPException, _answer_error)
        app.add_exception_handler(ClientDisconnect, _answer_error)
        app.add_exception_handler(Exception, _answer_error)
        return app

    async def health(self) -> Response:
        """Answer 200 while the engine works, 503 once it was given up or computes no sense.

        A decode worker works without prefill workers too; it says so, and which are up.
        """
        self._check_engine()
        if self._bridge.senseless:
            raise ApiError(
                503, "logits: no step gives finite ones; check the weights, restart the server"
            )
        if self._bridge.capacity.role != "decode":
            return _json({"status": "ok"})
        workers = [
            {"worker": each.name, "state": each.state, "reason": each.reason}
            for each in self._bridge.prefill_workers
        ]
        whole = all(each["state"] == "up" for each in workers)
        return _json({"status": "ok" if whole else "degraded", "prefill": workers})

    async def metrics(self) -> Response:
        """Answer with Prometheus' text format."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def models(self) -> Response:
        """List the one model."""
        return _json({"object": "list", "data": [self._card()]})

    async def model(self, name: str) -> Response:
        """Describe the model."""
        self._check_model(name)
        return _json(self._card())

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = parse(CompletionRequest, await _read_json(request))
        self._check_model(body.model)
        prompts, max_tokens = await self._intake.completion(body)
        answer = CompletionAnswer(
            self._model_name,
            self._intake.tokenizer,
            prompt_tokens=sum(map(len, prompts)),
            token_ids=body.return_token_ids,
            logprobs=body.logprobs is not None,
            usage_in_stream=body.include_usage,
            continuous_usage=body.continuous_usage,
        )
        echoes = await asyncio.to_thread(self._echoes, body, prompts) if body.echo else None
        if max_tokens == 0 and echoes is not None:
            return _echo_alone(body, answer, echoes)
        samplings = [body.sampling(max_tokens, body.logprobs, each) for each in range(body.n)]
        return await self._answer(request, body, answer, prompts, samplings, echoes)

    async def chat_completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = parse(ChatRequest, await _read_json(request))
        self._check_model(body.model)
        prompt, max_tokens = await self._intake.chat(body)
        answer = ChatAnswer(
            self._model_name,
            self._intake.tokenizer,
            prompt_tokens=len(prompt),
            token_ids=body.return_token_ids,
            logprobs=body.logprobs,
            usage_in_stream=body.include_usage,
            continuous_usage=body.continuous_usage,
        )
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        samplings = [body.sampling(max_tokens, logprobs, each) for each in range(body.n)]
        return await self._answer(request, body, answer, [prompt], samplings)

    async def _answer(
        self,
        request: Request,
        body: GenerationRequest,
        answer: Answer,
        prompts: Sequence[list[int]],
        samplings: Sequence[schedule.SamplingParameters],
        echoes: Sequence[Echo] | None = None,
    ) -> Response:
        """Generate one choice for each prompt and each of the `samplings`, prompt by prompt."""
        self._check_role()
        self._check_engine()
        choices: list[Choice] = []
        for number, prompt in enumerate(prompts):
            for sampling in samplings:
                index = len(choices)
                request_of_engine = schedule.Request(f"{answer.id}-{index}", prompt, sampling)
                echo = None if echoes is None else echoes[number]
                choices.append(Choice(index, request_of_engine, self._detokenizer(body), echo))
        if body.stream:
            return StreamCall(self._bridge, answer, choices)
        call = WholeCall(self._bridge, answer, choices)
        whole = await while_connected(request.receive, call.run())
        if whole is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return Response(whole, media_type="application/json")

    def _detokenizer(self, body: GenerationRequest) -> Detokenizer | None:
        if self._intake.tokenizer is None:
            return None
        return Detokenizer(
            self._intake.tokenizer,
            body.stop,
            special_tokens=not body.skip_special_tokens,
            keep_stop=body.include_stop_str_in_output,
        )

    def _echoes(self, body: CompletionRequest, prompts: Sequence[list[int]]) -> list[Echo]:
        return [
            Echo(
                prompt,
                given if isinstance(given, str) else None,
                self._intake.tokenizer,
                special_tokens=not body.skip_special_tokens,
                logprobs=body.logprobs is not None,
            )
            for prompt, given in zip(prompts, body.prompts, strict=True)
        ]

    async def _check_key(self, request: Request) -> None:
        if self._api_key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        # Starlette decodes headers as Latin-1; this is what was sent.
        if not hmac.compare_digest(given.encode("latin-1"), self._api_key.encode("utf-8")):
            raise ApiError(
                401,
                "api key: missing or wrong; send 'Authorization: Bearer KEY'",
                code="invalid_api_key",
            )

    def _check_model(self, name: str) -> None:
        if name != self._model_name:
            raise ApiError(
                404,
                f"model: {name!r} is not served here; use {self._model_name!r}",
                param="model",
                code="model_not_found",
            )

    def _check_role(self) -> None:
        if self._bridge.capacity.role == "prefill":
            raise ApiError(
                MISDIRECTED_REQUEST,
                "this server computes prompts for decode workers alone; ask one of them, or the "
                "router",
            )

    def _check_engine(self) -> None:
        if self._bridge.draining:
            raise ApiError(503, "the server is draining: it stops soon; ask another, or later")
        if self._bridge.failure is not None:
            raise ApiError(503, f"the engine stopped: {self._bridge.failure}; restart the server")

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "upcurve",
            "max_model_len": self._bridge.capacity.context_length,
        }


async def _read_json(request: Request) -> Any:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"body: over {MAX_BODY_BYTES} bytes; send less in one request")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError.bad_input("body", f"not valid JSON: {error}", "correct it") from error


def _echo_alone(body: CompletionRequest, answer: Answer, echoes: Sequence[Echo]) -> Response:
    """Answer with the prompts, and generate nothing."""
    each_choice = enumerate(echo for echo in echoes for _ in range(body.n))
    deltas = [echo.delta(index, "length") for index, echo in each_choice]
    if not body.stream:
        return Response(answer.whole(deltas, ()), media_type="application/json")
    response = Response(b"".join((*map(answer.chunk, deltas), answer.end(()))))
    response.raw_headers += HEADERS
    return response


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if isinstance(error, HTTPException):
        path = f"{request.method} {request.url.path}"
        error = ApiError(error.status_code, f"{path}: {error.detail}")
    elif not isinstance(error, ApiError):
        error = ApiError(500, "an error of the server; its log has the details")
    response = _json(error.body(), error.status)
    if error.status in (429, 503):
        response.headers["retry-after"] = RETRY_SECONDS
    if error.status == 429:
        response.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    if error.status == 413:
        # What is left of the body is not worth reading.
        response.headers["connection"] = "close"
    return response
