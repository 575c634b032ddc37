"""Ports that are listened on more than once."""

from __future__ import annotations

import socket

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.serve import listening
from upcurve.engine.serve.listening import listen_to_last

HOST = "127.0.0.1"


def test_a_port_that_no_system_deals_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen_to_last(HOST) as first:
        port = first.getsockname()[1]
        assert port < 32_768
        socket.create_connection((HOST, port)).close()
        monkeypatch.setattr(listening, "LASTING_PORTS", range(port, port + 1))
        with pytest.raises(EngineInputError, match=f"no port of {port} to {port} is free"):
            listen_to_last(HOST)
    with listen_to_last(HOST) as second:
        assert second.getsockname()[1] == port
