"""What a decode step has to read, and when prefill and decode apart would win: by arithmetic.

    python benchmarks/apart.py

The model is Qwen3.5-35B-A3B in FP8 with keys and values in bf16. "Must read" are the bytes of a
step (`upcurve.limits`) at the speed of a copy. The second table takes measured steps and one
measured prompt (benchmarks/one_gpu.py; options replace them): between them steps are interpolated,
beyond the largest they take what they must read, times what the largest takes of that. Steady
state: on one GPU every user waits for the prompts of the others; apart, a step is interrupted by
none. "1 + 1" is one GPU for prompts and one for outputs, "fitting" as many for prompts as they
need. Throughput is input and output tokens per second and GPU.
"""

import argparse

import numpy as np

from upcurve.limits.shape import shape_of
from upcurve.limits.step import decode_bytes

SHAPE = shape_of("Qwen3.5-35B-A3B")
STREAMS = [2 ** (power / 8) for power in range(72)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default="1:1.74,8:4.34,16:6.30,64:13.32", help="streams:ms")
    parser.add_argument("--prompt", type=float, default=93.0, help="ms")
    parser.add_argument("--copy", type=float, default=4.24, help="TB/s")
    parser.add_argument("--isl", type=int, default=8192)
    parser.add_argument("--osl", type=int, default=1024)
    parser.add_argument("--at", default="25,40,50,80,160,300", help="tok/s/user")
    costs = Costs(parser.parse_args())
    print("\n| streams | step, ms | must read, ms | times that |")
    print("|---:|---:|---:|---:|")
    for streams, step in zip(costs.streams, costs.steps, strict=True):
        least = costs.must_read(streams)
        print(f"| {streams:g} | {step:.2f} | {least:.2f} | {step / least:.1f} |")
    print("\n| tok/s/user | one GPU, tok/s/GPU | 1 + 1 | ratio | fitting | ratio |")
    print("|---:|---:|---:|---:|---:|---:|")
    for target in map(float, costs.arguments.at.split(",")):
        one, pair, fitting = (
            costs.at(way, target) for way in (costs.one_gpu, costs.one_and_one, costs.fitting)
        )
        print(
            f"| {target:g} | {one:,.0f} | {pair:,.0f} | {pair / one:.2f} "
            f"| {fitting:,.0f} | {fitting / one:.2f} |"
        )


class Costs:
    """What steps and prompts take."""

    def __init__(self, arguments):
        self.arguments = arguments
        pairs = [each.split(":") for each in arguments.steps.split(",")]
        self.streams, self.steps = (
            [float(each) for each in column] for column in zip(*pairs, strict=True)
        )
        self.prompt = arguments.prompt / 1e3
        self.tokens, self.more = arguments.isl + arguments.osl, arguments.osl - 1

    def must_read(self, streams, context=None):
        """Return the ms of a step's bytes."""
        context = self.arguments.isl if context is None else context
        wider = SHAPE.kv_heads * (SHAPE.kv_bytes("bf16") - SHAPE.kv_bytes("fp8"))
        moved = decode_bytes(SHAPE, "fp8", 1, streams, context) + streams * context * wider
        return moved / self.arguments.copy / 1e9

    def step(self, streams):
        """Return the seconds of a step in the middle of the output."""
        if streams <= self.streams[-1]:
            return float(np.interp(streams, self.streams, self.steps)) / 1e3
        over = self.steps[-1] / self.must_read(self.streams[-1])
        context = self.arguments.isl + self.arguments.osl / 2
        return over * self.must_read(streams, context) / 1e3

    def one_gpu(self, streams):
        """Return tok/s/user and tok/s/GPU where prompts and outputs share a GPU."""
        decode = self.more * self.step(streams)
        user = self.more / (decode + (streams - 1) * self.prompt)
        return user, streams * self.tokens / (streams * self.prompt + decode)

    def fitting(self, streams):
        """Return both where prompts have as many GPUs as they need."""
        return 1 / self.step(streams), self.one_gpu(streams)[1]

    def one_and_one(self, streams):
        """Return both with one GPU for each."""
        requests = min(1 / self.prompt, streams / (self.arguments.osl * self.step(streams)))
        return 1 / self.step(streams), requests * self.tokens / 2

    def at(self, way, target):
        """Return tok/s/GPU at an interactivity."""
        x, y = zip(*sorted(map(way, STREAMS)), strict=True)
        return float(np.interp(target, x, y, left=np.nan, right=np.nan))


if __name__ == "__main__":
    main()
