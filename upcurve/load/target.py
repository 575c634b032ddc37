"""The server under load: where it is, which model it serves, what it understands."""

from __future__ import annotations

import base64
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import orjson

from upcurve.errors import InputError
from upcurve.load.workload import Prompt

Endpoint = Literal["completions", "chat"]

_MEND = "give e.g. http://127.0.0.1:8000"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A server that speaks the OpenAI API."""

    base_url: str
    """http(s)://HOST[:PORT][/PATH], with or without the final /v1."""
    model: str
    api_key: str | None = field(default=None, repr=False)
    """Sent as a bearer token; never stored or printed."""
    endpoint: Endpoint = "completions"
    proxy: str | None = field(default=None, repr=False)
    """http://[USER:PASSWORD@]HOST[:PORT] of an HTTP proxy; `environment_proxy` finds it."""
    return_token_ids: bool = True
    """Whether requests ask for token ids; `probe` turns it off where the server sends none."""
    running_usage: bool = False
    """Whether requests ask for usage in every event; `probe` turns it on where ids are not sent."""

    def __post_init__(self) -> None:
        """Check the URLs and the key.

        Raises:
            InputError: a URL has no scheme, no host or no valid port, or carries a password, or
                the key cannot stand in a header.
        """
        parts = _checked("base-url", self.base_url, _MEND)
        if parts.scheme not in _PORTS:
            problem = f"{self.base_url!r} does not start with http:// or https://"
            raise InputError("base-url", problem, _MEND)
        if parts.username is not None or parts.password is not None:
            raise InputError("base-url", "it carries a user name or password", "use --api-key")
        if not parts.hostname or parts.port == 0 or any(each.isspace() for each in self.base_url):
            raise InputError("base-url", f"{self.base_url!r} names no host", _MEND)
        if parts.query or parts.fragment:
            raise InputError("base-url", f"{self.base_url!r} has a query or a fragment", _MEND)
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError("api-key", "it has characters that no header takes", "check the key")
        if self.proxy is not None:
            mend = "give e.g. http://127.0.0.1:3128 in HTTP_PROXY or HTTPS_PROXY"
            proxy = _checked("proxy", self.proxy, mend)
            if proxy.scheme != "http" or not proxy.hostname:
                raise InputError("proxy", "only http:// proxies are understood", mend)

    @property
    def origin(self) -> str:
        """Scheme, host and port, the port that the scheme implies included."""
        return f"{urlsplit(self.base_url).scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The host's name or address."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        """The port, by the scheme where the URL names none."""
        parts = urlsplit(self.base_url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.base_url).scheme == "https"

    @property
    def via(self) -> tuple[str, int] | None:
        """Host and port of the proxy."""
        if self.proxy is None:
            return None
        parts = urlsplit(self.proxy)
        return parts.hostname or "", parts.port or 80

    @property
    def proxy_authorization(self) -> str | None:
        """What the proxy is shown, from the user name and password of its URL."""
        parts = urlsplit(self.proxy or "")
        if parts.username is None:
            return None
        both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return f"Basic {base64.b64encode(both.encode()).decode()}"

    @property
    def url(self) -> str:
        """The URL of the endpoint."""
        path = urlsplit(self.base_url).path.rstrip("/").removesuffix("/v1")
        name = "chat/completions" if self.endpoint == "chat" else "completions"
        return f"{self.origin}{path}/v1/{name}"

    @property
    def head(self) -> bytes:
        """The request line and headers of every request, up to the length of its body."""
        parts = urlsplit(self.url)
        host = parts.netloc
        if parts.port == _PORTS[parts.scheme]:
            host = host.rpartition(":")[0]
        # A proxy of plain HTTP takes the whole URL; an encrypted connection runs through it.
        whole = self.proxy is not None and not self.tls
        lines = [
            f"POST {self.url if whole else parts.path} HTTP/1.1",
            f"Host: {host}",
            "User-Agent: upcurve",
            "Accept: text/event-stream",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
        ]
        if self.api_key:
            lines.append(f"Authorization: Bearer {self.api_key}")
        if whole and self.proxy_authorization:
            lines.append(f"Proxy-Authorization: {self.proxy_authorization}")
        return ("\r\n".join(lines) + "\r\nContent-Length: ").encode()

    def payload(self, head: bytes, prompt: Prompt, *, exact: bool) -> bytes:
        """Return the bytes of one request.

        Args:
            head: of this target, kept by the caller.
            prompt: what is asked, in tokens, text or messages.
            exact: whether the answer must have exactly the length that is asked for.
        """
        request: dict[str, Any] = {
            "model": self.model,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.endpoint == "completions":
            request["prompt"] = prompt.content
        elif isinstance(prompt.content, str):
            request["messages"] = [{"role": "user", "content": prompt.content}]
        else:
            request["messages"] = prompt.content
        if prompt.output_tokens is not None:
            request["max_tokens"] = prompt.output_tokens
        if exact:
            request["ignore_eos"] = True
        if self.return_token_ids:
            request["return_token_ids"] = True
        if self.running_usage:
            request["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        body = orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)


def environment_proxy(base_url: str) -> str | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for a URL, or None."""
    parts = urlsplit(base_url)
    if not parts.hostname or _bypass(parts.netloc):
        return None
    found = urllib.request.getproxies_environment().get(parts.scheme)
    return found if found is None or "://" in found else f"http://{found}"


def _bypass(authority: str) -> bool:
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # undocumented
    return bool(bypass(authority))


def _checked(name: str, url: str, mend: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(name, f"{url!r}: {error}", mend) from error
    return parts
