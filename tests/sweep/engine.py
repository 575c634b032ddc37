"""A small engine of the OpenAI API for tests: every token takes the same time, and it can die.

python engine.py --port PORT [--token-ms 2] [--batch-ms 0] [--die-after N] [--fail-after N]
          [--hang-at N] [--serves MODEL] [--answers FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from aiohttp import web

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--token-ms", type=float, default=2.0)
parser.add_argument("--batch-ms", type=float, default=0.0, help="more a token for each in flight")
parser.add_argument("--die-after", type=int, help="be killed at this request (1 is the first)")
parser.add_argument("--fail-after", type=int, help="answer 500 from this request on")
parser.add_argument("--hang-at", type=int, help="answer nothing to this request and later ones")
parser.add_argument("--serves", help="answer 404 to any other model")
parser.add_argument("--note", type=Path, help="write this process's id there at each request")
parser.add_argument("--answers", type=Path, help="JSON: question -> answer to it as text")
options = parser.parse_args()
answers = json.loads(options.answers.read_text()) if options.answers else {}
numbers = itertools.count(1)
in_flight: set[int] = set()
most = [0]
"""Questions that were in flight at once."""


async def complete(request: web.Request) -> web.StreamResponse:
    count = next(numbers)
    try:
        return await answer(request, count)
    finally:
        in_flight.discard(count)  # a client may leave in the middle


async def answer(request: web.Request, count: int) -> web.StreamResponse:
    key = os.environ.get("UPCURVE_API_KEY")
    if key and request.headers.get("Authorization") != f"Bearer {key}":
        raise web.HTTPUnauthorized
    asked = await request.json()
    if options.serves and asked["model"] != options.serves:
        return web.json_response({"error": {"message": "no such model"}}, status=404)
    if options.note:
        with options.note.open("a") as file:
            print(os.getpid(), count, file=file)
    if options.die_after and count >= options.die_after:
        os.write(1, b"illegal memory access\n")
        os._exit(7)
    if options.hang_at and count >= options.hang_at:
        await asyncio.Event().wait()
    if options.fail_after and count >= options.fail_after:
        return web.json_response({"error": {"message": "out of pages"}}, status=500)
    if not asked.get("stream"):
        return await whole(asked, count)
    prompt, length = asked["prompt"], asked["max_tokens"]
    usage = {
        "prompt_tokens": len(prompt),
        "completion_tokens": length,
        "total_tokens": len(prompt) + length,
    }
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    due = time.monotonic()
    in_flight.add(count)
    for index in range(length):
        due += (options.token_ms + options.batch_ms * len(in_flight)) / 1000
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        choice = {
            "index": 0,
            "text": "x ",
            "token_ids": [index % 100],
            "finish_reason": "length" if index == length - 1 else None,
        }
        if index == length - 1:
            in_flight.discard(count)  # before the client knows and sends the next one
        await send(response, {"object": "text_completion", "choices": [choice]})
    await send(response, {"object": "text_completion", "choices": [], "usage": usage})
    await response.write(b"data: [DONE]\n\n")
    return response


async def whole(asked: dict[str, Any], count: int) -> web.Response:
    """Answer a question that is known, in one piece; a token is three characters."""
    chat = "messages" in asked
    last = asked["messages"][-1]["content"] if chat else asked["prompt"]
    question = last.rpartition("Question: ")[2].partition("\nAnswer:")[0]
    text = answers.get(question, " I do not know.")
    in_flight.add(count)
    most[0] = max(most[0], len(in_flight))
    await asyncio.sleep((options.token_ms + options.batch_ms * len(in_flight)) / 1000)
    in_flight.discard(count)
    for stop in asked["stop"]:
        text = text.partition(stop)[0]
    cut = len(text) > 3 * asked["max_tokens"]
    text = text[: 3 * asked["max_tokens"]]
    prompt = asked["messages"] if chat else asked["prompt"]
    length = sum(len(each["content"]) for each in prompt) if chat else len(prompt)
    usage = {"prompt_tokens": length // 3, "completion_tokens": len(text) // 3}
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, "finish_reason": "length" if cut else "stop", **said}
    return web.json_response({"object": "x", "choices": [choice], "usage": usage})


async def peak(_: web.Request) -> web.Response:
    return web.json_response({"most": most[0]})


async def send(response: web.StreamResponse, event: dict[str, object]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


async def health(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "small", "object": "model"}]})


app = web.Application()
app.add_routes(
    [
        web.get("/health", health),
        web.get("/v1/models", models),
        web.get("/peak", peak),
        web.post("/v1/completions", complete),
        web.post("/v1/chat/completions", complete),
    ]
)
web.run_app(app, host="127.0.0.1", port=options.port, print=None, shutdown_timeout=0.1)
