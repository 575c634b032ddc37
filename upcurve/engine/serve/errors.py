"""What the HTTP server answers instead of a result, in OpenAI's shape."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An HTTP error status with OpenAI's error object.

    Source of the shape: https://platform.openai.com/docs/guides/error-codes
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        super().__init__(message)

    @classmethod
    def bad_input(cls, field: str, problem: str, mend: str) -> ApiError:
        """Return a 400 that names the field and the mend."""
        return cls(400, f"{field}: {problem}; {mend}", param=field)

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the response."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }
