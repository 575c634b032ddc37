"""The server under load: where it is, what it serves, what it can say about its tokens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp
import orjson

from upcurve.errors import InputError
from upcurve.load.workload import Workload

PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible server."""

    base_url: str
    """Ends in /v1."""
    model: str
    api_key: str | None = None
    token_ids: bool = True
    """Whether it takes return_token_ids, which makes the tokens of each chunk exact."""

    @classmethod
    def at(cls, base_url: str, model: str, api_key: str | None = None) -> Target:
        """Return a target for a URL with or without /v1.

        Raises:
            InputError: it is no http(s) URL with a host.
        """
        parts = urlsplit(base_url)
        try:
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise InputError(
                "base-url", f"{base_url!r} is no URL of a server", "give e.g. http://127.0.0.1:8000"
            )
        root = base_url.rstrip("/")
        return cls(root if root.endswith("/v1") else f"{root}/v1", model, api_key)

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of every request."""
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers


def probe(target: Target, workload: Workload) -> Target:
    """Send one request and return the target with what it was found to take.

    Raises:
        InputError: the server cannot be reached, or refuses the key, the model or the request.
    """
    return asyncio.run(_probe(target, workload))


async def _probe(target: Target, workload: Workload) -> Target:
    one_token = replace(workload, osl=1)
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        for candidate in (target, replace(target, token_ids=False)):
            body = one_token.body(target.model, "probe", 0, token_ids=candidate.token_ids)
            try:
                async with session.post(
                    f"{target.base_url}/completions", data=body, headers=target.headers
                ) as response:
                    status, text = response.status, await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise InputError(
                    "base-url",
                    f"{target.base_url} does not answer ({error or type(error).__name__})",
                    "start the server first or correct the URL",
                ) from error
            if status == 200:
                return candidate
            if status != 400:
                break
    raise _refusal(target, status, _message(text))


def _refusal(target: Target, status: int, message: str) -> InputError:
    said = f"the server says {status}: {message}"
    if status in (401, 403):
        return InputError("api-key", said, "give --api-key or set UPCURVE_API_KEY")
    if status == 404:
        return InputError("model", f"{target.model!r}: {said}", "give the name that it serves")
    return InputError("base-url", said, "adapt the request or look at the server's log")


def _message(text: bytes) -> str:
    try:
        error = orjson.loads(text)["error"]
        found = error["message"] if isinstance(error, dict) else error
    except (orjson.JSONDecodeError, KeyError, TypeError):
        found = text.decode(errors="replace")
    return " ".join(str(found).split())[:300]
