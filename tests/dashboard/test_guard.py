"""Names of other machines, pages of other sites, and what the browser is told to refuse."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from upcurve.dashboard.guard import host_name, token_fits

PATH = "/api/v1/meta"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("10.0.0.7", 200),  # addresses cannot be rebound
        ("rebound.example", 403),
        ("localhost.example", 403),
        ("127.0.0.1.example", 403),
        ("localhost@rebound.example", 403),
        ("", 403),
        ("[::1", 403),
    ],
)
def test_only_its_own_names_are_answered(published: TestClient, host: str, status: int) -> None:
    answer = published.get(PATH, headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["mend"].endswith("--allow-host NAME")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("http://localhost:81", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
    ],
)
def test_only_its_own_page_may_ask(published: TestClient, origin: str, status: int) -> None:
    for method in ("GET", "POST"):
        answer = published.request(method, PATH, headers={"Origin": origin})
        assert (answer.status_code == 403) == (status == 403)


def test_another_site_may_link_to_the_page_and_embed_a_chart_but_read_nothing(
    published: TestClient,
) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    linked = published.get("/", headers=cross | {"Sec-Fetch-Mode": "navigate"})
    read = published.get(PATH, headers=cross | {"Sec-Fetch-Mode": "no-cors"})
    assert (linked.status_code, read.status_code) == (200, 403)
    page, embedded = published.get("/"), published.get("/embed?chart=frontier")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors *" in embedded.headers["content-security-policy"]
    assert "x-frame-options" not in embedded.headers


@pytest.mark.parametrize(
    "path", ["/", PATH, "/app.js", "/nothing", "/api/docs", "/api/openapi.json"]
)
def test_every_answer_binds_the_browser(published: TestClient, path: str) -> None:
    headers = published.get(path).headers
    policy = dict(
        part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_names_in_a_host_header() -> None:
    assert host_name("Bench-1.:80") == "bench-1"
    assert host_name("[FE80::1]:80") == "fe80::1"
    assert host_name("a b") != "a"


def test_a_token_fits_as_a_whole() -> None:
    assert token_fits("Bearer secret", "secret")
    assert token_fits("bearer  secret ", "secret")
    for header in (
        None,
        "",
        "secret",
        "Basic secret",
        "Bearer secre",
        "Bearer secrets",
        "Bearer é",
    ):
        assert not token_fits(header, "secret")
