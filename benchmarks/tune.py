"""Finds launch parameters on the GPU that is there, and keeps them in upcurve/engine/tuned.

    python benchmarks/tune.py                                           prints what it finds
    python benchmarks/tune.py dense --by "A. Name" --tokens 1,16,64     and writes it to the file

Operations run as the engine calls them. What their dispatch asks of `upcurve.engine.tuning` is
tuned: from what its rule chooses, one parameter at a time is halved or doubled (stages: one less,
one more) for as long as that is faster. A candidate is timed as replays of one graph, whose calls
together exceed the GPU's cache many times over, and only where its result is that of the rule but
for rounding; what does not compile or fit is left out. At the end the rule and the fastest take
turns: a line of the table, and an entry of the file, is the median of those turns. Entries of other
shapes stay in the file.
"""

import argparse
import datetime
import math
import platform
import re
import shlex
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from gpu_timing import compile_in_time

from upcurve.engine import tuning
from upcurve.engine.kernels import block_scaled, experts
from upcurve.engine.kernels.paged_attention import attend_step_paged
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

COLD_BYTES, MOST_CALLS = 2**28, 32
LONGEST_COMPILATION = 25
"""Seconds for what rules choose and its neighbours, on all cores."""
TURNS = 7
LEAST_GAIN = 0.98
"""Of the time: what is no faster than that is noise."""
TOLERANCE = 2e-2
"""Of the norm of the difference to the rule's result: sums in another order, rounded to bf16."""
CONTEXT, PAGE_SIZE = 8192, 16


@dataclass
class Case:
    """Calls of one operation at one shape, each on memory of its own."""

    name: str
    calls: list


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=", ".join(OPERATIONS))
    parser.add_argument("--tokens", default="1,16,64,256")
    parser.add_argument("--model", type=Path, default="models/qwen35-35b-a3b")
    parser.add_argument(
        "--seconds", type=float, default=45, help="of all, a share for each operation"
    )
    parser.add_argument("--by", help="who measures; without it nothing is written")
    parser.add_argument("--out", type=Path, help="another file than the chip's own")
    arguments = parser.parse_args()
    arguments.operations = arguments.operations or list(OPERATIONS)
    for operation in arguments.operations:
        if operation not in OPERATIONS:
            parser.error(f"{operation!r} is none of {', '.join(OPERATIONS)}")
    if arguments.by:
        import upcurve.engine.tuning_file  # noqa: F401  what is missing is missed before it is measured
    shapes = ModelShapes.from_folder(arguments.model)
    counts = [int(each) for each in arguments.tokens.split(",")]
    if HAS_TRITON and not INTERPRETED:
        compile_in_time(
            lambda: launches(arguments.operations, shapes, counts), "sm_90", LONGEST_COMPILATION
        )
    if not torch.cuda.is_available() or not HAS_TRITON or INTERPRETED:
        raise SystemExit("this measures a GPU: it needs one, Triton, and no TRITON_INTERPRET")
    torch.manual_seed(0)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}, {arguments}\n")
    print("| operation | shape | rule | us | fastest | us | tried |")
    print("|---|---|---|---:|---|---:|---:|")
    begin, found = time.monotonic(), {}
    for number, operation in enumerate(arguments.operations, 1):
        deadline = begin + arguments.seconds * number / len(arguments.operations)
        for case in OPERATIONS[operation](shapes, counts):
            found.update(tuned(case, deadline, known=found))
    if not found:
        raise SystemExit("no dispatch asked for anything in that time: nothing to tune")
    if arguments.by:
        path = write(found, arguments, name)
        print(f"\n{len(found)} entries in {path}")


def launches(operations, shapes, counts):
    """Launch what rules choose, and its neighbours."""
    for operation in operations:
        for case in OPERATIONS[operation](shapes, counts):
            with tuning.trial() as trial:
                case.calls[0]()
                for key, rule in list(trial.asked.items()):
                    for trial.given[key] in neighbours(rule):
                        with suppress(AssertionError, triton.TritonError):
                            case.calls[0]()
                    del trial.given[key]


# What is tuned.


