"""The least that reading a stream costs: a bare asyncio.Protocol on uvloop, stamp and append.

    python benchmarks/bare_reader.py

Against the server of known timing in a process of its own; what `upcurve bench` takes beyond this
is HTTP framing, decoding, requests and figures (benchmarks/load_clients.py).
"""

import argparse
import asyncio
import resource
import time
from urllib.parse import urlsplit

import orjson
import uvloop

from upcurve.load.known_server import Behaviour, known_server_process

TOKENS = 128


class Reader(asyncio.Protocol):
    """Sends a request as the one before it ends, so many times."""

    def __init__(self, payload, requests, ended):
        self.payload, self.left, self.ended = payload, requests, ended
        self.reads = []

    def connection_made(self, transport):
        """Send the first request."""
        self.transport = transport
        transport.write(self.payload)

    def data_received(self, data):
        """Stamp a read, and send the next request where it is the last of an answer."""
        self.reads.append((time.perf_counter_ns(), data))
        if data.endswith(b"0\r\n\r\n"):
            self.reads = []
            self.left -= 1
            if self.left:
                self.transport.write(self.payload)
            else:
                self.ended.set_result(None)


async def measure(base_url, streams, requests):
    """Return CPU in us a token, user and system."""
    asked = {"model": "known", "prompt": [1] * 64, "max_tokens": TOKENS, "stream": True}
    body = orjson.dumps(asked | {"ignore_eos": True, "return_token_ids": True})
    head = b"POST /v1/completions HTTP/1.1\r\nHost: known\r\nContent-Length: %d\r\n\r\n" % len(body)
    loop = asyncio.get_running_loop()
    url = urlsplit(base_url)
    ends = [loop.create_future() for _ in range(streams)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    for ended in ends:
        reader = Reader(head + body, requests, ended)
        await loop.create_connection(lambda reader=reader: reader, url.hostname, url.port)
        await asyncio.sleep(0.002)
    await asyncio.gather(*ends)
    after = resource.getrusage(resource.RUSAGE_SELF)
    tokens = streams * requests * TOKENS
    spent = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return [each / tokens * 1e6 for each in spent]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--requests-per-stream", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("| round | streams | CPU us/token | user | system |")
    print("|---:|---:|---:|---:|---:|")
    for number in range(1, arguments.rounds + 1):
        with known_server_process(Behaviour()) as (base_url, _):
            run = measure(base_url, arguments.streams, arguments.requests_per_stream)
            user, system = uvloop.run(run)
        print(
            f"| {number} | {arguments.streams} | {user + system:.1f} | {user:.1f} | {system:.1f} |"
        )


if __name__ == "__main__":
    main()
