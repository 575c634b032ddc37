"""The page's own files, in memory: built ahead, sent with the right type and cache time."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from fastapi import Request, Response

from upcurve.dashboard.replies import matches

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
BY_NAME = "public, max-age=31536000, immutable"
"""Files under assets/ carry a hash of their content in their name."""


class Page:
    """Every file of the built page."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def names(self) -> list[str]:
        """Return the files' names, below the page's root."""
        return list(self._files)

    def file(self, name: str) -> bytes | None:
        """Return the content of a file; None where there is none of this name."""
        return self._files.get(name)

    def answer(self, request: Request, name: str) -> Response | None:
        """Return the answer to a GET of a file; None where there is none of this name."""
        content = self._files.get(name)
        if content is None:
            return None
        tag = f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'
        cache = BY_NAME if name.startswith("assets/") else "no-cache"
        headers = {"ETag": tag, "Cache-Control": cache}
        if matches(request, tag):
            return Response(status_code=304, headers=headers)
        suffix = Path(name).suffix
        kind = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, headers=headers | {"Content-Type": kind})
