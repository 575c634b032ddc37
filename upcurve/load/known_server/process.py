"""The server in a process: one of its own, or this one until a signal."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, TypeVar

from upcurve.errors import InputError
from upcurve.load.known_server.behaviour import Behaviour
from upcurve.load.known_server.server import KnownServer
from upcurve.load.known_server.truth import Served

Result = TypeVar("Result")


@contextmanager
def known_server_process(
    behaviour: Behaviour, certificate: Path | str | None = None, key: Path | str | None = None
) -> Iterator[tuple[str, list[Served]]]:
    """Run the server in a process of its own, so that it does not share the client's core.

    Args:
        behaviour: what it does.
        certificate: PEM file; with it the server speaks TLS.
        key: PEM file with the certificate's key, where that is a file of its own.

    Yields:
        Its base URL, and a list that is filled with what it did when the context is left.

    Raises:
        InputError: the certificate or its key cannot be used.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = behaviour, certificate, key, theirs
    process = context.Process(target=_serve_until_told, args=arguments, daemon=True)
    process.start()
    theirs.close()
    served: list[Served] = []
    try:
        said = ours.recv()
        if isinstance(said, InputError):
            raise said
        yield said, served
        ours.send(None)
        served.extend(ours.recv())
    finally:
        ours.close()  # which ends the process
        process.join()


def serve_until_signal(server: KnownServer, ready: Callable[[str], None]) -> list[Served]:
    """Run a server in this process until SIGINT or SIGTERM.

    Args:
        server: as constructed.
        ready: called with the base URL once the server listens.

    Returns:
        What it did.
    """

    async def serve() -> list[Served]:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        async with server:
            ready(server.base_url)
            await told.wait()
        return server.served

    return _run(serve())


def _serve_until_told(
    behaviour: Behaviour, certificate: Path | str | None, key: Path | str | None, pipe: Pipe
) -> None:
    async def serve(server: KnownServer) -> list[Served]:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with server:
            pipe.send(server.base_url)
            loop.add_reader(pipe.fileno(), told.set)
            await told.wait()
            loop.remove_reader(pipe.fileno())
        return server.served

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client's process decides
    try:
        served = _run(serve(KnownServer(behaviour, certificate=certificate, key=key)))
    except InputError as error:
        pipe.send(error)
        return
    os.set_blocking(pipe.fileno(), True)  # the event loop took that away
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the client's process is gone
        pipe.recv()
        pipe.send(served)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in a fast event loop, without the garbage collector's pauses."""
    import uvloop

    gc.freeze()
    gc.disable()
    try:
        return uvloop.run(work)
    finally:
        gc.enable()
        gc.unfreeze()
