"""The server under load: where it is, which model it serves, what it understands."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from upcurve.errors import InputError

_MEND = "give e.g. http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Target:
    """A server that speaks the OpenAI API."""

    base_url: str
    """http(s)://HOST[:PORT][/PATH], with or without the final /v1."""
    model: str
    api_key: str | None = field(default=None, repr=False)
    """Sent as a bearer token; never stored or printed."""
    return_token_ids: bool = True
    """Whether requests ask for token ids; `probe` turns it off where the server refuses."""

    def __post_init__(self) -> None:
        """Check the URL and the key.

        Raises:
            InputError: the URL has no scheme, no host or no valid port, or carries a password, or
                the key cannot stand in a header.
        """
        try:
            parts = urlsplit(self.base_url)
            _ = parts.port
        except ValueError as error:
            raise InputError("base-url", f"{self.base_url!r}: {error}", _MEND) from error
        if parts.scheme not in ("http", "https"):
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

    @property
    def origin(self) -> str:
        """Scheme, host and port, the port that the scheme implies included."""
        parts = urlsplit(self.base_url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}"

    @property
    def completions_url(self) -> str:
        """The URL of the completions endpoint."""
        path = urlsplit(self.base_url).path.rstrip("/")
        return f"{self.origin}{path.removesuffix('/v1')}/v1/completions"

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": "application/json", "Accept": "text/event-stream", **key}
