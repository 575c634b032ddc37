"""Prefill and decode apart: the tokens of one engine, times, and what happens when workers die.

    python benchmarks/disaggregation.py                    on one GPU, which both share, or on two
    python benchmarks/disaggregation.py --model 35b        35B shapes, FP8, 8,192 tokens of prompt
    python benchmarks/disaggregation.py --device cpu       the same on the CPU, to try it

One server, and then a prefill and a decode worker for each transport, answer the same greedy
requests one after the other: their tokens have to be equal. A row is printed for each: time to
first token and between tokens (medians), and of a prompt that was handed over the time from asking
to its arrival, what of that computing did not hide, and its bytes. Then a decode worker and a
prefill worker are killed (SIGKILL) while prompts are on their way: whoever is left has to answer
all, and no memory may stay in use. In float32 (on the CPU, or --dtype fp32) the tokens have to be
the same there too; in bf16 the company of other prompts may change some.
"""

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from disaggregation_server import Server, descendants
from engine_vs_transformers import FULL_SIZE

ROOT = Path(__file__).parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="small", choices=["small", "35b"])
    parser.add_argument("--dtype", default="auto", choices=["auto", "fp32"])
    parser.add_argument("--isl", type=int, help="[default: 1000; of 35b 8192; on the CPU 256]")
    parser.add_argument("--osl", type=int, default=32)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--transfers", default="", help="[default: copy,tcp]")
    parser.add_argument("--no-kills", action="store_true")
    arguments = parser.parse_args()
    gpu = arguments.device == "cuda"
    arguments.gpus = torch.cuda.device_count() if gpu else 0
    longest = 8192 if arguments.model == "35b" else 1000
    arguments.isl = arguments.isl or (longest if gpu else 256)
    transfers = (arguments.transfers or "copy,tcp").split(",")
    with tempfile.TemporaryDirectory() as folder:
        model = ROOT / "models" / "small"
        if arguments.model == "35b":
            model = Path(folder) / "model"
            model.mkdir()
            (model / "config.json").write_text(json.dumps(FULL_SIZE))
        failures = measure(arguments, model, Path(folder), transfers)
    sys.exit(1 if failures else 0)


def measure(arguments, model, folder, transfers):
    """Print the table, kill workers; return what was not as it has to be."""
    prompts = draw(arguments.requests, arguments.isl)
    failures = []
    print(
        f"{'layout':12s} {'TTFT ms':>8s} {'TPOT ms':>8s} {'handed ms':>10s} {'exposed ms':>11s}",
        end="",
    )
    print(f" {'MB each':>8s} {'ready s':>8s}  tokens", flush=True)
    with Server(arguments, model, folder / "one") as server:
        server.ready()
        ready = time.monotonic() - server.started
        expected, ttft, tpot = run(server, prompts, arguments.osl)
        print(f"{'one engine':12s} {ttft:8.1f} {tpot:8.2f} {'-':>10s} {'-':>11s} {'-':>8s}", end="")
        print(f" {ready:8.0f}  -", flush=True)
    for transfer in transfers:
        with ExitStack() as stack:
            prefill, decode = pair(stack, arguments, model, folder, transfer)
            ready = time.monotonic() - prefill.started
            found, ttft, tpot = run(decode, prompts, arguments.osl)
            ours, theirs = decode.metrics(), prefill.metrics()
            count = theirs["transfers_done"]
            if not count:
                failures.append(f"{transfer}: nothing was handed over")
                count = 1
            handed, exposed = theirs["transfer_seconds"], theirs["transfer_exposed_seconds"]
            same = equal(found, expected)
            print(f"{'1 + 1 ' + transfer:12s} {ttft:8.1f} {tpot:8.2f}", end="")
            print(f" {handed / count * 1e3:10.1f} {exposed / count * 1e3:11.2f}", end="")
            print(f" {theirs['transfer_bytes'] / count / 1e6:8.2f} {ready:8.0f}", end="")
            print(f"  {same} of {len(expected)} equal", flush=True)
            if same < len(expected) or ours["local_prefills"]:
                failures.append(f"{transfer}: {same} equal, {ours['local_prefills']:g} local")
            if not arguments.no_kills:
                failures += kill(stack, arguments, model, folder, transfer, prefill, decode)
    for failure in failures:
        print(f"WRONG: {failure}")
    return failures


