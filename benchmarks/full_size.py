"""Qwen3.5-35B-A3B, full size, random weights, served over HTTP and measured with `upcurve bench`.

    python benchmarks/full_size.py --device cuda

Needs a GPU of about 96 GiB. The table is the bench's own; figures of the steady state, the power
of the GPU and the energy per output token stand beside it.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from engine_vs_transformers import FULL_SIZE

from upcurve.engine.model.checkpoint import small_config

HEADS = [
    "ISL/OSL",
    "streams",
    "requests",
    "TTFT ms",
    "TPOT ms",
    "tok/s/user",
    "tok/s/GPU",
    "W",
    "J/token",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--small", action="store_true", help="the demo's model, to try the script")
    parser.add_argument("--off", default="", help="switches to turn off")
    arguments = parser.parse_args()
    config = small_config() if arguments.small else small_config(**FULL_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [
            *("serve", folder, "--load-format", "dummy", "--port", str(port)),
            *("--device", arguments.device, "--dtype", arguments.dtype, "--off", arguments.off),
            *("--served-model-name", "model", "--max-running-requests", "64"),
            *("--context-length", "2048" if arguments.small else "10240"),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "4"}
        server = subprocess.Popen([sys.executable, "-m", "upcurve", *words], env=environment)
        try:
            wait(port, server)
            table(f"http://127.0.0.1:{port}", arguments.small)
        finally:
            server.terminate()
            server.wait()


def wait(port, server):
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the engine ended before it was ready")


def table(base_url, small):
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---:|" * len(HEADS))
    long = 1024 if small else 8192
    for isl, osl, streams, per_stream in (
        *((512, 32, each, 4) for each in (1, 8, 32, 64)),
        (long, 8, 1, 4),
    ):
        words = [
            *("bench", "--base-url", base_url, "--model", "model", "--json"),
            *("--isl", str(isl), "--osl", str(osl), "--concurrency", str(streams)),
            *("--requests-per-stream", str(per_stream)),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "upcurve", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        point = json.loads(done.stdout)
        power = point["power"] or {"gpus": [{"power_w": {"mean": None}}], "totals": {}}
        totals = power["totals"]
        energy = totals.get("joules_per_output_token") if totals.get("energy_valid") else None
        cells = [
            f"{isl}/{osl}",
            streams,
            point["requests"] - point["failed"],
            point["ttft_ms"]["p50"],
            point["tpot_ms"]["p50"],
            point["interactivity"],
            point["tput_per_gpu"],
            power["gpus"][0]["power_w"]["mean"],
            energy,
        ]
        print("| " + " | ".join(map(cell, cells)) + " |", flush=True)


def cell(value):
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