def dense(shapes, counts):
    """Yield products of FP8 rows and the dense weights of both mixers."""
    queries = shapes.num_attention_heads * shapes.head_dim
    keys = shapes.num_key_value_heads * shapes.head_dim
    hidden = shapes.hidden_size
    for columns, depth in {
        (2 * queries + 2 * keys, hidden): None,
        (hidden, queries): None,
        (shapes.conv_dim + shapes.value_dim, hidden): None,
        (hidden, shapes.value_dim): None,
    }:
        weights = [
            block_scaled.quantize_blocks(uneven(columns, depth))
            for _ in range(copies(columns * depth))
        ]
        for count in counts:
            x = normal(count, depth)
            for product in (block_scaled.linear, block_scaled.linear_shares):
                yield Case(
                    f"{product.__name__} {columns} x {depth}, {count} rows",
                    [lambda w=w, s=s, x=x, p=product: p(x, w, s) for w, s in weights],
                )


def grouped(shapes, counts):
    """Yield both products of FP8 experts, of tokens that choose evenly."""
    count, width, hidden = shapes.num_experts, shapes.moe_intermediate_size, shapes.hidden_size
    # As with a fused shared expert, which every token visits.
    gate_up = block_scaled.quantize_blocks(uneven(count + 1, 2 * width, hidden))
    down = block_scaled.quantize_blocks(uneven(count + 1, hidden, width))
    for tokens in counts:
        x = normal(tokens, hidden)
        chosen = [route(tokens, count, shapes.num_experts_per_tok) for _ in range(4)]
        yield Case(
            f"experts, {tokens} tokens",
            [
                lambda ids=ids, x=x: experts.experts_grouped(
                    x, ids, gate_up[0], down[0], gate_up[1], down[1]
                )
                for ids in chosen
            ],
        )


def attention(shapes, counts):
    """Yield paged decode attention of batches of one context, keys in bf16 and FP8."""
    heads, kv_heads, dim = shapes.num_attention_heads, shapes.num_key_value_heads, shapes.head_dim
    for batch in (each for each in counts if each <= 256):
        pages = batch * CONTEXT // PAGE_SIZE
        tables = torch.randperm(pages, dtype=torch.int32, device="cuda").view(batch, -1)
        slots = torch.arange(batch, device="cuda")
        lengths = torch.full((batch,), CONTEXT, dtype=torch.int32, device="cuda")
        q = normal(batch, heads, dim)
        for dtype in (torch.bfloat16, torch.float8_e4m3fn):
            size = pages * PAGE_SIZE * kv_heads * dim
            caches = [
                normal(2, pages, PAGE_SIZE, kv_heads, dim).to(dtype)
                for _ in range(copies(2 * size * dtype.itemsize))
            ]
            yield Case(
                f"attention, {batch} x {CONTEXT}, {dtype}",
                [
                    lambda cache=cache, given=(tables, slots, lengths), q=q: attend_step_paged(
                        q, *cache, *given
                    )
                    for cache in caches
                ],
            )


OPERATIONS = {"dense": dense, "experts": grouped, "attention": attention}