def pair(stack, arguments, model, folder, transfer):
    """Start a prefill and a decode worker, on the first and the second GPU if there are two."""
    options = ("--role", "prefill", "--transfer-port", "0", "--transfer", transfer)
    prefill = stack.enter_context(Server(arguments, model, folder / f"{transfer}-p", *options))
    address = prefill.find(r"decode workers connect to (\S+)")
    decode = decoder(stack, arguments, model, folder / f"{transfer}-d", transfer, address)
    return prefill.ready(), decode.ready()


def decoder(stack, arguments, model, log, transfer, address):
    """Start a decode worker, on the second GPU if there is one."""
    options = ("--role", "decode", "--prefill", address, "--transfer", transfer)
    return stack.enter_context(Server(arguments, model, log, *options, gpu=1))


def run(server, prompts, osl):
    """Return the tokens of all prompts, median time to first token and between tokens, in ms."""
    server.ask(prompts[0], osl)
    found = [server.ask(prompt, osl) for prompt in prompts]
    tokens, first, between = zip(*found, strict=True)
    return list(tokens), statistics.median(first) * 1e3, statistics.median(between) * 1e3


def draw(count, length, seed=0):
    """Return random prompts."""
    numbers = random.Random(seed)  # noqa: S311
    return [[numbers.randrange(259, 1100) for _ in range(length)] for _ in range(count)]


def kill(stack, arguments, model, folder, transfer, prefill, decode):
    """Kill the decode worker, then the prefill worker, under load; return what went wrong."""
    failures = []
    strict = arguments.device == "cpu" or arguments.dtype == "fp32"
    count = 6 if arguments.device == "cpu" else 16
    prompts = draw(count, 3 * arguments.isl, seed=1)
    expected = [decode.ask(prompt, 4)[0] for prompt in prompts]

    def load(server):
        """Ask for all prompts at once; return the threads and where the tokens go."""
        found = [None] * len(prompts)

        def ask(index):
            try:
                found[index] = server.ask(prompts[index], 4)[0]
            except (OSError, http.client.HTTPException):
                found[index] = None

        threads = [threading.Thread(target=ask, args=(each,)) for each in range(len(prompts))]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while not prefill.metrics()["transfers_in_flight"] and time.monotonic() < deadline:
            pass
        return threads, found

    pids = descendants(decode.process.pid)
    threads, _ = load(decode)
    decode.kill(pids)
    for thread in threads:
        thread.join()
    address = prefill.find(r"decode workers connect to (\S+)")
    second = decoder(stack, arguments, model, folder / f"{transfer}-d2", transfer, address).ready()
    second.connected(address)
    after = [second.ask(prompt, 4)[0] for prompt in prompts]
    told = prefill.metrics()
    used = {name: told[name] for name in ("transfers_kept", "kv_pages_used", "state_slots_used")}
    print(f"  decode worker killed: {equal(after, expected)} of {count} equal after it, ", end="")
    print(f"prefill worker holds {used}", flush=True)
    if after != expected or any(used.values()):
        failures.append(f"{transfer}: after the kill of a decode worker")
    pids = descendants(prefill.process.pid)
    threads, found = load(second)
    prefill.kill(pids)
    for thread in threads:
        thread.join()
    told = second.metrics()
    used = {name: told[name] for name in ("transfers_kept", "kv_pages_used", "state_slots_used")}
    print(f"  prefill worker killed: {equal(found, expected)} of {count} equal, ", end="")
    print(f"{told['local_prefills']:g} computed by the decode worker, it holds {used}", flush=True)
    if (strict and found != expected) or None in found or any(used.values()):
        failures.append(f"{transfer}: after the kill of a prefill worker")
    return failures


def equal(found, expected):
    """Return how many outputs are equal."""
    return sum(a == b for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
