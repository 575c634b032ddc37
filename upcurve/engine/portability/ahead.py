"""Kernels compiled on all cores while weights are read; Triton finds them on disk afterwards.

A process of its own, since one that uses a GPU cannot be forked:

    python -m upcurve.engine.portability.ahead < request.json

Beside what it compiled it leaves a mark, by which the next engine of the same kind starts without.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import torch
import triton

from upcurve.engine import tuning
from upcurve.engine.execute.graphs import buckets
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.warm_up import (
    WarmUpStep,
    draw_in_all_ways,
    layers_of_each_kind,
    warm_up_steps,
)
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.portability.absent import absent_model
from upcurve.engine.portability.chips import Chip, as_if_on
from upcurve.engine.portability.compilation import fill_cache
from upcurve.engine.portability.fake import fake_tensors
from upcurve.engine.portability.launches import Launches, Variant
from upcurve.engine.switches import Switches

ENGINE = Path(__file__).parents[1]
PAGES = 1
"""Addresses do not depend on how many there are."""


class Request(msgspec.Struct, frozen=True):
    """What an engine is about to launch, and where."""

    folder: str
    """Of the model; of it config.json is read."""
    options: EngineOptions
    architecture: str
    name: str
    """Of the GPU, as its driver calls it."""
    multiprocessors: int
    warp: int
    max_batch_tokens: int


def begin(
    folder: Path, options: EngineOptions, device: torch.device, max_batch_tokens: int
) -> subprocess.Popen[bytes] | None:
    """Start compiling what `warm_up` and the graphs of an engine will launch on a GPU.

    None where that has been done: Triton finds it all on disk.
    """
    properties = torch.cuda.get_device_properties(device)
    amd = torch.version.hip is not None
    request = Request(
        folder=str(folder),
        options=options,
        architecture=properties.gcnArchName.partition(":")[0]
        if amd
        else f"sm_{properties.major}{properties.minor}",
        name=properties.name,
        multiprocessors=properties.multi_processor_count,
        warp=properties.warp_size,
        max_batch_tokens=max_batch_tokens,
    )
    if mark_of(request).exists():
        return None
    command = [sys.executable, "-m", __name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    # Where it has ended already, its exit code says so.
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(msgspec.json.encode(request))
    return process


def mark_of(request: Request) -> Path:
    """Return the file that says that all a request asks for is in Triton's cache.

    It lies in that cache, to go with it, and is called after all that the kernels depend on: the
    request, the model's config.json, launch parameters, the engine's source, and the compiler.
    """
    known = hashlib.sha256(msgspec.json.encode(request))
    config = Path(request.folder) / "config.json"
    tuned = os.environ.get(tuning.VARIABLE, "")
    sources = sorted(ENGINE.rglob("*.py")) + sorted(tuning.FOLDER.glob("*.json"))
    for file in (config, *([Path(tuned)] if Path(tuned).is_file() else []), *sources):
        known.update(file.read_bytes() if file.is_file() else b"-")
    known.update(f"{tuned} {torch.__version__} {triton.__version__}".encode())
    return Path(triton.knobs.cache.dir) / f"upcurve-{known.hexdigest()}"


def variants(request: Request, chip: Chip) -> dict[tuple[str, str], Variant]:
    """Return the kernels that an engine will launch: all forms, by what tells them apart."""
    options = request.options
    shapes = ModelShapes.from_folder(Path(request.folder))
    quantized = options.quantization == "fp8" or shapes.quantization is not None
    dtype = torch.float32 if options.dtype == "fp32" else torch.bfloat16
    context = options.context_length or shapes.max_position_embeddings
    steps = warm_up_steps(
        max_batch_tokens=request.max_batch_tokens,
        max_running_requests=options.max_running_requests,
    )
    steps += [WarmUpStep(rows, ()) for rows in buckets(options.max_running_requests)]
    shapes = replace(shapes, layer_types=shapes.layer_types[: layers_of_each_kind(shapes)])
    launches = Launches()
    with as_if_on(chip), launches.catch(), fake_tensors():
        switches = Switches.without(options.off)
        model = absent_model(shapes, dtype, switches, options.layout, quantized=quantized)
        device = model.weights.embedding.device
        caches = Caches(
            model.shapes,
            CacheTypes.of(dtype, options.kv_cache_dtype, options.state_dtype),
            slots=options.max_running_requests,
            pages=PAGES,
            page_size=options.page_size,
            pages_per_request=-(-context // options.page_size),
            device=device,
        )
        for step in steps:
            logits = model.forward(step.batch(0, device), caches)
        draw_in_all_ways(logits)
    return launches.variants


def main() -> None:
    """Compile what standard input asks for."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    backend = "hip" if request.architecture.startswith("gfx") else "cuda"
    chip = Chip(
        architecture=request.architecture,
        name=request.name,
        backend=backend,
        warp=request.warp,
        multiprocessors=request.multiprocessors,
        # Nothing is held against them here.
        shared_bytes=0,
        registers=0,
        grid=(0, 0, 0),
    )
    mark = mark_of(request)
    fill_cache(list(variants(request, chip).values()), chip)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


if __name__ == "__main__":
    main()
