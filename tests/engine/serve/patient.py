"""HTTP requests that wait for as long as a busy machine takes; httpx gives up after 5 s."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, timeout=60, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, timeout=60, **options)
