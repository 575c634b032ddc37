"""`upcurve diverge`: how far each build of the engine lies from the same model in float32."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import orjson
from rich.console import Console
from rich.table import Table

from upcurve.cli.model_options import model_options
from upcurve.cli.options import MAX_THREADS, FiniteRange, json_option
from upcurve.cli.tables import print_table
from upcurve.engine.model.formats import LoadFormat, QuantizationFormat
from upcurve.engine.switches import Switches

if TYPE_CHECKING:
    from upcurve.engine.fidelity.check import Limits
    from upcurve.engine.fidelity.divergence import Divergence


@click.command(epilog="Switches for --switch: " + ", ".join(Switches.names()) + ".")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.option(
    "--text",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="JSON lines: prompt and output as texts or token ids, or question and answer.  "
    "[default: the model's divergence.jsonl, or tokens drawn by a seed]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passages of the text.  [default: 64 of a file]",
)
@click.option(
    "--switch",
    "switches",
    metavar="NAME,...",
    help="Switches to measure off and alone, or none of them: all on and all off only."
    "  [default: all]",
)
@model_options
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Of dummy weights.",
)
@click.option(
    "--max-batch-tokens",
    "step_tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most tokens in one step: few make chunks of prompts.  [default: 48; on a GPU 128]",
)
@click.option(
    "--max-running-requests",
    "requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passages that run at once; the others take their slots after them.  "
    "[default: a third of them, and 6 at most; on a GPU 16]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    default=1,
    show_default=True,
    help="Of the CPU.",
)
@click.option(
    "--max-kl",
    type=FiniteRange(min=0),
    metavar="X",
    help="Most nats that a build may lose on average.  [default: 1.5 times what plain torch loses]",
)
@click.option(
    "--min-agreement",
    type=FiniteRange(0, 1),
    metavar="Y",
    help="Least share of tokens with the same most likely one.  [default: about plain torch's]",
)
@json_option
def command(
    model: Path,
    text: Path | None,
    limit: int | None,
    switches: str | None,
    device: Literal["auto", "cpu", "cuda"],
    dtype: Literal["auto", "bf16", "fp32"],
    quantization: QuantizationFormat,
    load_format: LoadFormat,
    seed: int,
    threads: int,
    max_kl: float | None,
    min_agreement: float | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Compare builds of the model in the folder MODEL with itself in float32, token by token.

    A fixed text goes through the engine as it serves: chunks of prompts, decode steps, pages, slots
    that are used again, graphs on a GPU. Its distributions are compared with those of plain torch
    in float32, one passage at a time: KL divergence and share of the same most likely token.

    Ends with 1 where a build loses more than plain torch does in the same format, or than
    --max-kl and --min-agreement allow.

    \b
    Example:
      upcurve diverge models/small
      upcurve diverge models/small --switch fused_norm,fused_topk --dtype bf16
      upcurve diverge models/small --quantization fp8 --max-kl 0.02 --min-agreement 0.97 --json
    """  # noqa: D301
    import torch

    from upcurve.engine.build import device_of, is_gpu
    from upcurve.engine.execute.options import EngineOptions
    from upcurve.engine.fidelity.check import (
        Format,
        Limits,
        Reference,
        Steps,
        builds,
        compiling,
        load,
        switches_of,
    )
    from upcurve.engine.fidelity.forced import context_of
    from upcurve.engine.fidelity.text import text_of
    from upcurve.engine.model.shapes import ModelShapes

    torch.set_num_threads(threads)
    where = device_of(EngineOptions(device=device))
    if dtype == "auto":
        dtype = "bf16" if is_gpu(where) else "fp32"
    form = Format(dtype, quantization, load_format, seed)
    names = Switches.names() if switches is None else switches.replace(" ", "").split(",")
    names = [] if names == ["none"] else [name for name in names if name]
    chosen = switches_of(names, gpu=is_gpu(where))
    shapes = ModelShapes.from_folder(model)
    passages, title = text_of(
        model,
        text,
        vocab_size=shapes.vocab_size,
        context=shapes.max_position_embeddings,
        limit=limit,
    )
    steps = Steps.sized(len(passages), gpu=is_gpu(where), **options)
    with Console(stderr=True).status("reference") as status:
        compiled = compiling(model, form, steps, context_of(passages), where)
        reference = Reference.of(model, passages, where, form)
        served = load(model, where, form)
        status.update("plain torch")
        rounding = reference.rounding(served)
        compiled()
        found = {}
        measured = builds(chosen)
        for number, (name, each) in enumerate(measured.items(), 1):
            status.update(f"{name} ({number} of {len(measured)})")
            found[name] = reference.measure(served, each, steps)
    limits = Limits.over(rounding)
    limits = Limits(
        kl=limits.kl if max_kl is None else max_kl,
        agreement=limits.agreement if min_agreement is None else min_agreement,
    )
    passed = all(limits.passed(each) for each in found.values())
    if as_json:
        report = {
            "model": model.name,
            "device": where.type,
            "dtype": dtype,
            "quantization": "fp8" if served.weights.quantized else "none",
            "text": title,
            "passages": len(passages),
            "perplexity": reference.perplexity,
            "plain_torch": asdict(rounding),
            "limits": asdict(limits),
            "builds": [
                {"name": name, **asdict(each), "passed": limits.passed(each)}
                for name, each in found.items()
            ],
            "passed": passed,
        }
        click.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        return int(not passed)
    print_table(_table(found, rounding, limits))
    click.echo(
        f"{rounding.tokens:,} tokens of {len(passages)} passages ({title}), whose perplexity is "
        f"{reference.perplexity:.4g} in float32.\n"
        f"Limits: KL {limits.kl:.2e} nats on average, {limits.agreement:.2%} the same token."
    )
    if len(chosen) < len(names):
        left = ", ".join(name for name in names if name not in chosen)
        click.echo(f"Without effect here, left out: {left}.")
    return int(not passed)


def _table(found: dict[str, Divergence], rounding: Divergence, limits: Limits) -> Table:
    table = Table("build")
    for name in ("KL mean", "99 %", "largest", "worst passage", "same token", "perplexity"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    table.add_row("plain torch", *_cells(rounding))
    table.add_section()
    for name, each in found.items():
        table.add_row(name, *_cells(each), "" if limits.passed(each) else "beyond the limits")
    return table


def _cells(each: Divergence) -> tuple[str, ...]:
    return (
        *(f"{nats:.2e}" for nats in (each.kl_mean, each.kl_p99, each.kl_max, each.worst_kl)),
        f"{each.agreement:.2%}",
        f"{each.perplexity:.4g}",
    )
