"""The address by which others know this machine."""

from __future__ import annotations

import socket


def address_towards(host: str, port: int) -> str:
    """Return the address from which this machine talks to another.

    Raises:
        OSError: the host is not known, or no address of it can be reached from here.
        UnicodeError: it could be no name at all.
    """
    problem: OSError | None = None
    for family, kind, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind) as probe:
                # Nothing is sent.
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError as error:
            # A name may have an address of a family that this machine has not.
            problem = problem or error
    raise problem or OSError(f"{host} has no address")
