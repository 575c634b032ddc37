"""An engine from a checkpoint folder: what its memory may take, and what it runs on."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.runner import ModelRunner
from upcurve.engine.execute.turns import Turns
from upcurve.engine.execute.warm_up import warm_up
from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.memory.budget import Budget, budget, free_bytes
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.memory.memory import Memory
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.identity import check_same
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.ranks import ALONE, Ranks
from upcurve.engine.platform import runs_kernels
from upcurve.engine.schedule.scheduler import check_step
from upcurve.engine.switches import Switches

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
GRAPH_BYTES = 2**30
"""Kept for captured graphs: their pools and what the driver keeps for each."""
GPU_STEP_TOKENS, CPU_STEP_TOKENS = 8192, 2048
CPU_SHARE = 0.8
"""Share of the free memory of a CPU; the rest is for activations."""


def build_engine(
    folder: Path, options: EngineOptions, ranks: Ranks = ALONE, control: Control | None = None
) -> Engine:
    """Load a checkpoint folder, on the leader of a replica.

    Args:
        folder: of the checkpoint.
        options: of the engine; the same on every rank.
        ranks: among which this one is.
        control: its connections to the others.

    Raises:
        EngineInputError: an option or the checkpoint is unusable, or the memory does not do.
    """
    device = device_of(options)
    with _room():
        model = _load(folder, options, device, ranks)
        return engine_of(model, options, device, control=control)


def build_follower(
    folder: Path, options: EngineOptions, ranks: Ranks, control: Control
) -> ModelRunner:
    """Load what a rank has that does not lead: it computes what its leader launches.

    Raises:
        EngineInputError: as `build_engine`.
    """
    device = device_of(options)
    with _room():
        model = _load(folder, options, device, ranks)
        runner, _ = _runner(model, options, device, control)
        if is_gpu(device):
            _prepare(runner, options)
        return runner


def _load(folder: Path, options: EngineOptions, device: torch.device, ranks: Ranks) -> Model:
    check_step(_step_tokens(options, device), options.max_running_requests)
    cores = max(1, ((os.cpu_count() or 1) - 1) // options.layout.ranks)
    torch.set_num_threads(options.threads or cores)
    dtype = options.dtype if options.dtype != "auto" else ("bf16" if is_gpu(device) else "fp32")
    switches = Switches.without(options.off)
    # The others of a machine find on disk what one of them has compiled.
    ahead = compile_ahead(folder, options, device) if ranks.rank == 0 else None
    model = load_model(
        folder,
        device=device,
        dtype=DTYPES[dtype],
        switches=switches,
        load_format=options.load_format,
        seed=options.seed,
        quantization=options.quantization,
        ranks=ranks,
    )
    if switches.shared_expert_fusion and not model.shared_expert_fused and ranks.rank == 0:
        logger.warning("shared_expert_fusion is off: the shared expert has a size of its own")
    if ahead is not None and ahead.wait():
        logger.warning("kernels are compiled one by one: doing it ahead failed")
    check_same(model.weights, ranks)
    return model


def _least(ranks: Ranks, number: int, device: torch.device) -> int:
    """Return the least number of all ranks, which wait for each other."""
    return ranks.replicas.least(ranks.heads.least(number, device), device)


@contextmanager
def _room() -> Iterator[None]:
    """Say what to do where a GPU's memory does not hold what is loaded."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineInputError(
            "model",
            f"the GPU's memory does not hold it: {str(error).splitlines()[0]}",
            "use --quantization fp8, or lower --max-batch-tokens, --context-length or "
            "--memory-share",
        ) from error


def engine_of(
    model: Model,
    options: EngineOptions,
    device: torch.device,
    *,
    prepare: bool = True,
    control: Control | None = None,
) -> Engine:
    """Give a model its memory, and an engine; on a GPU compile and capture what it launches.

    Without `prepare` kernels are compiled when they are first needed, and nothing is captured.

    Raises:
        EngineInputError: the context length is over the model's, or the memory does not do.
    """
    runner, sizes = _runner(model, options, device, control)
    if prepare and is_gpu(device):
        _prepare(runner, options)
    return Engine(
        runner,
        Memory(
            max_running_requests=options.max_running_requests,
            token_capacity=sizes.token_capacity,
            page_size=options.page_size,
        ),
        vocab_size=model.shapes.vocab_size,
        end_of_sequence_ids=model.shapes.end_of_sequence_ids,
        context_length=_context_length(model, options),
        max_running_requests=options.max_running_requests,
        max_batch_tokens=_step_tokens(options, device),
        whole_prompts=options.role == "prefill",
        overlap=model.switches.host_overlap,
        check_memory=options.check_memory,
        description=sizes.describe(),
        turns=runner.turns,
    )


def _context_length(model: Model, options: EngineOptions) -> int:
    most = model.shapes.max_position_embeddings
    if (options.context_length or 1) > most:
        raise EngineInputError(
            "context-length", f"{options.context_length} is over the model's {most}", "lower it"
        )
    return options.context_length or most


