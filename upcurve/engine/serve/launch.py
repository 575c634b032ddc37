"""Start a server: bind, load, serve, stop."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.model.layout_check import check_layout
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.seat import Node, node_of
from upcurve.engine.serve.announcement import Announce, Announcement, log_ready
from upcurve.engine.serve.app import Server
from upcurve.engine.serve.bridge import Bridge
from upcurve.engine.serve.chat import ChatTemplate
from upcurve.engine.serve.engine_process import Load
from upcurve.engine.serve.http_server import HttpServer, Watch
from upcurve.engine.serve.intake import Intake
from upcurve.engine.serve.listening import (
    bind,
    host_and_port,
    listen,
    listen_for_ranks,
    listen_for_transfers,
)
from upcurve.engine.serve.metrics import Metrics
from upcurve.engine.serve.rank_process import RankProcesses
from upcurve.engine.serve.remote import EngineEndedError, RemoteEngine
from upcurve.engine.serve.tokenizer import ByteTokenizer

logger = logging.getLogger(__name__)


class Helpers(Protocol):
    """Processes without which a server shall not begin."""

    @property
    def announcements(self) -> Sequence[Announcement]:
        """Theirs, once they are ready."""

    def ready(self) -> bool:
        """Wait until all serve, and say where; False where one has ended."""


def check_spread(folder: Path, options: EngineOptions, prefix: str = "") -> None:
    """Check that the model of a folder can be spread over the ranks that options ask for.

    Raises:
        EngineInputError: as `check_layout`; or the folder has no such model.
    """
    if options.layout.ranks > 1:
        shapes = ModelShapes.from_folder(folder)
        quantized = options.quantization == "fp8" or shapes.quantization is not None
        check_layout(shapes, options.layout, quantized=quantized, prefix=prefix)


def serve(
    folder: Path,
    options: EngineOptions,
    *,
    host: str,
    port: int,
    model_name: str | None = None,
    api_key: str | None = None,
    drain_seconds: float = 5.0,
    max_waiting_requests: int | None = None,
    node: Node | None = None,
    meeting: socket.socket | None = None,
    transfers: socket.socket | None = None,
    transfer_port: int = 0,
    helpers: Helpers | None = None,
    watch: Callable[[], Watch] | None = None,
    announce: Announce = log_ready,
) -> int:
    """Serve a checkpoint folder until SIGTERM or SIGINT, or until the engine fails for good.

    Args:
        folder: with config.json, the weights, and for texts tokenizer.json.
        options: of the engine.
        host: name or address to listen on.
        port: 0 picks a free one.
        model_name: what clients call the model; None is the name of the folder.
        api_key: what clients have to send; None asks for nothing.
        drain_seconds: how long requests may go on after the signal.
        max_waiting_requests: more are refused; None is the default of `Bridge`.
        node: the ranks that this server has, the leader of a replica first; None is all of the
            layout.
        meeting: listens where the ranks meet, if the first one is this server's and they do not
            meet at an address that was given.
        transfers: listens where decode workers connect to this prefill worker; None is
            `transfer_port` of `host`.
        transfer_port: 0 picks a free one.
        helpers: processes that have to be ready before this server is.
        watch: as of `HttpServer`; of these processes.
        announce: called once requests are taken.

    Returns:
        The exit code: 0, or 1 if the engine was given up.

    Raises:
        EngineInputError: the address cannot be bound, or the model or an option is unusable.
    """
    prepare()
    # What is wrong with either is said here, before a process is started for each rank.
    check_spread(folder, options)
    _ = options.prefill_addresses
    node = node or node_of(options.layout.engine_ranks)
    if node.ranks > 1 and node.leads and not node.hosted and meeting is None:
        meeting = listen_for_ranks(node)
    first, *others = node.seats(meeting.getsockname()[1] if meeting else None)
    with (
        meeting or nullcontext(),
        bind(host, port) as listener,
        transfers or listen_for_transfers(options, host, transfer_port) as where,
        RankProcesses(folder, options, others) as ranks,
        RemoteEngine(Load(folder, options, first), meeting, where) as engine,
    ):
        # The engine loads meanwhile.
        tokenizer = ByteTokenizer.from_folder(folder)
        template = ChatTemplate.from_folder(folder)
        try:
            engine.wait(ranks.sentinels)
        except EngineEndedError as error:
            logger.error("the engine's process: %s", _with(error, ranks))
            return 1
        if helpers is not None and not helpers.ready():
            return 1
        logger.info(engine.capacity.description)
        name = model_name or folder.resolve().name
        metrics = Metrics()
        bridge = Bridge(engine, metrics, max_waiting_requests)
        server = Server(
            bridge,
            metrics,
            Intake(engine.capacity, tokenizer, template),
            model_name=name,
            api_key=api_key,
        )
        listen(listener, host, port)
        announcement = Announcement(
            role=options.role,
            url=f"http://{host_and_port(host, listener)}",
            model=name,
            pid=os.getpid(),
            layout=options.layout,
            processes={"engine": engine.pid, **ranks.pids},
            transfers=host_and_port(host, where) if where else None,
            workers=tuple(helpers.announcements) if helpers else (),
        )
        http = HttpServer(server, bridge, drain_seconds, lambda: announce(announcement), watch)
        http.run(sockets=[listener])
        if bridge.failure is not None:
            logger.error("the engine stopped: %s", _with(bridge.failure, ranks))
            return 1
    return 0


def serve_ranks(
    folder: Path, options: EngineOptions, node: Node, announce: Announce | None = None
) -> int:
    """Run ranks whose leader is on another machine, until it ends.

    Args:
        folder: as `serve`.
        options: of the engine.
        node: the ranks.
        announce: called once their processes have been started; None says nothing.

    Returns:
        The exit code: 0 if the leader was told to stop, 1 if any rank died.

    Raises:
        EngineInputError: the model or an option is unusable, or differs from the other machines'.
    """
    prepare()
    with RankProcesses(folder, options, node.seats()) as ranks:
        if announce is not None:
            pid, layout = os.getpid(), options.layout
            announce(Announcement("ranks", None, None, pid, layout, ranks.pids))
        if ranks.wait():
            return 0
        logger.error("the engine stopped: %s", ranks.ends() or "a rank of another machine ended")
    return 1


def _with(reason: object, ranks: RankProcesses) -> str:
    ends = ranks.ends()
    return f"{reason} ({ends})" if ends else str(reason)


def prepare() -> None:
    """Set up this process as a server's.

    Raises:
        ModuleNotFoundError: there is no torch.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="upcurve: %(message)s")
    if find_spec("torch") is None:
        # Here, not in the engine's process: the mend is the same as for any other package.
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    _raise_file_limit()


def _raise_file_limit() -> None:
    """Allow as many connections as the system does; many give a process 1,024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
