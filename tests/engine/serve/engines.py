"""What runs in processes that tests start; it imports no more than it needs."""

import threading

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.fake_device import FakeDevice
from upcurve.engine.memory.memory import Memory
from upcurve.engine.serve.remote import RemoteEngine

VOCABULARY = 1000


def build_fake(step_seconds=0.0):
    return Engine(
        FakeDevice(vocab_size=VOCABULARY, step_seconds=step_seconds),
        Memory(max_running_requests=64, token_capacity=64 * 1024, page_size=16),
        vocab_size=VOCABULARY,
        context_length=100_000,
        max_running_requests=64,
        max_batch_tokens=256,
        check_memory=True,
        description="a fake",
    )


def refuse():
    raise EngineInputError("model", "it is too large", "take another")


def break_down():
    raise SystemExit(7)


def parent(connection):
    """Start an engine's process, tell which, and wait to be killed."""
    with RemoteEngine(build_fake) as engine:
        engine.wait()
        connection.send(engine.process.pid)
        threading.Event().wait()
