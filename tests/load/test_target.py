from __future__ import annotations

import pytest

from upcurve.errors import InputError
from upcurve.load.target import Target


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/completions"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/completions"),
        ("http://host/v1/", "http://host:80/v1/completions"),
        ("https://host/some/path", "https://host:443/some/path/v1/completions"),
        ("http://[::1]:9", "http://[::1]:9/v1/completions"),
    ],
)
def test_with_and_without_version(base_url, url):
    assert Target(base_url, "m").url == url


@pytest.mark.parametrize(
    "base_url",
    [
        *("127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://h:x", "http://h:70000"),
        *("http://h:0", "http://a b", "http://u:p@h", "http://h/?x=1", "", "http://[::1"),
    ],
)
def test_what_is_no_url(base_url):
    with pytest.raises(InputError) as error:
        Target(base_url, "m")
    assert error.value.field == "base-url"
    assert "\n" not in str(error.value)


def test_the_key_is_not_shown():
    target = Target("http://h", "m", "secret-key")
    assert "secret-key" not in repr(target)
    assert b"\r\nAuthorization: Bearer secret-key\r\n" in target.head


def test_a_key_that_is_no_header():
    with pytest.raises(InputError, match="api-key"):
        Target("http://h", "m", "two\nlines")
