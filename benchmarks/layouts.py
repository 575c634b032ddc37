"""Layouts on several GPUs: a sweep of each, all of them at equal interactivity, and their sums.

    python benchmarks/layouts.py                                      two GPUs, 35B shapes, FP8
    python benchmarks/layouts.py --layouts tp2,tp2ep2 --concurrency 4,32,128
    python benchmarks/layouts.py --device cpu --model small           the same on the CPU, to try it

A layout is tpN, epN and dpN put together: `tp2ep2` splits heads and experts over two GPUs, `dp2` is
two replicas behind a router, `dp2ep2` two replicas that share their experts; `p1d1` is one prefill
worker and one decode worker, `p1tp2d2` two GPUs that prefill together and two that decode on their
own; `tp2:peer_memory` is tp2 with that switch off (several: joined by +). Every layout is one
server (random weights) under the load client, closed loop, at each concurrency in turn; a row is
printed as soon as it is measured. Throughput is input and output tokens per second and GPU.

The second table reads each frontier at the same interactivities, and all of them pooled. The third
times the sums over the ranks of a tp layout by themselves, on rows as wide as the model, each with
the residual and the norm behind it: no sum, all-reduce (fused_all_reduce off), the gather that is
summed where the norm is (peer_memory off), and parts written into each other's memory; on GPUs as
captured graphs. "ms a step" is what the fastest takes beyond no sum, for all sums of a decode step;
"of a step" its share of the time between two tokens that was measured at this concurrency.
"""

import argparse
import csv
import json
import multiprocessing
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from engine_vs_transformers import FULL_SIZE

from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.seat import Seat
from upcurve.frontier.interpolation import Curve
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.load.arrivals import ClosedLoop
from upcurve.load.session import Session, Settings
from upcurve.load.target import Target
from upcurve.load.workload import SyntheticWorkload
from upcurve.sweep.engine_process import EngineError, EngineProcess, free_port

HOST = "127.0.0.1"
REPEATS = 30
WAYS = ("norm", "all-reduce", "gather", "memory")
HARDWARE = {"cuda": "H200", "cpu": "CPU"}
MODELS = {"35b": ("Qwen3.5-35B-A3B", "fp8"), "small": ("small", "fp32")}
COLUMNS = (
    "series measured_on hardware engine model precision isl osl tp ep dp gpus prefill_gpus "
    "decode_gpus concurrency tput_per_gpu interactivity ttft_ms tpot_ms"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="35b", choices=["small", "35b"])
    parser.add_argument("--layouts", default="tp1,tp2,tp2ep2,dp2,dp2ep2,p1d1")
    parser.add_argument("--concurrency", help="[default: 4,16,64,128; on the CPU 1,4]")
    parser.add_argument("--isl", type=int, help="[default: 8192; on the CPU 64]")
    parser.add_argument("--osl", type=int, help="[default: 1024; on the CPU 16]")
    parser.add_argument("--requests-per-stream", type=int, default=1)
    parser.add_argument("--at", default="10,20,40,60,80", help="tokens/s per user of the table")
    parser.add_argument("--off", default="", help="switches to turn off in all layouts")
    parser.add_argument("--csv", type=Path, help="write the points for `upcurve import`")
    parser.add_argument("--seconds", type=float, default=1e9, help="then no point is begun")
    parser.add_argument("--no-sums", action="store_true", help="leave the third table out")
    arguments = parser.parse_args()
    arguments.deadline = time.monotonic() + arguments.seconds
    gpu = arguments.device == "cuda"
    arguments.isl = arguments.isl or (8192 if gpu else 64)
    arguments.osl = arguments.osl or (1024 if gpu else 16)
    chosen = arguments.concurrency or ("4,16,64,128" if gpu else "1,4")
    arguments.concurrency = [int(each) for each in chosen.split(",")]
    layouts = {name: layout_of(name.split(":")[0]) for name in arguments.layouts.split(",")}
    config = FULL_SIZE if arguments.model == "35b" else small_config()
    points = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config))
        print(
            f"{'layout':16s} {'GPUs':>4s} {'conc':>5s} {'tok/s/GPU':>10s} {'tok/s/user':>10s}",
            end="",
        )
        print(f" {'TTFT ms':>9s} {'TPOT ms':>8s} {'ready s':>8s} {'failed':>6s}", flush=True)
        for name, layout in layouts.items():
            rows = points.setdefault(name, [])
            try:
                with free_port(HOST) as port:
                    for row in sweep(name, layout, model, Path(folder), port, arguments):
                        rows.append(row)
                        # Whatever ends this, what was measured is there.
                        if arguments.csv:
                            write_csv(arguments, layouts, points)
            except EngineError as error:
                print(f"{name:16s} {error}", flush=True)
    at_equal_interactivity(points, [float(each) for each in arguments.at.split(",")])
    widths = sorted({layout.tp for layout in layouts.values() if layout.tp > 1})
    for tp in [] if arguments.no_sums else widths:
        tpot = {row["concurrency"]: row["tpot"] for row in points.get(f"tp{tp}", [])}
        sums(tp, ModelShapes.from_config(config), gpu, tpot)


