"""`upcurve doctor`: what this machine lacks; which kernels fit which GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from upcurve.cli.doctor_checks import checks
from upcurve.cli.options import json_option, store_option
from upcurve.cli.tables import print_table

if TYPE_CHECKING:
    from upcurve.engine.portability.report import Finding

TARGETS = "sm_90,gfx950"
"""GPUs that kernels are compiled for where none is named."""


@click.command()
@click.option("--kernels", is_flag=True, help="Compile the engine's kernels; needs no GPU.")
@click.option(
    "--target",
    metavar="NAME,...",
    help=f"GPUs to compile for.  [default: {TARGETS}]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Whose config.json gives the shapes.  [default: Qwen3.5-35B-A3B; 397B-A17B on four GPUs]",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Every batch size of graphs, prompts up to 32,768 tokens, each switch off, float32, and "
    "other numbers of GPUs.",
)
@click.option("--variants", is_flag=True, help="A line for each compiled variant of a kernel.")
@store_option
@json_option
def command(
    kernels: bool,
    target: str | None,
    model: Path | None,
    every: bool,
    variants: bool,
    store: str,
    as_json: bool,
) -> int:
    """Say what this machine lacks to serve and record; with --kernels, whether all GPUs are served.

    --kernels runs the engine's steps on tensors without memory, compiles every variant of a kernel
    that they launch, and holds registers, shared memory and spills against what the GPU has.

    Ends with 1 where something is broken, or a kernel does not fit.

    \b
    Example:
      upcurve doctor
      upcurve doctor --kernels --target gfx950
      upcurve doctor --kernels --all --json
    """  # noqa: D301
    if not kernels:
        _refuse_without_kernels(every=every, variants=variants, model=model, target=target)
        return _machine(store, as_json)
    from upcurve.engine.portability import proof

    # Where standard error is a terminal: it takes a minute the first time.
    with Console(stderr=True).status("compiling"):
        found = proof.prove(target or TARGETS, model, every=every)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        print_table(_variants_table(found) if variants else _kernels_table(found))
        for each in found:
            for problem in each.problems:
                click.echo(f"{each.kernel} on {each.target}, {each.steps[0]}: {problem}")
    return int(any(each.problems for each in found))


def _refuse_without_kernels(**given: object) -> None:
    for name, value in given.items():
        if value:
            flag = "all" if name == "every" else name
            raise click.UsageError(f"--{flag} says what --kernels compiles; give --kernels too")


def _machine(store: str, as_json: bool) -> int:
    found = list(checks(store))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        table = Table("", "", "found", "mend", box=None, pad_edge=False)
        for each in found:
            table.add_row(each.name, each.state, each.found, each.mend)
        print_table(table)
    return int(any(each.state == "broken" for each in found))


NUMBERS = ("registers", "shared bytes", "spilled")


def _kernels_table(found: list[Finding]) -> Table:
    """Return a line for each kernel and GPU: the most that any variant takes."""
    table = _table("kernel", "GPU", "variants")
    groups: dict[tuple[str, str], list[Finding]] = {}
    for each in found:
        groups.setdefault((each.kernel, each.target), []).append(each)
    for (kernel, target), group in sorted(groups.items()):
        most = (
            max(getattr(each, name.replace(" ", "_")) or 0 for each in group) for name in NUMBERS
        )
        bad = sum(bool(each.problems) for each in group)
        accepted = "; ".join(sorted({each.accepted for each in group if each.accepted}))
        verdict = f"{bad} do not fit" if bad else "fits" + (f": {accepted}" if accepted else "")
        table.add_row(kernel, target, str(len(group)), *(f"{n:,}" for n in most), verdict)
    return table


def _variants_table(found: list[Finding]) -> Table:
    table = _table("kernel", "GPU", "launched by", "warps")
    for each in sorted(found, key=lambda each: (each.kernel, each.target)):
        more = len(each.steps) - 1
        table.add_row(
            each.kernel,
            each.target,
            each.steps[0] + (f" and {more} more" if more else ""),
            "" if each.warps is None else str(each.warps),
            *(
                "" if number is None else f"{number:,}"
                for number in (each.registers, each.shared_bytes, each.spilled)
            ),
            "; ".join(each.problems) or "fits" + (f": {each.accepted}" if each.accepted else ""),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns)
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    return table
