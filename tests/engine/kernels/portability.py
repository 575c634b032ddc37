"""Compiles every kernel as the engine launches it, for both GPUs, on a machine that has neither.

Run as a process without TRITON_INTERPRET; prints one JSON object for each kernel, shape and GPU.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from upcurve.engine.kernels import (
    block_scaled_product,
    block_scaled_rows,
    gated_delta_scan,
    mixing,
    paged_attention,
)
from upcurve.engine.kernels.causal_conv_kernels import (
    convolve_sequence_in_place,
    convolve_step_in_place,
)
from upcurve.engine.kernels.gated_delta_step import step_in_place

TARGETS = {"sm_90": GPUTarget("cuda", 90, 32), "gfx950": GPUTarget("hip", "gfx950", 64)}
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
Launch = tuple[JITFunction, tuple[Any, ...], dict[str, Any]]
launches: list[Launch] = []


def remember(function: JITFunction, /, *args: Any, **options: Any) -> None:
    launches.append((function, args, options))


def launch_everything(amd: bool) -> Iterator[tuple[str, Launch]]:
    """Call what the model calls, at the shapes of Qwen3.5-35B-A3B; yield the launches."""
    gated_delta_scan.is_amd = lambda: amd
    bf16, fp8 = torch.bfloat16, torch.float8_e4m3fn
    channels, heads, slots = 8192, 32, torch.zeros(64, dtype=torch.int64)

    def new(*size: int, dtype: torch.dtype = bf16) -> torch.Tensor:
        return torch.empty(size, dtype=dtype)

    def some(rows: int) -> dict[str, torch.Tensor]:
        wide = new(rows, channels + 2 * heads)
        names = dict(zip("ab", wide[:, channels:].split(heads, 1), strict=True))
        gates = {name: new(heads, dtype=torch.float32) for name in ("a_log", "dt_bias")}
        return {"qkv": wide[:, :channels], **names, **gates}

    def attend(batch: int, dtype: torch.dtype) -> None:
        pages = new(2, 16, 2, 256, dtype=dtype)
        tables = new(65, 512, dtype=torch.int32)
        lengths = new(batch, dtype=torch.int32)
        q = new(batch, 16, 256)
        paged_attention.attend_step_paged(q, pages, pages, tables, slots[:batch], lengths)

    def experts(tokens: int) -> None:
        rows, ends = tokens * 9, new(257, dtype=torch.int32)
        x, order = new(tokens, 2048), new(rows, dtype=torch.int64)
        quantized = block_scaled_rows.quantize_rows(x, order)
        block = {"dtype": torch.float32}
        block_scaled_product.grouped(
            *quantized, new(257, 1024, 2048, dtype=fp8), new(257, 8, 16, **block), ends, bf16
        )
        quantized = block_scaled_rows.silu_multiply_quantize(new(rows, 1024))
        block_scaled_product.grouped(
            *quantized, new(257, 2048, 512, dtype=fp8), new(257, 16, 4, **block), ends, bf16
        )
        block_scaled_product.grouped_plain(new(rows, 2048), new(257, 1024, 2048), ends)
        where = new(tokens, 9, dtype=torch.int64)
        mixing.mix(new(rows, 2048), where, new(tokens, 9, dtype=torch.float32))
        quantized = block_scaled_rows.quantize_rows(x)
        block_scaled_product.linear(
            *quantized, new(12288, 2048, dtype=fp8), new(96, 16, **block), bf16
        )

    states = {dtype: new(65, heads, 128, 128, dtype=dtype) for dtype in (torch.float32, bf16)}
    for title, work in {
        "convolution, a step": lambda: convolve_step_in_place(
            new(64, channels), new(65, 3, channels), slots, new(4, channels)
        ),
        "convolution, a sequence": lambda: convolve_sequence_in_place(
            new(64, channels), new(3, channels), new(4, channels)
        ),
        **{
            f"delta rule, a step of {rows}, {dtype}": lambda rows=rows, state=state: step_in_place(
                **some(rows), states=state, slots=slots[:rows], key_heads=16
            )
            for rows in (1, 64)
            for dtype, state in states.items()
        },
        "delta rule, a sequence": lambda: gated_delta_scan.scan(
            **some(200), state=states[torch.float32][0], key_heads=16
        ),
        **{
            f"attention, {batch}, {dtype}": lambda batch=batch, dtype=dtype: attend(batch, dtype)
            for batch in (1, 64)
            for dtype in (bf16, fp8)
        },
        **{f"experts, {n} tokens": lambda n=n: experts(n) for n in (1, 64, 2048)},
    }.items():
        launches.clear()
        work()
        for launch in launches:
            yield title, launch


def source_of(launch: Launch) -> tuple[ASTSource, dict[str, int]]:
    """Return what is compiled, and the options of the launch."""
    kernel, args, options = launch
    given = dict(zip(kernel.arg_names, args, strict=False))
    given |= {name: value for name, value in options.items() if name in kernel.arg_names}
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name] = "constexpr"
            constants[index,] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
            if isinstance(value, int) and value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    wanted = ("num_warps", "num_stages")
    return source, {name: options[name] for name in wanted if name in options}


def spilled(compiled: Any, architecture: str) -> int:
    """Return the bytes (NVIDIA) or registers (AMD) that did not fit and go through memory."""
    if architecture != "sm_90":
        text = compiled.asm["amdgcn"]
        return sum(map(int, re.findall(r"[sv]gpr_spill_count:\s*(\d+)", text)))
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.asm["ptx"])
        file.flush()
        done = subprocess.run(
            [assembler, "-v", "--gpu-name", "sm_90a", "-o", "/dev/null", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    return sum(map(int, re.findall(r"(\d+) bytes spill stores", done.stderr)))


def main() -> None:
    JITFunction.run = remember
    for architecture, target in TARGETS.items():
        done = set()
        for title, launch in launch_everything(amd=architecture == "gfx950"):
            source, options = source_of(launch)
            key = (source.hash(), str(options))
            if key in done:
                continue
            done.add(key)
            compiled = triton.compile(source, target=target, options=options)
            facts = {
                "kernel": launch[0].__name__,
                "title": title,
                "architecture": architecture,
                "shared": compiled.metadata.shared,
                "spilled": spilled(compiled, architecture),
            }
            sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
