"""What the benchmarks of kernels share: graph replays, ceilings of the GPU, errors, tables.

A time is that of one call within a replay of a graph of calls, each on memory of its own where a
floor is bandwidth, so that together they exceed the GPU's cache many times over. Ceilings are
measured in the same run: bytes a second of torch.add(source, 1, out=target), read and written, and
operations a second of a square product of torch. Every kernel is compiled before, on all cores,
from the same calls on tensors without memory. `--device cpu` under TRITON_INTERPRET=1 goes
through a benchmark with tiny shapes on a machine without a GPU: its times mean nothing.
"""

import argparse
import os
import signal
import statistics
import sys
import time
from multiprocessing import get_context
from unittest.mock import patch

import torch

from upcurve.engine.platform import HAS_TRITON, INTERPRETED, triton

COLD_BYTES, MOST_CALLS, FEWEST_CALLS = 2**29, 200, 4
LONGEST_COMPILATION = 60
"""Seconds."""
COPIED_BYTES, SQUARE = 2**30, 8192


class Run:
    """One run of a benchmark: where, until when, and the table that it prints."""

    def __init__(self, doc, launches, options=()):
        """Read the command line, compile what `launches(run)` launches, and say where it runs.

        Args:
            doc: of the benchmark.
            launches: makes every call once; None compiles nothing before.
            options: names, and arguments of `add_argument` that belong to the benchmark alone.
        """
        parser = argparse.ArgumentParser(description=doc.splitlines()[0])
        parser.add_argument("--repeats", type=int, default=7, help="replays of every graph")
        parser.add_argument("--seconds", type=float, default=20, help="then rows are left out")
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--chip", default="sm_90", help="to compile for; - compiles nothing")
        parser.add_argument("--only-compile", action="store_true", help="needs no GPU")
        for name, given in options:
            parser.add_argument(name, **given)
        self.arguments = parser.parse_args()
        self.begun = time.monotonic()
        self.repeats = self.arguments.repeats
        self.device = torch.device(self.arguments.device)
        torch.manual_seed(0)
        if self.rehearsed:
            rehearse()
            print(f"torch {torch.__version__} on the CPU, interpreted: times mean nothing")
            return
        if not HAS_TRITON or INTERPRETED:
            raise SystemExit("this needs Triton, and no TRITON_INTERPRET: or --device cpu with it")
        if self.arguments.only_compile:
            compile_ahead(lambda: launches(self), self.arguments.chip, report=True)
            raise SystemExit
        if launches and self.arguments.chip != "-":
            compile_in_time(lambda: launches(self), self.arguments.chip)
        if not torch.cuda.is_available():
            raise SystemExit("this measures a GPU: there is none; or --device cpu")
        print(
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
            f"triton {triton.__version__}: {' '.join(sys.argv)}; median [lowest, highest] of "
            f"{self.repeats}; ready after {self.elapsed():.0f} s"
        )

    @property
    def rehearsed(self):
        """Whether there is no GPU."""
        return self.device.type == "cpu"

    def elapsed(self):
        """Return the seconds since the command line was read."""
        return time.monotonic() - self.begun

    def table(self, *columns):
        """Begin a table: the first column is a label."""
        print("\n| " + " | ".join(columns) + " |\n|---" + "|---:" * (len(columns) - 1) + "|")

    def row(self, label, cells):
        """Print a row; an error is told in its place, and the next may do better."""
        if self.elapsed() > self.arguments.seconds:
            print(f"| {label} | left out: {self.arguments.seconds:.0f} s are over |", flush=True)
            return
        try:
            told = [f"{each:.0e}" if isinstance(each, float) else str(each) for each in cells()]
        except Exception as error:  # whatever it is, it is told
            told = [line(error)]
        print(f"| {label} | " + " | ".join(told) + " |", flush=True)

    def end(self):
        """Say how long all of it took."""
        print(f"\n{self.elapsed():.0f} s")

    def calls(self, size):
        """Return how many calls of so many bytes go beyond the cache."""
        return 2 if self.rehearsed else max(FEWEST_CALLS, min(MOST_CALLS, -(-COLD_BYTES // size)))

    def normal(self, *size):
        """Return bf16 of unit variance."""
        return torch.randn(size, device=self.device, dtype=torch.bfloat16)

    def measure(self, calls):
        """Return microseconds of one call, once for every replay of a graph of all.

        What calls return is kept until the graph ends: each writes to memory of its own.
        """
        if self.rehearsed:
            begin = time.perf_counter()
            for call in calls:
                call()
            return [(time.perf_counter() - begin) * 1e6 / len(calls)]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in calls:
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = [call() for call in calls]
        times = [self._elapsed(graph.replay) / len(calls) for _ in range(self.repeats)]
        del kept
        return times

    def _elapsed(self, action):
        """Return the microseconds that the GPU takes for an action right behind the same."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        action()
        start.record()
        action()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    def copy_bandwidth(self):
        """Return bytes a microsecond of an addition of 1 to 1 GiB, read and written; prints it."""
        if self.rehearsed:
            return 1.0
        source = torch.zeros(COPIED_BYTES // 4, device=self.device)
        target = torch.empty_like(source)
        times = [
            self._elapsed(lambda: torch.add(source, 1, out=target)) for _ in range(self.repeats + 1)
        ][1:]
        found = 2 * source.nbytes / statistics.median(times)
        print(f"torch.add(source, 1, out=target) of 1 GiB: {found / 1e3:.0f} GB/s", flush=True)
        return found

    def product_rate(self, dtype):
        """Return operations a microsecond of a square product in bf16 or FP8; prints it.

        Infinite where torch has none: bandwidth is the only floor then.
        """
        if self.rehearsed:
            return 1.0
        try:
            left, right = (self.normal(SQUARE, SQUARE).to(dtype) for _ in range(2))
            one = torch.ones((), device=self.device)

            def product():
                if dtype == torch.bfloat16:
                    return left @ right.t()
                return torch._scaled_mm(left, right.t(), one, one, out_dtype=torch.bfloat16)

            times = [self._elapsed(product) for _ in range(self.repeats + 1)][1:]
        except Exception as error:  # a ceiling less
            print(f"no product of {dtype}: {line(error)}", flush=True)
            return float("inf")
        found = 2 * SQUARE**3 / statistics.median(times)
        print(f"torch, {dtype}, {SQUARE} cubed: {found / 1e6:.0f} TFLOP/s", flush=True)
        return found


def compile_in_time(launches, chip, seconds=LONGEST_COMPILATION):
    """Compile ahead in a process of its own; what it leaves out is compiled when it is launched."""

    def work():
        os.setsid()
        compile_ahead(launches, chip)

    process = get_context("fork").Process(target=work)
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    if process.exitcode != 0:
        print("not all is compiled ahead", flush=True)


def compile_ahead(launches, architecture, *, report=False):
    """Fill Triton's cache on all cores, or also say what each kernel takes of the chip."""
    from torch._subclasses import fake_tensor

    from upcurve.engine.portability.chips import CHIPS, as_if_on
    from upcurve.engine.portability.compilation import compile_all, fill_cache
    from upcurve.engine.portability.fake import fake_tensors
    from upcurve.engine.portability.launches import Launches

    chip, caught = CHIPS[architecture], Launches()
    # Torch prepares the GPU for tensors without memory too; whoever has done so cannot be forked.
    without = patch.object(fake_tensor, "init_gpu_context", lambda _device: None, create=True)
    with without, as_if_on(chip), caught.catch(), fake_tensors():
        launches()
    variants = list(caught.variants.values())
    if not report:
        fill_cache([WithLauncher(each) for each in variants], chip)
        return
    for variant, taken in zip(variants, compile_all(variants, chip), strict=True):
        print(f"{variant.kernel}, grid {variant.grid}: {taken}")


class WithLauncher:
    """A kernel whose launcher, a program in C, is compiled with it."""

    def __init__(self, variant):
        self.variant = variant

    def compile(self):
        """Compile both."""
        compiled = self.variant.compile()
        if compiled.metadata.target.backend == "cuda":
            from triton.backends.nvidia.driver import CudaLauncher

            CudaLauncher(compiled.src, compiled.metadata)


def rehearse():
    """Let dispatch take the interpreted kernels on the CPU."""
    for name, module in list(sys.modules.items()):
        if name.startswith("upcurve.engine.kernels") and hasattr(module, "runs_kernels"):
            patch.object(module, "runs_kernels", lambda _device: True).start()


def line(error):
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def relative(got, wanted):
    """Return |got - wanted| / |wanted|."""
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


def spread(times):
    """Return the median, and between what."""
    return f"{statistics.median(times):.1f} [{min(times):.1f}, {max(times):.1f}]"


def share(floor, times):
    """Return a floor in microseconds as the share of the median."""
    return f"{floor / statistics.median(times):.0%}"
