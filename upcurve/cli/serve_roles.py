"""Options of `upcurve serve` for prefill and decode workers, and what goes with what."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click
from click.core import ParameterSource

from upcurve.cli.options import FiniteRange
from upcurve.engine.errors import EngineInputError
from upcurve.engine.transfer.transport import NIXL_PACKAGES, Transport
from upcurve.errors import InputError

if TYPE_CHECKING:
    from upcurve.engine.execute.options import EngineOptions
    from upcurve.sweep.recipe import Recipe

OPTIONS = (
    click.option(
        "--role",
        type=click.Choice(["server", "prefill", "decode", "router"]),
        default="server",
        show_default=True,
        help="prefill: compute prompts for decode workers; decode: ask --prefill for prompts; "
        "router: send requests on to --replicas, MODEL is left out.",
    ),
    click.option(
        "--transfer-port",
        type=click.IntRange(0, 65535),
        metavar="P",
        help="Where decode workers connect to a prefill worker; 0 picks a free one and prints it.",
    ),
    click.option(
        "--prefill",
        metavar="HOST:PORT,...",
        help="Transfer ports of a decode worker's prefill workers.",
    ),
    click.option(
        "--prefill-below",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Prompts of fewer tokens are computed by the decode worker itself.",
    ),
    click.option(
        "--prefill-timeout",
        # Signs of life are a second apart.
        type=FiniteRange(min=2),
        default=10.0,
        show_default=True,
        metavar="S",
        help="A prefill worker that gives no sign of life for so long is given up.",
    ),
    click.option(
        "--transfer",
        type=click.Choice(get_args(Transport)),
        default="auto",
        show_default=True,
        help="How caches move between workers; copy: from GPU to GPU within a host; nixl: RDMA.",
    ),
    click.option(
        "--prefill-workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Start so many, and --decode-workers, on this machine.",
    ),
    click.option(
        "--decode-workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Likewise; a router is in front of several.",
    ),
    click.option(
        "--prefill-tp", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: --tp]"
    ),
    click.option(
        "--decode-tp", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: --tp]"
    ),
    click.option(
        "--prefill-ep", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: --ep]"
    ),
    click.option(
        "--decode-ep", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: --ep]"
    ),
    click.option(
        "--recipe",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Start the engine of a recipe, as a sweep would; only --host, --port and --json go "
        "with it.",
    ),
)
_OWNERS = {
    "transfer_port": ("prefill",),
    "prefill": ("decode",),
    "prefill_below": ("decode", "layout"),
    "prefill_timeout": ("decode", "layout"),
    "transfer": ("prefill", "decode", "layout"),
    "prefill_tp": ("layout",),
    "decode_tp": ("layout",),
    "prefill_ep": ("layout",),
    "decode_ep": ("layout",),
}
"""Options of prefill and decode workers, and with what they go."""
_MENDS = {
    "prefill": "--role prefill",
    "decode": "--role decode",
    "layout": "--prefill-workers N --decode-workers N",
}
_ROUTERS = {"role", "replicas", "host", "port", "drain_seconds", "api_key", "as_json"}
"""What goes with a router; a key may be in the environment for the servers behind it."""


def role_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def given_options() -> list[str]:
    """Return the names of the options and arguments that this command line has."""
    context = click.get_current_context()
    return [
        name
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]


def check_parts(role: str, *, layout: bool) -> None:
    """Check that options of prefill and decode workers go with what is started.

    Raises:
        InputError: one does not, or is missing.
    """
    given, context = given_options(), click.get_current_context()
    if role == "router":
        for each in context.command.params:
            if each.name in given and each.name not in _ROUTERS:
                option = each.opts[0].removeprefix("--")
                raise InputError(option, "a router has no use for it", "leave it out")
    for name in given:
        owners = _OWNERS.get(name, ())
        if owners and role not in owners and not (layout and "layout" in owners):
            option, mends = name.replace("_", "-"), [_MENDS[each] for each in owners]
            raise InputError(option, "it does nothing here", f"add {' or '.join(mends)}")
    if layout and role != "server":
        raise InputError("role", "a layout starts workers of both", "leave --role out")
    if context.params["transfer"] == "nixl" and not any(map(find_spec, NIXL_PACKAGES)):
        raise InputError(
            "transfer", "NIXL is not installed", "pip install 'upcurve[nixl]', or leave it out"
        )
    port = context.params["transfer_port"]
    if port and port == context.params["port"]:
        raise InputError("transfer-port", "it is --port as well", "give another, or 0")
    for name in ("prefill_workers", "decode_workers"):
        if layout and name not in given:
            option = name.replace("_", "-")
            raise InputError(option, "it is missing", f"add --{option} N")


def check_node(nodes: int) -> None:
    """Check that what says where a node is goes with several.

    Raises:
        InputError: there is one.
    """
    for name in ("node_rank", "rendezvous"):
        if nodes == 1 and name in given_options():
            option = name.replace("_", "-")
            raise InputError(option, "it does nothing on one node", "add --nodes N")


def worker_options(
    own: EngineOptions, role: Literal["prefill", "decode"], tp: int | None, ep: int | None
) -> EngineOptions:
    """Return the options of one side's workers.

    Args:
        own: of the command.
        role: theirs.
        tp: of each; None is that of the command.
        ep: likewise.

    Raises:
        InputError: the sizes do not go together.
    """
    found = replace(own, role=role, tp=tp or own.tp, ep=ep or own.ep)
    try:
        _ = found.layout
    except EngineInputError as error:
        raise InputError(f"{role}-{error.field}", error.problem, error.mend) from error
    return found


def check_alone(dp: int, nodes: int) -> None:
    """Check that workers are not to be replicas as well.

    Raises:
        InputError: they are.
    """
    if dp > 1:
        raise InputError(
            "dp", "a prefill or decode worker is one replica", "start several workers instead"
        )
    if nodes > 1:
        raise InputError(
            "nodes", "workers of one command are on one node", "start --role prefill and decode"
        )


def serve_recipe(path: Path, host: str, port: int, *, as_json: bool) -> int:
    """Become the engine of a recipe: this process goes on as its command.

    Args:
        path: of the recipe.
        host: name or address to listen on.
        port: 0 picks a free one.
        as_json: have it say as JSON when it is ready, if it is this engine.

    Raises:
        InputError: the recipe, or its command, is unusable.
    """
    from upcurve.sweep.engine_process import executable, free_port
    from upcurve.sweep.facts import engine_environment
    from upcurve.sweep.recipe import load_recipe

    for name in given_options():
        if name not in ("recipe", "host", "port", "as_json"):
            option = name.replace("_", "-")
            raise InputError(option, "the recipe says it", "leave it out, or change the recipe")
    recipe = load_recipe(path)
    if as_json:
        recipe = _announcing(recipe)
    environment = engine_environment(recipe)
    with contextlib.nullcontext(port) if port else free_port(host) as chosen:
        command = executable(recipe.command(host=host, port=chosen), environment)
    click.echo(f"upcurve: {shlex.join(command)}", err=True)
    os.execvpe(command[0], command, environment)  # noqa: S606 - what the recipe says


def _announcing(recipe: Recipe) -> Recipe:
    """Return a recipe whose engine says as JSON when it is ready.

    Raises:
        InputError: it is another engine, which does not.
    """
    engine = recipe.engine
    if engine.name != "upcurve":
        problem = f"the recipe's engine, {engine.name}, prints no such line"
        raise InputError("json", problem, "leave it out, and ask its /health")
    command = [*engine.command, "--json"]
    return recipe.model_copy(update={"engine": engine.model_copy(update={"command": command})})