def normal(*size):
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def uneven(*size):
    """Weights of which no two blocks have one scale: who reads a wrong one is found out."""
    weight = normal(*size)
    for axis in (-2, -1):
        count = -(-size[axis] // 128)
        factors = torch.rand(count, device="cuda", dtype=torch.bfloat16) + 0.1
        factors = factors.repeat_interleave(128)[: size[axis]]
        weight *= factors.unsqueeze(-1) if axis == -2 else factors
    return weight


def copies(size):
    return min(MOST_CALLS, -(-COLD_BYTES // size))


def route(tokens, count, chosen):
    ids = torch.rand(tokens, count, device="cuda").topk(chosen).indices
    shared = torch.full((tokens, 1), count, device="cuda")
    return torch.cat([ids, shared], 1).to(torch.int32)


# How it is tuned.


def tuned(case, deadline, known):
    """Return key -> (fastest, its us, the rule, its us) of all that a case asks for."""
    found = {}
    with tuning.trial() as trial:
        expected = [call() for call in case.calls[:2]]
        for key, rule in list(trial.asked.items()):
            if key in known or time.monotonic() > deadline:
                continue
            search = Search(case, trial, key, expected, deadline)
            best = search.climb(rule)
            rule_us, best_us = search.turns(rule, best)
            if best_us > LEAST_GAIN * rule_us:
                best, best_us = rule, rule_us
            trial.given[key] = best
            found[key] = best, best_us, rule, rule_us
            operation, shape = key
            where = ", ".join(f"{name} {value}" for name, value in shape)
            print(
                f"| {operation} | {where} | {line(rule)} | {rule_us:.1f} | {line(best)} "
                f"| {best_us:.1f} | {len(search.times)} |",
                flush=True,
            )
    return found


class Search:
    """Looks for the fastest answer to one question of dispatch."""

    def __init__(self, case, trial, key, expected, deadline):
        self.case, self.trial, self.key = case, trial, key
        self.expected, self.deadline = expected, deadline
        self.times = {}

    def climb(self, best):
        """Return what no neighbour is faster than, or the fastest until the deadline."""
        self.time(best)
        waiting = list(neighbours(best))
        while waiting and time.monotonic() < self.deadline:
            each = waiting.pop(0)
            if each in self.times:
                continue
            self.time(each)
            if self.times[each] < LEAST_GAIN * self.times[best]:
                best, waiting = each, list(neighbours(each))
        return best

    def time(self, parameters):
        """Measure once; infinite where it does not compile, does not fit or is wrong."""
        self.trial.given[self.key] = parameters
        try:
            right = all(
                close(call(), expected)
                for call, expected in zip(self.case.calls, self.expected, strict=False)
            )
            self.times[parameters] = self.replay() if right else math.inf
        except (triton.TritonError, AssertionError):
            self.times[parameters] = math.inf

    def turns(self, *candidates):
        """Return the median us of each, measured in turns."""
        times = [[] for _ in candidates]
        for _ in range(TURNS):
            for each, collected in zip(candidates, times, strict=True):
                self.trial.given[self.key] = each
                collected.append(self.replay())
        return [statistics.median(each) for each in times]

    def replay(self):
        """Return microseconds of one call."""
        calls = self.case.calls * max(1, 8 // len(self.case.calls))
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        start.record()
        for _ in range(3):
            graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / (3 * len(calls))


def neighbours(parameters):
    """Yield what differs in one parameter, or makes tiles longer one way and shorter the other."""
    names = [field.name for field in fields(parameters)]
    for name in names:
        value = getattr(parameters, name)
        others = (value - 1, value + 1) if name == "stages" else (value // 2, 2 * value)
        yield from (replace(parameters, **{name: other}) for other in others if other > 0)
    if {"rows", "columns"} <= set(names):
        rows, columns = parameters.rows, parameters.columns
        yield replace(parameters, rows=2 * rows, columns=max(1, columns // 2))
        yield replace(parameters, rows=max(1, rows // 2), columns=2 * columns)


def close(out, expected):
    difference = (out.double() - expected.double()).norm()
    return bool(difference <= TOLERANCE * expected.double().norm())


def line(parameters):
    return ", ".join(str(value) for value in asdict(parameters).values())


# What is kept.


def write(found, arguments, hardware):
    """Merge what was found into the file of the chip; return its path."""
    from upcurve.engine.tuning_file import Entry, Measurement, Tuning

    chip = tuning.chip_of(torch.device("cuda"))
    own = tuning.file_of(chip)
    path = arguments.out or own
    source = next((each for each in (path, own) if each.exists()), None)
    before = Tuning.read(source) if source else Tuning(chip)
    today = datetime.datetime.now(datetime.UTC).date()
    name = next(
        name
        for name in (f"{today} {number}" for number in range(1, 1000))
        if name not in before.measurements
    )
    measurement = Measurement(
        by=arguments.by,
        date=today,
        hardware=f"1 x {hardware}",
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "triton": triton.__version__,
        },
        # Where it is written is no part of how it was measured.
        command=re.sub(r" --out \S+", "", "python benchmarks/tune.py " + shlex.join(sys.argv[1:])),
    )
    entries = [
        Entry(
            operation=operation,
            shape=dict(shape),
            parameters=asdict(best),
            microseconds=round(best_us, 2),
            rule_microseconds=round(rule_us, 2),
            measurement=name,
        )
        for (operation, shape), (best, best_us, _, rule_us) in found.items()
    ]
    before.merged(name, measurement, entries).write(path)
    return path


if __name__ == "__main__":
    main()