def _runner(
    model: Model, options: EngineOptions, device: torch.device, control: Control | None
) -> tuple[ModelRunner, Budget]:
    """Give a model its memory; all ranks have room for as many tokens."""
    context_length = _context_length(model, options)
    types = CacheTypes.of(model.dtype, options.kv_cache_dtype, options.state_dtype)
    sizes = budget(
        model.shapes,
        types,
        max_running_requests=options.max_running_requests,
        context_length=context_length,
        page_size=options.page_size,
        available=_least(model.ranks, _available(model, types, options, device), device),
        max_kv_tokens=options.max_kv_tokens,
    )
    caches = _caches(model, types, sizes, context_length, device)
    ranks = model.ranks
    leads = control is not None and ranks.leads and ranks.replicas.size > 1
    turns = Turns(ranks, control) if leads and control is not None else None
    runner = ModelRunner(
        *(model, caches), device=device, seed=options.seed, control=control, turns=turns
    )
    return runner, sizes


def compile_ahead(
    folder: Path, options: EngineOptions, device: torch.device
) -> subprocess.Popen[bytes] | None:
    """Begin to compile on the cores that loading weights leaves idle; None where nothing is to."""
    # A loop over experts is launched as the numbers want it.
    if not runs_kernels(device) or not Switches.without(options.off).grouped_experts:
        return None
    # It needs Triton's compiler.
    from upcurve.engine.portability.ahead import begin

    return begin(folder, options, device, _step_tokens(options, device))


def _prepare(runner: ModelRunner, options: EngineOptions) -> None:
    model, device = runner.model, torch.device("cuda")
    # A loop over experts is launched as it runs, and takes its time.
    if model.switches.grouped_experts:
        warm_up(
            *(model, runner.caches),
            max_batch_tokens=_step_tokens(options, device),
            max_running_requests=options.max_running_requests,
        )
    if options.role == "prefill":
        # No step only decodes.
        return
    if model.capturable:
        runner.capture(options.max_running_requests)
    elif model.switches.cuda_graphs:
        logger.warning("cuda_graphs is off: what is off, or a shared GPU, needs the host in a step")


def is_gpu(device: torch.device) -> bool:
    """Return whether a device is an NVIDIA or AMD GPU."""
    return device.type == "cuda"


def _step_tokens(options: EngineOptions, device: torch.device) -> int:
    # So that a prompt of that length fits whole beside all that decode.
    prompts = GPU_STEP_TOKENS if is_gpu(device) else CPU_STEP_TOKENS
    if options.role == "prefill":
        # Nothing decodes.
        return options.max_batch_tokens or max(prompts, options.max_running_requests)
    return options.max_batch_tokens or prompts + options.max_running_requests


def device_of(options: EngineOptions) -> torch.device:
    """Return the device that options name.

    Raises:
        EngineInputError: it is a GPU, and torch sees none.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EngineInputError("device", "torch sees no GPU", "use --device cpu")
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def _caches(
    model: Model, types: CacheTypes, sizes: Budget, context_length: int, device: torch.device
) -> Caches:
    return Caches(
        model.shapes,
        types,
        slots=sizes.max_running_requests,
        pages=sizes.pages,
        page_size=sizes.page_size,
        pages_per_request=-(-context_length // sizes.page_size),
        device=device,
    )


def _available(
    model: Model, types: CacheTypes, options: EngineOptions, device: torch.device
) -> int:
    """Return the bytes that caches may take beside the weights and the activations of a step."""
    free = free_bytes(device)
    if not is_gpu(device):
        return int(free * CPU_SHARE / options.layout.ranks)
    total = torch.cuda.get_device_properties(device).total_memory
    # Logits, and a copy and the logarithms where all rows report log probabilities: float32.
    drawing = 3 * 4 * options.max_running_requests * model.shapes.vocab_size
    kept = GRAPH_BYTES + drawing + _activation_bytes(model, types, options, device)
    return int(free - (1 - options.memory_share) * total) - kept


def _activation_bytes(
    model: Model, types: CacheTypes, options: EngineOptions, device: torch.device
) -> int:
    """Run the largest prefill step once, and return what it held beside its caches."""
    context = options.context_length or model.shapes.max_position_embeddings
    count = min(_step_tokens(options, device), context)
    pages = -(-context // options.page_size)
    caches = Caches(
        model.shapes,
        types,
        slots=1,
        pages=pages,
        page_size=options.page_size,
        pages_per_request=pages,
        device=device,
    )
    everywhere = torch.arange(pages, device=device)
    caches.write_tables(everywhere, everywhere + 1)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    zeros = torch.zeros(count, dtype=torch.int64, device=device)
    positions = torch.arange(context - count, context, device=device)
    chunk = Chunk(0, count, context - count, 0)
    model.forward(ForwardBatch(zeros, positions, zeros, 0, 0, (chunk,), zeros[:1]), caches)
    return int(torch.cuda.max_memory_allocated(device)) - before
