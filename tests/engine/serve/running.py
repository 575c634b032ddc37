"""A real server over a real, tiny engine, whose steps a test can hold back."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

from openai import OpenAI

from upcurve.engine.build import build_engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.serve.app import Server
from upcurve.engine.serve.bridge import Bridge
from upcurve.engine.serve.chat import ChatTemplate
from upcurve.engine.serve.http_server import HttpServer
from upcurve.engine.serve.intake import Intake
from upcurve.engine.serve.local import LocalEngine
from upcurve.engine.serve.metrics import Metrics
from upcurve.engine.serve.tokenizer import ByteTokenizer

CONTEXT = 256
RUNNING = 4
CHUNK = 64
MODEL = "tiny"
OPTIONS = EngineOptions(
    device="cpu",
    max_running_requests=RUNNING,
    context_length=CONTEXT,
    max_batch_tokens=CHUNK,
    threads=1,
)


def write_tiny(folder):
    """Write a checkpoint of two layers, one of each kind."""
    config = small_config(
        vocab_size=512,
        hidden_size=32,
        num_hidden_layers=2,
        full_attention_interval=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        max_position_embeddings=1024,
    )
    write_checkpoint(folder, config, seed=1)


def until(condition, what):
    """Wait for something that is certain to come, however busy the machine is."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.005)


class Gate:
    """Lets an engine compute only as many steps as a test allows."""

    def __init__(self, engine):
        self._step = engine.step
        self._condition = threading.Condition()
        self._allowed = float("inf")
        self.holding = False
        """Whether the engine stands before a step."""
        self.taken = 0
        """Steps since `allow`."""
        engine.step = self._held

    def _held(self):
        with self._condition:
            self.holding = self._allowed == 0
            self._condition.wait_for(lambda: self._allowed > 0)
            self.holding = False
            self._allowed -= 1
            self.taken += 1
        return self._step()

    def allow(self, steps):
        with self._condition:
            self._allowed, self.taken, self.holding = steps, 0, False
            self._condition.notify()


class InThread(HttpServer):
    """The real server; signals are the main thread's, which a test is."""

    @contextmanager
    def capture_signals(self):
        self.loop = asyncio.get_running_loop()
        yield


class Serving:
    """A running server over an engine, wherever that is."""

    def __init__(
        self,
        engine,
        tokenizer=None,
        template=None,
        api_key=None,
        drain_seconds=60,
        max_waiting_requests=None,
        watch=None,
    ):
        self.metrics = Metrics()
        self.bridge = Bridge(engine, self.metrics, max_waiting_requests)
        server = Server(
            self.bridge,
            self.metrics,
            Intake(engine.capacity, tokenizer, template),
            model_name=MODEL,
            api_key=api_key,
        )
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = InThread(server, self.bridge, drain_seconds, lambda: None, watch)
        self.thread = threading.Thread(target=self.http.run, args=([self._listener],))

    def __enter__(self):
        self.thread.start()
        until(lambda: self.http.started or not self.thread.is_alive(), "started")
        return self

    def __exit__(self, *_):
        self.http.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()

    def client(self, key="none"):
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def value(self, name, **labels):
        """Read one metric."""
        return self.metrics.registry.get_sample_value(f"upcurve_{name}", labels)

    def drain(self):
        """Do what SIGTERM does."""
        self.http.loop.call_soon_threadsafe(self.http.drain)
        until(lambda: self.bridge.draining, "draining")

    @contextmanager
    def post(self, path, body, **headers):
        """Send a request over a bare socket, and yield the socket."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(raw)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
            yield connection


class Running(Serving):
    """A server whose engine is in this process and can be held back."""

    def __init__(self, folder, **options):
        self.engine = build_engine(folder, OPTIONS)
        self.gate = Gate(self.engine)
        self.local = LocalEngine(self.engine)
        self.tokenizer = ByteTokenizer.from_folder(folder)
        self.template = ChatTemplate.from_folder(folder)
        super().__init__(self.local, self.tokenizer, self.template, **options)

    def __exit__(self, *arguments):
        self.gate.allow(float("inf"))
        super().__exit__(*arguments)

    def submitted(self, count):
        """Wait until the held engine knows of so many requests, which do not come all at once."""
        until(
            lambda: self.gate.holding and sum(self.local._loop.counts()) == count,
            f"knew of {count} requests",
        )

    def freed_within_a_step(self):
        """Let a held engine go on for one step: what was aborted must be gone after it."""
        until(lambda: self.gate.holding or not self.engine.has_work, "held")
        self.gate.allow(1)
        until(lambda: not self.engine.has_work, "freed")
        self.gate.allow(float("inf"))
        self.idle()

    def idle(self):
        """Wait until no request is left, and prove that nothing leaks."""

        def nothing():
            # All at once: a request that a client has left behind may still be on its way here.
            usage = self.engine.memory.usage()
            busy = self.engine.has_work or self.bridge.open_requests
            return not busy and (usage.pages, usage.slots) == (0, 0)

        until(nothing, "idle, with nothing held")
        self.engine.memory.check()