@dataclass(frozen=True)
class Apart:
    """Prefill workers and decode workers, each over so many GPUs."""

    prefill_workers: int
    prefill_tp: int
    decode_workers: int
    decode_tp: int
    tp, ep, dp = 1, 1, 1

    @property
    def prefill_gpus(self):
        """GPUs of all prefill workers."""
        return self.prefill_workers * self.prefill_tp

    @property
    def decode_gpus(self):
        """GPUs of all decode workers."""
        return self.decode_workers * self.decode_tp

    @property
    def ranks(self):
        """All GPUs."""
        return self.prefill_gpus + self.decode_gpus

    @property
    def options(self):
        """Of `upcurve serve`."""
        names = ("prefill-workers", "prefill-tp", "decode-workers", "decode-tp")
        numbers = (
            *(self.prefill_workers, self.prefill_tp),
            *(self.decode_workers, self.decode_tp),
        )
        pairs = zip(names, numbers, strict=True)
        return [word for name, number in pairs for word in (f"--{name}", str(number))]


def layout_of(name):
    """Return the layout that a name such as tp2ep2 or p1d1 says."""
    apart = re.fullmatch(r"p(\d+)(?:tp(\d+))?d(\d+)(?:tp(\d+))?", name)
    if apart is not None:
        return Apart(*(int(each or 1) for each in apart.groups()))
    sizes = re.fullmatch(r"(?:tp(\d+))?(?:dp(\d+))?(?:ep(\d+))?", name)
    if not name or sizes is None:
        sys.exit(f"{name!r} is no layout: write e.g. tp2, tp2ep2, dp2, dp2ep2 or p1d1")
    tp, dp, ep = (int(each or 1) for each in sizes.groups())
    return Layout(tp, ep, dp)


