"""Who may ask the dashboard: hosts, origins, and the headers that bind the browser."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors {ancestors}"
)
"""Scripts and styles come from the page's own files alone; nothing is fetched from elsewhere."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def host_name(host: str) -> str:
    """Return the name or address in a Host header, without port, brackets and case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a name is an IP address: nobody can make it mean another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses requests under names that are not this server's, and from pages of other origins.

    A page on the web can point a name of its own at 127.0.0.1 and have the reader's browser ask
    (DNS rebinding): such requests carry that name as Host. Addresses cannot be rebound.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        """Wrap an application.

        Args:
            app: what is guarded.
            names: host names that requests may come under, besides localhost and addresses.
        """
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass the request on and bind its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        if refusal is not None:
            field, problem, mend = refusal
            body = {
                "error": f"{field}: {problem}; {mend}",
                "field": field,
                "problem": problem,
                "mend": mend,
            }
            await JSONResponse(body, 403)(scope, receive, send)
            return
        ancestors = "*" if scope["path"] == "/embed" else "'none'"

        async def bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["Content-Security-Policy"] = POLICY.format(ancestors=ancestors)
                if ancestors == "'none'":
                    headers["X-Frame-Options"] = "DENY"
            await send(message)

        await self._app(scope, receive, bound)

    def _refusal(self, headers: Headers) -> tuple[str, str, str] | None:
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else ""
        if not (is_address(name) or name in self._names):
            mend = "use its address or localhost, or start it with --allow-host NAME"
            return "host", "the dashboard is not known by this name", mend
        origins = headers.getlist("origin")
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
                return "origin", "the request comes from another site", "open the page itself"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") not in (
            "navigate",
            None,
        ):
            return "origin", "the request comes from another site", "open the page itself"
        return None


def token_fits(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries the token."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(), token.encode()
    )
