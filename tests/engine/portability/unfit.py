"""Kernels that do not fit, compiled for a GPU; run as a process without TRITON_INTERPRET.

Prints what was found of each as JSON.
"""

import json
import sys
from dataclasses import asdict

import torch
import triton
import triton.language as tl

from upcurve.engine.portability import report
from upcurve.engine.portability.chips import CHIPS, as_if_on
from upcurve.engine.portability.fake import fake_tensors
from upcurve.engine.portability.launches import Launches


@triton.jit
def fits(x, size: tl.constexpr):
    place = tl.arange(0, size)
    tl.store(x + place, tl.load(x + place) + 1)


@triton.jit
def nvidia_only(x, size: tl.constexpr):
    place = tl.arange(0, size)
    value = tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [tl.load(x + place)], tl.float32, True, 1
    )
    tl.store(x + place, value)


@triton.jit
def much_shared(x, size: tl.constexpr):
    place = tl.arange(0, size)
    tl.store(x + place, tl.gather(tl.load(x + place), place ^ 77, 0))


@triton.jit
def spills(x, size: tl.constexpr):
    place = tl.arange(0, size)
    values = tl.load(x + place)
    tl.store(x + place, values - tl.sum(values, 0))


@triton.jit
def wrong(x, size: tl.constexpr):
    tl.store(x + tl.arange(0, size), tl.arange(0, size + 1))


def main() -> None:
    chip = CHIPS[sys.argv[1]]
    launches = Launches()
    with as_if_on(chip), launches.catch(), fake_tensors():
        x = torch.zeros(2**20, device="cuda")
        fits[(1, 70_000)](x, 128)
        fits[(3,)](x, 128)
        fits[(3,)](x[1:], 128)
        nvidia_only[(1,)](x, 128)
        much_shared[(1,)](x, 2**16, num_warps=16)
        spills[(1,)](x, 2**15, num_warps=1)
        wrong[(1,)](x, 128)
    findings = report.findings(chip, list(launches.variants.values()))
    sys.stdout.write(json.dumps([asdict(each) for each in findings]))


if __name__ == "__main__":
    main()
