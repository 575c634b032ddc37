"""By which address prefill workers reach a decode worker."""

from __future__ import annotations

import socket

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.roles.joining import own_address, widest


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (["::1", "10.0.0.5"], "10.0.0.5"),
        (["127.0.0.1", "fd00::5"], "fd00::5"),
        (["127.0.0.1", "::1"], "127.0.0.1"),
        (["::1", "127.0.0.1"], "::1"),
        (["10.0.0.5", "10.1.0.5"], "10.0.0.5"),
    ],
)
def test_who_is_elsewhere_reaches_no_loopback(own: list[str], expected: str) -> None:
    assert widest(own) == expected


def test_a_name_whose_first_address_is_none_of_here_has_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        # Not without the permission to send to all.
        (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("255.255.255.255", 9)),
        (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", 9)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert own_address([("both", 9)]) == "127.0.0.1"
    del found[1]
    with pytest.raises(EngineInputError, match=r"both is not known here: .*denied"):
        own_address([("both", 9)])


@pytest.mark.parametrize("host", ["no host", "a" * 70])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(EngineInputError, match="prefill: "):
        own_address([(host, 9)])
