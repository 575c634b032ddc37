"""How answers travel: JSON bytes kept by version, ETags, refusals in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from upcurve import __version__
from upcurve.dashboard.reader import NotFoundError, Reader
from upcurve.errors import InputError
from upcurve.records.rows import OtherRowsError


def answer(
    reader: Reader, request: Request, make: Callable[[], BaseModel], *, salt: str = ""
) -> Response:
    """Answer a GET by the version of the store: 304, kept bytes, or a new answer.

    Args:
        reader: the store.
        request: what is asked; path and query are what the answer depends on.
        make: how the answer is made.
        salt: what else it depends on.
    """
    version = reader.version()
    key = f"{version} {request.url.path}?{request.url.query} {salt}"
    tag = etag(key)
    if matches(request, tag):
        return Response(status_code=304, headers=_headers(tag))
    with reader.answering():
        body = reader.kept(key, lambda: encoded(make()))
    return json_response(body, headers=_headers(tag))


def fresh(request: Request, made: BaseModel) -> Response:
    """Answer a GET whose content changes without the store's tables: the ETag is of the content."""
    body = encoded(made)
    tag = etag(hashlib.sha256(body).hexdigest())
    if matches(request, tag):
        return Response(status_code=304, headers=_headers(tag))
    return json_response(body, headers=_headers(tag))


def encoded(made: BaseModel) -> bytes:
    """Return an answer as JSON bytes."""
    return orjson.dumps(made.model_dump(mode="json"))


def json_response(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    return Response(body, status, headers, media_type="application/json")


def etag(key: str) -> str:
    """Return a weak ETag: the same content may come compressed or not."""
    return f'W/"{hashlib.sha256(f"{__version__} {key}".encode()).hexdigest()[:24]}"'


def matches(request: Request, tag: str) -> bool:
    """Whether the asker has this very answer already."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag in [each.strip() for each in given.split(",")]


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": "no-cache"}


def refusal(status: int, error: InputError) -> Response:
    """Return a refusal as `Problem`."""
    line = str(error)
    body = {"error": line, "field": error.field, "problem": error.problem, "mend": error.mend}
    return json_response(orjson.dumps(body), status)


def answer_input_error(_: Request, error: Exception) -> Response:
    """Answer what could not be done: 404, 409, 503 for the store itself, else 400."""
    assert isinstance(error, InputError)
    if isinstance(error, NotFoundError):
        return refusal(404, error)
    if isinstance(error, OtherRowsError):
        return refusal(409, error)
    return refusal(503 if error.field == "store" else 400, error)


def answer_validation(_: Request, error: Exception) -> Response:
    """Answer the first parameter that could not be read, with 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return refusal(422, _in_words(first))


def _in_words(first: Any) -> InputError:
    place: Sequence[Any] = [each for each in first["loc"] if each not in ("query", "path", "body")]
    field = str(place[0]) if place else "request"
    given = first.get("input")
    shown = repr(given) if len(repr(given)) <= 60 else repr(given)[:57] + "..."
    if first["type"] == "extra_forbidden":
        return InputError(field, "there is no such parameter", "see /api/docs for those there are")
    if first["type"] == "value_error":
        problem, _, mend = str(first["ctx"]["error"]).partition("|")
        return InputError(field, problem, mend or "correct it")
    problem = first["msg"][0].lower() + first["msg"][1:]
    return InputError(field, f"{shown}: {problem}", "see /api/docs")


def answer_http(_: Request, error: Exception) -> Response:
    """Answer what the router refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    words = {
        404: ("path", "there is nothing here", "see /api/docs"),
        405: ("method", "not allowed here", "see /api/docs"),
    }
    field, problem, mend = words.get(
        error.status_code, ("request", str(error.detail), "see /api/docs")
    )
    response = refusal(error.status_code, InputError(field, problem, mend))
    response.headers.update(error.headers or {})
    return response
