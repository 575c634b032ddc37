"""The time of one accuracy gate: the shipped problems at some concurrencies.

    python benchmarks/accuracy_gate.py                                      # the harness alone
    python benchmarks/accuracy_gate.py --base-url URL --model NAME          # on a server

Without a server the questions go to one that answers each at once, in a process of its own:
what is left is what the harness costs. *CPU* is the harness's own, user and system.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import orjson
from aiohttp import web

from upcurve.accuracy.answers import AnswersFile
from upcurve.accuracy.evaluation import Setting, evaluate
from upcurve.accuracy.task import Task, problems
from upcurve.load.target import Target


def serve(port: int, answers: dict[str, str]) -> None:
    async def complete(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        question = asked["prompt"].rpartition("Question: ")[2].removesuffix("\nAnswer:")
        usage = {"prompt_tokens": len(asked["prompt"]) // 4, "completion_tokens": 50}
        value = {"choices": [{"text": answers[question], "finish_reason": "stop"}], "usage": usage}
        return web.Response(body=orjson.dumps(value), content_type="application/json")

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def gate(target: Target, task: Task, concurrency: int) -> dict[str, float]:
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        AnswersFile.begin(Path(folder), "x", {}) as file,
    ):
        found = evaluate(target, task, Setting(concurrency), file)
        tokens = sum(each["output_tokens"] or 0 for each in file.answers.values())
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": seconds,
        "cpu": cpu,
        "tokens": tokens,
        "score": found.score("strict"),
        "failed": found.failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url")
    parser.add_argument("--model", default="x")
    parser.add_argument("--concurrency", default="1,16,64")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    task = problems(limit=given.limit, max_tokens=given.max_tokens)
    url, server = given.base_url, None
    if url is None:
        url = "http://127.0.0.1:18431"
        answers = {item.question: f" {item.answer}" for item in task.items}
        server = multiprocessing.Process(target=serve, args=(18431, answers), daemon=True)
        server.start()
        time.sleep(2)
    try:
        levels = [int(each) for each in given.concurrency.split(",")]
        rounds = [
            {c: gate(Target(url, given.model), task, c) for c in levels}
            for _ in range(given.rounds)
        ]
    finally:
        if server is not None:
            server.terminate()
    print(f"{len(task.items):,} items, {given.rounds} rounds: median [lowest, highest]\n")
    print("| concurrency | seconds | items/s | output tok/s | CPU ms an item | score | no answer |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for level in levels:
        runs = [each[level] for each in rounds]
        times = sorted(run["seconds"] for run in runs)
        middle = statistics.median(times)
        tokens = statistics.median(run["tokens"] for run in runs)
        cpu = statistics.median(run["cpu"] for run in runs) / len(task.items) * 1000
        failed = sum(run["failed"] for run in runs)
        print(
            f"| {level} | {middle:.2f} [{times[0]:.2f}, {times[-1]:.2f}] "
            f"| {len(task.items) / middle:,.0f} | {tokens / middle:,.0f} | {cpu:.2f} "
            f"| {runs[0]['score']:.4f} | {failed} |"
        )


if __name__ == "__main__":
    main()
