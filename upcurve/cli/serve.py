"""`upcurve serve`: the engine behind the OpenAI API."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from upcurve.cli.model_options import model_options
from upcurve.cli.options import MAX_THREADS, FiniteRange
from upcurve.engine.switches import Switches
from upcurve.errors import InputError


@click.command(epilog="Switches for --off: " + ", ".join(Switches.names()) + "; or all.")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0 picks a free one and prints it.",
)
@model_options
@click.option("--off", default="", metavar="NAME,...", help="Optimisations to turn off; see below.")
@click.option(
    "--max-running-requests",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Requests that are computed at once; others wait.",
)
@click.option(
    "--max-waiting-requests",
    type=click.IntRange(min=0),
    metavar="N",
    help="Beyond those that run; more get status 429.  [default: 8 x those, at least 1024]",
)
@click.option(
    "--drain-seconds",
    type=FiniteRange(min=0),
    default=5.0,
    show_default=True,
    metavar="S",
    help="How long requests may go on after SIGTERM.",
)
@click.option(
    "--context-length",
    type=click.IntRange(min=2),
    metavar="N",
    help="Most tokens of prompt and output together.  [default: the model's own]",
)
@click.option(
    "--max-batch-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most tokens in one step; longer prompts are prefilled in chunks.  "
    "[default: 8192 on a GPU, 2048 on the CPU, and one for each running request]",
)
@click.option(
    "--max-kv-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most tokens that all requests hold together.  [default: as many as fit]",
)
@click.option(
    "--page-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Tokens of a KV page.",
)
@click.option(
    "--memory-share",
    type=FiniteRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    metavar="X",
    help="Of a GPU's memory, for weights, activations and caches together.",
)
@click.option(
    "--check-memory",
    is_flag=True,
    help="Prove after every step that no page or state slot leaks or is shared; slow.",
)
@click.option(
    "--served-model-name",
    "model_name",
    metavar="NAME",
    help="What clients call the model.  [default: the folder's name]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="CPU threads of the engine.  [default: one less than the cores]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Of dummy weights, and of sampling where a request has none.",
)
@click.option(
    "--tp",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Tensor parallelism: GPUs that share the heads, and the experts, of one replica.",
)
@click.option(
    "--ep",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Expert parallelism: experts are split over so many; divides --tp, or is --tp x --dp.",
)
@click.option(
    "--dp",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Data parallelism: replicas behind a router; with --ep of all GPUs they share experts.",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Machines that share the ranks evenly; the first serves HTTP. See also torchrun.",
)
@click.option(
    "--node-rank",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Which of them this is.",
)
@click.option(
    "--rendezvous", metavar="HOST:PORT", help="Where the ranks meet: an address of the first node."
)
@click.option(
    "--role",
    type=click.Choice(["server", "prefill", "decode", "router"]),
    default="server",
    show_default=True,
    help="prefill: compute prompts for decode workers; decode: ask --prefill for prompts; "
    "router: send requests on to --replicas, MODEL is left out.",
)
@click.option(
    "--transfer-port",
    type=click.IntRange(0, 65535),
    metavar="P",
    help="Where decode workers connect to a prefill worker; 0 picks a free one and prints it.",
)
@click.option(
    "--prefill",
    metavar="HOST:PORT,...",
    help="Transfer ports of a decode worker's prefill workers.",
)
@click.option(
    "--prefill-below",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Prompts of fewer tokens are computed by the decode worker itself.",
)
@click.option(
    "--prefill-timeout",
    type=FiniteRange(min=1),
    default=10.0,
    show_default=True,
    metavar="S",
    help="A prefill worker that gives no sign of life for so long is given up.",
)
@click.option(
    "--transfer",
    type=click.Choice(["auto", "tcp", "copy"]),
    default="auto",
    show_default=True,
    help="How caches move between workers; copy: from GPU to GPU within a host.",
)
@click.option(
    "--prefill-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Start so many, and --decode-workers, on this machine.",
)
@click.option(
    "--decode-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Likewise; a router is in front of several.",
)
@click.option(
    "--prefill-tp", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: --tp]"
)
@click.option(
    "--decode-tp", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: --tp]"
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Start the engine of a recipe, as a sweep would; only --host and --port go with it.",
)
@click.option(
    "--replicas",
    metavar="URL,...",
    help="Servers of one model that a router shares requests among.",
)
@click.option(
    "--api-key",
    envvar="UPCURVE_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Ask clients of /v1 for this key.",
)
def command(
    model: Path | None,
    host: str,
    port: int,
    model_name: str | None,
    api_key: str | None,
    drain_seconds: float,
    max_waiting_requests: int | None,
    nodes: int,
    node_rank: int,
    rendezvous: str | None,
    role: str,
    replicas: str | None,
    transfer_port: int | None,
    prefill: str | None,
    prefill_workers: int | None,
    decode_workers: int | None,
    prefill_tp: int | None,
    decode_tp: int | None,
    recipe: Path | None,
    **options: Any,
) -> int:
    """Serve the Qwen3.5 MoE checkpoint in the folder MODEL over the OpenAI API.

    Texts need tokenizer.json in the folder; without it prompts are token ids. SIGTERM or Ctrl-C
    stops the server after the open requests, or --drain-seconds; a second one stops it at once.

    \b
    Example:
      upcurve serve ./qwen3.5-35b-a3b --port 8000
      upcurve serve ./small --port 0 --off shared_expert_fusion,fused_norm
      upcurve serve ./config-only --load-format dummy --context-length 2048
      upcurve serve ./qwen3.5-397b-a17b-fp8 --tp 4
      upcurve serve ./qwen3.5-35b-a3b --dp 2
      upcurve serve --role router --replicas http://node0:8000,http://node1:8000
      upcurve serve ./qwen3.5-35b-a3b --prefill-workers 1 --decode-workers 1
      upcurve serve ./qwen3.5-35b-a3b --role prefill --transfer-port 9000 --port 8001
      upcurve serve ./qwen3.5-35b-a3b --role decode --prefill node0:9000
      upcurve serve --recipe recipes/qwen35-35b-fp8-h200-p1d1.yaml
    """  # noqa: D301
    if recipe is not None:
        return _serve_recipe(recipe, host, port)
    from upcurve.engine.execute.options import EngineOptions
    from upcurve.engine.parallel.seat import node_of
    from upcurve.engine.serve.launch import serve, serve_ranks
    from upcurve.engine.serve.router.launch import route, serve_apart, serve_replicas

    if role == "router":
        if model is not None:
            raise InputError("model", "a router loads none", f"leave {model} out")
        return route(replicas, host=host, port=port, drain_seconds=drain_seconds)
    if replicas is not None:
        raise InputError("replicas", "only a router has them", "add --role router")
    if model is None:
        raise InputError("model", "it is missing", "name a checkpoint folder")
    apart = {"prefill_workers": prefill_workers, "decode_workers": decode_workers}
    _check_parts(role, transfer_port, prefill, apart, prefill_tp or decode_tp)
    names = tuple(each for each in (prefill or "").split(",") if each.strip())
    own = EngineOptions(**options, role=cast("Any", role), prefill=names)
    serving: dict[str, Any] = {
        "model_name": model_name,
        "api_key": api_key or None,
        "drain_seconds": drain_seconds,
        "max_waiting_requests": max_waiting_requests,
    }
    layout = own.layout
    if prefill_workers is not None or role != "server":
        _check_alone(layout.dp, nodes if role == "server" else 1)
    if prefill_workers is not None and decode_workers is not None:
        return serve_apart(
            model,
            replace(own, role="prefill", tp=prefill_tp or own.tp),
            replace(own, role="decode", tp=decode_tp or own.tp),
            prefill_workers=prefill_workers,
            decode_workers=decode_workers,
            **{"host": host, "port": port, **serving},
        )
    if layout.dp > 1:
        if nodes > 1:
            raise InputError(
                "nodes", "replicas of one command are on one node", "start a --role router"
            )
        return serve_replicas(model, own, host=host, port=port, **serving)
    node = node_of(layout.ranks, nodes=nodes, node_rank=node_rank, rendezvous=rendezvous)
    if not node.leads:
        return serve_ranks(model, own, node)
    return serve(
        *(model, own),
        host=host,
        port=port,
        node=node,
        transfer_port=transfer_port or 0,
        **serving,
    )


def _check_parts(
    role: str,
    transfer_port: int | None,
    prefill: str | None,
    apart: dict[str, int | None],
    widths: int | None,
) -> None:
    """Check that options of prefill and decode workers go with what is started.

    Raises:
        InputError: one does not.
    """
    if transfer_port is not None and role != "prefill":
        raise InputError("transfer-port", "only a prefill worker has one", "add --role prefill")
    if prefill is not None and role != "decode":
        raise InputError("prefill", "only a decode worker asks them", "add --role decode")
    if role == "decode" and prefill is None:
        raise InputError("prefill", "a decode worker needs some", "add --prefill HOST:PORT")
    given = [name for name, count in apart.items() if count is not None]
    if given and role != "server":
        raise InputError("role", "a layout starts workers of both", "leave --role out")
    if len(given) == 1:
        missing = next(name for name in apart if name not in given).replace("_", "-")
        raise InputError(missing, "it is missing", f"add --{missing} N")
    if widths is not None and not given:
        raise InputError(
            "prefill-tp, decode-tp", "they are for layouts", "add --prefill-workers N, or use --tp"
        )


def _check_alone(dp: int, nodes: int) -> None:
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


def _serve_recipe(path: Path, host: str, port: int) -> int:
    """Become the engine of a recipe: this process goes on as its command.

    Raises:
        InputError: the recipe, or its command, is unusable.
    """
    from upcurve.sweep.engine_process import executable, free_port
    from upcurve.sweep.facts import engine_environment
    from upcurve.sweep.recipe import load_recipe

    recipe = load_recipe(path)
    environment = engine_environment(recipe)
    command = executable(recipe.command(host=host, port=port or free_port(host)), environment)
    click.echo(f"upcurve: {shlex.join(command)}", err=True)
    os.execvpe(command[0], command, environment)  # noqa: S606 - what the recipe says
