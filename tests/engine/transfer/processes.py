"""One end of a transfer in a process of its own, which a test can stop and kill."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import psutil

from tests.engine.transfer.described import shapes_of
from tests.engine.transfer.engines import PAGE_SIZE, Ranks, Reports
from upcurve.engine.transfer.receiver import Receiver
from upcurve.engine.transfer.sender import Part, Sender

SESSION = "one"


class Target:
    """A decode engine."""

    def __init__(self, transport: str, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.ranks = Ranks(1, seed=2, **large(sizes))
        self.receiver = Receiver(self.ranks.caches[0], PAGE_SIZE, 0, "127.0.0.1", transport)  # type: ignore[arg-type]

    def offer(self) -> bytes:
        return self.receiver.offer()

    def expel(self, session: str) -> None:
        self.expelled = gone(self.receiver, session)

    def gone(self, seconds: float) -> bool:
        return self.expelled.wait(seconds)

    def allow_files(self, most: int) -> None:
        """Let this process open files up to a number; those that are open stay."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    def check(self, part: Part, tokens: int) -> None:
        """Check that a request of the source with seed 1 has arrived, and nothing else."""
        self.ranks.expect(Ranks(1, seed=1, **large(self.sizes)), part, tokens=tokens)
        self.ranks.check()


class Source:
    """A prefill engine."""

    def __init__(self, transport: str, sizes: dict[str, int], tp: int = 1) -> None:
        self.ranks = Ranks(tp, seed=1, **large(sizes))
        self.reports = Reports()
        self.transport = transport
        self.senders = [
            Sender(caches, self.ranks.description, rank, self.reports)
            for rank, caches in enumerate(self.ranks.caches)
        ]

    def connect(self, session: str, offers: list[bytes]) -> set[str]:
        theirs = replace(self.ranks.description, tp=1)
        ways = [
            sender.connect(session, theirs, [offer], self.transport)  # type: ignore[arg-type]
            for sender, offer in zip(self.senders, offers, strict=True)
        ]
        return {way for each in ways for way in each}

    def send(self, part: Part, layers: int) -> None:
        for sender in self.senders:
            outgoing = sender.step([part])
            if outgoing is not None:
                for layer in range(layers):
                    outgoing.after(layer)

    def disconnect(self, session: str) -> None:
        for sender in self.senders:
            sender.disconnect(session)

    def wait(self, transfer: str) -> list[str | None]:
        return self.reports.wait(transfer, len(self.senders))


def large(sizes: dict[str, int]) -> dict[str, Any]:
    """Sizes with which a request is more than sockets hold."""
    if not sizes:
        return {}
    return {"shapes": shapes_of(head_dim=256), **sizes}


class Process:
    """Calls methods of an object in another process."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["upcurve.engine.build", "upcurve.engine.parallel.rendezvous"]
        )
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Return what a method gives."""
        self._pipe.send((name, arguments))
        return self._answer()

    def signal(self, number: int) -> None:
        """Send it a signal; return once it has stopped, where it shall."""
        pid = self._process.pid
        assert pid is not None
        os.kill(pid, number)
        while number == signal.SIGSTOP and psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)

    def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        assert self._pipe.poll(60), "the process says nothing"
        error, answer = self._pipe.recv()
        assert error is None, error
        return answer


@contextmanager
def process(make: Callable[..., Any], *arguments: Any) -> Iterator[Process]:
    """A process that is gone at the end."""
    made = Process(make, *arguments)
    try:
        yield made
    finally:
        made.end()


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    made = make(*arguments)
    pipe.send((None, None))
    while True:
        try:
            name, arguments = pipe.recv()
            pipe.send((None, getattr(made, name)(*arguments)))
        except EOFError:
            return
        except Exception:
            pipe.send((traceback.format_exc(), None))


def gone(receiver: Receiver, session: str = SESSION) -> threading.Event:
    """Expel the session; the event is set once nothing of it will be written any more."""
    found = threading.Event()
    receiver.expel(session, found.set)
    return found
