"""How an engine and its ranks take the part of a prefill worker or of a decode worker."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.runner import ModelRunner
from upcurve.engine.execute.transfers import Tell, Told, decode_report, encode_report
from upcurve.engine.memory.caches import CacheTypes
from upcurve.engine.model.identity import weights_fingerprint
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.own_address import address_towards
from upcurve.engine.roles.decode import DecodeRole
from upcurve.engine.roles.links import CONNECT_SECONDS, Link, Links
from upcurve.engine.roles.peers import Peers
from upcurve.engine.roles.prefill import PrefillRole
from upcurve.engine.roles.ranks import ReceivingRank, SendingRank
from upcurve.engine.transfer.description import Description, agree
from upcurve.engine.transfer.receiver import Receiver

logger = logging.getLogger(__name__)

ATTEND_SECONDS = 0.01
"""Between two looks for news, before the engine runs."""
MODEL_FIELDS = (
    *("vocab_size", "hidden_size", "layer_types", "num_attention_heads", "rotary_dim"),
    *("rope_theta", "rms_norm_eps", "num_experts", "num_experts_per_tok"),
    *("moe_intermediate_size", "shared_expert_intermediate_size"),
)
"""Of `ModelShapes`: what decides a model's numbers beside the shapes of its caches."""


def describe(folder: Path, runner: ModelRunner, options: EngineOptions) -> Description:
    """Describe an engine's caches, as all its ranks together have them."""
    shapes = ModelShapes.from_folder(folder)
    types = CacheTypes.of(runner.model.dtype, options.kv_cache_dtype, options.state_dtype)
    return Description.of(
        shapes,
        types,
        page_size=options.page_size,
        tp=options.tp,
        model={name: getattr(shapes, name) for name in MODEL_FIELDS},
        weights=weights_fingerprint(runner.model.weights),
    )


def take_part(folder: Path, runner: ModelRunner, options: EngineOptions, control: Control) -> None:
    """Give a rank that does not lead its part; there is none in a server of its own.

    Raises:
        EngineInputError: an address is unusable.
    """
    if options.role != "server":
        rank = runner.model.ranks.heads.index
        _equip(folder, runner, options, rank, lambda report: control.report(encode_report(report)))


def lead(
    folder: Path,
    engine: Engine,
    options: EngineOptions,
    control: Control | None,
    listener: socket.socket | None,
    changed: Callable[[Sequence[Link]], None] = lambda _: None,
) -> None:
    """Give an engine its part; there is none in a server of its own.

    Args:
        folder: of its checkpoint.
        engine: that has taken no request yet.
        options: of the engine.
        control: connections to its other ranks.
        listener: of a prefill worker; listens where decode workers connect.
        changed: called with all prefill workers, on any thread, when the state of one has changed.

    Raises:
        EngineInputError: an address is unusable, or a prefill worker that is up does not fit.
    """
    if options.role == "server":
        return
    runner = engine.device
    assert isinstance(runner, ModelRunner)
    if options.role == "prefill":
        assert listener is not None
        _lead_prefill(folder, engine, runner, options, control, listener)
    else:
        _lead_decode(folder, engine, runner, options, control, changed)


def _lead_prefill(
    folder: Path,
    engine: Engine,
    runner: ModelRunner,
    options: EngineOptions,
    control: Control | None,
    listener: socket.socket,
) -> None:
    role = PrefillRole(runner.order, options.tp)
    description = _equip(folder, runner, options, 0, lambda report: role.tell(Told(0, report)))
    _hear(control, role.tell)
    steps = -1

    def gets_on() -> bool:
        nonlocal steps
        before, steps = steps, engine.steps
        return before != steps or not engine.has_work

    role.peers = Peers(listener, description.encode(), _check(description), role.tell, gets_on)
    engine.role = role


def _lead_decode(
    folder: Path,
    engine: Engine,
    runner: ModelRunner,
    options: EngineOptions,
    control: Control | None,
    changed: Callable[[Sequence[Link]], None],
) -> None:
    told: list[DecodeRole] = []
    description = _equip(folder, runner, options, 0, lambda report: told[0].tell(Told(0, report)))
    role = DecodeRole(description.encode(), runner.order, options.tp, options.prefill_below)
    told.append(role)
    _hear(control, role.tell)
    links: list[Link] = []
    links += [
        Link(
            address,
            _check(description),
            role.tell,
            lambda: changed(links),
            options.prefill_timeout,
        )
        for address in options.prefill_addresses
    ]
    role.links = Links(links)
    engine.role = role
    engine.scheduler.elsewhere = role.wants
    deadline = time.monotonic() + CONNECT_SECONDS
    while not role.links.attempted() and time.monotonic() < deadline:
        # Nobody else does it yet.
        role.attend(engine)
        time.sleep(ATTEND_SECONDS)


def _equip(
    folder: Path, runner: ModelRunner, options: EngineOptions, rank: int, tell: Tell
) -> Description:
    """Give a rank what it sends or receives with."""
    description = describe(folder, runner, options)
    if options.role == "prefill":
        runner.transfers = SendingRank(runner.caches, description, rank, options.transfer, tell)
        return description
    host = own_address(options.prefill_addresses)
    try:
        receiver = Receiver(runner.caches, options.page_size, rank, host, options.transfer)
    except OSError as error:
        raise EngineInputError(
            "prefill", f"nothing can be received on {host}: {error}", "give other addresses"
        ) from error
    runner.transfers = ReceivingRank(receiver, tell)
    return description


def _hear(control: Control | None, tell: Callable[[Told], None]) -> None:
    """Hand over what ranks report that do not lead."""
    if control is None:
        return

    def run() -> None:
        while True:
            rank, message = control.reports.get()
            # The first rank leads.
            tell(Told(rank, decode_report(message)))

    threading.Thread(target=run, name="upcurve-reports", daemon=True).start()


def _check(description: Description) -> Callable[[bytes], None]:
    return lambda data: agree(description, Description.decode(data))


def own_address(others: Sequence[tuple[str, int]]) -> str:
    """Return the address by which prefill workers reach this machine.

    Raises:
        EngineInputError: a host is unknown.
    """
    return widest([_towards(host, port) for host, port in others])


def widest(own: Sequence[str]) -> str:
    """Return, of addresses of this machine, one by which all reach it who reach one of them."""
    # Who is on this machine reaches every address of it, of either family.
    return next((each for each in own if not ipaddress.ip_address(each).is_loopback), own[0])


def _towards(host: str, port: int) -> str:
    try:
        return address_towards(host, port)
    except (OSError, UnicodeError) as error:
        raise EngineInputError(
            "prefill", f"{host} is not known here: {error}", "give another address"
        ) from error
