"""A device that computes nothing: known tokens after a known time, for everything around it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from upcurve.engine.execute.device import Drawn
from upcurve.engine.schedule.request import Request
from upcurve.engine.schedule.scheduler import Scheduled


def known_token(request: Request, position: int, vocab_size: int) -> int:
    """Return the token that the fake device draws after `position` tokens of a request.

    It depends on the prompt and the position alone, as greedy decoding does.
    """
    return (sum(request.prompt[:8]) * 31 + position * 7) % vocab_size


@dataclass(frozen=True, slots=True)
class _Flight:
    done: float
    tokens: list[int]

    def wait(self) -> Drawn:
        left = self.done - time.perf_counter()
        if left > 0:
            time.sleep(left)
        return Drawn(self.tokens, [None] * len(self.tokens))


class FakeDevice:
    """Computes steps one after the other, each in the time that it is told.

    It remembers what it has seen of every request, as memory would, and refuses a step that does
    not go on exactly there.
    """

    asynchronous = True

    def __init__(
        self, *, vocab_size: int, step_seconds: float = 0.0, token_seconds: float = 0.0
    ) -> None:
        """Take the times.

        Args:
            vocab_size: tokens are below it.
            step_seconds: what every step takes.
            token_seconds: what each of its tokens adds.
        """
        self._vocab_size = vocab_size
        self._step_seconds = step_seconds
        self._token_seconds = token_seconds
        self._free_at = 0.0
        self._slots: dict[int, tuple[str, int]] = {}

    def launch(self, step: Sequence[Scheduled]) -> _Flight:
        """Begin a step.

        Raises:
            RuntimeError: a request does not go on where the memory of its slot ends.
        """
        tokens = []
        for each in step:
            request, memory = each.request, each.request.memory
            end = each.begin + each.count
            if memory is None or memory.released or memory.capacity < end:
                raise RuntimeError(f"request {request.id} has no memory for {end} tokens")
            seen = self._slots.get(memory.slot) if each.begin else (request.id, 0)
            if seen != (request.id, each.begin):
                raise RuntimeError(f"slot {memory.slot} holds {seen}, not what {request.id} needs")
            self._slots[memory.slot] = (request.id, end)
            if each.draws:
                tokens.append(known_token(request, end, self._vocab_size))
        count = sum(each.count for each in step)
        began = max(time.perf_counter(), self._free_at)
        self._free_at = began + self._step_seconds + count * self._token_seconds
        return _Flight(self._free_at, tokens)

    def check(self, requests: Sequence[Request]) -> None:
        """Check that each running request's slot holds what it has computed.

        Raises:
            RuntimeError: it does not.
        """
        for request in requests:
            if request.memory is not None and request.computed:
                seen = self._slots.get(request.memory.slot)
                if seen != (request.id, request.computed):
                    raise RuntimeError(f"slot {request.memory.slot} holds {seen}")
