"""The power sampler against a known load: idle, then matrix products, on the first NVIDIA GPU.

    python benchmarks/gpu_power.py

The counter's energy and the integral of sampled power are two readings of one thing.
"""

import time

import torch

from upcurve.load.telemetry import GpuSampler

SIZE = 8192
IDLE_S, BUSY_S = 5, 8


def products(matrix, seconds):
    """Multiply for so long; return how many products were made."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()
        count += 20
    return count


def idle(_, seconds):
    time.sleep(seconds)
    return 0


def main():
    matrix = torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16)
    products(matrix, 0.5)  # the first ones choose their kernel
    print("| load | TFLOP/s | mean W | counter J | valid | throttled (share of samples) |")
    print("|---|---:|---:|---:|---|---|")
    for name, work, seconds in (("idle", idle, IDLE_S), ("bf16 products", products, BUSY_S)):
        time.sleep(2)
        sampler = GpuSampler.find((0,))
        if sampler is None:
            raise SystemExit("no GPU whose power can be read")
        sampler.start()
        start_ns = time.perf_counter_ns()
        count = work(matrix, seconds)
        end_ns = time.perf_counter_ns()
        gpu = sampler.stop().summary(start_ns, end_ns, None)["gpus"][0]
        rate = count * 2 * SIZE**3 / ((end_ns - start_ns) / 1e9) / 1e12
        reasons = ", ".join(f"{each['reason']} {each['share']:.0%}" for each in gpu["throttled"])
        print(
            f"| {name} | {rate:.0f} | {gpu['power_w']['mean']:.0f} | {gpu['energy_j']:.0f} "
            f"| {gpu['energy_valid']} | {reasons or '-'} |"
        )


if __name__ == "__main__":
    main()
