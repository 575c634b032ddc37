"""Start a router: in front of servers that run already, or of replicas that it starts itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.seat import Node, check_one_command
from upcurve.engine.serve.announcement import Announce, Announcement, log_ready
from upcurve.engine.serve.launch import check_spread, prepare, serve
from upcurve.engine.serve.listening import bind, host_and_port, listen_to_last
from upcurve.engine.serve.router.client import Client
from upcurve.engine.serve.router.replica import Replica
from upcurve.engine.serve.router.replica_process import HOST, ReplicaProcesses, Start
from upcurve.engine.serve.router.restarts import Restarts
from upcurve.engine.serve.router.router import Router

logger = logging.getLogger(__name__)

FAILED_SECONDS = 2.0
"""How long replicas that end because another did may take to answer."""


def route(
    replicas: str | None,
    *,
    host: str,
    port: int,
    drain_seconds: float,
    announce: Announce = log_ready,
) -> int:
    """Route among servers that somebody else runs, until SIGTERM or SIGINT.

    Args:
        replicas: their addresses, comma-separated.
        host: name or address to listen on.
        port: 0 picks a free one.
        drain_seconds: how long requests may go on after the signal.
        announce: called once requests are taken.

    Returns:
        The exit code, 0.

    Raises:
        EngineInputError: an address is unusable.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="upcurve: %(message)s")
    urls = [each.strip() for each in (replicas or "").split(",") if each.strip()]
    if not urls:
        raise EngineInputError("replicas", "a router needs some", "add --replicas URL,URL")
    if len(set(urls)) < len(urls):
        raise EngineInputError("replicas", "an address stands there twice", "give each once")
    found = [Replica.at(url) for url in urls]
    servers = tuple(Announcement("server", each.url, None, None, None) for each in found)
    with bind(host, port) as listener:
        ready = partial(_announce, announce, listener, host, None, None, servers)
        return _run(found, listener, drain_seconds, ready)


def serve_replicas(
    folder: Path,
    options: EngineOptions,
    *,
    host: str,
    port: int,
    drain_seconds: float = 5.0,
    announce: Announce = log_ready,
    **serving: Any,
) -> int:
    """Serve a checkpoint folder by `options.dp` replicas behind a router.

    Args:
        folder: as `launch.serve`.
        options: of each replica.
        host: name or address to listen on.
        port: 0 picks a free one.
        drain_seconds: how long requests may go on after a signal.
        announce: called once requests are taken.
        serving: more of `launch.serve`.

    Returns:
        The exit code: 0, or 1 if no replica is left, or one that shares its experts ended.

    Raises:
        EngineInputError: the address cannot be bound, or the model or an option is unusable.
    """
    check_one_command("dp")
    prepare()
    layout = options.layout
    with ExitStack() as stack:
        listener = stack.enter_context(bind(host, port))
        meeting = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        where = meeting.getsockname()[1] if layout.joined else 0
        starts = [
            Start(
                options,
                Node(
                    first=replica * layout.tp if layout.joined else 0,
                    count=layout.tp,
                    ranks=layout.engine_ranks,
                    host="127.0.0.1",
                    port=where,
                    gpu=replica * layout.tp,
                ),
                meeting if layout.joined and replica == 0 else None,
            )
            for replica in range(layout.dp)
        ]
        processes = stack.enter_context(ReplicaProcesses(folder, starts, serving))
        if not processes.wait():
            logger.error("a replica ended while it was loading: %s", processes.ends())
            return 1
        found = tuple(processes.announcements)
        ready = partial(_announce, announce, listener, host, found[0].model, layout, found)
        needed = layout.dp if layout.joined else 1
        return _run(
            _replicas(found), listener, drain_seconds, ready, processes, needed, layout.joined
        )


