"""`upcurve serve`: the engine behind the OpenAI API."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click
import orjson

from upcurve.cli.model_options import model_options
from upcurve.cli.options import MAX_THREADS, FiniteRange, json_option
from upcurve.cli.serve_roles import (
    check_alone,
    check_node,
    check_parts,
    role_options,
    serve_recipe,
    worker_options,
)
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
    "[default: 8192 on a GPU, 2048 on the CPU, and one for each running request that may decode]",
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
@role_options
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
@json_option
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
    prefill_ep: int | None,
    decode_ep: int | None,
    recipe: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Serve the Qwen3.5 MoE checkpoint in the folder MODEL over the OpenAI API.

    Texts need tokenizer.json in the folder; without it prompts are token ids. SIGTERM or Ctrl-C
    stops the server after the open requests, or --drain-seconds; a second one stops it at once.

    \b
    Example:
      upcurve serve ./qwen3.5-35b-a3b --port 8000
      upcurve serve ./small --port 0 --off shared_expert_fusion,fused_norm
      upcurve serve ./small --port 0 --json
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
        return serve_recipe(recipe, host, port, as_json=as_json)
    from upcurve.engine.execute.options import EngineOptions
    from upcurve.engine.parallel.seat import node_of
    from upcurve.engine.serve.announcement import Announcement, log_ready
    from upcurve.engine.serve.launch import serve, serve_ranks
    from upcurve.engine.serve.router.launch import route, serve_apart, serve_replicas

    def announce(announcement: Announcement) -> None:
        if announcement.url is not None:
            log_ready(announcement)
        if as_json:
            click.echo(orjson.dumps(announcement))

    check_parts(role, layout=(prefill_workers or decode_workers) is not None)
    if role == "router":
        return route(replicas, host=host, port=port, drain_seconds=drain_seconds, announce=announce)
    if replicas is not None:
        raise InputError("replicas", "only a router has them", "add --role router")
    if model is None:
        raise InputError("model", "it is missing", "name a checkpoint folder")
    names = tuple(each for each in (prefill or "").split(",") if each.strip())
    own = EngineOptions(**options, role=cast("Any", role), prefill=names)
    serving: dict[str, Any] = {
        "model_name": model_name,
        "api_key": api_key or None,
        "drain_seconds": drain_seconds,
        "max_waiting_requests": max_waiting_requests,
    }
    check_node(nodes)
    if prefill_workers is not None or role != "server":
        check_alone(own.dp, nodes if role == "server" else 1)
    if prefill_workers is not None and decode_workers is not None:
        return serve_apart(
            model,
            worker_options(own, "prefill", prefill_tp, prefill_ep),
            worker_options(own, "decode", decode_tp, decode_ep),
            prefill_workers=prefill_workers,
            decode_workers=decode_workers,
            **{"host": host, "port": port, "announce": announce, **serving},
        )
    layout = own.layout
    if layout.dp > 1:
        if nodes > 1:
            raise InputError(
                "nodes", "replicas of one command are on one node", "start a --role router"
            )
        return serve_replicas(model, own, host=host, port=port, announce=announce, **serving)
    node = node_of(layout.ranks, nodes=nodes, node_rank=node_rank, rendezvous=rendezvous)
    if not node.leads:
        return serve_ranks(model, own, node, announce)
    return serve(
        *(model, own),
        host=host,
        port=port,
        node=node,
        transfer_port=transfer_port or 0,
        announce=announce,
        **serving,
    )