def sweep(name, layout, model, folder, port, arguments):
    """Measure one layout at every concurrency; yield its rows."""
    largest = max(arguments.concurrency)
    replicas = layout.decode_workers if isinstance(layout, Apart) else layout.dp
    per_replica = -(-largest // replicas) if replicas > 1 else largest
    if isinstance(layout, Apart):
        sizes = layout.options
    else:
        sizes = ["--tp", str(layout.tp), "--ep", str(layout.ep), "--dp", str(layout.dp)]
    command = [
        *(sys.executable, "-m", "upcurve", "serve", str(model)),
        *("--host", HOST, "--port", str(port), "--served-model-name", "model"),
        *("--load-format", "dummy", "--device", arguments.device),
        *("--off", ",".join([arguments.off, *name.split(":")[1:]]).replace("+", ",")),
        *("--context-length", str(arguments.isl + arguments.osl + 256)),
        # A router is not exact: one replica may have more than its part.
        *("--max-running-requests", str(max(1, per_replica + per_replica // 4))),
        *sizes,
    ]
    if arguments.model == "35b":
        command += ["--quantization", "fp8"]
    target = Target(f"http://{HOST}:{port}", "model")
    with EngineProcess(command, dict(os.environ), folder / f"{name}.log") as engine:
        ready = engine.wait_until_ready(HOST, port, "/health", 600)
        with Session(target, Settings(gpus=layout.ranks, timeout_s=600)) as session:
            session.probe(workload(arguments, "probe"))
            for concurrency in arguments.concurrency:
                if time.monotonic() > arguments.deadline:
                    print(f"{name:16s} {concurrency} and more: left out", flush=True)
                    return
                found = session.point(
                    workload(arguments, f"c{concurrency}"),
                    ClosedLoop(concurrency, requests=concurrency * arguments.requests_per_stream),
                    # The server is warm for the points after the first.
                    warmup=min(concurrency, 4) if concurrency == arguments.concurrency[0] else 0,
                )
                engine.check()
                figures = found.figures
                row = {
                    "concurrency": concurrency,
                    "tput_per_gpu": figures["tput_per_gpu"],
                    "interactivity": figures["interactivity"],
                    "ttft": figures["ttft_ms"]["p50"],
                    "tpot": figures["tpot_ms"]["p50"],
                }
                print(f"{name:16s} {layout.ranks:4d} {concurrency:5d}", end="")
                for key, width, digits in (
                    *(("tput_per_gpu", 10, 0), ("interactivity", 10, 1)),
                    *(("ttft", 9, 0), ("tpot", 8, 2)),
                ):
                    value = row[key]
                    text = "-" if value is None else f"{value:,.{digits}f}"
                    print(f" {text:>{width}s}", end="")
                print(f" {ready:8.0f} {figures['failed']:6d}", flush=True)
                if row["tput_per_gpu"] and row["interactivity"]:
                    yield row


def workload(arguments, salt):
    return SyntheticWorkload.exact(
        arguments.isl, arguments.osl, seed=0, vocabulary=(256, 1280), salt=salt
    )


def write_csv(arguments, layouts, points):
    """Write what `upcurve import` takes: one series for each layout."""
    with arguments.csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS.split())
        for name, rows in points.items():
            layout = layouts[name]
            for row in rows:
                writer.writerow(
                    [
                        *(name, time.strftime("%Y-%m-%d"), HARDWARE[arguments.device], "upcurve"),
                        *MODELS[arguments.model],
                        *(arguments.isl, arguments.osl, layout.tp, layout.ep, layout.dp),
                        *(layout.ranks, getattr(layout, "prefill_gpus", "")),
                        *(getattr(layout, "decode_gpus", ""), row["concurrency"]),
                        *(row["tput_per_gpu"], row["interactivity"], row["ttft"], row["tpot"]),
                    ]
                )


def at_equal_interactivity(points, targets):
    """Print throughput per GPU of each layout's frontier, and of all pooled, at the targets."""
    pooled = [(name, row) for name, rows in points.items() for row in rows]
    series = {
        **{name: [(name, row) for row in rows] for name, rows in points.items()},
        "all": pooled,
    }
    print(f"\n{'tok/s/user':>10s} " + " ".join(f"{name:>15s}" for name in series))
    for target in targets:
        cells = []
        for rows in series.values():
            found = read_frontier([row for _, row in rows], target)
            cells.append("-" if found is None else f"{found:,.0f}")
        print(f"{target:10g} " + " ".join(f"{cell:>15s}" for cell in cells))


def read_frontier(rows, target):
    """Return throughput per GPU at an interactivity, None where the frontier does not reach it."""
    points = frontier(
        [Point(row["interactivity"], row["tput_per_gpu"], 1, 1, row["concurrency"]) for row in rows]
    )
    if not points:
        return None
    x, y = ([getattr(each, name) for each in points] for name in ("interactivity", "tput_per_gpu"))
    return Curve.through(x, y).at(target).value


def sums(tp, shapes, gpu, tpot):
    """Print what the sums over the ranks take."""
    batches = sorted({1, 8, 32, 128, 256, 512, 1024, *tpot})
    with socket.create_server((HOST, 0)) as listener:
        seats = [Seat(rank, tp, rank, HOST, listener.getsockname()[1]) for rank in range(tp)]
        context = multiprocessing.get_context("spawn")
        answers, answer = context.Pipe(duplex=False)
        ranks = [
            context.Process(
                target=time_sums,
                args=(seat, None if seat.rank else listener, shapes, batches, gpu, answer),
            )
            for seat in seats
        ]
        for rank in ranks:
            rank.start()
    while not answers.poll():
        connection.wait([answers, *[rank.sentinel for rank in ranks if rank.exitcode is None]])
        if any(rank.exitcode for rank in ranks):
            # The others wait for it for ever.
            for rank in ranks:
                rank.kill()
            sys.exit(f"tp{tp}: a rank ended, see above")
    found = answers.recv()
    for rank in ranks:
        rank.join()
    count = 2 * shapes.num_layers
    print(f"\ntp{tp}: {count} sums of [rows, {shapes.hidden_size}] a step, with norm; us each")
    heads = (*WAYS, "ms a step", "of a step")
    print(f"{'rows':>6s} " + " ".join(f"{head:>10s}" for head in heads))
    for rows, ways in found.items():
        cells = ["-" if took is None else f"{took:.1f}" for took in ways]
        step = count * (min(took for took in ways[1:] if took is not None) - ways[0]) / 1e3
        cells += [f"{step:.3f}", f"{step / tpot[rows]:.0%}" if tpot.get(rows) else "-"]
        print(f"{rows:6d} " + " ".join(f"{cell:>10s}" for cell in cells))


def time_sums(seat, listener, shapes, batches, gpu, answer):
    """Time all ways to sum, on one rank: us, None where there is no such way."""
    import torch

    from upcurve.engine.kernels import rms_norm
    from upcurve.engine.model.joining import reaches
    from upcurve.engine.parallel.boxes import open_boxes
    from upcurve.engine.parallel.rendezvous import meet
    from upcurve.engine.switches import Switches

    ranks, _ = meet(seat, Layout(seat.ranks), gpu=gpu, lost=lambda _: None, listener=listener)
    on_gpu = gpu and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    heads, width, peers = ranks.heads, shapes.hidden_size, None
    if reaches(heads, Switches(), device):
        peers = open_boxes(heads, width, dtype, device, rows=max(batches))
    weight = torch.ones(width, device=device)
    found = {}
    for rows in batches:
        # However often it is added up in place, it stays a number.
        x = torch.zeros(rows, width, device=device, dtype=dtype)
        residual = torch.zeros_like(x)

        def add(update, residual=residual, **options):
            return rms_norm.add_norm(residual, update, weight, 1e-6, **options)

        def gathered(x=x):
            return heads.gather(x).view(heads.size, *x.shape).transpose(0, 1)

        ways = (
            lambda x=x, add=add: add(x),
            lambda x=x, add=add: add(heads.add_up(x)),
            lambda gathered=gathered, add=add: add(gathered()),
            None if peers is None else lambda x=x, add=add: add(x, peers=peers),
        )
        found[rows] = [None if way is None else time_one(way, ranks, on_gpu) for way in ways]
    if seat.rank == 0:
        answer.send(found)


def time_one(way, ranks, on_gpu):
    """Return the median time of one call in us."""
    import torch

    calls = 16
    for _ in range(3):
        way()
    if not on_gpu or not ranks.capturable:
        took = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            way()
            if on_gpu:
                torch.cuda.synchronize()
            took.append(time.perf_counter() - started)
        return statistics.median(took) * 1e6
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for _ in range(calls):
            way()
    took = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        took.append(begin.elapsed_time(end) * 1e3 / calls)
    return statistics.median(took)


if __name__ == "__main__":
    main()