def serve_apart(
    folder: Path,
    prefill: EngineOptions,
    decode: EngineOptions,
    *,
    prefill_workers: int,
    decode_workers: int,
    host: str,
    port: int,
    drain_seconds: float = 5.0,
    announce: Announce = log_ready,
    **serving: Any,
) -> int:
    """Serve a checkpoint folder by prefill workers and decode workers of this machine.

    GPUs are handed out in order, to prefill workers first. One decode worker serves itself; several
    are behind a router. Prefill workers that end later are started anew, and so are several decode
    workers.

    Args:
        folder: as `launch.serve`.
        prefill: options of each prefill worker.
        decode: options of each decode worker; `prefill` of them is filled in.
        prefill_workers: how many.
        decode_workers: how many.
        host: name or address to listen on.
        port: 0 picks a free one.
        drain_seconds: how long requests may go on after a signal.
        announce: called once requests are taken.
        serving: more of `launch.serve`.

    Returns:
        The exit code: 0, or 1 if no decode worker is left, or a worker ended while it was loading.

    Raises:
        EngineInputError: the address cannot be bound, or the model or an option is unusable.
    """
    check_one_command("prefill-workers")
    prepare()
    check_spread(folder, prefill, "prefill-")
    check_spread(folder, decode, "decode-")
    with ExitStack() as stack:
        listener = stack.enter_context(bind(host, port))
        meetings = [stack.enter_context(listen_to_last(HOST)) for _ in range(prefill_workers)]
        helpers = [
            Start(prefill, _node(prefill, index * prefill.tp), transfers=meeting)
            for index, meeting in enumerate(meetings)
        ]
        names = tuple(host_and_port(HOST, each) for each in meetings)
        options = replace(decode, prefill=names)
        offset = prefill_workers * prefill.tp
        starts = [
            Start(options, _node(options, offset + index * options.tp))
            for index in range(decode_workers)
        ]
        helping = stack.enter_context(ReplicaProcesses(folder, helpers, serving, "prefill worker"))
        for each in meetings:
            # Who connects to a worker that has ended shall not wait.
            each.close()
        if decode_workers == 1:
            listener.close()
            return serve(
                *(folder, options),
                host=host,
                port=port,
                node=starts[0].node,
                announce=announce,
                helpers=helping,
                watch=partial(Restarts, helping),
                **{"drain_seconds": drain_seconds, **serving},
            )
        processes = stack.enter_context(ReplicaProcesses(folder, starts, serving, "decode worker"))
        if not helping.ready():
            return 1
        if not processes.wait():
            logger.error("a worker ended while it was loading: %s", processes.ends())
            return 1
        found = tuple(processes.announcements)
        everyone = (*helping.announcements, *found)
        ready = partial(_announce, announce, listener, host, found[0].model, None, everyone)
        return _run(_replicas(found), listener, drain_seconds, ready, processes, 1, helping=helping)


def _node(options: EngineOptions, gpu: int) -> Node:
    return Node(0, options.tp, options.tp, HOST, 0, gpu)


def _replicas(found: Sequence[Announcement]) -> list[Replica]:
    return [Replica.at(each.url) for each in found if each.url is not None]


def _announce(
    announce: Announce,
    listener: socket.socket,
    host: str,
    model: str | None,
    layout: Layout | None,
    workers: tuple[Announcement, ...],
) -> None:
    """Announce a router."""
    url = f"http://{host_and_port(host, listener)}"
    announce(Announcement("router", url, model, os.getpid(), layout, workers=workers))


def _run(
    replicas: list[Replica],
    listener: socket.socket,
    drain_seconds: float,
    ready: Callable[[], None],
    processes: ReplicaProcesses | None = None,
    needed: int = 0,
    joined: bool = False,
    helping: ReplicaProcesses | None = None,
) -> int:
    """Route until a signal, or until fewer processes than needed are left.

    Args:
        replicas: who gets requests.
        listener: takes them.
        drain_seconds: how long requests may go on after a signal.
        ready: called once requests are taken.
        processes: of the replicas, in the same order; None where somebody else runs them.
        needed: so many of these.
        joined: whether they share their experts.
        helping: further ones, which get no requests.
    """

    def ended(number: int) -> None:
        replicas[number].set_up(False, "its process has ended")

    async def main() -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        router = Router(replicas)
        await router.start()
        server = await loop.create_server(lambda: Client(router), sock=listener, backlog=2048)
        ready()
        restarts = [Restarts(helping)] if helping is not None else []
        if processes is not None:
            restarts.append(
                Restarts(processes, needed=needed, joined=joined, ended=ended, stop=stop.set)
            )
            for replica, history in zip(replicas, restarts[-1].histories, strict=True):
                replica.history = history
        await stop.wait()
        for each in restarts:
            each.close()
        failed = processes is not None and processes.running < needed
        server.close()
        # Those that are left say themselves what has ended them.
        await router.stop(FAILED_SECONDS if failed else drain_seconds)
        if failed and processes is not None:
            logger.error("the replicas stopped: %s", processes.ends())
        return int(failed)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
