"""How a model is loaded and computed: options of every command that has an engine of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OPTIONS = (
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "bf16", "fp32"]),
        default="auto",
        show_default=True,
        help="auto: bf16 on a GPU, fp32 on the CPU.",
    ),
    click.option(
        "--quantization",
        type=click.Choice(["none", "fp8"]),
        default="none",
        show_default=True,
        help="fp8: quantise to blocks of 128 x 128 while loading. "
        "An FP8 checkpoint needs no option.",
    ),
    click.option(
        "--kv-cache-dtype",
        type=click.Choice(["auto", "fp8"]),
        default="auto",
        show_default=True,
        help="fp8: keys and values in half the memory, with scale 1.",
    ),
    click.option(
        "--state-dtype",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Of the recurrent state of Gated DeltaNet layers.",
    ),
    click.option(
        "--load-format",
        type=click.Choice(["auto", "dummy"]),
        default="auto",
        show_default=True,
        help="dummy: random weights from --seed; the folder needs config.json only.",
    ),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
